"""Class labels as a task: the methods against loops written out, and what a run leaves."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import report
from cli.files import UserError, write_json
from data.classification import is_class_csv, read_class_rows
from engine import checkpoint
from engine.classification import load_classifier
from models import build_classifier
from tests import class_runs
from tests.class_runs import BATCH, EPOCHS, RATE, SEED, SIZES, flags_of, pixels_of, train
from tests.small_runs import epochs_of

digits = class_runs.digits


def baseline(losses, predicted, given, epoch):
    return [[1.0] * len(given)]


def by_csv(losses, predicted, given, epoch):
    return [list(given)]


def differing(predicted):
    return [i for i, (a, b) in enumerate(zip(*predicted)) if a != b]


def smallest(losses, among, epoch):
    """1 for the smallest losses: of the second epoch a half (--forget-rate 0.5 --ramp-epochs 1)."""
    kept = sorted(among, key=lambda i: losses[i])[:int((0.5 if epoch else 1) * len(among))]
    return [float(i in kept) for i in range(len(losses))]


def decoupling(losses, predicted, given, epoch):
    return [[float(i in differing(predicted)) for i in range(len(given))]] * 2


def co_teaching(losses, predicted, given, epoch):
    everything = range(len(given))
    return [smallest(losses[1], everything, epoch), smallest(losses[0], everything, epoch)]


def co_teaching_plus(losses, predicted, given, epoch):
    return [smallest(losses[1], differing(predicted), epoch), smallest(losses[0], differing(predicted), epoch)]


def trained_by_hand(digits, method, count, selects, change):
    """State dicts of the networks after EPOCHS, and the weights of all steps."""
    torch.manual_seed(SEED)
    networks = [build_classifier("small_cnn", num_classes=10).to(memory_format=torch.channels_last) for _ in range(count)]
    optimizers = [torch.optim.SGD(each.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4) for each in networks]
    pixels, labels, given = pixels_of(digits, "train.csv")
    given, used = change(given), []
    pictures = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
        for index in (order[i:i + BATCH] for i in range(0, len(order), BATCH)):
            images = torch.from_numpy(pictures[index])[:, None].repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
            logits = [network.train()(images) for network in networks]
            chances = [each.log_softmax(1) for each in logits]
            losses = [-each[range(len(index)), labels[index]] for each in chances]
            predicted = [each.argmax(1).tolist() for each in chances]
            weights = method([each.tolist() for each in losses], predicted, given[index], epoch)
            used.append(weights)
            for optimizer, loss, weight in zip(optimizers, losses, weights):
                if selects and not sum(weight):
                    continue
                optimizer.zero_grad()
                (sum(w * each for w, each in zip(weight, loss)) / (sum(weight) if selects else BATCH)).backward()
                optimizer.param_groups[0]["lr"] = RATE * 0.5**epoch
                optimizer.step()
    return [network.state_dict() for network in networks], np.array(used)


def kept(weights):
    return weights


TEACHER, PAIR = "train_with_Teacher_weight", ["--forget-rate", "0.5", "--ramp-epochs", "1"]
CASES = {
    "train_without_weight": (baseline, kept, []),
    "train_without_weight, dropped": (by_csv, lambda w: (w > np.sort(w)[11]).astype(float), ["--drop-worst", "0.25"]),
    TEACHER: (by_csv, kept, []),
    f"{TEACHER}, levelled": (by_csv, lambda w: np.full(len(w), w.mean()), ["--mean-weights"]),
    f"{TEACHER}, shuffled": (by_csv, lambda w: np.random.default_rng(SEED).permutation(w), ["--shuffle-weights"]),
    f"{TEACHER}, scaled": (by_csv, lambda w: w / w.mean(), ["--keep-loss-size"]),
    "train_decoupling": (decoupling, kept, []),
    "train_co_teaching": (co_teaching, kept, PAIR),
    "train_co_teaching+": (co_teaching_plus, kept, PAIR),
}


@pytest.mark.parametrize("case", CASES)
def test_a_script_trains_on_labels_as_its_equations_say(digits, tmp_path, monkeypatch, case):
    method, change, flags = CASES[case]
    script, pair = case.split(",")[0], "weight" not in case
    selects = pair or "dropped" in case
    train(monkeypatch, script, *flags_of(digits, tmp_path, *flags))
    networks, weights = trained_by_hand(digits, method, 1 + pair, selects, change)  # weights: (steps, networks, samples)
    saved = checkpoint.load(tmp_path / "run" / "last.ckpt")["networks"]
    for mine, its in zip(networks, saved, strict=True):
        for name, value in mine.items():
            torch.testing.assert_close(its["state"][name], value, rtol=1e-4, atol=3e-5)
    logged = [entry["weight"] for entry in epochs_of(tmp_path)]
    np.testing.assert_allclose(logged, weights.reshape(EPOCHS, 3, *weights.shape[1:]).mean((1, 3)), atol=1e-5)
    if script.startswith("train_co"):
        assert (weights[:, 0] != weights[:, 1]).any()


def test_a_run_scores_its_test_rows_and_keeps_what_the_network_needs(digits, tmp_path, monkeypatch):
    train(monkeypatch, "train_without_weight", *flags_of(digits, tmp_path))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["compared"] == ["accuracy"] and list(result["titles"]) == ["accuracy", "balanced_accuracy"]
    assert not {"theta", "width", "augment"} & result["args"].keys() and result["args"]["num_classes"] == 10
    network, config = load_classifier(str(tmp_path / "run" / "best.ckpt"))
    pixels, labels, _ = pixels_of(digits, "test.csv")
    seen, _, _ = pixels_of(digits, "train.csv")
    assert config["mean"] == pytest.approx([seen.mean() / 255] * 3) and config["std"] == pytest.approx([seen.std() / 255] * 3)
    assert config["task"] == "classification" and config["classes"] == [str(n) for n in range(10)]
    images = torch.from_numpy((pixels - seen.mean()) / seen.std()).float()[:, None].expand(-1, 3, -1, -1)
    right = (network(images).argmax(1).numpy() == labels).mean()
    assert result["test"][0]["accuracy"] == pytest.approx(right) and result["test"][0]["images"] == SIZES["test"]


def test_evaluate_and_predict_agree_with_the_run(digits, tmp_path, monkeypatch, capsys):
    train(monkeypatch, "train_co_teaching", *flags_of(digits, tmp_path))
    best, test = tmp_path / "run" / "best.ckpt", digits / "test.csv"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for network in (0, 1):
        out = tmp_path / f"out{network}"
        more = ["--checkpoint", best, "--network", network, "--accelerator", "cpu"]
        train(monkeypatch, "evaluate", *more, "--csv", test, "--json", out / "scores.json", "-b", 7)
        scores = json.loads((out / "scores.json").read_text())
        assert scores["accuracy"] == result["test"][network]["accuracy"] and "| 9 | " in capsys.readouterr().out
        train(monkeypatch, "predict", *more, "--csv", test, "--out-dir", out, "-b", 7)
        table = pd.read_csv(out / "predictions.csv")
        columns = [f"probability_{n}" for n in range(10)]
        assert list(table) == ["image", "label", "probability", *columns] and is_class_csv(out / "predictions.csv")
        assert (table["label"] == pd.read_csv(test)["label"]).mean() == pytest.approx(scores["accuracy"])
        np.testing.assert_allclose(table[columns].sum(axis=1), 1, atol=1e-5)
        assert (table[columns].to_numpy().argmax(1) == table["label"]).all()
        np.testing.assert_allclose(table[columns].max(axis=1), table["probability"])
        train(monkeypatch, "predict", *more, "--images", digits / "70.png", "--out-dir", out / "one")
        one = pd.read_csv(out / "one" / "predictions.csv")
        pd.testing.assert_frame_equal(one, table[table["image"].str.endswith("/70.png")].reset_index(drop=True), atol=1e-5)


def test_names_of_classes_number_the_labels(tmp_path, digits, monkeypatch):
    """By another order of names: the scores stay, the recalls move."""
    table = pd.read_csv(digits / "test.csv")
    names = [f"digit {n}" for n in (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)]
    write_json(tmp_path / "classes.json", {"names": names})
    table.assign(label=[f"digit {n}" for n in table["label"]], image=[str(digits / each) for each in table["image"]]).to_csv(
        tmp_path / "named.csv", index=False)
    rows = read_class_rows(tmp_path / "named.csv", names)
    assert [names[label] for label in rows["label"]] == [f"digit {n}" for n in table["label"]]
    (tmp_path / "named.csv").write_text(f"image,label\n{digits}/1.png,0\n{digits}/2.png, digit 0\n")
    assert read_class_rows(tmp_path / "named.csv", names)["label"].tolist() == [0, 3]
    with pytest.raises(UserError, match=r"row 2: label '0': none of the 3 classes \(1, 2, 3\)"):  # is it the first, or wrong?
        read_class_rows(tmp_path / "named.csv", ["1", "2", "3"])


@pytest.mark.parametrize("header, labels", [("image,label", True), (" IMG , Label ,weight", True), ("img,filename", False),
                                            ("label,image", False), ("image", False), (",0", False), ("image,labels", False)])
def test_a_header_tells_the_task(tmp_path, header, labels):
    (tmp_path / "a.csv").write_text(f"{header}\n")
    assert is_class_csv(tmp_path / "a.csv") == labels and not is_class_csv(tmp_path / "missing.csv")


def test_a_report_names_the_classes_as_the_run_does():
    found = report.legend_of(None, {"args": {"num_classes": 2, "classes": ["cat", "dog"]}, "test": [{}]})
    assert found.names == ["cat", "dog"]
    assert report.legend_of(None, {"args": {"num_classes": 3}, "test": [{}]}).names == ["class 0", "class 1", "class 2"]
