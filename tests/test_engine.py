"""The loop: weights are used as the equations say, steps are clipped, every sample is counted once, runs are kept."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import train_with_KDweight
import train_with_Teacher_weight
from cli.files import UserError, write_rows
from data.dataset import SegmentationDataset
from data.rows import read_rows
from data.transforms import normalised
from engine import evaluation, loaders, loop, networks
from engine.checkpoint import load, load_network
from engine.flags import metric_of
from engine.optimizers import build_ranger, centralise_gradients
from engine.task import SegmentationScorer
from tests.small_runs import arguments, epochs_of
from tests.test_agreement import slow_scores
from utils.metrics import SplitScores


def test_kd_at_lambda_0_equals_teacher_weight_step_by_step(csvs, tmp_path):
    steps = {}
    for name, script in (("teacher", train_with_Teacher_weight), ("kd", train_with_KDweight)):
        args = arguments(csvs, tmp_path / name, "--lambda-max", "0", "--lambda-warmup", "0")
        seen = steps[name] = []

        def weigh(logits, batch, epoch, args=args, script=script, seen=seen):
            weights = script.weigh(args, logits, batch, epoch)
            seen.append((logits[0].clone(), weights[0].clone()))
            return weights

        loop.run(args, weigh, needs_weights=True)
    assert len(steps["kd"]) == 2 * 2  # 12 rows, batches of 5, the last 2 rows dropped in training
    for one, other in zip(steps["teacher"], steps["kd"]):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert epochs_of(tmp_path / "teacher") == epochs_of(tmp_path / "kd")


@pytest.mark.parametrize("metric, score", [("bf", lambda f1, iou: f1), ("miou", lambda f1, iou: iou),
                                           ("bm", lambda f1, iou: (f1 + iou) / 2)])
def test_kd_weight_by_hand(csvs, tmp_path, metric, score):
    """Eq. 6 with the student scored by brute force, by the metric of the CSV."""
    args = arguments(csvs, tmp_path, "--metric", metric, "--epochs", "20")
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(3, 1, 4, 4, generator=generator), (24, 24), mode="bilinear")
    masks = torch.nn.functional.interpolate(torch.randn(3, 1, 3, 3, generator=generator), (24, 24), mode="bilinear")[:, 0] > 0
    batch = {"mask": masks.long(), "weight": torch.tensor([0.2, 0.9, 1.0])}
    student = [score(*slow_scores((logits[i, 0] > 0).numpy().astype(np.uint8), masks[i].numpy().astype(np.uint8), 2, 3))
               for i in range(3)]
    weights, = train_with_KDweight.weigh(args, [logits], batch, epoch=14)  # lambda = 0.5 * 5 / 10
    expected = 0.25 * torch.tensor(student) + 0.75 * batch["weight"]
    torch.testing.assert_close(weights, expected.float())


def test_the_metric_is_read_from_the_csvs_name(csvs, tmp_path):
    args = arguments(csvs, tmp_path)
    args.metric = None
    named = {"train_noisy_60_PointRend_weight_bfscore.csv": "bf", "a_miouscore.csv": "miou", "x_bm.csv": "bm"}
    for name, metric in named.items():
        args.train_csv = f"some_bf_folder/{name}"
        assert metric_of(args) == metric
    for name in ("weights.csv", "bf_and_bm.csv", "abfc.csv"):
        args.train_csv = name
        with pytest.raises(UserError, match="--metric"):
            metric_of(args)


def test_weights_scale_the_step_and_carry_no_gradient(csvs, tmp_path):
    def weigh(logits, batch, epoch):
        assert not logits[0].requires_grad
        return [torch.zeros_like(batch["weight"]) + logits[0].sum() * 0]

    args = arguments(csvs, tmp_path, "--optimizer", "adamw", "--weight-decay", "0", "--epochs", "1")
    before = {}
    build = networks.build_networks

    def remember(*arguments):
        networks = build(*arguments)
        before.update({k: v.clone() for k, v in networks[0].named_parameters()})
        return networks

    networks.build_networks = remember
    try:
        loop.run(args, weigh)
    finally:
        networks.build_networks = build
    after = load_network(tmp_path / "run" / "last.ckpt")[0]
    for name, value in after.named_parameters():
        assert torch.equal(before[name], value)  # all weights 0: nothing moves


def test_gradients_are_clipped_before_the_step(csvs, tmp_path, monkeypatch):
    """Plain SGD with rate 1: no parameter may move by more than --clip in a step."""
    moved = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            before = [p.clone() for p in self.param_groups[0]["params"]]
            super().step(closure)
            moved.extend((a - b).abs().max().item() for a, b in zip(before, self.param_groups[0]["params"]))

    def build(args, parameters, steps):
        optimizer = Spy(list(parameters), lr=1.0)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)

    monkeypatch.setattr(networks, "build_optimizer", build)
    loop.run(arguments(csvs, tmp_path, "--clip", "0.001", "--epochs", "1"), lambda logits, batch, epoch: [batch["weight"]])
    assert 0.0009 < max(moved) <= 0.001 + 1e-6


def test_gradient_centralisation_by_hand():
    matrix, bias = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))
    matrix.grad, bias.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]), torch.tensor([1.0, 2.0])
    centralise_gradients(torch.optim.SGD([matrix, bias], lr=1))
    assert matrix.grad.tolist() == [[-2, -1, 3], [-1, -1, 2]] and bias.grad.tolist() == [1, 2]
    # RAdam's first steps are momentum steps: lr * mean gradient / (1 - 0.95), mean = 0.05 * gradient
    optimizer = build_ranger([matrix, bias], 0.1, 0.0)
    matrix.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    optimizer.step()
    torch.testing.assert_close(matrix.data, -0.1 * torch.tensor([[-2.0, -1, 3], [-1, -1, 2]]))


def test_split_scores_by_hand():
    """One confusion matrix over the split, not a mean of per-image ratios; BF per image."""
    truth = torch.zeros(2, 6, 6, dtype=torch.long)
    truth[0, :3, :3] = 1
    truth[1, :, :5] = 1
    predicted = torch.zeros_like(truth)
    predicted[0, :3, :3] = 1
    predicted[1, :, :2] = 1
    truth[1, 5] = 255
    scores = SplitScores(2, 1.0)
    scores.update(predicted[:1], truth[:1])
    scores.update(predicted[1:], truth[1:])
    result = scores.compute()
    # foreground: 9 + 10 in both, 9 + 25 in either; background: 27 + 5 in both, 27 + 20 in either
    assert result["iou_per_class"] == pytest.approx([32 / 47, 19 / 34])
    assert result["miou"] == pytest.approx((32 / 47 + 19 / 34) / 2)
    assert result["bf"] == pytest.approx((1 + 0) / 2) and result["images"] == 2
    assert result["dice"] == pytest.approx((1 + 20 / 35) / 2)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_every_test_sample_counts_once_whatever_the_batch(csvs, tmp_path, batch_size):
    result = loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--batch-size", "4"), lambda lo, b, e: [b["weight"]])
    network, config = load_network(tmp_path / "run" / "best.ckpt")
    items = SegmentationDataset(read_rows(csvs / "test.csv"), config["size"], 2).__getitems__(range(4))
    with torch.no_grad():
        predicted = [(network(normalised(image[None]))[0, 0] > 0).numpy().astype(np.uint8) for image in items["image"]]
    both = np.array(predicted), items["mask"].numpy()
    ious = [((both[0] == c) & (both[1] == c)).sum() / ((both[0] == c) | (both[1] == c)).sum() for c in range(2)]
    args = arguments(csvs, tmp_path, "--batch-size", str(batch_size))
    fabric = loop.start_fabric(args)
    loader = loaders.build_loaders(args, {"test": read_rows(csvs / "test.csv")}, fabric)["test"]
    scores = evaluation.evaluate(fabric, fabric.setup_module(network), loader, SegmentationScorer(2, 3.0))
    assert scores["images"] == 4 and scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["bf"] == pytest.approx(np.mean([slow_scores(p, t, 2, 3.0)[0] for p, t in zip(*both)]))
    assert scores["bf"] == pytest.approx(result["test"][0]["bf"])


def test_best_is_the_epoch_with_the_highest_mean_of_miou_and_bf(csvs, tmp_path):
    result = loop.run(arguments(csvs, tmp_path, "--epochs", "5", "--optimizer", "adamw", "-l", "0.01"),
                        lambda lo, b, e: [b["weight"]])
    scores = [(e["valid"][0]["miou"] + e["valid"][0]["bf"]) / 2 for e in epochs_of(tmp_path)]
    assert result["best_epoch"] == int(np.argmax(scores)) == load(tmp_path / "run" / "best.ckpt")["epoch"]


def test_an_existing_run_is_never_overwritten_unasked(csvs, tmp_path):
    weigh = partial(train_with_Teacher_weight.weigh, arguments(csvs, tmp_path))
    loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with pytest.raises(UserError, match="--resume.*--overwrite"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    with pytest.raises(UserError, match="cannot resume with --size"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--size", "32", "32", "--resume"), weigh)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    (tmp_path / "run" / "result.json").write_text('{"kept": 1}')
    assert loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--resume"), weigh) == {"kept": 1}
    loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--overwrite"), weigh)
    for name in ("../outside", "/abs", "."):
        args = arguments(csvs, tmp_path / "inner")
        args.name = name
        with pytest.raises(UserError, match="must be a folder inside"):
            loop.run(args, weigh)


def test_load_starts_from_the_weights_of_another_run(csvs, tmp_path):
    def weigh(lo, b, e):
        return [b["weight"]]

    loop.run(arguments(csvs, tmp_path / "a", "--epochs", "1"), weigh)
    start = str(tmp_path / "a" / "run" / "best.ckpt")
    args = arguments(csvs, tmp_path / "b", "--load", start)
    network, = networks.build_networks(args, [load(start)["networks"][0]["config"]])
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), load_network(start)[0].state_dict().values()))
    with pytest.raises(UserError, match="does not fit"):
        loop.run(arguments(csvs, tmp_path / "c", "--load", start, "--width", "8"), weigh)


@pytest.mark.parametrize("epoch, step", [(0, 1), (1, 2), (1, 25), (1, 30)])
def test_a_loss_that_is_not_finite_names_its_samples(csvs, tmp_path, epoch, step):
    """Planted in one step: the first, one found at the next check, or one found at the epoch's end."""
    seen, steps = [], 0
    rows = read_rows(csvs / "train_noisy_60.csv")
    table = pd.concat([rows] * 5)  # 30 steps of 2
    write_rows(tmp_path / "train.csv", table)

    def weigh(logits, batch, now):
        nonlocal steps
        steps = 1 if not seen or now != seen[-1][0] else steps + 1
        seen.append((now, batch["index"].tolist()))
        return [batch["weight"] * (float("nan") if (now, steps) == (epoch, step) else 1)]

    args = arguments(csvs, tmp_path, "--batch-size", "2")
    args.train_csv = str(tmp_path / "train.csv")
    with pytest.raises(UserError) as error:
        loop.run(args, weigh)
    index = seen[30 * epoch + step - 1][1]
    names = ", ".join(table["image"].tolist()[i] for i in index)
    assert (f"epoch {epoch + 1}, step {step}: the loss is nan, at learning rate 0.1, on {names}; look at these"
            in str(error.value))
    assert (tmp_path / "run" / "last.ckpt").exists() == (epoch == 1)
    if epoch:
        assert load(tmp_path / "run" / "last.ckpt")["epoch"] == 1
        assert str(error.value).endswith("last.ckpt holds epoch 1")


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": "nlkd-1", "networks": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="not a checkpoint"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()
