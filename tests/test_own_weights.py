"""Own weights: trainings and further passes against ones written out."""

import argparse
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import train_with_own_weight
from cli.files import write_rows
from data.make_sample import draw_set
from data.pictures import read_mask, resize_labels
from data.rows import read_rows
from data.splits import pair_folder
from engine import checkpoint, own_memory, own_run
from tests import own_runs, test_loop_by_hand
from tests.own_runs import AUGMENT, small
from tests.test_agreement import slow_scores
from tests.test_loop_by_hand import EPOCHS, SEED, SIZE, WEIGHTED, trained_by_hand
from utils.agreement_cpu import agreement
from utils.own_scores import learnt_mask, own_weights

drawn, call, two_passes = test_loop_by_hand.drawn, own_runs.call, own_runs.two_passes


# --- trainings, written out -------------------------------------------------------------------------------------


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
def test_a_script_trains_as_its_equation_says(drawn, tmp_path, monkeypatch, call, script, method, flags):
    """Three epochs; the weights are the mean scores themselves, so that every one of them shows."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (means, None))
    monkeypatch.setattr(own_memory, "one_sided", lambda weights, larger, outlined: None)
    csv = drawn / WEIGHTED.format("bf")
    run = call(script, *small(csv, tmp_path), *flags)
    networks, weights = trained_by_hand(csv, method, 1, False)  # weights: (steps, 1, samples)
    saved = checkpoint.load(run / "last.ckpt")["networks"]
    for name, value in networks[0].items():
        torch.testing.assert_close(saved[0]["state"][name], value, rtol=1e-4, atol=3e-5)
    logged = [json.loads(line)["weight"][0] for line in (run / "log.jsonl").open()]
    np.testing.assert_allclose(logged, weights.reshape(EPOCHS, -1).mean(1), atol=1e-5)
    assert np.ptp(weights[-1]) > 0.01


def test_the_weights_begin_after_three_of_ten_epochs_and_flags_are_recorded(drawn, tmp_path, call):
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


def test_a_plain_run_and_one_whose_scores_form_one_group_are_the_same(drawn, tmp_path, call, monkeypatch, capsys):
    """And that is told once, and stands in result.json."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: own_weights(np.full_like(means, 0.5)))
    runs = [call(script, *small(drawn / "train_noisy_60.csv", tmp_path, script)) for script in
            ("train_without_weight", "train_with_own_weight")]
    plain, ours = (checkpoint.load(run / "last.ckpt")["networks"][0]["state"] for run in runs)
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    assert capsys.readouterr().out.count("own weights: all are 1, since the scores form one group") == 1
    facts = json.loads((runs[1] / "result.json").read_text())["weights"]
    assert facts["mean"] == 1 and facts["fallback"] == "since the scores form one group: no mask stands out as coarse"


@pytest.mark.parametrize("flag", ["--shuffle-weights", "--mean-weights"])
def test_controls_change_the_weights_of_each_epoch(drawn, tmp_path, call, monkeypatch, flag):
    given = np.linspace(0.1, 0.9, 12)
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (given, None))
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


@pytest.mark.parametrize("flags, learns", [([], False), (["--augment"], False), (["--from-scratch"], True),
                                           (["--fixed", "ALL"], True), (["--mean-weights"], True),
                                           (["--epochs", "9"], False)])
def test_a_further_pass_without_a_reason_to_learn_keeps_the_network(two_passes, call, monkeypatch, capsys, flags, learns):
    """Its scores form one group. Longer training on the same masks is no remedy: where all are coarse it does harm.

    A pass after that one keeps the network, too."""
    monkeypatch.setattr(own_memory, "own_weights", lambda means, outlined: (np.ones(len(means)), "the scores form one group"))
    first, second = two_passes
    flags = [str(first / "weights.csv") if flag == "ALL" else flag for flag in flags]
    run = call("train_with_own_weight", *second, *flags)
    begun, ended = (checkpoint.load(each / "last.ckpt") for each in (first, run))
    same = [torch.equal(value, ended["networks"][0]["state"][name]) for name, value in begun["networks"][0]["state"].items()]
    assert all(same) != learns
    result, before = (json.loads((each / "result.json").read_text()) for each in (run, first))
    assert result.get("kept_network", False) != learns and result["weights"]["fallback"] == "since the scores form one group"
    assert bool((run / "log.jsonl").read_text()) == learns and ("keeps its network" in capsys.readouterr().out) != learns
    if not learns:
        assert (result["test"], result["test_last"]) == (before["test"], before["test_last"])
        again = [*second[:second.index("--name") + 1], "third", *second[second.index("--name") + 2:]]
        again[again.index("--after") + 1] = run
        third = checkpoint.load(call("train_with_own_weight", *again) / "last.ckpt")
        assert torch.equal(third["memory"]["predictions"]["sums"], begun["memory"]["predictions"]["sums"])


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
