"""Reports and teachers that are refused change no file."""

import pytest

from cli.files import write_json
from engine import cache_memory
from tests import tool_inputs
from tests.run_results import run_of
from tests.script_calls import TINY
from tests.tool_inputs import LEVELS, RUNS, TEACHER, WEIGHTS, named, refused

desk = tool_inputs.desk

# (name, what prepares the desk, words of the message, flags)

REPORTS = [
    ("an unknown baseline", None, "--baseline nosy: no run has this name; there are noisy, clean",
     [*RUNS, "--baseline", "nosy"]),
    ("a baseline by its folder", None, "there are noisy, clean", [*RUNS, "--baseline", "runs/noisy"]),
    ("unknown clean runs", None, "--clean pure: no run has this name; there are noisy, clean", [*RUNS, "--clean", "pure"]),
    ("clean runs that are not there", None, "--clean clean: no run has this name; there are noisy",
     ["runs/noisy", "--out", "report", "--clean", "clean"]),
    ("levels of fewer rows", lambda d: d.levels("few.csv", range(3), LEVELS), "few.csv: holds other rows than w.csv",
     [*RUNS, "--weights", "w.csv", "--noisy-csv", "few.csv"]),
    ("levels of more rows", lambda d: d.levels("many.csv", range(5), (*LEVELS, 6)), "many.csv: holds other rows than w.csv",
     [*RUNS, "--weights", "w.csv", "--noisy-csv", "many.csv"]),
    ("levels of other rows", lambda d: d.levels("other.csv", (0, 1, 2, 5), (0, 0, 6, 0, 0, 0)), "other.csv: holds other rows",
     [*RUNS, "--weights", "w.csv", "--noisy-csv", "other.csv"]),
    ("levels of other masks", lambda d: d.write("".join(f"images/{n}.jpg,pseudo/{n}.png,0\n" for n in range(4)), "other.csv",
                                                "img,filename,iterations\n"), "other.csv: holds other rows",
     [*RUNS, "--weights", "w.csv", "--noisy-csv", "other.csv"]),
    ("levels of one row twice", lambda d: d.levels("twice.csv", (0, 1, 2, 2), LEVELS), "or has it so often",
     [*RUNS, "--weights", "w.csv", "--noisy-csv", "twice.csv"]),
    ("no levels", None, "no column `iterations`", [*RUNS, "--weights", "w.csv", "--noisy-csv", "train.csv"]),
    ("levels of no weights", None, "go with --weights", [*RUNS, "--noisy-csv", "noisy.csv"]),
    ("pseudo-labels of no weights", None, "go with --weights", [*RUNS, "--pred-dir", "pseudo"]),
    ("one weight CSV twice", None, "./w.csv is named twice", [*RUNS, "--weights", "./w.csv", "w.csv"]),
    ("a pseudo-label missing", lambda d: (d.folder / "pseudo/0.png").unlink(), "pseudo/0.png",
     [*RUNS, "--weights", "w.csv", "--pred-dir", "pseudo"]),
    ("into a file", None, "x.ckpt is a file and cannot be", [*RUNS[:3], "x.ckpt"]),
    ("over somebody else's pictures", lambda d: d.copy("masks/0.png", "report/noise.png"), "noise.png exists and is not of a",
     RUNS),
    ("over somebody else's table", lambda d: write_json(d.folder / "report/table.json", [1]),
     "report/table.json: the key `classes` is missing",
     RUNS),
    ("over a weight CSV", lambda d: d.weights("report/table.csv", range(4), WEIGHTS), "table.csv is read here",
     [*RUNS, "--weights", "report/table.csv"]),
    ("over a mask", lambda d: (d.copy("masks/0.png", "report/noise.png"), d.write(
        "images/0.jpg,report/noise.png,1\n", "v.csv", "img,filename,weight\n")), "noise.png is read here",
     [*RUNS, "--weights", "v.csv"]),
    ("an unfinished run", lambda d: (d.folder / "runs/clean/result.json").unlink(), "runs/clean: no result.json", RUNS),
    ("no runs", None, "pass the folders of finished runs", ["--out", "report"]),
    ("a table.json and runs", lambda d: d.spoil("t.json"), "--json prints the tables of a file", [*RUNS, "--json", "t.json"]),
    ("a table.json of something else", lambda d: write_json(d.folder / "t.json", {"classes": 1, "runs": 2}),
     "t.json: not a table.json of a report", ["--json", "t.json"]),
    ("a table.json of no runs", lambda d: write_json(d.folder / "t.json", {"classes": ["a", "b"], "runs": {}}),
     "t.json: not a table.json of a report", ["--json", "t.json"]),
    ("a table.json and an unknown baseline", lambda d: write_json(d.folder / "t.json", {
        "classes": ["a", "b"], "args": {}, "runs": {"n": run_of("noisy")}}), "--baseline x: no run has this name",
     ["--json", "t.json", "--baseline", "x"]),
    ("several tables and no row", None, "of several files, name the runs to tabulate with --rows",
     ["--json", "t.json", "u.json"]),
    ("rows of no table", None, "--rows goes with --json", [*RUNS, "--rows", "noisy"]),
    ("rows by another baseline", None, "--rows takes each table's own baseline",
     ["--json", "t.json", "--rows", "n", "--clean", "c"]),
    ("one table twice", lambda d: write_json(d.folder / "t.json", {"classes": 1, "runs": {}}), "--json: t.json is named twice",
     ["--json", "t.json", "t.json", "--rows", "n"]),
    ("a table.json of runs without scores", lambda d: write_json(d.folder / "t.json", {
        "classes": ["a", "b"], "args": {}, "runs": {"n": {**run_of("noisy"), "test_last": []}}}),
     "t.json: not a table.json of a report", ["--json", "t.json"]),
    ("rows of a table whose baseline is lost", lambda d: write_json(d.folder / "t.json", {
        "classes": ["a", "b"], "args": {}, "baseline": "lost", "runs": {"n": run_of("noisy")}}),
     "t.json: not a table.json of a report (ValueError: no run has the name of its baseline, lost)",
     ["--json", "t.json", "--rows", "noisy"]),
    ("rows of something else", lambda d: write_json(d.folder / "t.json", {"classes": 1, "runs": 2}),
     "t.json: not a table.json of a report", ["--json", "t.json", "--rows", "n"]),
]

TEACH = ["--train_csv", "train.csv", "--folds", 2, *TINY]
TEACHERS = [
    ("valid = train", None, "train.csv", [*TEACH, "--valid_csv", "train.csv"]),
    ("test rows among the training rows", lambda d: d.write(d.rows([3, 4]), "test.csv"), "test.csv: 1 of its 2 images",
     [*TEACH, "--test_csv", "test.csv"]),
    ("a broken mask", lambda d: d.spoil("masks/1.png"), "row 3: masks/1.png", TEACH),
    ("no encoder of that name", None, "encoder 'abacus'", [*TEACH, "--model", "smp_unet", "--encoder", "abacus"]),
    ("no checkpoint", None, "nowhere.ckpt: no such checkpoint", [*TEACH, "--load", "nowhere.ckpt"]),
    ("a size that is too small", None, "too little for the network", [*TEACH, "--size", 1, 7]),
    ("rows to predict that are broken", lambda d: d.spoil("images/5.jpg"), "images/5.jpg: not a readable image",
     ["--train_csv", "train.csv", "--folds", 1, "--predict_csv", "test.csv", *TINY]),
]


@pytest.mark.parametrize("prepare, message, flags", named(REPORTS))
def test_reports_refuse_and_leave_nothing(desk, monkeypatch, capsys, prepare, message, flags):
    if prepare:
        prepare(desk)
    refused(monkeypatch, capsys, desk.folder, "report.py", message, *flags)


@pytest.mark.parametrize("prepare, message, flags", named(TEACHERS))
def test_teachers_refuse_and_leave_no_run(desk, monkeypatch, capsys, prepare, message, flags):
    if prepare:
        prepare(desk)
    refused(monkeypatch, capsys, desk.folder, TEACHER, message, *flags)


def test_teachers_whose_cache_is_too_large_leave_no_run(desk, monkeypatch, capsys):
    monkeypatch.setattr(cache_memory, "free_memory", lambda: 0)
    refused(monkeypatch, capsys, desk.folder, TEACHER, "--cache: ", *TEACH, "--cache")


def test_refused_teachers_leave_the_run_that_they_would_replace(desk, monkeypatch, capsys):
    write_json(desk.folder / "runs/run/args.json", {})
    write_json(desk.folder / "runs/run/teacher.json", {})
    refused(monkeypatch, capsys, desk.folder, TEACHER, "train.csv", *TEACH, "--valid_csv", "train.csv", "--overwrite")
