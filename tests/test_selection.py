"""Two-network methods by hand: which network selects for which, how the loss is averaged, and empty selections."""

import argparse
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import train_decoupling
from cli.files import UserError, write_rows
from data.rows import read_rows
from engine import loop, networks
from engine.flags import forget_rate_of
from engine.objective import averaged_over_kept
from tests.conftest import run_script
from tests.small_runs import arguments, epochs_of
from utils.agreement import agreement
from utils.losses import per_sample_loss, weighted_loss
from utils.weighting import disagreement, dropped_worst, keep_best, keep_share, shuffled, trust

co_teaching = importlib.import_module("train_co_teaching")
co_teaching_plus = importlib.import_module("train_co_teaching+")


class Flags:
    """What `weigh` reads of the command line."""

    num_classes, theta, ramp_epochs, select_by, disagree_below = 2, 3.0, 10, "loss", 0.9
    forget_rate = 0.6


def logits_of(*foreground_rows):
    """Logits (B, 1, 10, 10) that are sure of a foreground of so many rows, one number per sample."""
    logits = torch.full((len(foreground_rows), 1, 10, 10), -4.0)
    for sample, rows in enumerate(foreground_rows):
        logits[sample, :, :rows] = 4.0
    return logits


def test_disagreement_by_hand():
    a, b = logits_of(5, 5, 0, 10, 5), logits_of(5, 4, 0, 0, 0)
    # miou: 1; (4/5 + 5/6) / 2; both empty = 1; 0; only background in common: (0 + 5/10) / 2
    assert disagreement(a, b, 2, 0.9).tolist() == [0, 1, 0, 1, 1]
    assert disagreement(a, b, 2, 0.8).tolist() == [0, 0, 0, 1, 1]
    assert disagreement(a, a, 2, 1.0).sum() == 0  # strictly below


def test_keep_share_by_hand():
    shares = [keep_share(epoch, 0.6, 10) for epoch in (0, 5, 9, 10, 99)]
    assert shares == pytest.approx([1, 0.7, 0.46, 0.4, 0.4])


@pytest.mark.parametrize("share, among, kept", [
    (1.0, None, [1, 1, 1, 1]), (0.99, None, [0, 1, 1, 1]), (0.5, None, [0, 1, 1, 0]), (0.4, None, [0, 0, 1, 0]),
    (0.24, None, [0, 0, 0, 0]), (0.0, None, [0, 0, 0, 0]), (0.5, [1, 1, 0, 1], [0, 1, 0, 0]), (0.7, [1, 1, 0, 1], [0, 1, 0, 1]),
    (1.0, [0, 1, 0, 0], [0, 1, 0, 0]), (0.9, [0, 1, 0, 0], [0, 0, 0, 0]), (1.0, [0, 0, 0, 0], [0, 0, 0, 0])])
def test_keep_best_by_hand(share, among, kept):
    scores = torch.tensor([-0.9, -0.2, -0.1, -0.3])
    among = None if among is None else torch.tensor(among, dtype=torch.float32)
    assert keep_best(scores, share, among).tolist() == kept


@pytest.mark.parametrize("share, count, kept", [(0.7, 10, 7), (1 - 0.9, 10, 1), (1 - 0.6 * 0.5, 10, 7), (1 - 8 / 12, 12, 4),
                                                (1 - 0.35, 20, 13), (1 - 0.3 * 1 / 3, 10, 9), (0.29, 100, 29), (0.58, 50, 29)])
def test_a_share_that_is_a_whole_number_keeps_it_whatever_floats_make_of_it(share, count, kept):
    assert keep_best(torch.randn(count), share).sum() == kept


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.125, 0.2, 0.5])
def test_co_teaching_drops_at_the_published_batch_size(rate):
    """int(R(t) * 4), as the original counts: from the second epoch on at least one of four."""
    flags = Flags()
    flags.forget_rate = rate
    logits, mask = [logits_of(5, 4, 1, 0), logits_of(4, 5, 0, 1)], torch.zeros(4, 10, 10, dtype=torch.long)
    mask[:, :5] = 1
    counts = [[int(each.sum()) for each in co_teaching.weigh(flags, logits, {"mask": mask}, epoch)] for epoch in (0, 1, 10)]
    assert counts == [[4, 4], [3, 3], [2, 2] if rate == 0.5 else [3, 3]]


def test_trust_is_a_small_loss_or_a_high_score():
    logits, mask = logits_of(5, 2), torch.zeros(2, 10, 10, dtype=torch.long)
    mask[:, :5] = 1
    assert torch.equal(trust(logits, mask, "loss", 2), -per_sample_loss(logits, mask))
    by_score = trust(logits, mask, "bm", 2)
    assert torch.equal(by_score, agreement((logits[:, 0] > 0).long(), mask, 2, "bm"))
    assert by_score[0] == 1 > by_score[1]
    mask[1] = 255  # nothing to teach, though its loss is 0
    for select_by in ("loss", "bm"):
        scores = trust(torch.cat([logits] * 2)[:3], torch.cat([mask] * 2)[:3], select_by, 2)
        assert scores[1] < -1e30 < scores[0] and keep_best(scores, 0.7).tolist() == [1, 0, 1]
        assert keep_best(scores, 1.0, torch.tensor([0.0, 1, 1])).tolist() == [0, 1, 1]  # but a candidate is before others


@pytest.mark.parametrize("levels, rate", [([6, 0, 8, 0], 0.5), ([0, 0], 0), ([1, 1, 1], 0.2)])
def test_the_forget_rate_is_the_share_of_noisy_rows_unless_that_is_all(tmp_path, levels, rate):
    rows = [(f"{tmp_path}/{number}.jpg", f"{tmp_path}/{number}.png", level) for number, level in enumerate(levels)]
    for image, mask, _ in rows:
        Path(image).touch(), Path(mask).touch()
    write_rows(tmp_path / "train.csv", pd.DataFrame(rows, columns=["image", "mask", "iterations"]), "iterations")
    args = argparse.Namespace(forget_rate=None, train_csv=str(tmp_path / "train.csv"), batch_size=4, epochs=5, ramp_epochs=4)
    assert forget_rate_of(args) == rate


def test_a_forget_rate_that_leaves_nothing_of_a_batch_is_refused(monkeypatch):
    """4 * (1 - 0.75) = 1 sample is left; at 0.8 none in the last epoch, unless the ramp is longer than the run."""
    def rate_of(rate, batch_size=4, epochs=5, ramp_epochs=4):
        return forget_rate_of(argparse.Namespace(forget_rate=rate, batch_size=batch_size, epochs=epochs,
                                                 ramp_epochs=ramp_epochs))

    assert rate_of(0.75) == 0.75 and rate_of(0.8, batch_size=5) == 0.8 and rate_of(1.0, ramp_epochs=8) == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rate_of(0.75, batch_size=16) == 0.75
    with pytest.raises(UserError, match="keep no sample of a batch of 8 in 4 parts; pass"):
        rate_of(0.75, batch_size=8)
    monkeypatch.delenv("WORLD_SIZE")
    for other in ({}, {"batch_size": 3, "epochs": 6}):
        with pytest.raises(UserError, match="--forget-rate 0.8: the last epoch would keep no sample of a batch of"):
            rate_of(0.8, **other)


def planted():
    """Annotations of 5 rows; A agrees with samples 0 and 1, B with 2 and 3; they disagree on all but sample 4."""
    a, b = logits_of(5, 5, 1, 0, 3), logits_of(1, 0, 5, 5, 3)
    mask = torch.zeros(5, 10, 10, dtype=torch.long)
    mask[:, :5] = 1
    return [a, b], {"mask": mask}


@pytest.mark.parametrize("select_by", ["loss", "bm"])
def test_co_teaching_hands_each_network_what_the_other_trusts(select_by):
    flags = Flags()
    flags.select_by = select_by
    logits, batch = planted()
    for_a, for_b = co_teaching.weigh(flags, logits, batch, epoch=10)  # keeps 2 of 5
    assert for_a.tolist() == [0, 0, 1, 1, 0] and for_b.tolist() == [1, 1, 0, 0, 0]
    for_a, for_b = co_teaching.weigh(flags, logits, batch, epoch=0)
    assert for_a.tolist() == for_b.tolist() == [1] * 5


def test_co_teaching_plus_selects_within_the_disagreement():
    flags, (logits, batch) = Flags(), planted()
    flags.forget_rate = 0.5
    for_a, for_b = co_teaching_plus.weigh(flags, logits, batch, epoch=10)  # 2 of the 4 they disagree on
    assert for_a.tolist() == [0, 0, 1, 1, 0] and for_b.tolist() == [1, 1, 0, 0, 0]
    for_a, for_b = co_teaching_plus.weigh(flags, logits, batch, epoch=0)
    assert for_a.tolist() == for_b.tolist() == [1, 1, 1, 1, 0]  # sample 4 is trusted, but agreed on
    same = [logits[0], logits[0]]
    assert [each.sum() for each in co_teaching_plus.weigh(flags, same, batch, epoch=0)] == [0, 0]


def test_decoupling_updates_both_on_the_disagreement():
    logits, batch = planted()
    assert [each.tolist() for each in train_decoupling.weigh(Flags(), logits, batch, 0)] == [[1, 1, 1, 1, 0]] * 2


def test_the_worst_rows_are_dropped_and_shuffling_keeps_the_weights():
    weights = np.array([0.5, 0.1, 0.9, 0.3, 0.3])
    assert dropped_worst(weights, 0.2).tolist() == [1, 0, 1, 1, 1]
    assert dropped_worst(weights, 0.4).tolist() == [1, 0, 1, 1, 0]
    assert dropped_worst(weights, 0).tolist() == [1] * 5
    for share in (0.91, 1):  # round(4.55) = 5
        with pytest.raises(UserError, match=f"--drop-worst {share}: drops all 5 rows"):
            dropped_worst(weights, share)
    other = shuffled(weights, 3)
    assert sorted(other) == sorted(weights) and list(other) != list(weights)
    assert list(other) == list(shuffled(weights, 3)) != list(shuffled(weights, 4))


class TwoProcesses:
    """A fabric in which the other process kept `other` samples."""

    world_size = 2

    def __init__(self, other):
        self.other = torch.tensor(other)

    def all_reduce(self, kept, reduce_op):
        assert reduce_op == "sum"
        return kept + self.other


def test_the_loss_is_averaged_over_the_samples_kept_in_all_processes():
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0])
    selections = [torch.tensor([1.0, 0, 1, 0]), torch.tensor([0.0, 0, 0, 0])]
    scaled, kept = averaged_over_kept(TwoProcesses([1.0, 0.0]), selections)
    assert kept.tolist() == [3, 0]
    # DDP takes the mean of both processes' gradients, so the other one's sample, of loss 3, adds 3 * 4 * 2 / 3 / 4 there
    mine, other = weighted_loss(losses, scaled[0]), 3.0 * (4 * 2 / 3) / 4
    assert ((mine + other) / 2).item() == pytest.approx((1 + 4 + 3) / 3)
    assert weighted_loss(losses, scaled[1]) == 0


def test_an_empty_selection_makes_no_update_and_is_counted(csvs, tmp_path):
    """Weight decay and momentum alone would move a network whose loss is 0."""
    seen = []

    def weigh(logits, batch, epoch):
        seen.append([p.clone() for p in built[0].parameters()])
        return [torch.zeros_like(batch["weight"]) if len(seen) > 1 else torch.ones_like(batch["weight"])]

    built, build = [], networks.build_networks

    def remember(*given):
        built.extend(build(*given))
        return built

    args = arguments(csvs, tmp_path, "--optimizer", "adamw", "--weight-decay", "0.5", "-l", "0.1", "--epochs", "2")
    networks.build_networks = remember
    try:
        loop.run(args, weigh, selects=True)
    finally:
        networks.build_networks = build
    assert [entry["empty"] for entry in epochs_of(tmp_path)] == [[1], [2]]  # 2 steps an epoch, the first one kept all
    assert [entry["weight"] for entry in epochs_of(tmp_path)] == [[0.5], [0.0]]
    first, second = (entry["loss"][0] for entry in epochs_of(tmp_path))
    assert 0.5 < first < 1.5 and second == 0  # that of the one batch, near log 2 from a random start, not half of it
    for before, after in zip(seen[1], built[0].parameters()):
        assert torch.equal(before, after)
    assert any(not torch.equal(a, b) for a, b in zip(seen[0], seen[1]))


@pytest.mark.slow
def test_drop_worst_leaves_the_rows_of_the_lowest_weight_out(csvs, tmp_path):
    tiny = ["--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--out-dir", tmp_path, "--epochs", 1, "--batch-size", 12]
    weights = csvs / "train_noisy_60_PointRend_weight_bfscore.csv"
    run_script("train_without_weight.py", "--train_csv", weights, "--drop-worst", 0.25, "--name", "drop", *tiny)
    run_script("train_with_Teacher_weight.py", "--train_csv", weights, "--shuffle-weights", "--name", "shuffled", *tiny)
    run_script("train_with_Teacher_weight.py", "--train_csv", weights, "--mean-weights", "--name", "mean", *tiny)
    run_script("train_with_Teacher_weight.py", "--train_csv", weights, "--name", "weights", *tiny)
    entry = {name: json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("drop", "shuffled", "mean", "weights")}
    assert entry["drop"]["weight"] == [0.75] and entry["drop"]["empty"] == [0]
    assert entry["shuffled"]["weight"] == pytest.approx(entry["weights"]["weight"])  # the same weights, on other rows
    assert len({entry[name]["loss"][0] for name in ("shuffled", "mean", "weights")}) == 3
    assert entry["mean"]["weight"] == pytest.approx([read_rows(weights)["weight"].mean()])
    facts = {name: json.loads((tmp_path / name / "result.json").read_text()) for name in ("drop", "mean", "weights")}
    assert facts["weights"]["weights"]["mean"] == pytest.approx(read_rows(weights)["weight"].mean())
    assert facts["drop"]["weights"]["mean"] == 0.75 and facts["drop"]["test_set"] is None  # the weights as they were used
    done = run_script("train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--drop-worst", 0.2, *tiny,
                      "--name", "no", check=False)
    assert done.returncode == 2 and "needs a third column named `weight`" in done.stderr


@pytest.mark.parametrize("flags, rate", [([], 8 / 12), (["--forget-rate", "0.35"], 0.35)])
def test_the_forget_rate_is_the_csvs_noise_share_unless_given(csvs, tmp_path, flags, rate):
    done = run_script("train_co_teaching.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "run", "--model-b", "unet",
                      "--out-dir", tmp_path, "--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--epochs", 2,
                      "--ramp-epochs", 1, "--batch-size", 12, *flags)
    assert (f"forget rate: {rate:.3f}" in done.stdout) == (not flags)
    assert json.loads((tmp_path / "run" / "args.json").read_text())["forget_rate"] == pytest.approx(rate)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert log[0]["weight"] == [1, 1] and log[1]["weight"] == pytest.approx([math.floor(12 * (1 - rate)) / 12] * 2)


@pytest.mark.slow
def test_both_networks_are_kept_and_can_be_used(csvs, tmp_path):
    common = ["--size", 48, 32, "--accelerator", "cpu"]
    run_script("train_decoupling.py", "--train_csv", csvs / "train_noisy_60.csv", "--valid_csv", csvs / "valid_noisy_60.csv",
               "--test_csv", csvs / "test.csv", "--name", "two", "--out-dir", tmp_path, *common, "--width", 4, "--epochs", 1,
               "--encoder-b", "mobilenet_v2")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert len(result["test"]) == len(result["valid"]) == len(result["parameters"]) == 2
    for k in (0, 1):
        run_script("evaluate.py", "--checkpoint", tmp_path / "two" / "best.ckpt", "--csv", csvs / "test.csv", "--network", k,
                   "--json", tmp_path / f"{k}.json", "--accelerator", "cpu")
        assert json.loads((tmp_path / f"{k}.json").read_text())["bf"] == pytest.approx(result["test"][k]["bf"], abs=1e-6)
    run_script("report.py", tmp_path / "two", "--out", tmp_path / "report")
    table = (tmp_path / "report" / "table.md").read_text()
    assert table.count("| two |") == table.count("| two, network 2 |") >= 1
    run_script("train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "one", "--out-dir", tmp_path,
               *common, "--width", 4, "--epochs", 1, "--load", tmp_path / "two" / "best.ckpt")
    done = run_script("evaluate.py", "--checkpoint", tmp_path / "one" / "best.ckpt", "--csv", csvs / "test.csv", "--network", 1,
                      "--accelerator", "cpu", check=False)
    assert done.returncode == 2 and "holds 1 network; there is no number 1" in done.stderr
