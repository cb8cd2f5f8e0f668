"""Own weights: the rules by hand, the trainings against ones written out, further passes, resuming, and bad input."""

import argparse
import importlib
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import train_with_own_weight
from cli.command_line import Terminated
from cli.files import write_rows
from data.dataset import SegmentationDataset
from data.make_sample import draw_set
from data.pictures import read_mask, resize_labels, write_mask
from data.rows import read_rows
from data.splits import pair_folder
from engine import checkpoint, own_memory, own_run
from tests.conftest import ROOT, TORCHRUN, run_script
from tests.script_calls import check
from tests.test_agreement import slow_scores
from tests.test_loop_by_hand import BATCH, EPOCHS, RATE, SEED, SIZE, WEIGHTED, drawn, trained_by_hand  # noqa: F401
from utils.agreement_cpu import agreement
from utils.own_scores import REACH, STEPS, learnt_mask, likely_level_set, one_sided, own_tolerance, own_weights, signed_distance

SCRIPT = "train_with_own_weight.py"


# --- the rules --------------------------------------------------------------------------------------------------


def test_the_tolerance_stays_in_its_unit():
    """Below 1 it is a share of the diagonal, so 1 px must not become 0.67 of the diagonal."""
    assert [own_tolerance(theta) for theta in (3, 1.5, 1, 0.9, 0.03)] == pytest.approx([2, 1, 1, 0.6, 0.02])


def test_weights_are_those_of_two_groups_or_all_one():
    dice = np.random.default_rng(0)
    good, coarse = dice.normal(0.8, 0.03, 30), dice.normal(0.4, 0.03, 20)
    weights, reason = own_weights(np.append(np.concatenate([good, coarse]), np.nan).astype(np.float32))
    assert reason is None and (weights[:30] > 0.99).all() and (weights[30:50] < 0.01).all() and weights[50] == 1
    for means, words in ((good, "one group"), (np.append(good[:1], np.zeros(30)), "a few rows have all the weight"),
                         (np.full(4, np.nan), "one group")):
        weights, reason = own_weights(means)
        assert (weights == 1).all() and words in reason


def disc(radius, size=(96, 128)):
    y, x = np.mgrid[:size[0], :size[1]]
    return np.hypot(y - 45.3, x - 60.8) - radius


@pytest.mark.parametrize("error", [-3, 0, 3])
@pytest.mark.parametrize("band", [False, True])
def test_a_disc_that_was_drawn_too_large_or_too_small_is_moved_back(error, band):
    """Within half a pixel of its radius; ignored pixels stay ignored, whatever is predicted there."""
    given = (disc(24 + error) < 0).astype(np.uint8)
    average = 1 / (1 + np.exp(disc(24) / 1.5))
    if band:
        given[:, 58:70] = 255
        average[:, 58:70] = 1
    learnt, counted = learnt_mask(given, average.astype(np.float32))
    valid = given != 255
    assert learnt.dtype == np.uint8 and ((learnt == 255) == ~valid).all()
    if not band:
        assert abs(np.sqrt(learnt.sum() / np.pi) - 24) < 0.5
    assert ((learnt == 1) != (disc(24) < 0))[valid & (abs(disc(24)) > 1)].sum() == 0
    assert (counted == ((learnt == 1) == (average > 0.5)))[valid].all()


def test_the_level_set_is_the_best_of_all_levels():
    """Against every level tried by itself, on random regions and predictions, whole and empty ones too."""
    dice = np.random.default_rng(1)
    for trial in range(30):
        noise = np.cumsum(np.cumsum(dice.normal(size=(2, 40, 50)), 1), 2)
        inside, p = noise[0] > np.median(noise[0]), 1 / (1 + np.exp(-noise[1] / noise[1].std()))
        if trial < 2:
            inside = np.full_like(inside, bool(trial))
        odds = np.log(np.clip(p, 0.02, 0.98) / (1 - np.clip(p, 0.02, 0.98)))
        distance = signed_distance(inside)
        step = round(REACH * np.hypot(40, 50) / STEPS, 1)
        tried = [odds[distance > k * step].sum() for k in range(-STEPS, STEPS + 1)]
        assert odds[likely_level_set(inside, p)].sum() == pytest.approx(max(tried))
        assert (likely_level_set(inside, np.full(p.shape, 0.5)) == inside).all()  # nothing to go by: unmoved


def test_classes_are_not_moved_and_count_where_they_are_most_probable():
    average = np.array([[[0.2, 0.6, 0.1]], [[0.5, 0.3, 0.8]], [[0.3, 0.1, 0.1]]], np.float32)  # (3, 1, 3)
    learnt, counted = learnt_mask(np.array([[1, 2, 255]], np.uint8), average)
    assert learnt.tolist() == [[1, 2, 255]] and counted.tolist() == [[True, False, False]]


class OneProcess:
    world_size = 1


def test_predictions_are_averaged_in_16_bits():
    memory = own_memory.AveragedPredictions(3, (1, 2))
    p = torch.tensor([[[0.1, 0.9]], [[1.0, 0.502]]])
    for epoch in range(300):  # row 1 is met in every epoch, row 0 in the first alone, row 2 never
        index = torch.tensor([0, 1]) if epoch == 0 else torch.tensor([1])
        memory.note(index, torch.logit(p[index], 1e-7)[:, None])
        memory.fold(OneProcess)
    assert memory.counts.tolist() == [1, 257, 0]  # a sum of 16 bits is full
    assert memory.average(0)[0] == pytest.approx([0.1, 0.9], abs=1 / 500)
    assert memory.average(1)[0] == pytest.approx([1, 128 / 255], abs=1e-6)
    assert np.isnan(memory.average(2)).all() and memory.sums.dtype == np.uint16
    classes = own_memory.AveragedPredictions(1, (3, 1, 1))
    classes.note(torch.tensor([0]), torch.log(torch.tensor([0.2, 0.3, 0.5])).view(1, 3, 1, 1))
    classes.fold(OneProcess)
    assert classes.average(0).ravel() == pytest.approx([0.2, 0.3, 0.5], abs=1 / 255)

def test_doubted_masks_that_are_most_and_err_alike_are_not_doubted():
    """Either these are coarse or the others: 60 of 100 doubted, 42 of them too tight. Not where errors go both ways, where the
    doubted ones are the fewer, where a coin may fall so, or where no direction is known (more than two classes)."""
    weights = np.repeat([0.1, 0.9], [60, 40])
    def seem_tight(count, doubted=60):
        return np.concatenate([np.repeat([0.9, 0.2], [count, doubted - count]), np.full(100 - doubted, 0.9)])
    assert one_sided(weights, seem_tight(42)) == ("60 % of the masks are doubted, and of those 70 % seem too tight: either "
                                                  "these are coarse, or all the others")
    assert "70 % seem too loose" in one_sided(weights, seem_tight(18))
    assert one_sided(weights, seem_tight(41)) is None and one_sided(weights, seem_tight(30)) is None
    assert one_sided(np.repeat([0.1, 0.9], [50, 50]), seem_tight(50, 50)) is None
    assert one_sided(weights, np.full(100, np.nan)) is None
    few = np.repeat([0.1, 0.9], [11, 5])
    assert one_sided(few, np.repeat([0.9, 0.1], [8, 8])) is None and one_sided(few, np.repeat([0.9, 0.1], [9, 7])) is not None


def test_which_of_prediction_and_mask_is_larger():
    mask = torch.tensor([[[0, 1, 1, 255]], [[0, 1, 1, 0]], [[1, 1, 1, 0]]])
    logits = torch.tensor([[1.0, 1, 1, -1], [1.0, -1, 1, -1], [-1.0, -1, 1, 1]])[:, None, None]
    assert own_memory.prediction_is_larger(logits, mask).tolist() == [1, 0.5, 0]
    logits[0, 0, 0] = torch.tensor([1.0, 1, -1, 9])  # what is ignored does not count
    assert own_memory.prediction_is_larger(logits, mask).tolist() == [0.5, 0.5, 0]


def test_one_sided_doubts_give_weights_of_one(monkeypatch):
    memory = own_memory.OwnMemory(100, None, 1, say=lambda word: said.append(word))
    said, index = [], torch.arange(100)
    scores = torch.tensor(np.repeat([0.1, 0.8], [60, 40]), dtype=torch.float32)
    scores += torch.linspace(0, 0.02, 100)
    for tight, expected in ((30, False), (60, True)):  # masks of 1 pixel and of 3; predictions of 2
        mask = torch.zeros(100, 1, 4, dtype=torch.long)
        mask[:, :, 0] = 1
        mask[tight:, :, 1:3] = 1
        memory.larger = own_memory.RunningScores(100)
        memory.note({"index": index, "mask": mask}, scores, torch.tensor([1.0, 1, -1, -1]).expand(100, 1, 1, 4), 0)
        memory.after_epoch(OneProcess(), None, None)
        assert (memory.judged() == 1).all() == expected and bool(said) == expected
    assert "either these are coarse" in said[0] and memory.reason in said[0]


# --- trainings, written out -------------------------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch):
    """A function that runs a script's main() in this process and returns the run's folder."""
    def run(module, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{module}.py", *map(str, arguments)])
        importlib.import_module(module).main()
        if "--out-dir" in arguments:
            return arguments[arguments.index("--out-dir") + 1] / arguments[arguments.index("--name") + 1]

    return run


def small(csv, out, name="run", epochs=EPOCHS):
    return ["--train_csv", csv, "--name", name, "--out-dir", out, "--epochs", epochs, "--batch-size", BATCH, "--size", *SIZE,
            "--learning-rate", RATE, "--width", 4, "--accelerator", "cpu", "--lr-step", 1, "--seed", SEED]


def own(from_epoch):
    """The mean of each row's scores of the epochs before; rows are known by their weights in the CSV, which differ."""
    scores = {}

    def weigh(labels, losses, masks, given, epoch):
        before = {row: [score for its, score in found if its < epoch] for row, found in scores.items()}
        weights = [float(np.mean(before[row])) if epoch >= from_epoch else 1.0 for row in given]
        for row, label, mask in zip(given, labels[0], masks):
            scores.setdefault(row, []).append((epoch, slow_scores(label, mask, 2, 2)[0]))  # 2 = two thirds of theta
        return [weights]

    return weigh


def running_kd(labels, losses, masks, given, epoch, scores={}):  # noqa: B006  a memory of one test
    """Eq. 6 with the mean of a row's scores so far, this step's included."""
    share = 0.5 * epoch / (EPOCHS - 1)
    for row, label, mask in zip(given, labels[0], masks):
        scores.setdefault(row, []).append(slow_scores(label, mask, 2, 3)[0])
    return [[share * float(np.mean(scores[row])) + (1 - share) * row for row in given]]


@pytest.mark.parametrize("script, method, flags", [
    ("train_with_own_weight", own(1), ["--from-epoch", 1]), ("train_with_own_weight", own(2), ["--from-epoch", 2]),
    ("train_with_KDweight", running_kd, ["--student", "running", "--lambda-warmup", 1])])
def test_a_script_trains_as_its_equation_says(drawn, tmp_path, monkeypatch, call, script, method, flags):  # noqa: F811
    """Three epochs; the weights are the mean scores themselves, so that every one of them shows."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means: (means, None))
    monkeypatch.setattr(own_memory, "one_sided", lambda weights, larger: None)
    csv = drawn / WEIGHTED.format("bf")
    run = call(script, *small(csv, tmp_path), *flags)
    networks, weights = trained_by_hand(csv, method, 1, False)  # weights: (steps, 1, samples)
    saved = checkpoint.load(run / "last.ckpt")["networks"]
    for name, value in networks[0].items():
        torch.testing.assert_close(saved[0]["state"][name], value, rtol=1e-4, atol=3e-5)
    logged = [json.loads(line)["weight"][0] for line in (run / "log.jsonl").open()]
    np.testing.assert_allclose(logged, weights.reshape(EPOCHS, -1).mean(1), atol=1e-5)
    assert np.ptp(weights[-1]) > 0.01


def test_the_weights_begin_after_three_of_ten_epochs_and_flags_are_recorded(drawn, tmp_path, call):  # noqa: F811
    run = call("train_with_own_weight", *small(drawn / "train_noisy_60.csv", tmp_path, epochs=7))
    flags = json.loads((run / "args.json").read_text())
    assert flags["from_epoch"] == 2 and flags["after"] is None and flags["scores_only"] is flags["mean_weights"] is False
    memory = checkpoint.load(run / "last.ckpt")["memory"]
    assert memory["predictions"]["counts"].tolist() == [5] * 12 and memory["scores"]["counts"].tolist() == [7] * 12
    rows = read_rows(run / "weights.csv", needs_weights=True, needs_levels=True)
    weights, _ = own_weights((memory["scores"]["sums"] / 7).numpy())
    assert rows["weight"].to_numpy() == pytest.approx(weights, abs=1e-5)
    facts = json.loads((run / "result.json").read_text())["weights"]
    assert facts["mean"] == pytest.approx(weights.mean(), abs=1e-5) and ("fallback" in facts) == (weights == 1).all()


def test_a_plain_run_and_one_whose_scores_form_one_group_are_the_same(drawn, tmp_path, call, monkeypatch, capsys):  # noqa: F811
    """And that is told once, and stands in result.json."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means: own_weights(np.full_like(means, 0.5)))
    runs = [call(script, *small(drawn / "train_noisy_60.csv", tmp_path, script)) for script in
            ("train_without_weight", "train_with_own_weight")]
    plain, ours = (checkpoint.load(run / "last.ckpt")["networks"][0]["state"] for run in runs)
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    assert capsys.readouterr().out.count("own weights: all are 1, since the scores form one group") == 1
    facts = json.loads((runs[1] / "result.json").read_text())["weights"]
    assert facts["mean"] == 1 and facts["fallback"] == "since the scores form one group: no mask stands out as coarse"


@pytest.mark.parametrize("flag", ["--shuffle-weights", "--mean-weights"])
def test_controls_change_the_weights_of_each_epoch(drawn, tmp_path, call, monkeypatch, flag):  # noqa: F811
    given = np.linspace(0.1, 0.9, 12)
    monkeypatch.setattr(own_memory, "own_weights", lambda means: (given, None))
    used = {}

    def weigh(args, own, logits, batch, epoch):
        found = real(args, own, logits, batch, epoch)
        used.setdefault(epoch, {}).update(zip(batch["index"].tolist(), found[0].tolist()))
        return found

    real = train_with_own_weight.weigh
    monkeypatch.setattr(train_with_own_weight, "weigh", weigh)
    call("train_with_own_weight", *small(drawn / "train_noisy_60.csv", tmp_path), flag)
    expected = np.full(12, 0.5) if "mean" in flag else np.random.default_rng(SEED).permutation(given)
    assert [used[epoch][row] for epoch in (1, 2) for row in range(12)] == pytest.approx([*expected] * 2, abs=1e-6)
    assert set(used[0].values()) == {1.0}


# --- further passes ---------------------------------------------------------------------------------------------


AUGMENT = pytest.mark.parametrize("two_passes", [[], ["--augment"]], indirect=True, ids=["as they are", "augmented"])


@pytest.fixture
def two_passes(request, drawn, tmp_path, call, monkeypatch):  # noqa: F811
    """Folder of a first pass, and flags of a second one; rows 0, 3 and 6 are doubted. Its parameter: more flags of both."""
    more = getattr(request, "param", [])
    weights = np.where(np.arange(12) % 3 == 0, 0.2, 0.9)
    weights[9] = 0.6
    monkeypatch.setattr(own_memory, "own_weights", lambda means: (weights, None))
    csv = drawn / "train_noisy_60.csv"
    first = call("train_with_own_weight", *small(csv, tmp_path, "first"), *more)
    return first, [*small(csv, tmp_path, "second"), *more, "--after", first]


def moved(pixels, batch, k, outside):
    """Pixels (H, W) of an unmoved picture, moved as the k-th picture of a batch was, pixel by pixel."""
    return np.array([[pixels[divmod(at, pixels.shape[1])] if at >= 0 else outside for at in line]
                     for line in batch["source"][k].tolist()]) if "source" in batch else pixels


def back(row, values, batch, k):
    """Append what was predicted of the k-th picture of a batch, (H, W), to the values of the pixels that it is about."""
    places = batch["source"][k].numpy() if "source" in batch else np.arange(values.size).reshape(values.shape)
    for place in np.unique(places[places >= 0]):
        row[place // SIZE[1]][place % SIZE[1]].append(values[places == place].mean())


@pytest.mark.parametrize("flags", [[], ["--from-scratch"]])
def test_a_further_pass_starts_from_the_network_before_it(two_passes, call, flags):
    """Seen without a step's change: at a rate of almost 0 all weights stay what they were."""
    first, second = two_passes
    begun = checkpoint.load(first / "last.ckpt")["networks"][0]
    run = call("train_with_own_weight", *second, *flags, "--learning-rate", 1e-12)
    ended = checkpoint.load(run / "last.ckpt")["networks"][0]
    kept = [torch.equal(begun["state"][name], value) or torch.allclose(begun["state"][name], value, atol=1e-6)
            for name, value in ended["state"].items() if name.endswith("weight")]
    assert all(kept) != bool(flags) and len(kept) > 5


@AUGMENT
def test_doubted_masks_are_learnt_corrected_and_scored_as_given(two_passes, call, monkeypatch):
    """Every step of the second pass: the loss by hand, and the scores and predictions that are noted."""
    first, flags = two_passes
    rows = read_rows(first / "weights.csv")
    before = {path: path.read_bytes() for path in map(type(first), rows["mask"])}
    memory = checkpoint.load(first / "last.ckpt")["memory"]
    counts = memory["predictions"]["counts"].double().view(12, *(SIZE if "--augment" in flags else (1, 1)))
    average = (memory["predictions"]["sums"].double() / (255 * counts)).numpy()  # NaN where there is none
    masks = [resize_labels(read_mask(path), SIZE) for path in rows["mask"]]
    steps, losses = [], own_run.OwnRun.losses

    def spied(self, output, batch, pixel_weights):
        found = losses(self, output, batch, pixel_weights)
        steps.append((output.detach(), batch, found.detach(), self.memory.scores.now[:, batch["index"]].clone()))
        return found

    monkeypatch.setattr(own_run.OwnRun, "losses", spied)
    second = call("train_with_own_weight", *flags)
    changed, predicted = 0, [[[[] for _ in range(SIZE[1])] for _ in range(SIZE[0])] for _ in masks]
    for output, batch, found, noted in steps:
        for k, row in enumerate(batch["index"].tolist()):
            given = batch["mask"][k].numpy().astype(np.uint8)
            assert (given == moved(masks[row], batch, k, 255)).all()
            target, counted = learnt_mask(masks[row], average[row]) if row in (0, 3, 6) else (masks[row], np.ones(SIZE))
            target, counted = moved(target, batch, k, 255), moved(counted, batch, k, 0)
            changed += (target != given).any()
            back(predicted[row], (255 * output[k, 0].sigmoid()).round().numpy(), batch, k)
            valid = torch.tensor(given != 255)
            pixels = F.binary_cross_entropy_with_logits(output[k, 0], torch.tensor(target == 1).float(), reduction="none")
            assert found[k].item() == pytest.approx((pixels * torch.tensor(counted))[valid].mean().item(), rel=1e-5)
            score = slow_scores((output[k, 0] > 0).numpy().astype(np.uint8), given, 2, 2)[0]
            assert noted[:, k].tolist() == pytest.approx([score, 1], abs=1e-5)
    assert changed > 3 and len(steps) == 9
    now = checkpoint.load(second / "last.ckpt")["memory"]
    assert now["scores"]["counts"].tolist() == [6] * 12
    assert now["predictions"]["counts"].view(12, -1).amax(1).tolist() == [3] * 12
    counts, sums = ([[[float(fold(pixel)) for pixel in line] for line in row] for row in predicted] for fold in (len, sum))
    noted = now["predictions"]["counts"].view(12, *(SIZE if "--augment" in flags else (1, 1)))
    assert (noted.numpy() == np.array(counts)).all()
    assert now["predictions"]["sums"].numpy() == pytest.approx(np.array(sums), abs=3.5)  # a rounding of each epoch
    assert json.loads((second / "result.json").read_text())["weights"]["doubted"] == 3
    assert (now["scores"]["sums"] >= memory["scores"]["sums"]).all()
    assert before == {path: path.read_bytes() for path in before}
    third = call("train_with_own_weight", *[{"second": "third", first: second}.get(flag, flag) for flag in flags])
    assert checkpoint.load(third / "last.ckpt")["memory"]["scores"]["counts"].tolist() == [9] * 12


def noisy_set(folder, call, count=120, seed=1):
    """Drawn portraits, 40 % of their masks noisy; returns the CSV of them."""
    draw_set(folder / "train", count, (64, 64), seed)
    write_rows(folder / "clean.csv", pair_folder(folder / "train"))
    call("utils.generate_noisy_label", "--csv", folder / "clean.csv", "--out", folder / "noisy.csv", "--ratio", 0.4, "--levels",
         25, 40, "--seed", seed)
    return folder / "noisy.csv"


@pytest.mark.slow
def test_own_weights_find_planted_noise_and_the_further_pass_mends_it(tmp_path, call):
    noisy = noisy_set(tmp_path, call)
    flags = ["--train_csv", noisy, "--out-dir", tmp_path, "--size", 64, 64, "--width", 16, "--epochs", 12, "--batch-size",
             8, "--optimizer", "adamw", "-l", 0.003, "--accelerator", "cpu", "--cache"]
    run = call("train_with_own_weight", *flags, "--name", "own")
    found = json.loads((run / "result.json").read_text())["weights"]
    assert found["auroc"] > 0.9, found
    rows, clean = read_rows(noisy), read_rows(tmp_path / "clean.csv")
    args = argparse.Namespace(size=[64, 64], num_classes=2)
    corrected = own_run.CorrectedMasks(rows, args, read_rows(run / "weights.csv")["weight"].to_numpy(),
                                       checkpoint.load(run / "last.ckpt")["memory"]["predictions"])
    doubted = np.flatnonzero(corrected.place >= 0)
    given, mended = (np.mean([agreement(read_mask(clean["mask"].iloc[row]), mask(row), 2, "miou", 3) for row in doubted])
                     for mask in (lambda row: read_mask(rows["mask"].iloc[row]),
                                  lambda row: corrected.learnt[corrected.place[row]].numpy()))
    assert len(doubted) > 30 and mended > given + 0.03, (len(doubted), given, mended)


# --- stopped, and several processes -----------------------------------------------------------------------------


@AUGMENT
@pytest.mark.parametrize("further", [False, True])
def test_a_stop_amid_any_epoch_changes_nothing(two_passes, tmp_path, call, monkeypatch, further):
    """Stopped once within each epoch; networks, memory and weights as in a run that was never stopped, byte for byte."""
    first, flags = two_passes
    monkeypatch.setattr(own_memory, "own_weights", lambda means: (means, None))  # weights that follow from the memory
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
    flags = [SCRIPT, "--train_csv", tmp_path / "train.csv", "--test_csv", csvs / "test.csv", "--size", 48, 32, "--width", 4,
             "--epochs", 3, "--batch-size", 4, "--accelerator", "cpu", "--out-dir", tmp_path, *["--augment"] * augment]
    run_script(*TORCHRUN, *flags, "--name", "first")
    done = run_script(*TORCHRUN, *flags, "--name", "second", "--after", tmp_path / "first")
    assert done.stdout.count("are doubted") == 1
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
    monkeypatch.setattr(own_run, "free_memory", lambda: needed * 8 * 32 * 24 - 1)
    check(monkeypatch, capsys, folder, SCRIPT, "averaged predictions of 8 masks of 32x24, 2 classes take 0.00 GiB, 0.00 GiB "
          "are free; pass --scores-only", *tiny, *flags, "--name", "new")
    check(monkeypatch, capsys, folder, SCRIPT, None, *tiny, *flags, "--name", f"without{needed}", "--scores-only")


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


def test_class_csvs_and_ignored_pixels(finished, tmp_path, call):
    """More than two classes, with ignored pixels: one pass after the other."""
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
