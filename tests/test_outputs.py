"""Outputs appear together or not at all; rows are matched by their files."""

import os
import socket

import numpy as np
import pandas as pd
import pytest

from cli.files import UserError, check_outputs, read_json, together, write_json
from data.pictures import read_mask
from data.rows import pseudo_label_names, read_rows
from engine import prediction
from reports import figures, report_files
from tests import tool_inputs
from tests.script_calls import check, run
from tests.tool_inputs import LEVELS, NETWORK, NOISY_SET, PREDICT, RUNS, SAMPLE, WEIGHTS, contents, refused
from utils.generate_noisy_label import noisy_mask_names

desk = tool_inputs.desk


# --- all at once, or nothing --------------------------------------------------------------------------------------


def test_a_stop_leaves_nothing(desk, monkeypatch, capsys):
    real, written = prediction.write_mask, []

    def stopped(*arguments):
        real(*arguments)
        written.append(arguments[0])
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(prediction, "write_mask", stopped)
    before = contents(desk.folder)
    code, errors = run(monkeypatch, capsys, desk.folder, PREDICT, *NETWORK, "--out-dir", "out")
    assert code == 130 and "interrupted; unfinished outputs are removed" in errors and contents(desk.folder) == before
    assert written[0].name == "0.png" and not written[0].exists()


def test_what_a_killed_tool_left_goes_and_what_lives_stays(desk, monkeypatch, capsys):
    host = socket.gethostname()
    for process in (2**22 + 1, os.getppid(), os.getpid()):
        desk.copy("masks/0.png", f"out/.{host}-{process}.part/9.png")
    check(monkeypatch, capsys, desk.folder, PREDICT, None, *NETWORK, "--out-dir", "out")
    assert sorted(os.listdir(desk.folder / "out")) == [f".{host}-{os.getppid()}.part", *(f"{n}.png" for n in range(4))]


def test_a_sample_of_a_killed_call_does_not_mix_with_the_next(tmp_path, monkeypatch, capsys):
    left = tmp_path / f".{socket.gethostname()}-{os.getpid()}.part" / "sample" / "images"
    left.mkdir(parents=True)
    (left / "0099.jpg").write_bytes(b"of a larger set")
    check(monkeypatch, capsys, tmp_path, SAMPLE, None, "--out", "sample", "--count", 2, "--size", 32, 32)
    assert sorted(path.name for path in tmp_path.rglob("*.*g")) == ["0000.jpg", "0000.png", "0001.jpg", "0001.png"]
    assert os.listdir(tmp_path) == ["sample"]


def test_outputs_appear_together(tmp_path):
    with together() as written_at:
        for name in ("a/1.txt", "2.txt"):
            written_at(tmp_path / name).write_text(name)
        written_at(tmp_path / "3.txt")  # not written after all
        assert not (tmp_path / "a/1.txt").exists() and not (tmp_path / "2.txt").exists()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["2.txt", "a", "a/1.txt"]
    with pytest.raises(UserError, match=r"^/.*/a/1\.txt: too full$"), together() as written_at:
        path = written_at(tmp_path / "a/1.txt")
        path.write_text("new")
        written_at(tmp_path / "b/c/1.txt").write_text("new")
        raise UserError(f"{path}: too full")
    assert (tmp_path / "a/1.txt").read_text() == "a/1.txt" and not (tmp_path / "b").exists()
    with pytest.raises(UserError, match="2.txt/x: cannot be written"), together() as written_at:
        written_at(tmp_path / "2.txt/x")


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path / "closed"))
    (tmp_path / "closed").mkdir()
    with pytest.raises(UserError, match="closed: this folder may not be written to"):
        check_outputs([tmp_path / "closed/new/x.csv"], True)
    check_outputs([tmp_path / "open/new/x.csv"], False)
    (tmp_path / "hard.csv").write_text("x")
    os.link(tmp_path / "hard.csv", tmp_path / "link.csv")
    with pytest.raises(UserError, match="link.csv is read here"):
        check_outputs([tmp_path / "link.csv"], True, [None, tmp_path / "gone.csv", tmp_path / "hard.csv"])


# --- rows are matched by their files ------------------------------------------------------------------------------


def noisy_masks(desk, monkeypatch, capsys, rows):
    desk.write(rows)
    for _ in range(2):  # the second call replaces what the first one made
        check(monkeypatch, capsys, desk.folder, NOISY_SET, None, "--csv", "train.csv", "--out", "n.csv", "--ratio", 1,
              "--overwrite")
    return read_rows("n.csv")


def test_two_rows_of_one_image_get_a_noisy_mask_each(desk, monkeypatch, capsys):
    desk.save_mask(np.zeros((24, 16)), 5)
    rows = noisy_masks(desk, monkeypatch, capsys, desk.rows([0]) + "images/1.jpg,masks/1.png\nimages/1.jpg,masks/5.png\n")
    assert rows["mask"].tolist() == ["n/0.png", "n/1__1.png", "n/1__2.png"]  # the first as ever
    assert read_mask("n/1__1.png").any() and not read_mask("n/1__2.png").any()


def test_two_equal_rows_get_a_noisy_mask_each(desk, monkeypatch, capsys):
    rows = noisy_masks(desk, monkeypatch, capsys, desk.rows([2, 1, 2]))
    assert rows["mask"].tolist() == ["n/2__1.png", "n/1.png", "n/2__2.png"]
    assert all(read_mask(mask).any() for mask in rows["mask"])


def test_noisy_masks_are_named_by_their_rows():
    unique = pd.DataFrame({"image": ["a/1.jpg", "b/1.jpg", "c/2.jpg"]})
    assert noisy_mask_names(unique) == pseudo_label_names(unique) == ["a__1.png", "b__1.png", "c__2.png"]
    same = pd.DataFrame({"image": ["x/1.jpg", "x/1__1.jpg", "x/1.jpg", "x/1__2.jpg", "x/1.jpg"]})
    assert noisy_mask_names(same) == ["1__3.png", "1__1.png", "1__4.png", "1__2.png", "1__5.png"]


def report(desk, monkeypatch, capsys, *flags):
    check(monkeypatch, capsys, desk.folder, "report.py", None, "runs/noisy", "runs/clean", "--out", "report", *flags)
    return read_json(desk.folder / "report/table.json")


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_levels_may_come_in_another_order(desk, monkeypatch, capsys, order):
    desk.levels("noisy.csv", order, LEVELS)
    content = report(desk, monkeypatch, capsys, "--weights", "w.csv", "--noisy-csv", "noisy.csv")
    assert content["weights"]["w"]["auroc"] == 1


def test_levels_of_two_masks_of_one_image_are_told_apart(desk, monkeypatch, capsys):
    rows = "images/0.jpg,masks/0.png,{}\nimages/0.jpg,masks/1.png,{}\n"
    desk.write(rows.format(0.9, 0.1), "w.csv", "img,filename,weight\n")
    turned = "images/0.jpg,masks/1.png,8\nimages/0.jpg,masks/0.png,0\n"
    desk.write(turned, "noisy.csv", "img,filename,iterations\n")
    assert report(desk, monkeypatch, capsys, "--weights", "w.csv", "--noisy-csv", "noisy.csv")["weights"]["w"]["auroc"] == 1


def test_weight_csvs_of_one_name_are_told_apart(desk, monkeypatch, capsys):
    desk.weights("a/w.csv", range(4), WEIGHTS)
    desk.weights("b/w.csv", range(4), WEIGHTS[::-1])
    content = report(desk, monkeypatch, capsys, "--weights", "a/w.csv", "b/w.csv", "--noisy-csv", "noisy.csv")
    assert {name: each["auroc"] for name, each in content["weights"].items()} == {"a/w": 1, "b/w": 0}
    table = (desk.folder / "report/table.md").read_text()
    assert "| a/w | 1.000 |" in table and "| b/w | 0.000 |" in table


def test_names_of_weight_csvs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report_files.names_of(["a/w.csv", "a/v.csv"]) == ["w", "v"] and report_files.names_of([]) == []
    here = f"{tmp_path.parent.name}/{tmp_path.name}"
    assert report_files.names_of(["x/a/w.csv", "y/a/w.csv", "v.csv"]) == ["x/a/w", "y/a/w", f"{here}/v"]
    assert report_files.names_of(["w.csv", "w.txt"]) == ["w.csv", "w.txt"]


def test_weights_with_levels_and_without_stand_in_one_table(desk, monkeypatch, capsys):
    desk.write("".join(f"images/{n}.jpg,masks/{n}.png,{WEIGHTS[n]},{LEVELS[n]}\n" for n in range(4)), "v.csv",
               "img,filename,weight,iterations\n")
    write_json(desk.folder / "w.json", [1])  # belongs to something else
    report(desk, monkeypatch, capsys, "--weights", "w.csv", "v.csv")
    table = (desk.folder / "report/table.md").read_text()
    assert "| weights | AUROC | AUPRC | mean at level all | mean at level 0 | mean at level 6 |" in table
    assert "| w | - | - | 0.625 | - | - |" in table and "| v | 1.000 | 1.000 | - | 0.875 | 0.375 |" in table


def test_a_report_replaces_its_own_and_drops_pictures_of_what_is_gone(desk, monkeypatch, capsys):
    report(desk, monkeypatch, capsys, "--weights", "w.csv", "--pred-dir", "pseudo")
    assert (desk.folder / "report/examples.png").exists()
    assert report(desk, monkeypatch, capsys, "--baseline", "clean", "--clean", "clean")["baseline"] == "clean"
    made = sorted(os.listdir(desk.folder / "report"))
    assert made == ["learning_curves.png", "report.html", "table.csv", "table.json", "table.md"]


def test_a_report_that_cannot_be_drawn_keeps_the_old_one(desk, monkeypatch, capsys):
    report(desk, monkeypatch, capsys, "--weights", "w.csv")

    def broken(*arguments):
        raise UserError("no ink")

    monkeypatch.setattr(figures, "plot_weights", broken)
    refused(monkeypatch, capsys, desk.folder, "report.py", "no ink", *RUNS, "--weights", "w.csv")
