"""The losses and sets of NLIS against numbers worked out by hand (K = 3 classes, background 0)."""

import math

import pytest
import torch

from related.nlis.robust_losses import LOWEST, A, ce, gce, rce, sce
from related.nlis.roles import SETS, roles, sets_of

P = [[.7, .1, .1, .1], [.6, .2, .1, .1], [.1, .8, .05, .05], [.05, .9, .0495, .0005]]
LABELS = torch.tensor([0, 2, 1, 3])


def logits(rows=P):
    return torch.tensor(rows, dtype=torch.float64).log().float().requires_grad_()


def test_each_loss_of_each_row():
    assert ce(logits(), LABELS).tolist() == pytest.approx([.356675, 2.302585, .223144, 7.600902], abs=1e-5)
    assert rce(logits(), LABELS).tolist() == pytest.approx([2.763102, 8.289306, 1.842068, 9.205735], abs=1e-5)
    assert gce(logits(), LABELS).tolist() == pytest.approx([.338255, 1.662709, .215839, 2.992478], abs=1e-5)
    assert ce(logits(), LABELS).mean().item() == pytest.approx(2.620827, abs=1e-5)
    assert sce(logits(), LABELS).mean().item() == pytest.approx(3.173332, abs=1e-5)
    assert gce(logits(), LABELS).mean().item() == pytest.approx(1.302320, abs=1e-5)
    assert pytest.approx(9.210340, abs=1e-6) == A


@pytest.mark.parametrize("pon, names, total", [(None, ["NEG", "PSN", "OS", "OS"], 3.426766),
                                               (6.0, ["NEG", "PSN", "OS", "PON"], 1.125332)])
def test_sets_and_the_loss_of_stage_2(pon, names, total):
    z = logits()
    assert [SETS[number] for number in sets_of(z, LABELS, pon)] == names
    losses = torch.stack([ce(z, LABELS), rce(z, LABELS)], 1)
    assert (roles(z, LABELS, pon) * losses).sum(1).mean().item() == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("loss, row, slope", [(rce, 2, -1.473654), (ce, 2, -.2), (rce, 3, -.004603), (ce, 3, -.9995)])
def test_slopes_at_the_given_logit(loss, row, slope):
    z = logits()
    loss(z, LABELS)[row].backward()
    assert z.grad[row, LABELS[row]].item() == pytest.approx(slope, abs=1e-5)
    assert not z.grad[[other for other in range(4) if other != row]].any()


def test_rce_is_the_cross_entropy_of_label_and_prediction_exchanged():
    """By its definition: -sum_k p_k ln q_k, q the one-hot label with zeros at 1e-4; and its sum over all labels is A K."""
    q = torch.nn.functional.one_hot(LABELS, 4).clamp(min=1e-4)
    assert rce(logits(), LABELS).tolist() == pytest.approx((-(torch.tensor(P) * q.log()).sum(1)).tolist(), rel=1e-5)
    for row in range(4):
        total = sum(rce(logits([P[row]]), torch.tensor([label])).item() for label in range(4))
        assert total == pytest.approx(27.631021, abs=1e-4) == 3 * A


def test_an_impossible_label_gives_finite_losses_and_slopes():
    z = torch.tensor([[200.0, 0.0]], requires_grad=True)
    for loss, most in ((ce, 200), (rce, A), (sce, 200 + A / 10), (gce, (1 - LOWEST**.3) / .3)):
        value = loss(z, torch.tensor([1]))
        slope, = torch.autograd.grad(value.sum(), z)
        assert value.item() == pytest.approx(most, rel=1e-5) and torch.isfinite(slope).all()
    assert math.isclose(gce(z, torch.tensor([0])).item(), 0, abs_tol=1e-6)


def test_half_precision_logits_give_losses_in_full_precision():
    for loss in (ce, rce, sce, gce):
        assert loss(logits().bfloat16(), LABELS).dtype == torch.float32
    assert roles(logits().bfloat16(), LABELS, 6.0).dtype == torch.float32
