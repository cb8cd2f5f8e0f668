"""Blind Knowledge Distillation's rules: the loss, the split of the scores and the tipping point, by hand."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from cli.files import UserError
from related.blindkd.blind_loss import agreement, blind_loss, pair_loss, soft_targets
from related.blindkd.otsu import Split, group, split
from related.blindkd.tipping import TipRule

LABELS = torch.tensor([0, 1])


@pytest.fixture
def logits():
    """(teacher, student), (2, 3) each, with gradients."""
    teacher, student = torch.tensor([[2.0, 0, 1], [-1, 3, 0]]), torch.tensor([[1.0, -1, 1], [0, 1, 2]])
    return teacher.requires_grad_(), student.requires_grad_()


# --- the loss ---------------------------------------------------------------------------------------------------


def test_the_blind_loss_by_hand(logits):
    """Masked differences (0, 1, 0) and (-1, 0, -2): (1 + 1 + 4) / (6 - 1)."""
    teacher, student = logits
    loss = blind_loss(teacher, student, LABELS)
    assert loss.item() == pytest.approx(1.2)
    loss.backward()
    gradient = torch.tensor([[0, -0.4, 0], [0.4, 0, 0.8]])
    torch.testing.assert_close(student.grad, gradient)
    torch.testing.assert_close(teacher.grad, -gradient)


def test_the_unmasked_loss_counts_the_labels_own_logit(logits):
    """Differences (1, 1, 0) and (-1, 2, -2): (1 + 1 + 1 + 4 + 4) / 5."""
    assert blind_loss(*logits, LABELS, unmasked=True).item() == pytest.approx(2.2)


def test_the_student_never_learns_its_label_in_phase_1(logits):
    """Whatever the labels' own logits are, they have no gradient; unmasked, they have."""
    teacher, student = logits
    pair_loss(teacher, student, LABELS).backward()
    assert (student.grad[range(2), LABELS] == 0).all()
    student.grad = None
    pair_loss(teacher, student, LABELS, unmasked=True).backward()
    assert (student.grad[range(2), LABELS] != 0).all()


def test_phase_1_by_hand(logits):
    """Cross-entropies .407606 and .065884, mean .236745, and 1.2."""
    assert pair_loss(*logits, LABELS).item() == pytest.approx(0.236745 + 1.2, abs=1e-6)


def test_the_agreement_by_hand(logits):
    teacher, student = logits
    scores = agreement(teacher, student, LABELS)
    np.testing.assert_allclose(scores.tolist(), [0.721399, 0.875601], atol=1e-6)
    assert scores[0].item() == pytest.approx(np.exp(3) / (np.exp(3) + np.exp(-1) + np.exp(2)))
    product = teacher.softmax(1) * student.softmax(1)
    torch.testing.assert_close(scores, (product / product.sum(1, keepdim=True))[range(2), LABELS])


def test_soft_targets_by_hand():
    student = torch.tensor([[0.2, 0.5, 0.3]] * 2).log()
    targets = soft_targets(torch.zeros(2, dtype=torch.long), student, torch.tensor([0.7, 0.3]))
    np.testing.assert_allclose(targets.numpy(), [[0.509659, 0.345403, 0.144938], [0.844781, 0.102472, 0.052747]], atol=1e-6)


def test_an_alpha_of_0_leaves_the_label():
    student = torch.zeros(2, 3, requires_grad=True)
    targets = soft_targets(LABELS, student, torch.zeros(2))
    assert torch.equal(targets, F.one_hot(LABELS, 3).float())
    targets.sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("detached", [False, True])
def test_phase_2_sends_its_gradient_through_the_targets_unless_they_are_detached(logits, detached):
    """By finite differences of the whole loss in double precision, with targets that move with the student or stand still."""
    teacher, student = (each.detach().double() for each in logits)
    alphas = torch.tensor([0.7, 0.3], dtype=torch.float64)

    def loss(moved):
        probabilities = (student if detached else moved).softmax(1).numpy()
        total = 0.0
        for i, label in enumerate(LABELS):
            mix = (1 - alphas[i].item()) * np.eye(3)[label] + alphas[i].item() * probabilities[i]
            q = mix**(1 + alphas[i].item())
            total -= (q / q.sum() @ F.log_softmax(teacher[i], 0).numpy()) / 2
        difference = (teacher - moved).numpy()**2
        difference[range(2), LABELS] = 0
        return total + difference.sum() / 5

    given = student.clone().requires_grad_()
    value = pair_loss(teacher, given, LABELS, alphas, detach_targets=detached)
    assert value.item() == pytest.approx(loss(student), abs=1e-9)
    value.backward()
    for place in np.ndindex(2, 3):
        step = torch.zeros(2, 3, dtype=torch.float64)
        step[place] = 1e-6
        slope = (loss(student + step) - loss(student - step)) / 2e-6
        assert given.grad[place].item() == pytest.approx(slope, abs=1e-7)
    assert (given.grad[0, 0].item() == 0) == detached  # the label's own logit moves the targets alone


# --- the split --------------------------------------------------------------------------------------------------


FIVE = np.array([0.1005, 0.2005, 0.7005, 0.8005, 0.9005])


def test_the_split_of_five_scores_by_hand():
    """Left edges .1 .2 | .7 .8 .9, raw mean .5405."""
    found = split(FIVE)
    assert (found.low, found.cut, found.high) == pytest.approx((0.15, 0.201, 0.8))
    assert found.quality == pytest.approx((2 * 0.3905**2 + 3 * 0.2595**2) / (2 * 0.05 + 3 * 0.0816497), abs=1e-5)
    assert found.quality == pytest.approx(1.4698, abs=1e-4)
    assert group(FIVE, found).tolist() == [4, 3, 2, 1, 1]
    assert np.bincount(group(FIVE, found), minlength=5)[1:].tolist() == [2, 1, 1, 1]


def test_scores_at_a_limit_belong_to_the_group_above_it():
    assert group(np.array([0.8, 0.7999, 0.5, 0.4999, 0.2, 0.1999]), Split(0.2, 0.5, 0.8, 1.0)).tolist() == [1, 2, 2, 3, 3, 4]


def test_the_split_of_two_beta_distributions():
    """400 quantiles of Beta(2, 8), the wrong labels, and 600 of Beta(8, 2)."""
    wrong, right = (stats.beta.ppf((np.arange(n) + 0.5) / n, a, b) for n, a, b in ((400, 2, 8), (600, 8, 2)))
    scores = np.concatenate([wrong, right])
    found = split(scores)
    assert 0.5049 < found.cut < 0.5061
    assert (found.low, found.high) == pytest.approx((0.2011, 0.8045), abs=5e-5)
    groups = group(scores, found)
    assert np.bincount(groups)[1:].tolist() == [330, 264, 179, 227]
    assert (groups[:400] == 4).sum() == 227 and 227 / 400 == pytest.approx(0.5675)  # precision 1, recall .5675


def slow_split(scores):
    """The definition, cut by cut."""
    edges, best = np.floor(scores * 1000).clip(max=999) / 1000, None
    for cut in range(2, 998):
        parts = [edges[edges < cut / 1000 - 1e-9], edges[edges > cut / 1000 - 1e-9]]
        if min(map(len, parts)) == 0:
            continue
        between = sum(len(part) * (part.mean() - scores.mean())**2 for part in parts)
        within = sum(len(part) * max(part.var(), 1e-5)**0.5 for part in parts)
        if best is None or between / within > best[0] + 1e-12:
            best = between / within, parts[0].mean(), cut / 1000, parts[1].mean()
    return best


@pytest.mark.parametrize("seed", range(5))
def test_the_split_is_the_best_of_all_cuts(seed):
    generator = np.random.default_rng(seed)
    scores = np.concatenate([generator.beta(2, 5 + seed, 150), generator.beta(9, 2, 100)])
    found = split(scores)
    assert (found.quality, found.low, found.cut, found.high) == pytest.approx(slow_split(scores))


@pytest.mark.parametrize("scores", [[0.3] * 5, [0.3], [0.0, 0.001], [1.0] * 4 + [0.9995], [0.30001, 0.30002], [0.9985, 0.9991]])
def test_scores_that_are_alike_are_one_group(scores):
    """Nothing tells them apart, or no cut lies between them; no warning of a division by 0."""
    with np.errstate(all="raise"):
        assert split(np.array(scores)) is None
    assert group(np.array(scores), None).tolist() == [1] * len(scores)


def test_two_kinds_of_equal_scores_are_parted():
    """A deviation of 0 does not end in a division by 0."""
    with np.errstate(all="raise"):
        found = split(np.array([0.1005] * 3 + [0.9005] * 2))
    assert (found.low, found.cut, found.high) == pytest.approx((0.1, 0.101, 0.9))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.5])
def test_scores_that_are_none_are_refused(score):
    with pytest.raises(UserError, match="a score of agreement is not a number"):
        split(np.array([0.5, score]))


# --- the tipping point ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence, tip", [
    ([0.2, 0.4, 0.6, 0.5, 0.45, 0.5], 2),
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], None),  # rising
    ([0.1, 0.2, 0.5, 0.5, 0.3, 0.2], None),  # not strictly above
    ([0.1, 0.6, 0.5, 0.4, 0.3, 0.2], None),  # a peak at 1
    ([0.2, 0.4, 0.6, 0.5, 0.45], None),  # 5 epochs
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.4], None),  # not yet known
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3], 4),
    ([0.2, 0.4, 0.6, 0.5, 0.7, 0.5], None),  # the peak at 2 is lower than 4
    ([0.7, 0.4, 0.6, 0.5, 0.4, 0.3, 0.8, 0.3, 0.2], 6),
    ([0.1, 0.2, 0.6, 0.5, 0.4, 0.7, 0.9, 0.3, 0.2], 2)])  # the first of two
def test_the_tipping_point_by_hand(confidence, tip):
    assert TipRule().find(confidence) == tip


def test_no_tipping_point_before_the_epoch_that_is_asked_for():
    confidence = [0.1, 0.2, 0.6, 0.5, 0.4, 0.7, 0.9, 0.3, 0.2]
    assert [TipRule(min_epoch=least).find(confidence) for least in (0, 2, 3, 6, 7)] == [2, 2, 6, 6, None]


def test_a_mean_over_epochs_hides_one_noisy_epoch():
    """Epoch 2 stands out and tips early; the means of three epochs are .35 .4 .45 .45 .48 .58 .72 .70 .62 and peak at 6."""
    confidence = [0.3, 0.4, 0.5, 0.45, 0.4, 0.6, 0.75, 0.8, 0.55, 0.5]
    assert TipRule().find(confidence[:6]) == 2
    smooth = TipRule(smooth=3)
    assert smooth.smoothed(confidence)[:3] == pytest.approx([0.35, 0.4, 0.45])
    assert smooth.find(confidence[:-1]) is None
    assert smooth.find(confidence) == 6
    assert [TipRule(smooth=width).kept for width in (1, 3, 5)] == [4, 5, 6]


@pytest.mark.parametrize("smooth", [1, 3, 5])
def test_the_scores_of_a_tipping_point_are_still_kept_when_it_is_known(smooth):
    generator, late = np.random.default_rng(0), []
    rule = TipRule(smooth)
    for _ in range(300):
        confidence = generator.random(20).tolist()
        for known in range(len(confidence)):
            tip = rule.find(confidence[:known + 1])
            if tip is not None:
                late.append(known - tip)
                break
    assert max(late) == rule.kept - 1
