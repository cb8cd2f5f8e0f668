"""Runs on class labels that are stopped, compared, shared by processes, or trained on photographs."""

import json
import os
import signal

import cv2
import numpy as np
import pandas as pd
import pytest

from cli.files import UserError
from engine import loop
from engine.classification import CLASSIFICATION
from tests import class_runs
from tests.class_runs import SIZES, arguments, flags_of, train
from tests.conftest import run_script
from tests.processes import run_together
from tests.small_runs import digests, epochs_of

digits = class_runs.digits


# --- kept and resumed -------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_amid_an_epoch_as_if_nothing_had_happened(digits, tmp_path, interruptible):
    def run(home, at=None):
        steps = iter(range(1000))

        def weigh(logits, batch, epoch):
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return [batch["weight"]]

        args = arguments(digits, tmp_path / home, "--shift", "1", "--mirror", *["--resume"] * (at is not None))
        loop.run(args, weigh, needs_weights=True, task=CLASSIFICATION)

    run("whole")
    for at in (1, 0, 2):
        with pytest.raises(KeyboardInterrupt, match="stopped in epoch"):
            run("broken", at)
    run("broken", 999)
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")
    assert epochs_of(tmp_path / "broken") == epochs_of(tmp_path / "whole")


def test_a_run_is_not_resumed_with_other_labels(digits, tmp_path):
    copy = tmp_path / "train.csv"
    table = pd.read_csv(digits / "train.csv")
    table["image"] = [str(digits / name) for name in table["image"]]

    def run(*flags):
        table.to_csv(copy, index=False)
        args = arguments(digits, tmp_path, "--train_csv", str(copy), "--epochs", "1", *flags)
        return loop.run(args, lambda logits, batch, epoch: [batch["weight"]], task=CLASSIFICATION)

    first = run()
    assert run("--resume") == first
    table.loc[5, "label"] = (table["label"][5] + 1) % 10
    with pytest.raises(UserError, match="holds other rows or files"):
        run("--resume")
    assert first["test_set"] == run("--overwrite")["test_set"]


def test_test_sets_differ_by_their_labels(digits, tmp_path):
    table = pd.read_csv(digits / "test.csv")
    table["image"] = [str(digits / name) for name in table["image"]]
    table.loc[5, "label"] = (table["label"][5] + 1) % 10
    table.to_csv(tmp_path / "test.csv", index=False)
    found = [loop.run(arguments(digits, tmp_path / name, "--epochs", "1", *flags),
                      lambda logits, batch, epoch: [batch["weight"]], task=CLASSIFICATION)["test_set"]
             for name, flags in (("a", []), ("b", ["--test_csv", str(tmp_path / "test.csv")]))]
    assert found[0] != found[1]


@pytest.mark.slow
def test_two_processes_train_and_score_every_row_once(digits, tmp_path):
    flags = flags_of(digits, tmp_path, "--shift", "1", "--devices", "2")
    run_together(tmp_path, "train_without_weight.py", *flags)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["machine"]["processes"] == 2 and result["test"][0]["images"] == SIZES["test"]
    again = run_script("evaluate.py", "--checkpoint", tmp_path / "run" / "best.ckpt", "--csv", digits / "test.csv",
                       "--json", tmp_path / "scores.json", "--accelerator", "cpu")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["recall_per_class"] == result["test"][0]["recall_per_class"], again.stdout


# --- real photographs -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_photographs_with_labels_of_people(real_datasets, tmp_path, monkeypatch):
    """A few hundred photographs of CIFAR-10N: after three epochs better than chance, whatever the annotators got wrong."""
    if not (real_datasets / "cifar10n").is_dir():
        pytest.skip("no cifar10n")
    images, given = (np.load(real_datasets / "cifar10n" / f"{name}.npz") for name in ("images", "labels"))
    parts = {"train": (images["x_train"][:600], given["worse_label"][:600]), "test": (images["x_test"], images["y_test"])}
    for split, (pictures, labels) in parts.items():
        lines = ["image,label"]
        for number, (picture, label) in enumerate(zip(pictures[:600], labels)):
            cv2.imwrite(str(tmp_path / f"{split}{number}.png"), picture[:, :, ::-1])
            lines.append(f"{split}{number}.png,{label}")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n")
    train(monkeypatch, "train_co_teaching", "--train_csv", tmp_path / "train.csv", "--test_csv", tmp_path / "test.csv",
          "--name", "run", "--out-dir", tmp_path, "--accelerator", "cpu", "-e", 3, "-b", 32, "--optimizer", "sgd", "-l", 0.02,
          "--clip", 0, "--mirror", "--shift", 4, "--cache")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test"][0]["accuracy"] > 0.15 and result["args"]["size"] == [32, 32] and len(result["test"]) == 2
