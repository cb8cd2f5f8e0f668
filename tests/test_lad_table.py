"""The comparison of label-assisted distillation: what is run, at which cost, and what is told of it."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.bench_label_assisted import ARMS, difference_lines, machine_words
from cli.files import UserError, write_json
from data.make_scenes import NAMES, draw_scene, shape_mask
from data.rows import read_rows
from related.lad import lad_table, lad_text
from related.lad.lad_plan import AT_EQUAL_COST, TITLES, LadCell, cost_of, pictures, scenes
from reports.plan import with_needs
from tests.script_calls import run


def value_of(job, flag):
    return job.command[len(job.command) - 1 - job.command[::-1].index(flag) + 1]  # the last one counts


def test_costs_by_hand():
    """Epochs 4, 4, 4: LAD takes 12 + 24 + 16 = 52 passes; CE as many in 52 / 3, plain KD in (52 - 12) / 4 epochs."""
    assert cost_of((4, 4, 4), "lad") == cost_of((4, 4, 4), "lad_fixed") == (4, 52)
    assert cost_of((4, 4, 4), "ce") == (4, 12) and cost_of((4, 4, 4), "kd") == cost_of((4, 4, 4), "cwd") == (4, 28)
    assert cost_of((4, 4, 4), "ce_long") == (17, 51)
    assert cost_of((4, 4, 4), "kd_long") == cost_of((4, 4, 4), "cwd_long") == (10, 52)
    for epochs in ((8, 12, 4), (20, 20, 20), (3, 5, 7)):
        for row in AT_EQUAL_COST:
            assert abs(cost_of(epochs, row)[1] - cost_of(epochs, "lad")[1]) <= 2  # half an epoch


def test_students_differ_in_their_teacher_alone(tmp_path):
    cell = LadCell(tmp_path, {}, scenes(tmp_path, 3, Namespace(quick=False, other=[])), 3)
    jobs = {row: cell.student(row) for row in TITLES}
    teacher, image = cell.teacher(), cell.image_net()
    assert teacher.needs[-1] is image and value_of(teacher, "--load") == str(image.result.with_name("last.ckpt"))
    for row, job in jobs.items():
        assert job.needs[-1] is (teacher if row.startswith("lad") else image) or row.startswith("ce")
        assert "--valid_csv" not in job.command and value_of(job, "--seed") == "3"
        for flag in ("--train_csv", "--test_csv", "--model", "--width", "--learning-rate", "--batch-size"):
            assert value_of(job, flag) == value_of(jobs["ce"], flag)
    assert {row for row, job in jobs.items() if "--codes" in job.command} == {"lad_fixed"}
    assert {row for row, job in jobs.items() if "--teacher-kind" in job.command and value_of(job, "--teacher-kind") == "plain"
            } == {"kd", "cwd", "kd_long", "cwd_long"}
    drawn = [job for job in with_needs(jobs.values()) if job.command[0] == "data/make_scenes.py"]
    assert len(drawn) == 1 and value_of(drawn[0], "--seed") == "3"


def test_flags_of_the_user_go_to_every_training_and_win(tmp_path):
    args = Namespace(model="smp_unet", encoder="mobilenet_v2", encoder_weights="w", teacher_encoder="resnet18",
                     teacher_weights=None, epochs=6, teacher_epochs=None, other="--batch-size 4 --precision bf16-mixed".split())
    cell = LadCell(tmp_path, {}, pictures(Path("d"), args), 0)
    for job in with_needs([cell.student(row) for row in TITLES]):
        assert value_of(job, "--batch-size") == "4" and value_of(job, "--precision") == "bf16-mixed"
        teaches = job.result.parent.name in ("teacher", "image_net")
        assert value_of(job, "--encoder") == ("resnet18" if teaches else "mobilenet_v2")
        assert value_of(job, "--encoder-weights") == ("none" if teaches else "w")
        assert value_of(job, "--epochs") == str(cost_of((6, 6, 6), job.result.parent.name)[0] if not teaches else 6)


def content_of(**students):
    """LAD's content with these scores by seed."""
    def rows(scores):
        return {str(seed): {"miou": value, "bf": .5, "seconds": 60.0, "epochs": 4, "passes": 12}
                for seed, value in enumerate(scores)}

    teachers = {label: rows([value] * 3) for label, value in (("image", .5), ("own", .6), ("zero", .4), ("shuffled", .3))}
    return {"args": {"data": "scenes", "quick": False},
            "lad": {"teachers": teachers, "students": {row: rows(scores) for row, scores in students.items()}}}


def finished(job, seconds, **scores):
    write_json(job.result, {"test_last": [scores], "seconds": seconds, "machine": {"device": "d"}})


def test_figures_are_collected_from_the_runs(tmp_path):
    """Seconds are a student's and its teachers'; passes of 8, 12 and 1 epochs: 3, 24 + 4 and 24 + 72 + 4."""
    args = Namespace(home=tmp_path, data=None, quick=False, seeds=[0, 1], rows=["ce", "kd", "lad"], other=["--x", "/a/b.csv"])
    cells = lad_table.plan(args, {})
    for seed, (cell, students) in cells.items():
        finished(cell.image_net(), 100.0, miou=.5, bf=.4)
        finished(cell.teacher(), 200.0, miou=.7, bf=.6, miou_zero=.3, bf_zero=.2, miou_shuffled=.1, bf_shuffled=.05)
        for number, job in enumerate(students.values()):
            finished(job, 10.0 + number, miou=.1 * number, bf=seed)
    found = lad_text.collect(args, cells)
    assert found["args"] == {"seeds": [0, 1], "quick": False, "rows": args.rows, "other": ["--x", "b.csv"], "data": "scenes"}
    teachers, students = found["lad"]["teachers"], found["lad"]["students"]
    assert {label: teachers[label]["1"] for label in teachers} == {
        "image": {"miou": .5, "bf": .4}, "own": {"miou": .7, "bf": .6}, "zero": {"miou": .3, "bf": .2},
        "shuffled": {"miou": .1, "bf": .05}}
    assert students["ce"]["1"] == {"miou": 0, "bf": 1, "seconds": 10, "epochs": 1, "passes": 3}
    assert students["kd"]["0"] == {"miou": .1, "bf": 0, "seconds": 111, "epochs": 1, "passes": 28}
    assert students["lad"]["0"] == {"miou": .2, "bf": 0, "seconds": 312, "epochs": 1, "passes": 100}
    assert "| plain KD, per pixel | 1 | 28 | 1.9 | 0.36 |" in lad_text.text_of(found)  # 111 of 312 seconds


def test_tables_by_hand():
    """LAD - CE: .03, .02, .01: mean 2.0 points, sd 1.0, t(2) = 4.303, half width 2.5: not clear of 0. LAD - KD: 1.0 each."""
    text = lad_text.text_of(content_of(ce=[.50, .51, .52], kd=[.52, .52, .52], lad=[.53, .53, .53]))
    assert "| image and its own label | 60.0 ± 0.0 | +10.0 ± 0.0 |" in text
    assert "| CE, no teacher | 4 | 12 | 1.0 | 1.00 | 51.0 ± 1.0 | - | 50.0 ± 0.0 | - |" in text
    assert "| LAD | 4 | 12 | 1.0 | 1.00 | 53.0 ± 0.0 | +2.0 ± 2.5 | 50.0 ± 0.0 | +0.0 ± 0.0 |" in text
    assert "| CE, no teacher | +2.0 ± 2.5 | +0.0 ± 0.0 | not clear |" in text
    assert "| plain KD, per pixel | +1.0 ± 0.0 | +0.0 ± 0.0 | better |" in text
    assert "| teacher with own label - image alone | +8 | +10.0 | yes |" in text
    assert "| LAD - CE | +2 | +2.0 | yes |" in text
    worse = lad_text.text_of(content_of(ce=[.6, .6, .6], lad=[.53, .53, .53]))
    assert "| worse |" in worse and "| LAD - CE | +2 | -7.0 | no |" in worse


def test_a_finished_table_is_printed_again(tmp_path, monkeypatch, capsys):
    (tmp_path / "table.json").write_text(json.dumps(content_of(ce=[.5], lad=[.6])))
    monkeypatch.setattr("sys.argv", ["lad_table.py", "--json", str(tmp_path / "table.json")])
    lad_table.main()
    assert "| LAD | 4 | 12 | 1.0 | 1.00 | 60.0 | +10.0 |" in capsys.readouterr().out
    for damaged in ({}, {"teachers": {}, "students": {"ce": {}}}, {"teachers": {}, "students": []}):
        (tmp_path / "table.json").write_text(json.dumps({"args": {}, "lad": damaged}))
        with pytest.raises(UserError, match="no table of this script"):
            lad_table.main()


def test_differences_of_judges_by_hand():
    """.03, .02, .01: mean .02, sd .01, t(2) = 4.303, half width .025; a seed without a figure is left out."""
    found = [{"seed": seed, "arm": arm, "auroc": None if seed and arm == "blind" else .5, "spearman": .1, "bf": .7,
              "miou": .6 + (arm == "assisted") * (.03, .02, .01)[seed]} for seed in range(3) for arm in ARMS]
    lines = difference_lines(found, "longer")
    assert len(lines) == 2 + 4 and not any("trained as long as" in line for line in lines)
    assert "| image and mask | +0.000 ± 0.000 | +0.000 ± 0.000 | +0.000 ± 0.000 | +0.020 ± 0.025 |" in lines
    assert "| the same, without the mask | +0.000 | +0.000 ± 0.000 | +0.000 ± 0.000 | +0.000 ± 0.000 |" in lines


def test_predictions_get_the_flags_of_the_machine_alone():
    words = machine_words(["--schedule", "poly", "--precision", "bf16-mixed", "--width", 4, "--accelerator", "cuda"])
    assert words[words.index("--precision") + 1] == "bf16-mixed" and words[words.index("--accelerator") + 1] == "cuda"
    assert not {"--width", "--schedule", "--workers"} & set(words)


@pytest.mark.parametrize("flags, message", [
    (["--rows", "lad"], "--rows: needs ce"), (["--data", "x", "--quick"], "--quick: goes with the drawn scenes"),
    (["--data", "nowhere"], "--data nowhere: has no train.csv"), (["--epochs", "3"], "--epochs: goes with --data"),
    (["--data", "scenes"], "pass --name"), (["--data", "x", "--teacher-weights", "y"], "goes with --teacher-encoder"),
    (["--out", "x", "--name", "../y"], "must be a folder inside x"), (["--epochs", "20"], "--epochs: goes with --data"),
    (["-e", "3"], "--epochs: is set for each training of the plan"), (["-n", "x"], "--name: is set for each training of the"),
    (["--overwrite"], "--overwrite: is set for each")])
def test_flags_that_cannot_be_are_refused(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lad_table.py", *flags])
    with pytest.raises(UserError, match=message):
        lad_table.parse()


# --- scenes -----------------------------------------------------------------------------------------------------


def test_flags_of_trainings_are_not_taken_for_the_beginnings_of_others(monkeypatch):
    monkeypatch.setattr("sys.argv", ["lad_table.py", "--schedule", "step", "-b", "4"])
    args = lad_table.parse()
    assert args.other == ["--schedule", "step", "-b", "4"] and args.scheduler is None
    monkeypatch.setattr("sys.argv", ["lad_table.py", "--seed", "5"])
    with pytest.raises(UserError, match="--seed: is set for each training of the plan"):
        lad_table.parse()


def test_shapes_have_their_areas():
    """Radius 50: disc pi r^2, square 2 r^2, triangle 3 sqrt(3) / 4 r^2."""
    areas = [int(shape_mask(kind, (128, 128), np.array([64, 64]), 50, .3).sum()) for kind in (1, 2, 3)]
    assert areas == pytest.approx([np.pi * 2500, 5000, 3 * np.sqrt(3) / 4 * 2500], rel=.05)


def test_scenes_are_drawn_from_their_seed(tmp_path, monkeypatch, capsys):
    image, mask = draw_scene(np.random.default_rng(0), (48, 48))
    assert image.shape == (48, 48, 3) and set(np.unique(mask)) <= set(range(len(NAMES)))
    assert abs(image[mask == 0].mean() / 255 - .5) < .02 and image[mask == 0].std() / 255 == pytest.approx(.24, abs=.02)
    flags = ["--out", tmp_path / "a", "--train", 3, "--valid", 0, "--test", 2]
    assert run(monkeypatch, capsys, tmp_path, "data/make_scenes.py", *flags)[0] == 0
    rows = read_rows(tmp_path / "a" / "test.csv")
    assert len(rows) == 2 and not (tmp_path / "a" / "valid.csv").exists()
    _, mask = draw_scene(np.random.default_rng([0, 3]), (48, 48))
    assert np.array_equal(cv2.imread(rows["mask"].iloc[0], cv2.IMREAD_UNCHANGED), mask)
    code, error = run(monkeypatch, capsys, tmp_path, "data/make_scenes.py", *flags)
    assert code == 2 and "exists; pass --overwrite" in error
    (tmp_path / "a" / "valid.csv").write_text("image,mask\n")  # of an earlier call
    assert run(monkeypatch, capsys, tmp_path, "data/make_scenes.py", *flags, "--overwrite")[0] == 0
    assert not (tmp_path / "a" / "valid.csv").exists()
    for place, script in (("images/00002.png", "scenes"), ("masks/00002.png", "scenes"), ("images/0002.png", "shapes")):
        own = tmp_path / "own" / script / place
        own.parent.mkdir(parents=True)
        own.write_text("a user's file")
        flags = ["--out", own.parent.parent, "--train", 2, "--test", 2]
        code, error = run(monkeypatch, capsys, tmp_path, f"data/make_{script}.py", *flags)
        assert code == 2 and f"{own} exists" in error and [own] == [path for path in own.parent.rglob("*")]
        own.unlink()
    code, error = run(monkeypatch, capsys, tmp_path, "data/make_scenes.py", "--out", "b", "--size", 8, 48)
    assert code == 2 and "16 px or more are needed" in error
