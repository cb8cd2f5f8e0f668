"""What teachers, students and predictions of label-assisted distillation refuse, in one line that names the flag."""

import runpy
import shutil

import pytest

from cli.files import UserError, write_rows
from data.rows import read_rows
from engine import checkpoint
from related.lad.assisted import codes_of
from related.lad.train_lad_teacher import check, teacher_parser
from tests.conftest import ROOT
from tests.script_calls import run
from tests.test_lad import STUDENT, TEACHER, flags_of, trained

trained = trained  # the fixture
PREDICT = "related/lad/predict_lad_teacher.py"


@pytest.mark.parametrize("content, flags, message", [
    ("image", [], "holds a network of images alone; a checkpoint of train_lad_teacher.py is needed, or --teacher-kind plain"),
    ("teacher", ["--teacher-kind", "plain"], "holds a label-assisted teacher; pass --teacher-kind lad"),
    ("three", [], "has 3 classes, --num-classes is 2"),
    ("untrained", [], "its training was stopped within an epoch"), ("infinite", [], "its weights are not finite"),
    ("missing", [], "no such checkpoint")])
def test_teachers_that_cannot_teach_are_refused(content, flags, message, csvs, trained, tmp_path, monkeypatch, capsys):
    path = trained / content / "last.ckpt"
    saved = checkpoint.load(trained / "teacher" / "last.ckpt")
    if content == "untrained":
        path = tmp_path / "new.ckpt"
        checkpoint.save(path, {**saved, "epoch": 0})
    if content == "infinite":
        path = tmp_path / "new.ckpt"
        saved["networks"][0]["state"]["head.bias"].fill_(float("nan"))
        checkpoint.save(path, saved)
    if content == "three":
        path, config = tmp_path / "new.ckpt", {**saved["networks"][0]["config"], "num_classes": 3}
        checkpoint.save(path, {"networks": [{"config": config, "state": checkpoint.build_from(config).state_dict()}]})
    code, error = run(monkeypatch, capsys, tmp_path, STUDENT, *flags_of(csvs, tmp_path, "x"), "--teacher", path, *flags)
    assert code == 2 and message in error and "Traceback" not in error and not (tmp_path / "x").exists()


def test_defaults_of_the_teacher():
    args = teacher_parser().parse_args(["--train_csv", "x", "--name", "x", "--epochs", "7"])
    check(args)
    assert args.eval_codes == ["own"] and args.codes_ramp == .5 and args.consistency == .3 and args.consistency_from == 3
    assert args.kd_stride == 8 and args.aux_weight == .4


@pytest.mark.parametrize("flags, message", [
    (["--eval-codes", "own", "own"], "--eval-codes own own: one of them is named twice"),
    (["--epochs", 1], "--codes-ramp 0.5 --epochs 1: no epoch has random codes"),
    (["--kd-stride", 48], "--kd-stride 48: leaves one value"),
    (["--consistency-from", 2], "--consistency-from 2: the last of 2 epochs is number 1"),
    (["--consistency", 0], "--kd-stride: without --consistency it has no effect"),
    (["--consistency", 0, "--consistency-from", 0], "--consistency-from: without --consistency it has no effect"),
    (["--codes", "fixed", "--codes-ramp", 0], "--codes-ramp: goes with --codes random"),
    (["--aux-weight", 1], "--aux-weight: unet has no auxiliary head")])
def test_flags_of_the_teacher_that_cannot_act_are_refused(flags, message, csvs, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, TEACHER, *flags_of(csvs, tmp_path, "x"), *flags)
    assert code == 2 and message in error and not (tmp_path / "x").exists()


@pytest.mark.parametrize("flags, message", [
    (["--kd-weight", 0], "argument --kd-weight"), (["--kd-stride", 99], "--kd-stride 99: leaves one value"),
    (["--aux-weight", 0.02], "--aux-weight: unet has no auxiliary head"),
    (["--teacher-kind", "plain", "--codes", "fixed"], "--codes: goes with --teacher-kind lad")])
def test_flags_of_the_student_that_cannot_act_are_refused(flags, message, csvs, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, STUDENT, *flags_of(csvs, tmp_path, "x"), "--teacher", "none", *flags)
    assert code == 2 and message in error and not (tmp_path / "x").exists()


def test_another_s_label_needs_another(csvs, trained, tmp_path, monkeypatch, capsys):
    """A single row has none, and codes that nothing is scored by are refused."""
    write_rows(tmp_path / "one.csv", read_rows(csvs / "test.csv")[:1])
    flags = flags_of(csvs, tmp_path, "x")
    code, error = run(monkeypatch, capsys, tmp_path, TEACHER, *flags, "--test_csv", "one.csv", "--eval-codes", "own",
                      "shuffled")
    assert code == 2 and "--eval-codes shuffled:" in error and "one.csv has one row" in error
    code, error = run(monkeypatch, capsys, tmp_path, PREDICT, "--checkpoint", trained / "teacher" / "last.ckpt", "--csv",
                      "one.csv", "--out-dir", "x", "--eval-codes", "shuffled")
    assert code == 2 and "one.csv has one row" in error
    del flags[2:4]  # --test_csv
    code, error = run(monkeypatch, capsys, tmp_path, TEACHER, *flags, "--eval-codes", "zero")
    assert code == 2 and "--eval-codes zero: no rows are scored" in error and not (tmp_path / "x").exists()


@pytest.mark.parametrize("flags, named", [(["--draws", 2], "--draws"), (["--codes", "random"], "--codes")])
def test_zeros_are_not_drawn(flags, named, csvs, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, PREDICT, "--checkpoint", "none", "--csv", csvs / "test.csv", "--out-dir",
                      "x", "--eval-codes", "zero", *flags)
    assert code == 2 and f"{named}: with --eval-codes zero nothing is drawn" in error


def test_a_run_goes_on_with_its_own_teacher_alone(csvs, trained, tmp_path, monkeypatch, capsys):
    """A file that has changed under its name is another teacher."""
    path = tmp_path / "teacher.ckpt"
    shutil.copy(trained / "teacher" / "last.ckpt", path)
    flags = [*flags_of(csvs, tmp_path, "x"), "--teacher", path, "--resume"]
    for _ in range(2):
        assert run(monkeypatch, capsys, tmp_path, STUDENT, *flags)[0] == 0
    saved = checkpoint.load(path)
    saved["networks"][0]["state"]["head.bias"] += 1
    checkpoint.save(path, saved)
    code, error = run(monkeypatch, capsys, tmp_path, STUDENT, *flags)
    assert code == 2 and f"--teacher {path}: the run in" in error and "was begun with another teacher" in error


def test_rows_are_looked_at_before_the_teacher(csvs, tmp_path, monkeypatch, capsys):
    """A teacher of gigabytes is not read for a CSV with a fault."""
    (tmp_path / "bad.csv").write_text("image,mask\nnone.png,none.png\n")
    (tmp_path / "teacher.ckpt").write_bytes(b"x")
    code, error = run(monkeypatch, capsys, tmp_path, STUDENT, *flags_of(csvs, tmp_path, "x"), "--teacher", "teacher.ckpt",
                      "--train_csv", "bad.csv")
    assert code == 2 and "bad.csv" in error and "no such file" in error and "teacher.ckpt" not in error


def test_a_teacher_whose_training_is_not_finished_is_told(csvs, trained, tmp_path, monkeypatch, capsys):
    shutil.copytree(trained / "teacher", tmp_path / "teacher")
    flags = ["--checkpoint", tmp_path / "teacher" / "best.ckpt", "--csv", csvs / "test.csv", "--out-dir", "out", "--draws", 1]
    assert "not finished" not in told(monkeypatch, capsys, tmp_path, *flags)
    (tmp_path / "teacher" / "result.json").unlink()
    assert "best.ckpt: its training is not finished" in told(monkeypatch, capsys, tmp_path, *flags, "--overwrite")


def told(monkeypatch, capsys, folder, *flags):
    """What a prediction prints."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [PREDICT, *map(str, flags)])
    runpy.run_path(str(ROOT / PREDICT), run_name="__main__")
    return capsys.readouterr().out


def test_a_teacher_of_fixed_codes_is_asked_for_no_others():
    assert codes_of("x", {"codes": "random"}, None) == "random"
    assert codes_of("x", {"codes": "random"}, "fixed") == "fixed"  # as the release has it
    assert codes_of("x", {"codes": "fixed"}, None) == "fixed" and codes_of("x", {}, "fixed") == "fixed"
    with pytest.raises(UserError, match="was trained with fixed codes"):
        codes_of("x", {"codes": "fixed"}, "random")
    with pytest.raises(UserError, match="does not say with which codes it was trained; pass --codes"):
        codes_of("x", {}, None)


def test_a_network_that_cannot_be_widened_is_refused(csvs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("models.label_channel.first_convolution", lambda network: None)
    code, error = run(monkeypatch, capsys, tmp_path, TEACHER, *flags_of(csvs, tmp_path, "x"))
    assert code == 2 and "it cannot take one more" in error
