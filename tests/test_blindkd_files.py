"""What a BlindKD run leaves: its files, and what the scripts tell that read them."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import evaluate
import predict
from cli.files import UserError
from data.classification import ClassDataset, read_class_rows
from engine import checkpoint
from engine.classification import load_classifier
from models.small_cnn import SmallCNN
from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import detection, learning
from tests import blindkd_set
from tests.blindkd_set import EPOCHS, NAMES, NAMES_OF_FILES, read, standardised_batch

drawn, call = blindkd_set.drawn, blindkd_set.call


def test_files_hold_what_they_promise(call, drawn, capsys):
    folder = call(training)
    best = checkpoint.load(folder / "best.ckpt")
    for name in ("teacher", "student"):
        saved = torch.load(folder / f"{name}.pth.tar", weights_only=True)
        network = SmallCNN(3)
        network.load_state_dict(saved["state_dict"])
        assert saved["epoch"] == best["epoch"] == read(folder / "result.json")["best_epoch"]
        assert torch.equal(network.head.weight, best["networks"][0]["state"][f"{name}.head.weight"])
    flags, scores = np.load(folder / "detection.npy"), np.load(folder / "scores.npy")
    assert flags.dtype == bool and len(flags) == len(scores) == 40
    judged = read(folder / "blindkd.json")
    assert np.array_equal(flags, scores < judged["detection"]["low"])
    assert judged["groups"]["detection"][3] == flags.sum() and sum(judged["groups"]["training"]) == 36


def test_learning_tells_the_accuracy_of_both_epochs_and_of_each_network(call, drawn, capsys):
    folder = call(training)
    capsys.readouterr()
    call(learning)
    said, found, result = capsys.readouterr().out, read(folder / "learning.json"), read(folder / "result.json")
    assert found["best"]["both"] == result["test"][0]["accuracy"]
    assert found["last"]["both"] == result["test_last"][0]["accuracy"]
    assert (found["best"]["epoch"], found["last"]["epoch"]) == (result["best_epoch"] + 1, EPOCHS)
    assert f"Best test acc selected by val is {100 * found['best']['both']:.2f}\n" in said
    assert f"Test acc of the last epoch is {100 * found['last']['both']:.2f}\n" in said
    rows, statistics = read_class_rows(drawn / "test.csv", NAMES), [best_config(folder)[key] for key in ("mean", "std")]
    images, labels = standardised_batch(ClassDataset(rows, (8, 8), statistics), range(12))
    for name in ("teacher", "student"):
        network = SmallCNN(3).eval()
        network.load_state_dict(torch.load(folder / f"{name}.pth.tar", weights_only=True)["state_dict"])
        assert found["best"][name] == (network(images).argmax(1) == labels).sum().item() / 12
    with pytest.raises(UserError, match="learning.json exists; pass --overwrite"):
        call(learning)


def best_config(folder):
    return checkpoint.load(folder / "best.ckpt")["networks"][0]["config"]


def test_the_other_scripts_take_the_pair_as_one_network(call, drawn, tmp_path, monkeypatch):
    folder = call(training)
    command = ["--checkpoint", str(folder / "last.ckpt"), "--csv", str(drawn / "test.csv"), "--accelerator", "cpu"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *command, "--json", str(tmp_path / "scores.json")])
    evaluate.main()
    assert read(tmp_path / "scores.json")["accuracy"] == read(folder / "result.json")["test_last"][0]["accuracy"]
    monkeypatch.setattr(sys, "argv", ["predict.py", *command, "--out-dir", str(tmp_path)])
    predict.main()
    found = pd.read_csv(tmp_path / "predictions.csv")
    statistics = [best_config(folder)[key] for key in ("mean", "std")]
    images, _ = standardised_batch(ClassDataset(read_class_rows(drawn / "test.csv", NAMES), (8, 8), statistics), range(12))
    pair = load_classifier(str(folder / "last.ckpt"))[0]
    product = pair.teacher(images).softmax(1) * pair.student(images).softmax(1)
    expected = (product / product.sum(1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(found[[f"probability_{name}" for name in NAMES]].to_numpy(), expected, atol=1e-5)
    # the predictions are a class CSV of names, without a classes.json: the network knows the names
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *command[:2], "--csv", str(tmp_path / "predictions.csv"), "--accelerator",
                                      "cpu", "--json", str(tmp_path / "own.json")])
    evaluate.main()
    assert read(tmp_path / "own.json")["accuracy"] == 1


def test_detection_by_hand(call, drawn, capsys):
    folder = call(training)
    flags = np.zeros(40, bool)
    flags[[0, 1, 2, 3, 10]] = True  # wrong are 0, 1, 2 of each ten: 12
    np.save(folder / "detection.npy", flags)
    capsys.readouterr()
    call(detection)
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["precision is 0.8000", "recall is 0.3333", "The f-score is 0.4706"]
    found = read(folder / "detection.json")
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((4 / 5, 4 / 12, 8 / 17))
    assert found["flagged"] == 5 and found["wrong"] == 12 and found["all"]["f1"] == pytest.approx(2 * 0.3 / 1.3)


def test_without_flags_detection_says_0_of_0(call, capsys):
    folder = call(training)
    np.save(folder / "detection.npy", np.zeros(40, bool))
    capsys.readouterr()
    call(detection)
    said = capsys.readouterr().out
    assert "precision is 0.0000 (0/0: 0 labels flagged, 12 wrong)" in said and "The f-score is 0.0000\n" in said
    assert read(folder / "detection.json")["precision"] == 0


def test_clean_labels_change_nothing_but_what_detection_prints(call, drawn, tmp_path, capsys):
    """Train with true labels that are shuffled, and without any."""
    clean = drawn / "train_clean.csv"
    text, outcomes = clean.read_text(), []
    table = pd.read_csv(clean)
    shuffled = table.assign(label=table["label"].sample(frac=1, random_state=0).to_numpy()).to_csv(index=False)
    try:
        for home, content in (("true", text), ("shuffled", shuffled), ("missing", None)):
            clean.write_text(content) if content else clean.unlink()
            folder = call(training, home=home)
            call(learning, home=home)
            files = {name: (folder / name).read_bytes() for name in (*NAMES_OF_FILES, "teacher.pth.tar", "learning.json")}
            capsys.readouterr()
            if content:
                call(detection, home=home)
            outcomes.append((files, capsys.readouterr().out))
    finally:
        clean.write_text(text)
    assert outcomes[0][0] == outcomes[1][0] == outcomes[2][0]
    assert outcomes[0][1] != outcomes[1][1]


def test_without_validation_the_last_epoch_counts_and_it_is_said(call, capsys):
    folder = call(training, "--val_ratio", 0)
    assert "--val_ratio 0: no rows validate, the last epoch is the one that is reported" in capsys.readouterr().out
    call(learning)
    said = capsys.readouterr().out
    assert "--val_ratio 0: no rows validated, nothing was selected" in said and "Best test acc" not in said
    assert torch.load(folder / "student.pth.tar", weights_only=True)["epoch"] == EPOCHS - 1
    assert read(folder / "learning.json")["best"] is None and sum(read(folder / "blindkd.json")["groups"]["training"]) == 40
