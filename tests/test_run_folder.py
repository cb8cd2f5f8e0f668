"""A finished run is reused for the same rows only; overlapping splits are refused."""

import json

import pandas as pd
import pytest

from cli.files import UserError, write_rows
from data.rows import read_rows
from engine import loop
from tests.conftest import run_script
from tests.small_runs import arguments

TINY = ["--accelerator", "cpu", "--size", 48, 32, "--width", 4, "--epochs", 1, "--batch-size", 4]


def weigh(logits, batch, epoch):
    return [batch["weight"]]


def test_a_finished_run_is_not_reused_for_other_rows(csvs, tmp_path):
    train = tmp_path / "train.csv"
    rows = read_rows(csvs / "train_noisy_60.csv")
    write_rows(train, rows, "iterations")

    def run():
        args = arguments(csvs, tmp_path, "--epochs", "1", "--resume")
        args.train_csv = str(train)
        return loop.run(args, weigh)

    first = run()
    assert run() == json.loads(json.dumps(first))  # the same rows: nothing to do
    write_rows(train, rows.iloc[:5], "iterations")
    with pytest.raises(UserError, match=r"run: cannot resume, .*train.csv holds other rows or files than when the run was "
                                        r"started \(12 rows then, 5 now\); pass --overwrite"):
        run()
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(first))


def test_a_folder_of_redirected_output_is_free_and_its_logs_stay(csvs, tmp_path):
    """`mkdir run; python ... > run/training.log`: the shell makes the file before the script begins."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.log").write_text("said\n")
    loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    (tmp_path / "run" / "notes.txt").write_text("of the old run\n")
    with pytest.raises(UserError, match="run exists; pass --resume"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--overwrite"), weigh)
    assert (tmp_path / "run" / "training.log").read_text() == "said\n" and not (tmp_path / "run" / "notes.txt").exists()


@pytest.mark.parametrize("name", ["notes.txt", "folder.log"])
def test_a_folder_that_holds_more_than_output_is_not_taken_for_a_run(csvs, tmp_path, name):
    path = tmp_path / "run" / name
    path.mkdir(parents=True) if name == "folder.log" else (path.parent.mkdir(), path.write_text("mine"))
    with pytest.raises(UserError, match="run exists and is not a run"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    assert path.exists()


def test_finished_teachers_are_not_reused_for_other_rows(csvs, tmp_path):
    train = tmp_path / "train.csv"
    write_rows(train, read_rows(csvs / "train_noisy_60.csv"), "iterations")
    command = ["train_teacher.py", "--train_csv", train, "--name", "teacher", "--out-dir", tmp_path, "--resume", *TINY]
    run_script(*command)
    assert "finished already" in run_script(*command).stdout
    write_rows(train, read_rows(csvs / "train_noisy_60.csv").iloc[:6], "iterations")
    done = run_script(*command, check=False)
    assert done.returncode == 2 and "holds other rows or files" in done.stderr


@pytest.mark.parametrize("one, other", [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_splits_that_share_a_picture_are_refused(csvs, tmp_path, one, other):
    args = arguments(csvs, tmp_path, train="train_noisy_60.csv")
    rows = read_rows(getattr(args, f"{other}_csv"))
    write_rows(tmp_path / "more.csv", pd.concat([rows, read_rows(getattr(args, f"{one}_csv")).iloc[:1]]))
    setattr(args, f"{other}_csv", str(tmp_path / "more.csv"))
    with pytest.raises(UserError, match=r"more.csv: 1 of its \d+ images are in |: 1 of its \d+ images are in .*more.csv too"):
        loop.run(args, weigh)
    assert not (tmp_path / "run").exists()
