"""What an audit reads is never written over, and what did not come back from a tool is no correction."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pandas as pd
import pytest

import audit
from cli.files import UserError, write_json, write_rows
from data.annotation_exchange import export_task, merge_task
from data.legend import Legend
from data.make_sample import draw_set
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from data.splits import pair_folder
from engine.run_folder import claimed
from reports import audit_judge
from tests.conftest import run_script


@pytest.fixture
def portraits(tmp_path):
    """Rows of four drawn portraits in tmp_path/data."""
    draw_set(tmp_path / "data", 4, (64, 64))
    return pair_folder(tmp_path / "data")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("home, flags", [("proposals", []), ("mended", ["--mend"])])
def test_masks_in_a_folder_of_results_are_not_written_over(portraits, tmp_path, home, flags):
    """The masks were corrected among an earlier audit's results, which --overwrite would replace."""
    for mask in portraits["mask"]:
        write_mask(tmp_path / "out" / home / mask.rsplit("/", 1)[-1], read_mask(mask))
    rows = portraits.assign(mask=[str(tmp_path / "out" / home / mask.rsplit("/", 1)[-1]) for mask in portraits["mask"]])
    write_rows(tmp_path / "rows.csv", rows)
    before = content(tmp_path)
    done = run_script("audit.py", "--csv", tmp_path / "rows.csv", "--pred-dir", tmp_path / "data" / "masks", "--out",
                      tmp_path / "out", "--overwrite", *flags, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and content(tmp_path) == before


def test_a_csv_named_as_the_judges_rows_is_not_written_over(portraits, tmp_path):
    write_rows(tmp_path / "out" / "rows.csv", portraits.assign(weight=0.5), "weight")
    before = content(tmp_path)
    done = run_script("audit.py", "--csv", tmp_path / "out" / "rows.csv", "--out", tmp_path / "out", check=False)
    assert done.returncode == 2 and "rows.csv" in done.stderr and content(tmp_path) == before


def test_a_csv_of_that_name_that_is_no_judges_is_kept(portraits, tmp_path):
    """It lies where the judge's rows go, and nothing of a judge lies beside it."""
    write_rows(tmp_path / "data.csv", portraits)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.csv").write_text("a user's rows")
    done = run_script("audit.py", "--csv", tmp_path / "data.csv", "--out", tmp_path / "out", check=False)
    assert done.returncode == 2 and "rows.csv exists" in done.stderr
    assert content(tmp_path / "out") == {tmp_path / "out" / "rows.csv": b"a user's rows"}


def test_a_judge_whose_training_was_stopped_goes_with_its_own_flags_alone(portraits, tmp_path, monkeypatch):
    """Otherwise the audit says what to do, in its own words: the training's --overwrite and --name are not for its user."""
    write_rows(tmp_path / "data.csv", portraits)
    trained = []

    def stopped(jobs, workers):
        """A training that takes its folder as trainings do, and is stopped."""
        folder = jobs[0].result.parent
        if not trained or not folder.exists():
            with claimed(Namespace(out_dir=folder.parent, name="judge", resume=True, overwrite=False, precision="32-true")):
                write_json(folder / "args.json", {})
        trained.append(jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(audit_judge, "run_plan", stopped)

    def call(*flags):
        words = ["--csv", str(tmp_path / "data.csv"), "--out", str(tmp_path / "out"), *flags]
        monkeypatch.setattr("sys.argv", ["audit.py", *words])
        audit.main()

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            call()
    with pytest.raises(UserError, match="this call asks for 0.01; pass another --out, or remove .*judge to train the"):
        call("--learning-rate", "0.01")
    write_mask(portraits["mask"].iloc[0], 1 - read_mask(portraits["mask"].iloc[0]))
    with pytest.raises(UserError, match="held other files or rows; pass another --out, or remove .*judge to train"):
        call()
    shutil.rmtree(tmp_path / "out" / "judge")  # as it says
    with pytest.raises(KeyboardInterrupt):
        call("--learning-rate", "0.01")
    assert len(trained) == 3


def test_rows_of_another_csv_do_not_matter_where_no_judge_is_trained(portraits, tmp_path):
    write_rows(tmp_path / "data.csv", portraits)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.csv").write_text("a user's rows")
    run_script("audit.py", "--csv", tmp_path / "data.csv", "--pred-dir", tmp_path / "data" / "masks", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "rows.csv").read_text() == "a user's rows"


def test_a_background_that_is_no_class_is_refused(portraits, tmp_path):
    done = run_script("audit.py", tmp_path / "data", "--pred-dir", tmp_path / "data" / "masks", "--background", 7, check=False)
    assert done.returncode == 2 and "there are the classes 0 to 1" in done.stderr


def test_planted_faults_do_not_replace_the_good_masks(portraits, tmp_path):
    before = content(tmp_path)
    for flags in ([], ["--overwrite"]):
        done = run_script("benchmarks/plant_faults.py", "--folder", tmp_path / "data", "--out", tmp_path / "data" / "masks.csv",
                          "--share", 1, *flags, check=False)
        assert done.returncode == 2 and content(tmp_path) == before


@pytest.fixture
def task(tmp_path):
    """A Label Studio task of two pictures, one with a name that an address cannot hold as it is."""
    lines = []
    for name in ("a", "b #1 & ü"):
        labels = np.zeros((20, 30), np.uint8)
        labels[5:15, 5:20] = 1
        write_image(tmp_path / "images" / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
        write_mask(tmp_path / "masks" / f"{name}.png", labels)
        write_mask(tmp_path / "proposals" / f"{name}.png", labels)
        lines.append([str(tmp_path / folder / f"{name}.png") for folder in ("images", "masks", "proposals")])
    write_rows(tmp_path / "rows.csv", pd.DataFrame([line[:2] for line in lines], columns=["image", "mask"]))
    rows = read_rows(tmp_path / "rows.csv").assign(weight=0.25)
    export_task(tmp_path / "task", "labelstudio", rows, [tmp_path / "proposals" / f"{name}.png" for name in ("a", "b #1 & ü")],
                {"num_classes": 2, "background": 0}, Legend(2), rows)
    return tmp_path / "task"


def merged(task):
    return merge_task(task, lambda name: task.parent / "new" / name, lambda name: task.parent / "new" / name)


def test_addresses_are_encoded_and_read_back(task):
    addresses = [each["data"]["image"] for each in json.loads((task / "tasks.json").read_text(encoding="utf-8"))]
    assert "b%20%231%20%26%20%C3%BC.png" in addresses[1] and merged(task)[1:] == (2, 0)


@pytest.mark.parametrize("left", [[], [{"was_cancelled": True, "result": []}]])
def test_a_picture_that_nobody_submitted_did_not_come_back(task, left):
    tasks = json.loads((task / "tasks.json").read_text(encoding="utf-8"))
    tasks[0]["annotations"] = left
    (task / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    table, back, changed = merged(task)
    assert (back, changed) == (1, 0) and list(table["weight"]) == [0.25, 1] and not (task.parent / "new").exists()
