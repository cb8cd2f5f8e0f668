"""Losses against torch's own; weights by hand."""

import pytest
import torch
from torch.nn import functional as F

from utils.losses import per_sample_loss, weighted_loss
from utils.weighting import floored, lambda_at, mix


def test_weight_1_gives_torchs_own_loss():
    logits, mask = torch.randn(3, 1, 9, 7), torch.randint(0, 2, (3, 9, 7))
    ours = weighted_loss(per_sample_loss(logits, mask), torch.ones(3))
    torch.testing.assert_close(ours, F.binary_cross_entropy_with_logits(logits[:, 0], mask.float()))
    logits, mask = torch.randn(3, 5, 9, 7), torch.randint(0, 5, (3, 9, 7))
    ours = weighted_loss(per_sample_loss(logits, mask), torch.ones(3))
    torch.testing.assert_close(ours, F.cross_entropy(logits, mask))


@pytest.mark.parametrize("channels", [1, 4])
def test_each_sample_is_averaged_over_its_own_valid_pixels(channels):
    logits, mask = torch.randn(2, channels, 6, 6), torch.randint(0, 2, (2, 6, 6))
    mask[1, :4] = 255
    losses = per_sample_loss(logits, mask)
    torch.testing.assert_close(losses[1], per_sample_loss(logits[1:, :, 4:], mask[1:, 4:])[0])
    mask[1] = 255
    assert per_sample_loss(logits, mask)[1] == 0


def test_ignored_pixels_get_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 4, 4, dtype=torch.long)
    mask[0, 0] = 255
    per_sample_loss(logits, mask).sum().backward()
    assert (logits.grad[0, :, 0] == 0).all() and (logits.grad[0, :, 1:] != 0).all()


def test_batch_loss_is_divided_by_the_batch_size():
    losses, weights = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([1.0, 0.5, 0.25, 0.0])
    assert weighted_loss(losses, weights) == (1 + 1 + 1 + 0) / 4  # not by the sum of the weights


def test_lambda_by_hand():
    shares = [lambda_at(epoch, 100) for epoch in range(100)]
    assert shares[:10] == [0] * 10
    assert shares[10] == pytest.approx(0.5 / 90) and shares[54] == pytest.approx(0.25) and shares[99] == 0.5
    steps = [b - a for a, b in zip(shares[9:], shares[10:])]
    assert steps == pytest.approx([0.5 / 90] * 90)


@pytest.mark.parametrize("epochs", [1, 2, 10, 11, 12])
def test_lambda_of_short_runs(epochs):
    shares = [lambda_at(epoch, epochs) for epoch in range(epochs)]
    assert shares[:10] == [0] * min(10, epochs)
    assert shares[-1] == (0.5 if epochs > 10 else 0)
    assert lambda_at(0, 1, warmup=0, maximum=0.3) == 0.3


def test_mix_and_floor():
    student, teacher = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert mix(student, teacher, 0.25).tolist() == [0.625, 0.375]
    assert floored(torch.tensor([0.0, 0.4]), 0.1).tolist() == pytest.approx([0.1, 0.4])
