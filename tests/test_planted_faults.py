"""Faults planted for benchmarks are what they are called; and the audit's benchmarks run, small."""

import json
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench_fixing
from benchmarks.bench_fixing import label_curve, model_curve, model_lines, ranked_rows
from benchmarks.plant_faults import FAULTS, components_of, plant
from cli.files import UserError, write_rows
from data.make_sample import draw_set
from data.splits import pair_folder
from tests.benchmark_calls import forked, run_benchmark
from tests.conftest import run_script

SIZE = (60, 80)


def picture():
    """Two discs of class 1 and a bar of class 2 over background, and some ignored pixels."""
    y, x = np.mgrid[:SIZE[0], :SIZE[1]]
    labels = np.zeros(SIZE, np.uint8)
    labels[np.hypot(y - 20, x - 20) < 12] = 1
    labels[np.hypot(y - 20, x - 60) < 8] = 1
    labels[50:58, 10:70] = 2
    labels[:3] = 255
    return labels


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_what_it_is_called(fault):
    labels, donor = picture(), np.zeros(SIZE, np.uint8)
    donor[30:46, 30:50] = 2
    binary = np.where(labels == 2, 0, labels).astype(np.uint8)
    given = labels if fault in ("swapped", "extra") else binary
    spoilt, offset = plant(given, fault, 3, np.random.default_rng(3), 0, donor)
    assert spoilt.dtype == np.uint8 and ((spoilt == 255) == (given == 255)).all() and (spoilt != given).any()
    one, other = spoilt == 1, given == 1
    if fault == "loose":
        assert offset == 3 and (one | ~other).all() and one.sum() == pytest.approx(np.pi * (15**2 + 11**2), rel=0.08)
    if fault == "tight":
        assert offset == -3 and (other | ~one).all() and one.sum() == pytest.approx(np.pi * (9**2 + 5**2), rel=0.08)
    if fault == "missing":
        assert len(components_of(one)) == 1 and not one[20, 20] and one[20, 60]
    if fault == "extra":
        added = (spoilt == 2) & (given != 2)
        assert added.sum() == 8 * 10 and len(components_of(spoilt == 2)) == 2
    if fault == "swapped":
        changed = spoilt != given
        assert {*spoilt[changed].tolist()} <= {1, 2} and len(components_of(changed)) == 1
    if fault in ("polygon", "markov"):
        assert np.isnan(offset) and 0.6 < (one & other).sum() / (one | other).sum() < 1


def test_what_fault_a_mask_cannot_have_is_said():
    assert plant(np.zeros(SIZE, np.uint8), "loose", 3, np.random.default_rng(0), 0) is None
    full = np.ones(SIZE, np.uint8)
    assert plant(full, "extra", 3, np.random.default_rng(0), 0, full) is None
    swapped, _ = plant(full, "swapped", 3, np.random.default_rng(0), 0)
    assert not swapped.any()  # binary: foreground and background change places


def test_without_a_background_gaps_go_to_the_nearest_class():
    labels = np.zeros((10, 30), np.uint8)
    labels[:, 10:20], labels[:, 20:] = 1, 2
    spoilt, _ = plant(np.where(labels == 1, 1, labels), "missing", 3, np.random.default_rng(5), None)
    removed = np.setdiff1d(labels, spoilt)
    assert len(removed) == 1
    if removed[0] == 1:
        assert (spoilt[:, 10:14] == 0).all() and (spoilt[:, 16:20] == 2).all()


def test_the_curve_of_fixed_labels_by_hand():
    scores = np.array([[0.5, 0.2], [1, 1], [0.9, 0.6], [1, 1]])
    worst, chance = label_curve(scores, np.array([0, 2, 1, 3]), [0, 0.25, 0.5])
    assert worst == pytest.approx(np.array([[0.85, 0.7], [0.975, 0.9], [1, 1]]))
    assert chance == pytest.approx(np.array([[0.85, 0.7], [0.8875, 0.775], [0.925, 0.85]]))


def test_a_network_on_masks_as_they_are_is_trained_once_for_both_orders(tmp_path, monkeypatch):
    """Its rows are those of both; fixed masks take their row's truth, in each order's own rows."""
    calls = []

    def trained(args, home, name, csv, seed):
        calls.append((name, [Path(mask).name for mask in pd.read_csv(csv)["filename"]]))
        return {"miou": len(calls) / 10, "bf": len(calls) / 20}

    monkeypatch.setattr(bench_fixing, "trained", trained)
    draw_set(tmp_path / "drawn", 4, (32, 32))
    rows = pair_folder(tmp_path / "drawn")
    rows["truth"] = [str(Path(mask).with_name(f"true{number}.png")) for number, mask in enumerate(rows["mask"])]
    names = [Path(mask).name for mask in rows["mask"]]
    found = model_curve(Namespace(rows=4, runs=tmp_path / "runs", shares=[0, 0.5, 0.1]), rows, [2, 0, 1, 3], 0)
    assert [name for name, _ in calls] == ["none", "worst50", "random50"]  # a tenth of four masks is none, too
    assert calls[0][1] == names and calls[1][1] == ["true0.png", names[1], "true2.png", names[3]]
    assert found == {"worst0": [0.1, 0.05], "random0": [0.1, 0.05], "worst10": [0.1, 0.05], "random10": [0.1, 0.05],
                     "worst50": [0.2, 0.1], "random50": [pytest.approx(0.3), pytest.approx(0.15)]}


def test_models_of_the_two_orders_are_compared_seed_by_seed():
    """BF differences .1, .2, .3: mean 20, half width 4.303 x 10 / sqrt 3 = 24.8 points."""
    models = {seed: {"worst20": [0.9, 0.6 + 0.1 * seed], "random20": [0.8, 0.5]} for seed in (0, 1, 2)}
    assert model_lines(models, [0.2]) == [("20 %", "90.0 / 70.0", "80.0 / 50.0", "+20.0 ± 24.8")]


@pytest.mark.parametrize("order, message", [
    ([2, 0, 1], None),
    ([2, 0, 1, 0], r"--ranking .*ranking.csv: rows 3 and 5 have the same mask, .*0.png; remove one of them"),
    ([2, 0], r"ranking.csv: ranks 2 masks, which are not the 3 of .*rows.csv; audit that CSV"),
    ([2, 0, 3], r"ranking.csv: ranks 3 masks, which are not the 3 of .*rows.csv; audit that CSV")])
def test_a_ranking_of_other_rows_or_of_a_row_twice_is_refused(tmp_path, order, message):
    draw_set(tmp_path / "drawn", 4, (32, 32))
    drawn = pair_folder(tmp_path / "drawn")
    write_rows(tmp_path / "rows.csv", drawn[:3])
    write_rows(tmp_path / "ranking.csv", drawn.iloc[order])
    args = Namespace(csv=tmp_path / "rows.csv", ranking=tmp_path / "ranking.csv")
    with pytest.raises(UserError, match=message) if message else nullcontext():
        assert ranked_rows(args, drawn[:3]).tolist() == order


def test_two_rows_of_one_mask_are_named(tmp_path):
    draw_set(tmp_path / "drawn", 3, (32, 32))
    rows = pair_folder(tmp_path / "drawn")
    rows.loc[2, "mask"] = rows.loc[0, "mask"]
    write_rows(tmp_path / "rows.csv", rows)
    args = Namespace(csv=tmp_path / "rows.csv", ranking=tmp_path / "rows.csv")
    with pytest.raises(UserError, match=r"^\S*rows.csv: rows 2 and 4 have the same mask, .*; remove one of them$"):
        ranked_rows(args, rows)


@pytest.mark.parametrize("script, words, message", [
    ("plant_faults.py", ["--levels", 8, 3], "--levels 8 3: the lower one stands first"),
    ("plant_faults.py", ["--rest", "rest.csv", "many"], "--rest rest.csv many: a CSV and a number of rows are needed"),
    ("plant_faults.py", ["--rest", "rest.csv", 1], "0 rows are left; see --limit"),
    ("bench_audit.py", ["--after", "x"], "has no column `truth`; name a CSV of plant_faults.py"),
    ("bench_fixing.py", ["--ranking", "rows.csv"], "has no column `truth`; name a CSV of plant_faults.py")])
def test_faults_of_the_benchmarks_are_told_in_one_line(tmp_path, script, words, message):
    draw_set(tmp_path / "drawn", 3, (64, 64))
    write_rows(tmp_path / "rows.csv", pair_folder(tmp_path / "drawn"))
    words = [tmp_path / word if str(word).endswith(".csv") else word for word in words]
    done = run_script(f"benchmarks/{script}", "--csv", tmp_path / "rows.csv", "--out", tmp_path / "out.json", *words,
                      check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert message in done.stderr.replace(f"{tmp_path}/", "") and not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_the_benchmark_of_the_speed_runs(tmp_path):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed: the benchmark of the audit's speed is NOT TESTED")
    draw_set(tmp_path / "drawn", 6, (64, 64))
    write_rows(tmp_path / "rows.csv", pair_folder(tmp_path / "drawn"))
    run_script("benchmarks/bench_audit_speed.py", "--csv", tmp_path / "rows.csv", "--size", 32, 32, "--full", 64, 64,
               "--rounds", 1, "--out", tmp_path / "speed.json")
    found = json.loads((tmp_path / "speed.json").read_text())
    assert found["masks"] == 6 and all(len(each) == 3 for each in found["seconds"].values()) and len(found["tables"]) == 2


@pytest.mark.slow
def test_the_benchmark_of_the_memory_runs(tmp_path, monkeypatch):
    """Its audits do, and its table of peaks of 100 MiB more with each is that worked out by hand."""
    draw_set(tmp_path / "drawn", 6, (64, 64))
    peaks = iter(range(100, 700, 100))  # trained, after and masks, with 4 masks, then with 6

    measured = []

    def numbered(command, **variables):
        measured.append(forked(command, **variables))
        return 1.0, float(next(peaks))

    def benchmark(*counts):
        run_benchmark(monkeypatch, "bench_audit_memory.py", "--folder", tmp_path / "drawn", "--out", tmp_path / "memory.json",
                      "--size", 32, 32, "--counts", *counts, run_command=numbered)

    benchmark(4, 6)
    found = json.loads((tmp_path / "memory.json").read_text())
    assert found["peak"] == {"4": {"trained": 100, "after": 200, "masks": 300},
                             "6": {"trained": 400, "after": 500, "masks": 600}}
    assert found["tables"]["Judge of 32 x 32 px"][2:] == [  # 300 MiB, 307200 KiB, more with two masks more
        "| trained | 100 | 400 | 153600 |", "| after | 200 | 500 | 153600 |", "| masks | 300 | 600 | 153600 |"]
    assert len(measured) == 6 and all(seconds > 0 and mib > 20 for seconds, mib in measured)  # what it gets outside this test
    with pytest.raises(UserError, match="two numbers that rise, up to 6, are needed"):
        benchmark(6, 4)


@pytest.mark.slow
def test_the_benchmarks_of_the_audit_run(tmp_path, monkeypatch):
    draw_set(tmp_path / "drawn", 24, (64, 64))
    faults, run = tmp_path / "faults.csv", tmp_path / "runs" / "judge"
    tiny = ["--model", "unet", "--width", 4, "--size", 32, 32, "--epochs", 2, "--encoder-weights", "none", "--accelerator",
            "cpu"]
    run_script("benchmarks/plant_faults.py", "--folder", tmp_path / "drawn", "--share", 0.5, "--limit", 20, "--out", faults,
               "--rest", tmp_path / "rest.csv", 4, "--levels", 20, 30)
    table = pd.read_csv(faults)
    assert len(table) == 20 and table["fault"].notna().sum() == 10 and len(pd.read_csv(tmp_path / "rest.csv")) == 4
    assert (table["filename"] != table["truth"])[table["fault"].notna()].all()
    run_script("train_with_own_weight.py", "--train_csv", faults, "--name", "judge", "--out-dir", tmp_path / "runs", *tiny)
    run_script("benchmarks/bench_audit.py", "--csv", faults, "--after", run, "--out", tmp_path / "audit.json")
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["rows"] == 20 and 0 <= found["scores"]["audit"]["auroc"] <= 1 and len(found["tables"]) == 4
    run_script("audit.py", "--csv", faults, "--after", run, "--out", tmp_path / "audit")
    run_benchmark(monkeypatch, "bench_fixing.py", "--csv", faults, "--ranking", tmp_path / "audit" / "ranking.csv",
                  "--test_csv", tmp_path / "rest.csv", "--rows", 12, "--shares", 0, 0.5, "--seeds", 0, 2, "--runs",
                  tmp_path / "fixing", "--out", tmp_path / "fixing.json", *tiny)
    found = json.loads((tmp_path / "fixing.json").read_text())
    assert set(found["models"]) == {"0", "2"}
    for models in found["models"].values():
        assert set(models) == {"worst0", "worst50", "random0", "random50"} and models["worst0"] == models["random0"]
    assert {path.name for path in (tmp_path / "fixing").iterdir()} == {"seed0", "seed2"}
    drawn = [set(pd.read_csv(tmp_path / "fixing" / f"seed{seed}" / "none.csv")["img"]) for seed in (0, 2)]
    assert drawn[0] != drawn[1] and len(drawn[0]) == 12
    assert np.diff(np.array(found["labels"]["random"]), axis=0).min() > 0
