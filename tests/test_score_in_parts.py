"""Weights by parts, on the workers that run tables: byte for byte those of one call."""

import json

import numpy as np
import pytest

from cli.files import write_rows
from data.pictures import read_mask, write_mask
from data.rows import pseudo_label_names, read_rows
from data.splits import pair_folder
from tests.conftest import run_script
from tests.dask_cluster import DaskCluster
from tests.script_calls import answer

PARTS = "reports/score_in_parts.py"


@pytest.fixture
def judged(photos, tmp_path):
    """Ten real masks, every second one moved aside; pseudo-labels that are the masks, one px lower."""
    rows = pair_folder(photos).iloc[:10].reset_index(drop=True)
    better = tmp_path / "better.csv"
    write_rows(better, rows)
    names = pseudo_label_names(rows)
    for number, row in enumerate(rows.itertuples()):
        labels = read_mask(row.mask)
        write_mask(tmp_path / "pseudo" / names[number], np.roll(labels, 1, axis=0))
        rows.loc[number, "mask"] = str(tmp_path / "masks" / f"{number}.png")
        write_mask(rows.loc[number, "mask"], np.roll(labels, labels.shape[1] // 6, axis=1) if number % 2 else labels)
    write_rows(tmp_path / "train.csv", rows)
    return tmp_path


@pytest.fixture
def score(judged, monkeypatch, capsys):
    """A function that runs the script in this process, whose fork server has the libraries: (exit code, stdout, stderr)."""
    def call(*flags):
        return answer(monkeypatch, capsys, PARTS, *flags)

    return call


def command(folder, *flags):
    return ["--csv", folder / "train.csv", "--pred-dir", folder / "pseudo", "--metric", "bf", "--size", 48, 48, *flags]


def test_the_weights_are_those_of_one_call_and_finished_parts_are_kept(judged, score):
    flags = command(judged, "--sharpen", "--truth", judged / "better.csv")
    run_script("utils/get_weight.py", *flags, "--out", judged / "whole.csv")
    call = [*flags, "--parts", 3, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    (code, said, _), home = score(*call), judged / "runs" / "bf"
    assert (home / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()
    whole, apart = (json.loads(path.read_text()) for path in (judged / "whole.json", home / "weight.json"))
    assert apart["spearman"] == whole["spearman"] > 0.5 and apart["fallback"] is whole["fallback"] is None
    assert apart["agreement"] == pytest.approx(whole["agreement"]) and code == 0 and "weights of 10 rows" in said
    weights = read_rows(home / "weight.csv")["weight"]
    assert weights[::2].min() > 0.9 and weights[1::2].max() < 0.1  # sharpened, not the scores of the parts
    (home / "weight.csv").unlink()
    kept = home / "weight.part2of3.csv"
    before = kept.stat().st_mtime_ns
    (home / "weight.part3of3.csv").unlink()
    assert score(*call)[0] == 0
    assert kept.stat().st_mtime_ns == before and (home / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()


def test_parts_of_other_flags_or_pseudo_labels_are_never_joined(judged, score):
    call = [*command(judged), "--parts", 2, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    assert score(*call)[0] == 0
    before = (judged / "runs" / "bf" / "weight.csv").read_bytes()
    code, _, told = score(*call, "--theta", 1)
    assert code == 2 and "--theta" in told and "pass --name" in told
    pseudo = sorted((judged / "pseudo").iterdir())[4]
    write_mask(pseudo, 1 - read_mask(pseudo))
    code, _, told = score(*call)
    assert code == 2 and f"{judged / 'pseudo'} held other files" in told
    assert (judged / "runs" / "bf" / "weight.csv").read_bytes() == before


def test_masks_that_were_mended_are_never_taken_for_those_that_were_scored(judged, score):
    call = [*command(judged), "--parts", 2, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    assert score(*call)[0] == 0
    (judged / "runs" / "bf" / "logs" / "weight.out").unlink()
    assert "weight.csv" in score(*call)[1]  # nothing to do, and no log to show
    mended = judged / "masks" / "5.png"
    write_mask(mended, 1 - read_mask(mended))
    code, _, told = score(*call)
    assert code == 2 and f"{judged / 'train.csv'} held other files" in told


def test_masks_of_another_model_go_by_the_pattern_of_their_names(judged, score):
    for path in sorted((judged / "pseudo").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    pattern = judged / "pseudo" / "{stem}_mask.png"
    rest = ["--csv", judged / "train.csv", "--metric", "bf", "--size", 48, 48]
    run_script("utils/get_weight.py", "--pred-dir", pattern, *rest, "--out", judged / "whole.csv")
    call = [*rest, "--parts", 2, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    assert score("--pred-dir", pattern, *call)[0] == 0
    assert (judged / "runs/bf/weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()
    changed = sorted((judged / "pseudo").iterdir())[4]
    write_mask(changed, 1 - read_mask(changed))
    code, _, told = score("--pred-dir", pattern, *call)
    assert code == 2 and "held other files" in told
    changed.unlink()
    code, _, told = score("--pred-dir", pattern, *call)
    assert code == 2 and "1 of 10 pseudo-labels are missing" in told


@pytest.mark.parametrize("flags, message", [
    (["--shard=1/2"], "--shard: does not go with parts"), (["--parts", 0], "a whole number > 0"),
    (["--pred-dir", "no"], "10 of 10 pseudo-labels are missing, first no/"),
    (["--parts", 11], "--parts 11: "), (["--csv", "no.csv"], "no.csv"),
    (["--metric", "bf", "bm"], "--metric bf bm: parts are scored by one"), (["--metrik", "bf"], "--metrik"),
    (["--truth", "short.csv"], "--truth short.csv: holds other images")])
def test_bad_input_is_refused_at_once(judged, score, monkeypatch, flags, message):
    write_rows(judged / "short.csv", read_rows(judged / "train.csv").iloc[:5])
    monkeypatch.chdir(judged)
    code, _, told = score(*command(judged), "--parts", 2, "--name", "new", *flags)
    assert code == 2 and message in told and told.count("error:") == 1 and not (judged / "runs").exists()


def test_parts_of_another_number_are_told_before_any_is_scored(judged, score):
    old = judged / "runs" / "bf" / "weight.part1of2.csv"
    write_rows(old, read_rows(judged / "train.csv"))
    code, _, told = score(*command(judged), "--parts", 3, "--out", judged / "runs", "--name", "bf")
    assert code == 2 and "weight.part1of2.csv: is a part of another number than --parts 3" in told
    assert not list(old.parent.glob("*of3.csv"))


@pytest.mark.slow
def test_workers_of_a_scheduler_score_the_parts(judged):
    pytest.importorskip("distributed")
    run_script("utils/get_weight.py", *command(judged), "--out", judged / "whole.csv")
    with DaskCluster(judged / "dask", "cores=1") as cluster:
        run_script(PARTS, *command(judged), "--parts", 2, "--scheduler", cluster.file, "--out", judged / "runs", "--name", "bf")
    assert (judged / "runs" / "bf" / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()
