"""BlindKD's input: sets that are found and augmented as published, and what is refused."""

import sys

import numpy as np
import pytest

from cli.files import UserError
from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import detection, learning, noisy_set
from tests import blindkd_set
from tests.blindkd_set import NAMES, draw_set, read

drawn, call = blindkd_set.drawn, blindkd_set.call


# --- where the data lie -----------------------------------------------------------------------------------------


def test_the_projects_sets_are_found_from_any_working_directory(tmp_path, monkeypatch, call):
    """Though the paths in its CSVs are relative to the project."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    folder = draw_set(tmp_path / "project")
    assert "\ndata/csv/drawn/images/0.png," in (folder / "train_worst.csv").read_text()
    monkeypatch.setattr(noisy_set, "PROJECT", tmp_path / "project")
    assert (call(training, "--n_epoch", 1, "--noise_path", "", home="elsewhere") / "detection.npy").exists()
    assert (call(training, "--n_epoch", 1, "--noise_path", folder / "train_clean.csv", home="other") / "detection.npy").exists()


@pytest.mark.parametrize("name, moves", [("cifar10", (True, 4, "reflect")), ("cifar100", (True, 4, "zero")),
                                         ("digits", (False, 0, "reflect"))])
def test_published_augmentation_goes_by_the_name_of_the_set(drawn, monkeypatch, name, moves):
    flags = ["--dataset", name, "--noise_path", str(drawn)]
    monkeypatch.setattr(sys, "argv", ["blind_knowledge_dist_training.py", *flags])
    args = training.parse()
    assert (args.mirror, args.shift, args.padding) == moves and args.model == "preact_resnet18"
    monkeypatch.setattr(sys, "argv", [sys.argv[0], *flags, "--no-mirror", "--shift", "1", "--padding", "reflect"])
    args = training.parse()
    assert (args.mirror, args.shift, args.padding) == (False, 1, "reflect")


def test_a_set_without_a_name_has_that_of_its_folder(drawn, monkeypatch):
    for path, name in ((drawn, drawn.name), (drawn / "train_worst.csv", drawn.name)):
        monkeypatch.setattr(sys, "argv", ["blind_knowledge_dist_training.py", "--noise_path", str(path)])
        args = training.parse()
        assert (args.dataset, args.name, args.mirror) == (name, f"{name}_worst_seed_0", name.startswith("cifar"))


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, flags, message", [
    (training, ["--noise_type", "aggre"], "--noise_type aggre: .* has no train_aggre.csv; there are clean, worst"),
    (training, ["--noise_path", "nowhere"], "nowhere: no such folder with train_worst.csv; make it with data/prepare_cifar_n"),
    (training, ["--noise_path", "labels.pt"], "--noise_path labels.pt: not a CSV; data/prepare_cifar_n.py makes"),
    (training, ["--val_ratio", 0.001], "--val_ratio 0.001: of 40 rows 0 would validate and 40 train"),
    (training, ["--val_ratio", 1], "--val_ratio 1: of 40 rows 40 would validate and 0 train"),
    (learning, [], "drawn_worst_seed_1: no run of blind_knowledge_dist_training.py; train first"),
    (detection, [], "drawn_worst_seed_1: no run of blind_knowledge_dist_training.py; train first")])
def test_bad_input_is_named(call, tmp_path, script, flags, message):
    (tmp_path / "labels.pt").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        call(script, *flags)
    assert not (tmp_path / "results").exists()


def test_rows_that_changed_since_the_training_are_refused(call, drawn):
    """Other labels in the noisy CSV; the rows of both CSVs in another order; other test rows."""
    call(training)
    kept = {name: (drawn / name).read_text() for name in ("train_worst.csv", "train_clean.csv", "test.csv")}

    def reverse(name):
        header, *lines = kept[name].splitlines(keepends=True)
        (drawn / name).write_text(header + "".join(reversed(lines)))

    try:
        header, first, *lines = kept["train_worst.csv"].splitlines(keepends=True)
        other = first.replace(first.strip().split(",")[1], next(name for name in NAMES if name not in first))
        (drawn / "train_worst.csv").write_text(header + other + "".join(lines))
        with pytest.raises(UserError, match="train_worst.csv: its rows or pictures have changed since the training"):
            call(detection)
        for name in ("train_worst.csv", "train_clean.csv"):
            reverse(name)
        with pytest.raises(UserError, match="train_worst.csv: its rows or pictures have changed since the training"):
            call(detection)
        reverse("test.csv")
        with pytest.raises(UserError, match="test.csv: its rows or pictures have changed since the training"):
            call(learning)
    finally:
        for name, text in kept.items():
            (drawn / name).write_text(text)
    call(detection)
    call(learning)


def test_a_moved_run_goes_on(call):
    folder = call(training, "--n_epoch", 2)
    folder.parent.rename(folder.parent.with_name("kept"))
    assert "results" not in read(folder.parents[1] / "kept" / folder.name / "args.json")
    call(training, "--n_epoch", 2, "--resume", "--results", "kept")
    call(detection, "--results", "kept")


def test_a_picture_never_trains_and_validates(call, drawn):
    text = (drawn / "train_worst.csv").read_text()
    try:
        (drawn / "train_worst.csv").write_text(text + "".join(text.splitlines(keepends=True)[1:]))
        with pytest.raises(UserError, match=r"--val_ratio 0.3 of .*train_worst.csv: \d+ of its 24 images are in"):
            call(training, "--val_ratio", 0.3)
    finally:
        (drawn / "train_worst.csv").write_text(text)


@pytest.mark.parametrize("flags", [["--smooth", 2], ["--fallback", "never"], ["--alpha1", 1.5], ["--min-epoch", -1]])
def test_bad_flags_are_named(call, flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(training, *flags)
    assert stopped.value.code == 2 and f"argument {flags[0]}" in capsys.readouterr().err


def test_a_run_that_goes_on_or_was_trained_otherwise_is_refused(call, drawn):
    folder = call(training, "--n_epoch", 2)
    with pytest.raises(UserError, match="--noise_path .*train_clean.csv: .*_seed_1 was trained on .*train_worst.csv"):
        call(detection, "--noise_path", drawn / "train_clean.csv")
    with pytest.raises(UserError, match="--n_epoch 5: results/drawn_worst_seed_1 was trained with 2"):
        call(learning, "--n_epoch", 5)
    (folder / "detection.npy").unlink()
    with pytest.raises(UserError, match="detection.npy: no such file; the training command with --resume writes it again"):
        call(detection)
    np.save(folder / "detection.npy", np.zeros(39, bool))
    with pytest.raises(UserError, match="detection.npy: has shape .39,., the CSV 40 rows"):
        call(detection)
    (folder / "result.json").unlink()
    for script in (learning, detection):
        with pytest.raises(UserError, match="its training has not finished"):
            call(script)
    with pytest.raises(UserError, match="pass --resume to go on"):
        call(training, "--n_epoch", 2)


def test_published_flags_without_effect_are_told(call, capsys):
    folder = call(training, "--n_epoch", 1, "--print_freq", 50, "--clean_test_freq", 1, "--noisy_val_freq", 10)
    said = capsys.readouterr().out
    assert all(f"--{flag}: has no effect here" in said for flag in ("print_freq", "clean_test_freq", "noisy_val_freq"))
    assert "print_freq" not in read(folder / "args.json")
