"""The comparison of NLIS with its rivals: what is run, and what is told of it."""

import json
from pathlib import Path

import pytest

from cli.files import UserError
from related.nlis import detector_table, nlis_table, roi_table
from related.nlis.detector_plan import SHAPES, photographs
from related.nlis.roi_plan import NOISE, RoiCell
from reports.comparison_files import run_and_write
from reports.plan import Job, with_needs
from reports.workers import LocalWorkers


def words(job):
    return " ".join(job.command)


def value_of(job, flag):
    return job.command[job.command.index(flag) + 1]


def test_rows_of_a_cell_go_on_from_one_network_and_differ_in_their_loss_alone(tmp_path):
    shared = {}
    jobs = {row: RoiCell(tmp_path, shared, "SN50", 1).row(row) for row in roi_table.ROWS["SN50"]}
    stage1 = {next(need for need in job.needs if need.result.parent.name == "stage1") for job in jobs.values()}
    assert len(stage1) == 1
    first = stage1.pop()
    assert value_of(first, "--loss") == "ce" and value_of(first, "--lr-step") == value_of(first, "--epochs") == "12"
    for row, job in jobs.items():
        assert value_of(job, "--load") == str(first.result.with_name("last.ckpt")) and value_of(job, "--stage1-epochs") == "0"
        assert value_of(job, "--epochs") == "24" and value_of(job, "--lr-step") == "16"
        assert value_of(job, "--train_csv") == (str(tmp_path / "SN50/seed1/trust/weights.csv") if row == "weighted" else
                                                str(tmp_path / "digits/train_SN50_1.csv"))
    assert "--pon-threshold 6" in words(jobs["pon"]) and "--weighted" in words(jobs["weighted"])
    plain = words(jobs["nlis"]).replace("nlis/result", "X")
    assert words(jobs["sce"]).replace("--name sce", "--name nlis").replace("--loss sce", "--loss nlis") == plain
    noise = [job for job in with_needs(jobs.values()) if job.command[0] == "utils/class_noise.py"]
    assert len(noise) == 1 and "--keep background" in words(noise[0]) and "--seed 1" in words(noise[0])


def test_no_training_reads_true_labels_or_flips(tmp_path):
    shared = {}
    roi_table.plan(tmp_path, [0, 1], False, shared)
    detector_table.plan(tmp_path, SHAPES, [0, 1], False, shared)
    trainings = [job for job in shared.values() if "train" in Path(job.command[0]).name]
    assert len(trainings) > 40 and not any("flips" in words(job) for job in shared.values())
    for job in trainings:
        clean = "/clean/" in words(job)
        assert ("train_clean.csv" in words(job)) == clean and "shapes/data/train.json" not in words(job)
    assert len({job.result for job in shared.values()}) == len(shared)
    assert {RoiCell(tmp_path, {}, noise, 0).csv.name for noise in NOISE} == {
        "train_SN50_0.csv", "train_AN40_0.csv", "train_clean.csv", "train_random_0.csv"}


def test_detectors_are_forked_and_judged_out_of_fold(tmp_path):
    jobs = detector_table.plan(tmp_path, SHAPES, [3, 4], False, {})
    assert {key for key in jobs if key[0] != "trust"} == {("ce", 50, 3), ("ce", 50, 4), ("nlis", 50, 3), ("nlis", 50, 4),
                                                          ("weighted", 50, 3)}
    assert {key[1:] for key in jobs if key[0] == "trust"} == {(rate, 3) for rate in (20, 40, 50, 60)}
    assert value_of(jobs["ce", 50, 4], "--load") == value_of(jobs["nlis", 50, 4], "--load")
    assert jobs["trust", 50, 3] in jobs["weighted", 50, 3].needs and "--weighted" in words(jobs["weighted", 50, 3])
    assert value_of(jobs["weighted", 50, 3], "--train_csv").endswith("shapes/SN50/seed3/trust/weights.json")
    quick = detector_table.plan(tmp_path, SHAPES, [0], True, {})
    assert set(quick) == {("ce", 50, 0), ("nlis", 50, 0), ("trust", 20, 0)} and value_of(quick["ce", 50, 0], "--epochs") == "1"
    found = photographs(Path("x.json"), Path("w.safetensors"))
    assert "w.safetensors" in map(str, found.flags) and "--encoder-weights" not in photographs(Path("x.json"), None).flags


def rois(**scores):
    return {row: {str(seed): {"class_accuracy": value, "foreground_accuracy": .9, "seconds": 1, "sets": {}}
                  for seed, value in enumerate(values)} for row, values in scores.items()}


def test_tables_by_hand():
    """NLIS - CE: .3 and .1, mean .2, sd .1414, t(1) = 12.706: half width 127.1 points."""
    text = roi_table.text_of({"SN50": rois(ce=[.5, .6], nlis=[.8, .7])})
    assert "| cross-entropy (CE) | 55.0 ± 7.1 | - | 90.0 ± 0.0 | - |" in text
    assert "| NLIS | 75.0 ± 7.1 | +20.0 ± 127.1 | 90.0 ± 0.0 | +0.0 ± 0.0 |" in text
    rows = {row: {"0": {"ap": .3, "ap50": ap50, "ap75": .2, "seconds": 1, "sets": {}}}
            for row, ap50 in (("ce", .5), ("nlis", .6))}
    content = {"rows": rows, "trust": {"20": {"0": {"auroc": .9, "auprc": .7, "wrong": .21}}}}
    text = detector_table.text_of(content, "shapes")
    assert "| NLIS | 1 | 30.0 | 60.0 | 20.0 | +10.0 |" in text and "| 20 % | 90.0 | 70.0 | 21.0 |" in text


def test_a_finished_table_is_printed_again(tmp_path, monkeypatch, capsys):
    content = {"args": {}, "machine": {}, "rois": {"clean": rois(ce=[.9], nlis=[.8])}}
    (tmp_path / "table.json").write_text(json.dumps(content))
    monkeypatch.setattr("sys.argv", ["nlis_table.py", "--json", str(tmp_path / "table.json")])
    nlis_table.main()
    assert "| NLIS | 80.0 | -10.0 | 90.0 | +0.0 |" in capsys.readouterr().out
    (tmp_path / "table.json").write_text(json.dumps({"args": {}, "machine": {}, "lad": {}}))
    with pytest.raises(UserError, match="no table of this script"):
        nlis_table.main()


@pytest.mark.parametrize("flags, message", [
    (["--photos", "none"], "--photos none: has no instances.json"),
    (["--parts", "coco200"], "--parts coco200: needs --photos DIR"),
    (["--encoder-weights", "x.pth"], "--encoder-weights x.pth: is of the part coco200, which needs --photos DIR"),
    (["--photos", ".", "--parts", "rois"], "--photos .: is of the part coco200, which --parts leaves out"),
    (["--photos", ".", "--encoder-weights", "x.pth"], "--encoder-weights x.pth: no such file")])
def test_photographs_that_are_asked_for_must_be_there(flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instances.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["nlis_table.py", *flags])
    with pytest.raises(UserError, match=message):
        nlis_table.parse()


def test_without_photographs_their_part_is_left_out_aloud(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["nlis_table.py"])
    assert nlis_table.parse().parts == ["rois", "shapes"] and "the part coco200 is left out" in capsys.readouterr().out
    (tmp_path / "instances.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["nlis_table.py", "--photos", str(tmp_path)])
    args = nlis_table.parse()
    assert args.parts == ["rois", "shapes", "coco200"] and not capsys.readouterr().out
    jobs = nlis_table.plan(args, "coco200", {})
    first = with_needs(jobs.values())[0]
    assert first.command[:2] == ["data/prepare_coco.py", str(tmp_path / "instances.json")]


def test_the_tables_of_a_comparison_are_written_once_its_jobs_are_done(tmp_path, capsys):
    """A job that leaves a file, whose content the table tells; while it runs, the folder is locked."""
    code = f"import pathlib; h = pathlib.Path({str(tmp_path)!r}); (h / 'x.txt').write_text(str((h / '.lock').exists()))"
    job = Job(["-c", code], tmp_path / "x.txt", [], tmp_path / "x.out", tmp_path)
    run_and_write(tmp_path, [job], LocalWorkers(), lambda: {"told": (tmp_path / "x.txt").read_text()},
                  lambda found: f"T {found['told']}")
    assert json.loads((tmp_path / "table.json").read_text()) == {"told": "True"} and not (tmp_path / ".lock").exists()
    assert (tmp_path / "table.md").read_text() == "T True\n" and "T True\ntables: " in capsys.readouterr().out
