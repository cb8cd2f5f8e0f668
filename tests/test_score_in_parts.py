"""Weights by parts, on the workers that run tables: byte for byte those of one call."""

import json

import numpy as np
import pytest

from cli.files import write_rows
from data.pictures import read_mask, write_mask
from data.rows import read_rows
from data.splits import pair_folder
from tests.conftest import run_script
from tests.dask_cluster import DaskCluster

PARTS = "reports/score_in_parts.py"


@pytest.fixture
def judged(photos, tmp_path):
    """Ten real masks, every second one moved aside; pseudo-labels that are the masks, one px lower."""
    rows = pair_folder(photos).iloc[:10].reset_index(drop=True)
    better = tmp_path / "better.csv"
    write_rows(better, rows)
    for number, row in enumerate(rows.itertuples()):
        labels = read_mask(row.mask)
        write_mask(tmp_path / "pseudo" / f"{row.image.rsplit('/', 1)[1].rsplit('.', 1)[0]}.png", np.roll(labels, 1, axis=0))
        rows.loc[number, "mask"] = str(tmp_path / "masks" / f"{number}.png")
        write_mask(rows.loc[number, "mask"], np.roll(labels, labels.shape[1] // 6, axis=1) if number % 2 else labels)
    write_rows(tmp_path / "train.csv", rows)
    return tmp_path


def command(folder, *flags):
    return ["--csv", folder / "train.csv", "--pred-dir", folder / "pseudo", "--metric", "bf", "--size", 48, 48, *flags]


def test_the_weights_are_those_of_one_call_and_finished_parts_are_kept(judged):
    flags = command(judged, "--sharpen", "--truth", judged / "better.csv")
    run_script("utils/get_weight.py", *flags, "--out", judged / "whole.csv")
    call = [PARTS, *flags, "--parts", 3, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    done, home = run_script(*call), judged / "runs" / "bf"
    assert (home / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()
    whole, apart = (json.loads(path.read_text()) for path in (judged / "whole.json", home / "weight.json"))
    assert apart["spearman"] == whole["spearman"] > 0.5 and apart["fallback"] is whole["fallback"] is None
    assert apart["agreement"] == pytest.approx(whole["agreement"]) and "weights of 10 rows" in done.stdout
    weights = read_rows(home / "weight.csv")["weight"]
    assert weights[::2].min() > 0.9 and weights[1::2].max() < 0.1  # sharpened, not the scores of the parts
    (home / "weight.csv").unlink()
    kept = home / "weight.part2of3.csv"
    before = kept.stat().st_mtime_ns
    (home / "weight.part3of3.csv").unlink()
    run_script(*call)
    assert kept.stat().st_mtime_ns == before and (home / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()


def test_parts_of_other_flags_or_pseudo_labels_are_never_joined(judged):
    call = [PARTS, *command(judged), "--parts", 2, "--jobs", 1, "--out", judged / "runs", "--name", "bf"]
    run_script(*call)
    before = (judged / "runs" / "bf" / "weight.csv").read_bytes()
    other = run_script(*call, "--theta", 1, check=False)
    assert other.returncode == 2 and "--theta" in other.stderr and "pass --name" in other.stderr
    pseudo = sorted((judged / "pseudo").iterdir())[4]
    write_mask(pseudo, 1 - read_mask(pseudo))
    changed = run_script(*call, check=False)
    assert changed.returncode == 2 and f"{judged / 'pseudo'} held other files" in changed.stderr
    assert (judged / "runs" / "bf" / "weight.csv").read_bytes() == before
    for flags, message in ((["--shard=1/2"], "--shard: does not go with parts"), (["--parts", 0], "a whole number > 0"),
                           (["--pred-dir", judged / "no"], "--pred-dir "), (["--parts", 11, "--name", "many"], "only 10 rows")):
        wrong = run_script(*call, *flags, check=False)
        assert wrong.returncode == 2 and message in wrong.stderr and "Traceback" not in wrong.stderr, flags


@pytest.mark.slow
def test_workers_of_a_scheduler_score_the_parts(judged):
    pytest.importorskip("distributed")
    run_script("utils/get_weight.py", *command(judged), "--out", judged / "whole.csv")
    with DaskCluster(judged / "dask", "cores=1") as cluster:
        run_script(PARTS, *command(judged), "--parts", 2, "--scheduler", cluster.file, "--out", judged / "runs", "--name", "bf")
    assert (judged / "runs" / "bf" / "weight.csv").read_bytes() == (judged / "whole.csv").read_bytes()
