"""Runs of label-assisted distillation: what they learn, that they go on, that two processes are as one; predictions."""

import json
import signal

import pytest
import torch

from data.dataset import SegmentationDataset, sample_seed
from data.pictures import image_size, read_mask, write_mask
from data.rows import pseudo_label_names, read_rows
from engine import checkpoint, loop
from engine.devices import start_fabric
from related.lad import assisted
from related.lad.assisted import labelled, teacher_task
from related.lad.label_codes import label_channel
from related.lad.predict_lad_teacher import predict
from tests.benchmark_calls import run_benchmark
from tests.conftest import run_script
from tests.processes import run_together
from tests.script_calls import run
from tests.small_runs import arguments, epochs_of
from tests.test_lad import STUDENT, TEACHER, call, flags_of, trained

trained = trained  # the fixture
PREDICT = "related/lad/predict_lad_teacher.py"
WHICH = {"teacher": TEACHER, "student": STUDENT}


def training(which, csvs, home, trained):
    """Script and flags of a teacher whose codes change from epoch to epoch, or of a student."""
    more = {"teacher": ["--load", trained / "image" / "last.ckpt", "--codes-ramp", 0.5, "--consistency-from", 0],
            "student": ["--teacher", trained / "teacher" / "last.ckpt"]}
    return [WHICH[which], *flags_of(csvs, home, "run"), *more[which]]


def state_of(home):
    return checkpoint.load(home / "run" / "last.ckpt")["networks"][0]["state"]


@pytest.mark.parametrize("which", WHICH)
def test_a_stopped_run_goes_on_bit_exactly(which, csvs, trained, tmp_path, monkeypatch, capsys):
    """Stopped by SIGTERM in its second epoch, after one of 3 steps."""
    script, *flags = training(which, csvs, tmp_path / "whole", trained)
    code, error = run(monkeypatch, capsys, ".", script, *flags)
    assert code == 0, error
    own, step = loop.train_step, {"count": 0}

    def stopping(*inputs):
        step["count"] += 1
        if step["count"] == 4:
            signal.raise_signal(signal.SIGTERM)
        return own(*inputs)

    monkeypatch.setattr(loop, "train_step", stopping)
    script, *flags = training(which, csvs, tmp_path, trained)
    for expected in (143, 0):
        code, error = run(monkeypatch, capsys, ".", script, *flags, "--resume")
        assert code == expected, error
    whole, parts = state_of(tmp_path / "whole"), state_of(tmp_path)
    assert step["count"] == 6 and all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert epochs_of(tmp_path / "whole") == epochs_of(tmp_path)


@pytest.mark.slow
def test_a_teacher_learns_to_read_its_label(tmp_path):
    """With fixed codes the label tells all: own labels are followed, zeros are not, and another image's label is."""
    call("data/make_scenes.py", "--out", tmp_path / "data", "--train", 200, "--valid", 0, "--test", 40)
    call(TEACHER, "--train_csv", tmp_path / "data" / "train.csv", "--test_csv", tmp_path / "data" / "test.csv", "--name", "run",
         "--out-dir", tmp_path, "--num-classes", 4, "--size", 48, 48, "--width", 4, "--batch-size", 8, "--epochs", 4,
         "--optimizer", "adamw", "--learning-rate", 0.01, "--clip", 0, "--cache", "--codes", "fixed", "--consistency", 0,
         "--eval-codes", "own", "zero", "shuffled", "--accelerator", "cpu")
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["test_last"][0]
    assert scores["miou"] > .7 and scores["miou"] - scores["miou_zero"] > .3 and scores["miou"] - scores["miou_shuffled"] > .3


def test_a_teacher_s_predictions_follow_the_annotations_it_sees(csvs, trained, tmp_path, monkeypatch, capsys):
    """Its pseudo-labels differ with the codes, have each image's own size, and average draws."""
    def predict(home, *flags):
        code, error = run(monkeypatch, capsys, ".", PREDICT, "--checkpoint", trained / "teacher" / "last.ckpt", "--csv",
                          csvs / "test.csv", "--out-dir", home, "--accelerator", "cpu", *flags)
        assert code == 0, error
        return [read_mask(home / name, 2) for name in pseudo_label_names(rows)]

    rows = read_rows(csvs / "test.csv")
    own, zero = predict(tmp_path / "own"), predict(tmp_path / "zero", "--eval-codes", "zero")
    assert [mask.shape for mask in own] == [image_size(path) for path in rows["image"]]
    assert any((one != other).any() for one, other in zip(own, zero))
    again = predict(tmp_path / "again", "--draws", 4, "--batch-size", 3)
    assert all((one == other).all() for one, other in zip(own, again))  # whatever the batches
    code, error = run(monkeypatch, capsys, ".", PREDICT, "--checkpoint", trained / "image" / "last.ckpt", "--csv",
                      csvs / "test.csv", "--out-dir", tmp_path / "x")
    assert code == 2 and "--checkpoint" in error and "a checkpoint of train_lad_teacher.py is needed" in error


class LabelAlone(torch.nn.Module):
    """Its logit is the label channel."""

    def forward(self, x):
        return x[:, 3:]


def test_predictions_average_their_draws(csvs, tmp_path):
    """Of a network that repeats its label, by hand: the mean channel of three draws, where it is above 0."""
    rows, names = read_rows(csvs / "test.csv"), pseudo_label_names(read_rows(csvs / "test.csv"))
    args = arguments(csvs, tmp_path)
    vars(args).update(codes="random", eval_codes="own", draws=3, seed=6, batch_size=3, out_dir=str(tmp_path))
    predict(args, start_fabric(args), LabelAlone(), {"size": args.size, "num_classes": 2}, rows, names)
    masks = SegmentationDataset(rows, args.size, 2).__getitems__(list(range(len(rows))))["mask"]
    differ = 0
    for row, name in enumerate(names):
        draws = [label_channel(masks[row:row + 1], 2, seeds=[sample_seed(6, 0, row, 1 + draw)]) for draw in range(3)]
        own = [torch.nn.functional.interpolate(each, image_size(rows["image"].iloc[row]), mode="bilinear")[0, 0] > 0
               for each in (sum(draws) / 3, draws[0])]
        found = torch.from_numpy(read_mask(tmp_path / name, 2)) == 1
        assert torch.equal(found, own[0])
        differ += not torch.equal(found, own[1])
    assert differ


def test_codes_become_random_while_a_teacher_trains(csvs, tmp_path, monkeypatch, capsys):
    """Four epochs of three steps of two draws, half of them the ramp: shares 0, 1/2, 1, 1; scores are of random codes."""
    shares, own = [], assisted.label_channel

    def spying(*inputs, random_share, **more):
        shares.append(random_share)
        return own(*inputs, random_share=random_share, **more)

    monkeypatch.setattr(assisted, "label_channel", spying)
    code, error = run(monkeypatch, capsys, ".", TEACHER, *flags_of(csvs, tmp_path, "run"), "--epochs", 4)
    assert code == 0, error
    assert shares == [0] * 6 + [.5] * 6 + [1] * 12 + [1]  # one batch of 4 test rows


@pytest.mark.parametrize("asked, kind", [([], "random"), (["--codes", "fixed"], "fixed")])
def test_a_result_tells_the_codes_that_the_teacher_got(asked, kind, csvs, trained, tmp_path, monkeypatch, capsys):
    """What the teacher saw in the first epoch, made anew from result.json alone; --codes itself stays as it was asked."""
    seen, own = [], assisted.label_channel

    def spying(mask, *inputs, seeds, **more):
        seen.append((mask, seeds, own(mask, *inputs, seeds=seeds, **more)))
        return seen[-1][2]

    monkeypatch.setattr(assisted, "label_channel", spying)
    code, error = run(monkeypatch, capsys, ".", STUDENT, *flags_of(csvs, tmp_path, "run"), "--seed", 7, "--teacher",
                      trained / "teacher" / "last.ckpt", *asked)
    assert code == 0, error
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    told = result["teacher_codes"]
    assert told["kind"] == kind and result["args"]["codes"] == (kind if asked else None) and len(seen) == 6
    assert sorted(seed for _, seeds, _ in seen[:3] for seed in seeds) == sorted(
        sample_seed(told["seed"], 0, row, 1) for row in range(12))
    for mask, seeds, channel in seen:
        assert torch.equal(channel, label_channel(mask, 2, told["kind"], told["sigma"], told["gain"], seeds))
        if asked:  # the codes as numbers: all pixels within six sigma
            by_class = torch.tensor(told["values"])[torch.where(mask == 255, 2, mask.long())]
            assert (channel[:, 0] / told["gain"] - by_class).abs().max() < 6 * told["sigma"]
    assert kind == "fixed" or "values" not in told


def test_the_channel_shows_other_masks_where_asked(csvs, tmp_path, monkeypatch, capsys):
    """--channel-dir with empty masks: the teacher trains as if its labels were all background."""
    rows = read_rows(csvs / "train_noisy_60.csv")
    for name, mask in zip(pseudo_label_names(rows), rows["mask"]):
        write_mask(tmp_path / "empty" / name, 0 * read_mask(mask, 2))
    args = arguments(csvs, tmp_path, train="train_noisy_60.csv")
    vars(args).update(codes="fixed", codes_ramp=0.0, eval_codes=["own"], channel_dir=str(tmp_path / "empty"))
    task = teacher_task(args)
    batch = task.dataset(task.rows(args, pseudo_dir=args.channel_dir)["train"], args, True).__getitems__([0, 1])
    channel = labelled(task.prepare(batch), 2, "fixed", batch["seeds"][0])[:, 3]
    assert (channel < -.1).all() and (batch["mask"] == 1).any()  # 1.4 x -.15


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_two_processes_give_what_one_gives(which, csvs, trained, tmp_path):
    """Up to rounding, and without batch norm, whose statistics are those of each process."""
    flags = training(which, csvs, tmp_path / "one", trained)
    flags = [flag for flag in flags if flag != "--load" and flag != trained / "image" / "last.ckpt"]
    if which == "student":  # the teacher has the norm of the student here
        run_script("tests/without_batch_norm.py", TEACHER, *flags_of(csvs, tmp_path, "teacher"))
        flags[flags.index("--teacher") + 1] = tmp_path / "teacher" / "last.ckpt"
    run_script("tests/without_batch_norm.py", *flags)
    run_together(tmp_path, "tests/without_batch_norm.py", *flags, "--out-dir", tmp_path / "two")
    losses = [[entry["loss"][0] for entry in epochs_of(tmp_path / home)] for home in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][0] != losses[0][1]
    for name, value in state_of(tmp_path / "one").items():
        torch.testing.assert_close(state_of(tmp_path / "two")[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.slow
def test_the_benchmark_of_judging_coarse_masks_runs(csvs, tmp_path, monkeypatch):
    """Teachers of two folds; the blind and the seeing predictions are of one network."""
    run_benchmark(monkeypatch, "bench_label_assisted.py", "--csv", csvs / "train_noisy_60.csv", "--runs", tmp_path / "runs",
                  "--seeds", 0, "--folds", 2, "--size", 48, 32, "--theta", 1, "--model", "unet", "--width", 4,
                  "--encoder-weights", "none", "--epochs", 2, "--batch-size", 3, "--out", tmp_path / "r.json", "--accelerator",
                  "cpu")
    found = json.loads((tmp_path / "r.json").read_text())["assisted"]
    assert [each["arm"] for each in found] == ["image", "longer", "assisted", "blind", "mending"]
    assert all(0 <= each[figure] <= 1 for each in found for figure in ("auroc", "bf", "miou"))
    names = {path.name for path in (tmp_path / "runs" / "seed0" / "mending" / "pseudo").iterdir()}
    assert len(names) == 12
