"""The main job's plan: its own flags, flags of every training, and refusals of a second call."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import quick
from cli.files import UserError
from reports.plan import refuse_other_settings, with_needs
from tests.album import HEIGHT, WIDTH, Album
from tests.script_calls import run

TINY = ["--size", HEIGHT, WIDTH, "--model", "unet", "--width", 4, "--encoder-weights", "none", "--epochs=1"]


@pytest.fixture
def album(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    album = Album(tmp_path / "photos")
    for name in ("train.csv", "test.csv"):
        (tmp_path / "photos" / name).unlink()
    return album


def planned(monkeypatch, *flags):
    monkeypatch.setattr("sys.argv", ["quick.py", *map(str, flags)])
    return with_needs([quick.plan(quick.parse())])


def test_every_training_gets_the_flags_and_the_same_masks_choose_its_epoch(album, tmp_path, monkeypatch):
    jobs = planned(monkeypatch, "photos", *TINY, "--lambda-warmup=0")
    trainings = [job for job in jobs if job.command[0].startswith("train_")]
    assert [job.result.parent.name for job in trainings] == ["teacher_unet", "noisy", "kd_bm", "own", "own2", "own3", "clean"]
    for job in trainings:
        assert job.settings["--epochs"] == "1" and job.settings["--width"] == "4"
        assert job.settings["--valid_csv"] == "csv/valid_noisy.csv"  # one rule for all rows, the upper bound included
    warmups = {job.result.parent.name: job.settings.get("--lambda-warmup") for job in trainings}
    assert warmups["kd_bm"] == "0" and set(warmups.values()) == {"0", None}
    assert not (tmp_path / "runs").exists()  # planning writes nothing


@pytest.mark.parametrize("flags, step", [([], "4"), (["--epochs", 30], "10"), (["-e", 2], "1"),
                                         (["-e", 30, "--lr-step", 7], "7")])
def test_the_learning_rate_falls_by_the_length_of_the_training(album, monkeypatch, flags, step):
    """Else it would be nothing long before the last of many epochs."""
    jobs = planned(monkeypatch, "photos", *TINY[:-1], *flags)
    told = {job.settings["--lr-step"] for job in jobs if job.command[0].startswith("train_")}
    assert told == {step} and len({job.settings["--epochs"] for job in jobs if job.command[0].startswith("train_")}) == 1


def test_a_folder_that_has_changed_is_refused(album, tmp_path, monkeypatch):
    split = planned(monkeypatch, "photos", *TINY)[0]
    split.result.parent.mkdir(parents=True)
    split.result.touch()
    split.note_stamp()
    refuse_other_settings(planned(monkeypatch, "photos", *TINY))
    album.save_mask([[0, 1]], 7)
    with pytest.raises(UserError, match="photos held other files or rows; pass --name"):
        refuse_other_settings(planned(monkeypatch, "photos", *TINY))
    with pytest.raises(UserError, match="made without --limit.*asks for 4"):
        refuse_other_settings(planned(monkeypatch, "photos", *TINY, "--limit", 4))


def test_what_is_no_pair_changes_nothing_and_a_mask_drawn_again_does(album, monkeypatch):
    def split():
        return planned(monkeypatch, "photos", *TINY)[0]

    cv2.imwrite("photos/masks/5.bmp", np.zeros((HEIGHT, WIDTH), np.uint8))
    stamp = split().stamp
    (album.folder / "images" / ".DS_Store").write_bytes(b"seen")
    (album.folder / "masks" / "notes.txt").write_text("mine")
    assert split().stamp == stamp
    cv2.imwrite("photos/masks/5.bmp", np.full((HEIGHT, WIDTH), 255, np.uint8))  # as many bytes as before
    assert split().stamp != stamp


def test_two_spellings_of_a_flag_are_one_setting(album, monkeypatch):
    def training(*flags):
        return planned(monkeypatch, "photos", *TINY[:-1], *flags)[-2].settings

    assert training("-e", 3, "--prec", "bf16-mixed") == training("--precision=bf16-mixed", "--epochs", 3)
    assert training("--work", 2) == training()


def test_a_plan_may_listen_to_a_weak_judge(album, monkeypatch):
    jobs = planned(monkeypatch, "photos", *TINY, "--weak-judge", "use")
    told = [job.command[0] for job in jobs if "--weak-judge" in job.command]
    assert sorted(told) == sorted(["utils/get_weight.py", quick.KD])
    told = [job.command[0] for job in planned(monkeypatch, "photos", *TINY) if "--weak-judge" in job.command]
    assert told == [quick.KD]  # the paper's row is there whatever its judge is worth, and the report says so


@pytest.mark.parametrize("flags, message", [
    (["photos", "--name"], "--name: expected one argument"),
    (["photos", "--name", "../x"], "--name ../x: must be a folder inside runs"),
    (["photos", "--learnig-rate=3"], "unrecognized arguments: --learnig-rate=3"),
    (["photos", "--disagree-below", 0.5], "unrecognized arguments: --disagree-below 0.5"),
    (["photos", "--train_csv", "x.csv"], "--train-csv x.csv: is set for each training of the plan, leave it out"),
    (["photos", "-test", "x.csv"], "x.csv: is set for each training of the plan"),
    (["photos", "--resume"], "--resume True: is set for each training"),
    (["photos", "--ratio", 60], "'60' is not a number in 0..1"),
    (["nowhere"], "nowhere: images/ and masks/, or train.csv, valid.csv and test.csv, are needed in it"),
    ([], "the following arguments are required: folder"),
    (["photos", "--size", 0, 0], "--size: '0' is not a whole number > 0"),
])
def test_faults_end_before_anything_is_written(album, tmp_path, monkeypatch, capsys, flags, message):
    before = set(tmp_path.rglob("*"))
    code, errors = run(monkeypatch, capsys, tmp_path, "quick.py", *flags)
    assert code == 2 and message in errors and "Traceback" not in errors
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("flag", [["--ratio", "0.6"], ["--noise", "morphology"], []])
def test_flags_of_noise_are_refused_where_masks_are_taken_as_they_are(album, tmp_path, monkeypatch, capsys, flag):
    """Their defaults too, once they are given."""
    for name in ("train", "valid", "test", "train_truth"):
        album.write(album.rows(range(6)), f"{name}.csv")
    if flag:
        code, errors = run(monkeypatch, capsys, tmp_path, "quick.py", "photos", *TINY, *flag)
        assert code == 2 and f"{flag[0]}: photos holds train_truth.csv" in errors
    else:
        jobs = planned(monkeypatch, "photos", *TINY)
        noisy = [job for job in jobs if job.result.name in ("train_noisy.csv", "valid_noisy.csv")]
        assert len(noisy) == 2 and all("--as-drawn" in job.command for job in noisy)


@pytest.mark.parametrize("name", ["-x", "two words", "\u5c71", "a'b\"c", "$HOME"])
def test_a_folder_of_any_name(album, tmp_path, monkeypatch, name):
    album.folder.rename(tmp_path / name)
    jobs = planned(monkeypatch, f"./{name}", *TINY)
    assert {job.home for job in jobs} == {Path("runs") / name}
