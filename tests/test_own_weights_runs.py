"""Runs with own weights that are stopped, shared by processes, or get bad input."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import train_with_own_weight
from cli.command_line import Terminated
from cli.files import UserError, write_rows
from data.dataset import SegmentationDataset
from data.make_sample import draw_set
from data.pictures import read_mask, write_mask
from data.rows import read_rows
from data.splits import pair_folder
from engine import checkpoint, own_memory, prediction_memory
from tests import own_runs, test_loop_by_hand
from tests.conftest import ROOT, run_script
from tests.own_runs import AUGMENT, SCRIPT, small
from tests.processes import run_together
from tests.script_calls import check
from tests.test_loop_by_hand import SIZE

drawn, call, two_passes = test_loop_by_hand.drawn, own_runs.call, own_runs.two_passes


# --- stopped, and several processes -----------------------------------------------------------------------------


@AUGMENT
@pytest.mark.parametrize("further", [False, True])
def test_a_stop_amid_any_epoch_changes_nothing(two_passes, tmp_path, call, monkeypatch, further):
    """Stopped once within each epoch; networks, memory and weights as in a run that was never stopped, byte for byte."""
    first, flags = two_passes
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (means, None))  # weights that follow from the memory
    monkeypatch.setattr(own_memory, "one_sided", lambda weights, larger, outlined: None)  # a further pass has masks to doubt
    flags = [*flags[:-2], *(["--after", first] if further else ["--from-epoch", 1])]
    whole = call("train_with_own_weight", *[{"second": "whole"}.get(flag, flag) for flag in flags])
    real, steps, at = train_with_own_weight.weigh, [], []

    def stopping(*arguments):
        steps.append(1)
        if len(steps) in at:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(train_with_own_weight, "weigh", stopping)
    at += [2, 5, 8]  # of 3 steps each
    for _ in at:
        with pytest.raises(Terminated):
            call("train_with_own_weight", *flags, "--resume")
    broken = call("train_with_own_weight", *flags, "--resume")
    assert len(steps) == 9
    for name in ("last.ckpt", "weights.csv"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes(), name


def met_pixels(dataset, epoch):
    """1 for the pixels of each row that the augmented picture of an epoch shows, else 0: (N, H, W)."""
    dataset.epoch = epoch
    met = torch.zeros(len(dataset), *dataset.size)
    for row, source in enumerate(dataset.__getitems__(range(len(dataset)))["source"]):
        met[row].view(-1)[source[source >= 0].long()] = 1
    return met


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_two_processes_share_one_memory(csvs, tmp_path, augment):
    """What was counted is what one process counts, with augmented pictures for each pixel."""
    rows = (csvs / "train_noisy_60.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(rows[:13]) + "\n")
    (tmp_path / "fixed.csv").write_text("\n".join(rows[:2]) + "\n")  # else scores of one group would end the second pass
    flags = [SCRIPT, "--train_csv", tmp_path / "train.csv", "--test_csv", csvs / "test.csv", "--size", 48, 32, "--width", 4,
             "--epochs", 3, "--batch-size", 4, "--accelerator", "cpu", "--out-dir", tmp_path, *["--augment"] * augment]
    run_together(tmp_path, *flags, "--name", "first")
    printed = run_together(tmp_path, *flags, "--name", "second", "--after", tmp_path / "first", "--fixed",
                           tmp_path / "fixed.csv")
    assert printed.count("are doubted") == 1
    dataset = SegmentationDataset(read_rows(tmp_path / "train.csv"), (48, 32), 2, augment=True, sources=True)
    for name, epochs, counted in (("first", 3, 2), ("second", 6, 3)):
        memory = checkpoint.load(tmp_path / name / "last.ckpt")["memory"]
        assert memory["scores"]["counts"].tolist() == [epochs] * 12
        expected = torch.full((12,), counted)
        if augment:
            expected = sum(met_pixels(dataset, epoch) for epoch in range(3 - counted, 3))
        assert torch.equal(memory["predictions"]["counts"].long(), expected.long())
        assert (memory["predictions"]["sums"].int().flatten(1).amax(1) > 0).all()
        log = [json.loads(line) for line in (tmp_path / name / "log.jsonl").open()]
        assert log[-1]["own_score"] == pytest.approx((memory["scores"]["sums"] / epochs).mean().item(), abs=1e-5)
        assert len(read_rows(tmp_path / name / "weights.csv", needs_weights=True)) == 12


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run, one without predictions, and one of another script; 8 rows."""
    folder = tmp_path_factory.mktemp("finished")
    draw_set(folder, 8, (48, 48))
    write_rows(folder / "train.csv", pair_folder(folder))
    write_rows(folder / "other.csv", pair_folder(folder)[1:])
    tiny = ["--train_csv", "train.csv", "--epochs", 2, "--batch-size", 4, "--size", 32, 24, "--width", 4, "--accelerator",
            "cpu", "--out-dir", "runs"]
    for script, name, *flags in ((SCRIPT, "own"), (SCRIPT, "scores", "--scores-only"), ("train_without_weight.py", "plain")):
        run_script(ROOT / script, *tiny, "--name", name, *flags, cwd=folder)
    (folder / "runs" / "begun").mkdir()
    return folder, tiny


@pytest.mark.parametrize("flags, message", [
    (["--after", "runs/none"], "--after runs/none: not the folder of a finished run, it has no result.json"),
    (["--after", "runs/begun"], "--after runs/begun: not the folder of a finished run"),
    (["--after", "runs/plain"], "--after runs/plain: not a run of train_with_own_weight.py"),
    (["--after", "runs/scores"], "has kept no averaged predictions; train it without --scores-only"),
    (["--after", "runs/own", "--size", 24, 24], "was trained with --size 32 24, this run has 24 24; pass --size 32 24"),
    (["--after", "runs/own", "--theta", 2], "was trained with --theta 3.0, this run has 2.0"),
    (["--after", "runs/own", "--num-classes", 3], "was trained with --num-classes 2, this run has 3"),
    (["--after", "runs/own", "--train_csv", "other.csv"], "was trained on other rows or files than other.csv holds now"),
    (["--after", "runs/own", "--name", "own", "--overwrite"], "is the folder of this run itself"),
    (["--after", "runs/own", "--from-epoch", 1], "--from-epoch goes without --after"),
    (["--from-scratch"], "--from-scratch: goes with --after and without --load"),
    (["--after", "runs/own", "--from-scratch", "--load", "x.ckpt"], "--from-scratch: goes with --after and without --load"),
    (["--from-epoch", 0], "--from-epoch 0: there are no scores before the first epoch"),
    (["--from-epoch", 2], "--from-epoch 2: no epoch would have weights, there are 2"),
    (["--from-epoch", "x"], "--from-epoch: 'x'"),
    (["--shuffle-weights", "--mean-weights"], "not allowed with argument"),
    (["--train_csv", "none.csv"], "none.csv: no such CSV")])
def test_bad_input(finished, monkeypatch, capsys, flags, message):
    folder, tiny = finished
    check(monkeypatch, capsys, folder, SCRIPT, message, *tiny, "--name", "new", *flags)


@pytest.mark.parametrize("flags, needed", [([], 3 * 3), (["--augment"], 3 * (3 + 2))])
def test_memory_that_does_not_fit_is_refused(finished, monkeypatch, capsys, flags, needed):
    """Three times, for the copies: 3 bytes a pixel, and 2 for the counts of augmented pixels."""
    folder, tiny = finished
    monkeypatch.setattr(prediction_memory, "free_memory", lambda: needed * 8 * 32 * 24 - 1)
    check(monkeypatch, capsys, folder, SCRIPT, "averaged predictions of 8 masks of 32x24, 2 classes take 0.00 GiB, 0.00 GiB "
          "are free; pass --scores-only", *tiny, *flags, "--name", "new")
    check(monkeypatch, capsys, folder, SCRIPT, None, *tiny, *flags, "--name", f"without{needed}", "--scores-only")


@pytest.mark.parametrize("flags, pixels", [([], 1), (["--augment"], 2), (["--after", "runs/own"], 3)])
def test_a_gpu_that_is_too_small_is_told_before_the_first_epoch(finished, monkeypatch, capsys, flags, pixels):
    """1 byte a pixel for the predictions of an epoch, 1 for where augmented ones were met, 2 for corrected masks."""
    folder, tiny = finished
    free = [pixels * 8 * 32 * 24 - 1]
    monkeypatch.setattr(prediction_memory, "visible_gpus", lambda args: 1)
    monkeypatch.setattr(prediction_memory, "own_gpu", lambda args: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0] if device == 2 else 0, 0))
    check(monkeypatch, capsys, folder, SCRIPT, "0.00 GiB of the GPU", *tiny, *flags, "--name", "new")
    free[0] += 1
    check(monkeypatch, capsys, folder, SCRIPT, None, *tiny, *flags, "--name", f"fits{pixels}")


@pytest.mark.parametrize("shape, moved", [((4, 6), False), ((4, 6), True), ((3, 4, 6), False), ((3, 4, 6), True)])
def test_the_memory_is_as_large_as_is_said(shape, moved):
    memory = own_memory.AveragedPredictions(5, shape, moved)
    memory.note(torch.tensor([0]), torch.zeros(1, *(shape if len(shape) == 3 else (1, *shape))),
                torch.zeros(1, 4, 6, dtype=torch.int32) if moved else None)
    arrays = [memory.sums, memory.now.numpy(), *[memory.counts, memory.met.numpy()] * moved]  # else a few bytes a row
    assert sum(each.nbytes for each in arrays) == own_memory.AveragedPredictions.size(5, shape, moved)


def test_another_earlier_run_is_refused_on_resuming(two_passes, call, capsys):
    """The earlier run was replaced between the stop and --resume."""
    first, flags = two_passes
    second = call("train_with_own_weight", *flags)
    (second / "result.json").unlink()
    state = checkpoint.load(first / "last.ckpt")
    checkpoint.save(first / "last.ckpt", {**state, "epoch": 99})
    with pytest.raises(Exception, match="the run named by --after is not the one that it followed"):
        call("train_with_own_weight", *flags, "--resume")


def test_class_csvs_and_ignored_pixels(finished, tmp_path, call, monkeypatch):
    """More than two classes, with ignored pixels: one pass after the other, which doubts every second mask."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (np.resize([0.1, 0.9], len(means)), None))
    dice = np.random.default_rng(0)
    draw_set(tmp_path, 8, (48, 48))
    for path in pair_folder(tmp_path)["mask"]:
        labels = np.where(dice.random((48, 48)) < 0.1, 255, read_mask(path) + (np.arange(48) < 24)[:, None])
        write_mask(path, labels.astype(np.uint8), 3)
    write_rows(tmp_path / "train.csv", pair_folder(tmp_path))
    flags = [*small(tmp_path / "train.csv", tmp_path, "first"), "--num-classes", 3]
    first = call("train_with_own_weight", *flags)
    memory = checkpoint.load(first / "last.ckpt")["memory"]["predictions"]
    assert memory["sums"].shape == (8, 3, *SIZE) and memory["sums"].int().sum(1).float().mean() == pytest.approx(2 * 255, abs=2)
    second = call("train_with_own_weight", *[{"first": "second"}.get(flag, flag) for flag in flags], "--after", first)
    assert np.isfinite(json.loads((second / "log.jsonl").read_text().splitlines()[-1])["loss"]).all()


def test_corrected_masks_weigh_1_and_are_never_doubted(two_passes, drawn, call, capsys):
    """Rows 0, 3 and 6 are doubted; a CSV names the mask of row 3, a folder all masks."""
    first, flags = two_passes
    rows = read_rows(drawn / "train_noisy_60.csv")
    fixed = first.parent / "fixed.csv"
    write_rows(fixed, rows.iloc[[3]])
    second = call("train_with_own_weight", *flags, "--fixed", fixed)
    assert "2 of 12 masks are doubted" in capsys.readouterr().out
    assert list(read_rows(second / "weights.csv")["weight"].iloc[[0, 3, 6, 9]]) == [0.45, 1, 0.45, 0.55]
    folder = Path(rows["mask"].iloc[3]).parent.parent  # the masks lie below it
    call("train_with_own_weight", *flags, "--name", "third", "--fixed", folder, "--shuffle-weights")
    assert "0 of 12 masks are doubted" in capsys.readouterr().out
    assert (read_rows(first.parent / "third" / "weights.csv")["weight"] == 1).all()
    with pytest.raises(UserError, match="has none of its masks"):
        call("train_with_own_weight", *flags, "--name", "fourth", "--fixed", first.parent)
