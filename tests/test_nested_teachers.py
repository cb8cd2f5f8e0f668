"""Nested teachers: neither their training masks nor their weights depend on the masks that they judge."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench_leak
from cli.files import UserError
from data.rows import pseudo_label_names, read_rows
from engine import folds
from tests.benchmark_calls import run_benchmark
from tests.conftest import run_script
from utils.scoring import score_pairs


def test_each_weight_comes_from_the_pair_that_left_both_folds_out(monkeypatch):
    """Four folds, two rows each; teacher J-K is a fake whose pseudo-labels of fold j agree by 0.JK."""
    trained = []

    def train(args, fabric, home, label, rows, held_out, judged, names, pseudo_dir):
        trained.append((label, sorted(set(fold_of[held_out]))))
        return label

    def score(masks, files, *_):
        (label,) = {Path(file).parent.name.removeprefix("pseudo") for file in files}
        return [float("0." + label.replace("-", ""))] * len(masks)

    monkeypatch.setattr(folds, "train_one", train)
    monkeypatch.setattr(folds, "score_pairs", score)
    fold_of = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    rows = pd.DataFrame({"image": list("abcdefgh"), "mask": list("abcdefgh")})
    args = Namespace(num_classes=2, metric="bf", theta=3.0, size=[8, 8])
    record, weights = folds.nested_round(args, Namespace(barrier=lambda: None), Path("home"), rows, fold_of, list("abcdefgh"))
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert trained == [("{}-{}".format(*pair), list(pair)) for pair in pairs] and len(record) == 6
    expected = [[np.nan, 0.01, 0.02, 0.03], [0.01, np.nan, 0.12, 0.13], [0.02, 0.12, np.nan, 0.23], [0.03, 0.13, 0.23, np.nan]]
    np.testing.assert_allclose(weights[:, :4], expected)
    np.testing.assert_allclose(weights[:, 4:], weights[:, 3::-1])


def test_teachers_whose_masks_all_weigh_0_learn_without_weights(capsys):
    fold_of, weights = np.array([0, 0, 1, 2]), np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [np.nan, np.nan, 0.25, np.nan]])
    assert folds.learnable(weights, fold_of)[:2].tolist() == [[1] * 4, [0.5, 0.5, 0, 0]]
    assert "all weights of 1 of 3 teachers are 0" in capsys.readouterr().out
    assert folds.learnable(weights[1:2], fold_of + 1).tolist() == weights[1:2].tolist()
    assert capsys.readouterr().out == ""


def test_nested_teachers_on_the_command_line(csvs, tmp_path):
    train = csvs / "train_noisy_60.csv"
    run_script("train_teacher.py", "--train_csv", train, "--name", "t", "--out-dir", tmp_path, "--size", 48, 32, "--width", 4,
               "--accelerator", "cpu", "--epochs", 1, "--folds", 3, "--rounds", 2, "--nested")
    home, rows = tmp_path / "t", read_rows(train)
    record, names = json.loads((home / "teacher.json").read_text()), pseudo_label_names(rows)
    mask_of, second, (first,) = dict(zip(names, rows["mask"])), record["folds"], record["earlier_rounds"]
    assert record["nested"] and len(first) == len(second) == 3
    assert sorted(name for fold in second for name in fold["judges"]) == sorted(names)
    for fold, teacher in enumerate(second):
        taught = read_rows(teacher["trained_on"], needs_weights=True)
        own = set(teacher["judges"])
        assert not own & set(pseudo_label_names(taught))
        for name, weight in zip(pseudo_label_names(taught), taught["weight"]):
            other = next(number for number, each in enumerate(second) if name in each["judges"])
            label = "{}-{}".format(*sorted((fold, other)))
            judge = next(each for each in first if each["checkpoint"].endswith(f"fold{label}/best.ckpt"))
            learnt = set(pseudo_label_names(read_rows(judge["trained_on"])))
            assert name not in learnt and not own & learnt  # neither the mask it weighs, nor those judged in the end
            score, = score_pairs([mask_of[name]], [str(home / "round1" / f"pseudo{label}" / name)], 2, "bf", 3.0, (48, 32))
            assert weight == pytest.approx(score)


@pytest.mark.parametrize("flags", [["--rounds", 2], ["--folds", 3], ["--folds", 3, "--rounds", 3]])
def test_nesting_needs_two_rounds_and_three_folds(csvs, tmp_path, flags):
    done = run_script("train_teacher.py", "--train_csv", csvs / "train_noisy_60.csv", "--name", "t", "--out-dir", tmp_path,
                      "--nested", *flags, check=False)
    assert done.returncode == 2 and "--nested needs --rounds 2 and --folds 3" in done.stderr and not (tmp_path / "t").exists()


def test_noise_of_other_flags_or_masks_is_refused(tmp_path, monkeypatch):
    calls = []

    def draw(script, *words):
        calls.append(words[words.index("--ratio") + 1])
        out = Path(words[words.index("--out") + 1])
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()

    monkeypatch.setattr(bench_leak, "python", draw)
    args = {"csv": tmp_path / "train.csv", "ratio": 0.6, "num_classes": 2}
    args["csv"].write_text("img,filename\na.jpg,a.png\n")
    (tmp_path / "other.csv").write_text("img,filename\nb.jpg,b.png\n")
    for _ in range(2):
        assert bench_leak.noisy_csv(Namespace(**args), tmp_path / "seed0", 0) == tmp_path / "seed0" / "csv" / "noisy.csv"
    for other in ({"ratio": 0.3}, {"csv": tmp_path / "other.csv"}, {"num_classes": 3}):
        with pytest.raises(UserError, match="seed0: holds masks of another --csv, --ratio or --num-classes; choose"):
            bench_leak.noisy_csv(Namespace(**{**args, **other}), tmp_path / "seed0", 0)
    (tmp_path / "seed0" / "settings.json").unlink()  # a folder of an older version
    with pytest.raises(UserError, match="noisy.csv: nothing says with which flags it was drawn"):
        bench_leak.noisy_csv(Namespace(**args), tmp_path / "seed0", 0)
    assert calls == [0.6]


@pytest.mark.slow
def test_the_benchmark_of_the_leak_leaves_its_table(csvs, tmp_path, monkeypatch):
    run_benchmark(monkeypatch, "bench_leak.py", "--csv", csvs / "train_noisy_60.csv", "--runs", tmp_path / "runs", "--out",
                  tmp_path / "leak.json", "--seeds", 3, "--size", 48, 32, "--model", "unet", "--width", 4, "--encoder-weights",
                  "none", "--epochs", 3, "--accelerator", "cpu", "-b", 2, "-l", 0.01)
    content = json.loads((tmp_path / "leak.json").read_text())
    arms = [(each["seed"], each["arm"]) for each in content["leak"]]
    assert arms == [(3, "first"), (3, "plain"), (3, "nested"), (3, "leaking")]
    (lines,) = content["tables"].values()
    assert len(lines) == 6 and lines[-1].startswith("| second round, weights by the judged fold alone | ")
    home = tmp_path / "runs" / "seed3"
    first, = json.loads((home / "nested" / "teacher.json").read_text())["earlier_rounds"]
    for fold, judge in enumerate(reversed(first)):  # teachers 0-1, 0-2, 1-2 learnt folds 2, 1, 0
        taught = read_rows(home / "csv" / f"leaking{fold}.csv", needs_weights=True)
        judged = read_rows(home / "csv" / f"judged{fold}.csv")
        assert pseudo_label_names(judged) == pseudo_label_names(read_rows(judge["trained_on"]))  # all that it learnt leaks
        assert sorted(pseudo_label_names(taught)) == sorted(judge["judges"]) and taught["weight"].between(0, 1).all()
