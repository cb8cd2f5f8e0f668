"""Losses against torch's own; weights by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.objective import batch_loss
from engine.task import SEGMENTATION
from utils.losses import per_sample_loss, training_losses, weighted_loss
from utils.weighting import floored, lambda_at, levelled, mix, sharpened


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


def test_pixel_weights_count_within_their_sample():
    """Equal weights of all pixels are the sample's weight; a pixel of weight 0 has no gradient, and stays in the average."""
    logits, mask = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randint(0, 2, (2, 4, 4))
    mask[0, 0] = 255
    samples = torch.tensor([0.25, 1.0])
    alike = batch_loss(SEGMENTATION, logits, {"mask": mask}, samples[:, None, None].expand(2, 4, 4))
    torch.testing.assert_close(alike, batch_loss(SEGMENTATION, logits, {"mask": mask}, samples))
    pixels = torch.ones(2, 4, 4)
    pixels[1, :2] = 0
    half = per_sample_loss(logits[:, :, 2:], mask[:, 2:])[1] / 2
    expected = torch.stack([per_sample_loss(logits, mask)[0], half]).mean()
    loss = batch_loss(SEGMENTATION, logits, {"mask": mask}, pixels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert (logits.grad[1, 0, :2] == 0).all() and (logits.grad[1, 0, 2:] != 0).all()


def test_pixel_weights_reach_points_and_side_branches():
    mask = torch.randint(0, 3, (1, 4, 4))
    pixels = torch.zeros(1, 4, 4)
    pixels[0, 1, 2] = 0.5
    output = {"logits": torch.randn(1, 3, 4, 4), "auxiliary": torch.randn(1, 3, 4, 4), "point_logits": torch.randn(1, 3, 2),
              "points": torch.tensor([[[2.5, 1.5], [0.5, 0.5]]])}
    label = mask[:, 1, 2]
    one = [F.cross_entropy(logits, label) for logits in (output["logits"][..., 1, 2], output["auxiliary"][..., 1, 2],
                                                         output["point_logits"][..., 0])]
    expected = 0.5 * (one[0] / 16 + 0.4 * one[1] / 16 + one[2] / 2)
    torch.testing.assert_close(training_losses(output, mask, pixels)[0], expected)


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


def test_levelled_weights():
    assert levelled(np.array([0.0, 0.5, 1.0])).tolist() == [0.5, 0.5, 0.5]
    assert levelled(np.array([0.0, 1.0]), 0.2).tolist() == [0.6, 0.6]  # as large a loss as of weights none below 0.2


@pytest.mark.parametrize("coarse", [40, 240])
def test_sharpened_scores_tell_two_groups_apart_without_being_told_how_many_are_coarse(coarse):
    generator = np.random.default_rng(0)
    scores = np.concatenate([generator.normal(0.8, 0.08, 400 - coarse), generator.normal(0.3, 0.08, coarse)]).clip(0, 1)
    weights = sharpened(scores)
    assert weights[:-coarse].mean() > 0.99 and weights[-coarse:].mean() < 0.05
    order = np.argsort(scores)
    assert (np.diff(weights[order]) >= 0).all()  # the ranking stays


def test_sharpened_scores_are_the_posterior_of_the_mixture():
    """Two groups at 0.2 and 0.8 with deviation 0.1, one third of them high: by Bayes' rule a score of 0.5 is high with 1/3."""
    generator = np.random.default_rng(1)
    scores = np.concatenate([generator.normal(0.8, 0.1, 40_000), generator.normal(0.2, 0.1, 80_000), [0.5, 0.45]])
    weights = sharpened(scores)
    normal = lambda x, m: np.exp(-(x - m)**2 / 0.02)  # noqa: E731
    expected = [normal(x, 0.8) / (normal(x, 0.8) + 2 * normal(x, 0.2)) for x in scores[-2:]]
    assert expected[0] == pytest.approx(1 / 3) and weights[-2:] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("rows", [20, 60, 240, 2000])
@pytest.mark.parametrize("centre, deviation", [(0.85, 0.05), (0.3, 0.1)])
def test_sharpened_scores_of_one_group_are_all_trusted(rows, centre, deviation):
    """Scores of clean masks form one group, even if they are low; then all weights are 1."""
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(centre, deviation, rows).clip(0, 1)
        assert sharpened(scores).tolist() == [1] * rows


def test_sharpened_scores_of_a_skewed_group_keep_most_of_the_loss():
    """Scores of clean masks have a left tail. Its weights may fall, but most weights must stay high."""
    scores = np.random.default_rng(0).beta(12, 2, 240)
    weights = sharpened(scores)
    assert weights.mean() > 0.7 and weights[scores > np.median(scores)].min() > 0.9


def test_sharpened_scores_are_the_same_in_any_order():
    generator = np.random.default_rng(2)
    scores = np.concatenate([generator.normal(0.7, 0.12, 60), generator.normal(0.2, 0.12, 60)]).clip(0, 1)
    order = generator.permutation(120)
    assert sharpened(scores[order]) == pytest.approx(sharpened(scores)[order], abs=1e-3)


def test_sharpened_scores_that_do_not_differ_are_all_trusted():
    assert sharpened(np.full(5, 0.3)).tolist() == [1] * 5
    assert sharpened(np.array([0.0, 1.0])).tolist() == pytest.approx([0, 1], abs=1e-6)
