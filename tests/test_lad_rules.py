"""The rules of label-assisted distillation, by hand: codes, distances between logits, the widened network."""

import math

import pytest
import torch

from data import IGNORE_INDEX
from models import build_model
from models.label_channel import first_convolution, widen, widened
from related.lad.distillation import correlation, cwd, dist, pixel_kl, pooled
from related.lad.label_codes import fixed_codes, label_channel

HIGH = 4 * math.log(3)  # at temperature 4: softmax (.75, .25)
TEACHER = torch.tensor([HIGH, 0.0]).view(1, 1, 1, 2)  # one image, one class, two pixels
STUDENT = torch.zeros(1, 1, 1, 2)


def test_cwd_by_hand():
    """16 (.75 ln 1.5 + .25 ln .5) = 2.092993."""
    assert cwd(STUDENT, TEACHER).item() == pytest.approx(2.092993, abs=1e-6)
    assert cwd(TEACHER, STUDENT).item() == pytest.approx(2.301457, abs=1e-6)
    same = torch.cat([STUDENT, STUDENT], 1), torch.cat([TEACHER, STUDENT], 1)  # in the second class they are equal
    assert cwd(*same).item() == pytest.approx(1.046496, abs=1e-6)
    assert cwd(STUDENT, TEACHER + 5).item() == pytest.approx(2.092993, abs=1e-5)
    assert cwd(*(each.repeat_interleave(2, 3) for each in (STUDENT, TEACHER))).item() == pytest.approx(2.092993, abs=1e-6)
    assert cwd(TEACHER, TEACHER).item() == 0
    assert cwd(*(torch.cat([each, STUDENT]) for each in (STUDENT, TEACHER))).item() == pytest.approx(1.046496, abs=1e-6)


def test_no_gradient_reaches_the_teacher_and_the_student_s_is_known():
    """dD/ds = T (softmax(s/T) - softmax(t/T)) = 4 (.5 - .75, .5 - .25) = (-1, 1)."""
    for rule in (cwd, pixel_kl, dist):
        student = torch.randn(2, 3, 4, 5).requires_grad_()
        teacher = torch.randn(2, 3, 4, 5).requires_grad_()
        rule(student, teacher).backward()
        assert teacher.grad is None and student.grad.abs().sum() > 0
    student = STUDENT.clone().requires_grad_()
    cwd(student, TEACHER).backward()
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([-1.0, 1.0]))


def test_pixel_kl_by_hand():
    """Two classes, one pixel: 2.092993 / 16. One foreground logit z stands for (0, z)."""
    two = STUDENT.view(1, 2, 1, 1), TEACHER.view(1, 2, 1, 1)
    assert pixel_kl(*two).item() == pytest.approx(0.130812, abs=1e-6)
    assert pixel_kl(STUDENT[..., :1], TEACHER[..., :1]).item() == pytest.approx(0.130812, abs=1e-6)
    assert pixel_kl(STUDENT, TEACHER).item() == pytest.approx(0.065406, abs=1e-6)  # the second pixel is equal
    assert pixel_kl(TEACHER, TEACHER).item() == 0


def test_dist_by_hand():
    """Rows (pixels) .042580, columns (classes) .333333: the middle class is constant in one of the two."""
    student, teacher = (torch.tensor(rows).log().T.view(1, 3, 1, 2) for rows in (
        [[.5, .3, .2], [.2, .2, .6]], [[.6, .3, .1], [.1, .3, .6]]))
    assert dist(student, teacher).item() == pytest.approx(0.375914, abs=1e-5)
    assert dist(teacher, student).item() == pytest.approx(0.375914, abs=1e-5)
    assert dist(student, student).item() == pytest.approx(0, abs=1e-6)
    assert correlation(torch.tensor([1.0, 2, 3]), torch.tensor([3.0, 2, 1]), 0).item() == pytest.approx(-1)


def test_pooling_keeps_what_lies_at_the_edges():
    logits = torch.arange(15.0).view(1, 1, 3, 5)
    assert pooled(logits, 2).flatten().tolist() == [3, 5, 6.5, 10.5, 12.5, 14]
    assert pooled(logits, 1) is logits and pooled(logits, 9).item() == 7


def test_fixed_codes_by_hand():
    codes = fixed_codes(21)
    assert [round(codes[k].item(), 6) for k in (0, 1, 20, 21)] == [-1.1, -1.0, .9, 1.0]
    assert [round(code, 6) for code in fixed_codes(2).tolist()] == [-.15, -.05, .05]
    mask = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    assert label_channel(mask, 21, "fixed", 0.0, 100.0).flatten().tolist() == pytest.approx([-110, -100, 100], abs=1e-4)
    assert label_channel(mask, 21, "zero", gain=100.0).flatten().tolist() == [0, 0, 0]


def test_random_codes_hide_classes_and_keep_shapes():
    mask = torch.tensor([[[0, 0, 1], [1, 2, IGNORE_INDEX]]] * 2, dtype=torch.uint8)
    channel = label_channel(mask, 3, sigma=0.0, gain=1.0, seeds=[7, 8])  # (2, 1, 2, 3)
    for image in channel[:, 0]:
        assert image[0, 0] == image[0, 1] and image[0, 2] == image[1, 0] and len(image.unique()) == 4
    assert not torch.isclose(channel[0], channel[1]).any()
    assert torch.equal(channel[1:], label_channel(mask[1:], 3, sigma=0.0, gain=1.0, seeds=[8]))  # of its seed alone
    assert not torch.equal(label_channel(mask, 3), label_channel(mask, 3))


def test_random_numbers_have_their_spread():
    mask = torch.zeros(400, 8, 8, dtype=torch.uint8)
    codes = label_channel(mask, 2, sigma=0.0, gain=1.0, seeds=range(400))[:, 0, 0, 0]
    assert abs(codes.mean()) < .15 and codes.std().item() == pytest.approx(1, abs=.1)
    noise = label_channel(mask, 2, "fixed", gain=1.0, seeds=range(400)) + .15
    assert noise.std().item() == pytest.approx(.02, rel=.05) and abs(noise.mean()) < .001
    channel = label_channel(mask, 2, seeds=range(400))[:, 0]  # gain 1.4, sigma .03
    assert (channel - channel.mean((1, 2), keepdim=True)).std().item() == pytest.approx(1.4 * .03, rel=.05)


def test_codes_blend_from_fixed_to_random():
    mask = torch.tensor([[[0, 1]]])
    fixed, drawn, half = (label_channel(mask, 2, sigma=0.0, seeds=[3], random_share=share) for share in (0.0, 1.0, 0.5))
    torch.testing.assert_close(fixed, label_channel(mask, 2, "fixed", 0.0))
    torch.testing.assert_close(half, (fixed + drawn) / 2)


@pytest.mark.parametrize("name, encoder", [("unet", ""), ("smp_unet", "mobilenet_v2"), ("deeplabv3plus", "resnet18"),
                                           ("ocrnet", "mobilenet_v2"), ("smp_unet", "tu-resnet18d")])
def test_a_widened_network_sees_a_zero_channel_as_none(name, encoder):
    network = build_model(name, encoder, None, 3, width=4).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        widen(network, 4)
        torch.testing.assert_close(network(torch.cat([images, torch.zeros(2, 1, 64, 64)], 1)), before)
        assert not torch.allclose(network(torch.cat([images, torch.ones(2, 1, 64, 64)], 1)), before)
    plane = first_convolution(network)[1].weight[:, 3]
    assert plane.std().item() == pytest.approx(.1, rel=.3)


def test_weights_of_three_channels_fit_a_widened_network():
    narrow, wide = build_model("unet", width=4), build_model("unet", width=4)
    widen(wide, 4)
    plane = first_convolution(wide)[1].weight[:, 3].clone()
    wide.load_state_dict(widened(narrow.state_dict(), wide))
    first = first_convolution(wide)[1].weight
    assert torch.equal(first[:, :3], first_convolution(narrow)[1].weight) and torch.equal(first[:, 3], plane)
    whole = wide.state_dict()
    assert widened(whole, wide) is whole


def test_a_network_without_a_first_convolution_is_refused():
    with pytest.raises(ValueError, match="no convolution over all"):
        widen(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1, groups=3)), 4)
    with pytest.raises(ValueError, match="takes 4 channels, not the 3 of an image"):
        widen(torch.nn.Sequential(torch.nn.Conv2d(4, 3, 1)), 5)
