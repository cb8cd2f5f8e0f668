"""Class labels as a task: the methods against loops written out, scores and augmentation by hand, runs that are kept."""

import importlib
import json
import os
import signal
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch.nn import functional as F

import report
from cli.files import UserError, write_json
from data.classification import ClassDataset, channel_statistics, is_class_csv, read_class_rows, shift_and_mirror, standardised
from engine import checkpoint, loop
from engine.classification import CLASSIFICATION, complete, load_classifier
from engine.flags import add_class_task_flags, add_optimizer_flags, add_run_flags, add_training_device_flags, tool_parser
from models import CLASSIFIERS, build_classifier
from models.preact_resnet import PreActBlock
from tests.conftest import TORCHRUN, run_script
from tests.small_runs import digests, epochs_of
from utils.class_scores import ClassScores, recall_table

SIZES = {"train": 48, "valid": 20, "test": 30}
EPOCHS, BATCH, RATE, SEED = 2, 16, 0.05, 3


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with train.csv (a third of its labels wrong, weights), valid.csv and test.csv, 8 x 8 px."""
    folder, drawn = tmp_path_factory.mktemp("digits"), load_digits()
    dice, first = np.random.default_rng(0), 0
    for split, count in SIZES.items():
        lines = ["image,label,weight"]
        for number in range(first, first + count):
            cv2.imwrite(str(folder / f"{number}.png"), (drawn.images[number] * 15).astype(np.uint8))
            wrong = split == "train" and number % 3 == 0
            label = (drawn.target[number] + wrong * dice.integers(1, 10)) % 10
            lines.append(f"{number}.png,{label},{dice.random():.3f}")
        first += count
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def flags_of(digits, folder, *flags):
    csvs = [word for split in SIZES for word in (f"--{split}_csv", str(digits / f"{split}.csv"))]
    return [*csvs, "--name", "run", "--out-dir", str(folder), "--accelerator", "cpu", "--epochs", str(EPOCHS), "-b", str(BATCH),
            "-l", str(RATE), "--optimizer", "sgd", "--clip", "0", "--lr-step", "1", "--seed", str(SEED), *flags]


def train(monkeypatch, script, *flags):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, flags)])
    importlib.import_module(script).main()


def arguments(digits, folder, *flags):
    """Flags of a script for class labels alone."""
    parser = tool_parser("")
    add_run_flags(parser)
    add_class_task_flags(parser)
    add_optimizer_flags(parser)
    add_training_device_flags(parser)
    args = parser.parse_args(flags_of(digits, folder, *flags))
    complete(args)
    return args


def pixels_of(digits, csv):
    """Pictures (N, 8, 8), labels and weights of a CSV, without the project's reading."""
    table = pd.read_csv(digits / csv)
    return (np.stack([cv2.imread(str(digits / name), cv2.IMREAD_GRAYSCALE) for name in table["image"]]),
            table["label"].to_numpy(), table["weight"].to_numpy())


# --- the methods, as their equations say ------------------------------------------------------------------------


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
    run_script(*TORCHRUN, "train_without_weight.py", *flags)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["machine"]["processes"] == 2 and result["test"][0]["images"] == SIZES["test"]
    again = run_script("evaluate.py", "--checkpoint", tmp_path / "run" / "best.ckpt", "--csv", digits / "test.csv",
                       "--json", tmp_path / "scores.json", "--accelerator", "cpu")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["recall_per_class"] == result["test"][0]["recall_per_class"], again.stdout


# --- scores -----------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    """Truth 0 0 0 1 1 2, predicted 0 1 0 1 0 2; nothing is of class 3."""
    scores = ClassScores(4)
    scores.update(torch.tensor([0, 1, 0]), torch.tensor([0, 0, 0]))
    scores.update(torch.tensor([1, 0, 2]), torch.tensor([1, 1, 2]))
    found = scores.compute()
    assert found == {"accuracy": 4 / 6, "balanced_accuracy": pytest.approx((2 / 3 + 1 / 2 + 1) / 3),
                     "recall_per_class": [2 / 3, 1 / 2, 1, None], "images": 6}
    assert scores.confusion.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert recall_table(found, ["a", "b", "c", "d"]).splitlines()[2:] == ["| a | 66.67 |", "| b | 50.00 |", "| c | 100.00 |",
                                                                         "| d | - |"]


def test_scores_equal_scikit_learns():
    dice = np.random.default_rng(1)
    truth, predicted = dice.integers(0, 7, 300), dice.integers(0, 8, 300)
    scores = ClassScores(8)
    for part in np.array_split(np.arange(300), 7):
        scores.update(torch.from_numpy(predicted[part]), torch.from_numpy(truth[part]))
    found = scores.compute()
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["accuracy"] == (truth == predicted).mean() and found["recall_per_class"][7] is None
    np.testing.assert_allclose(found["recall_per_class"][:7], recall_score(truth, predicted, average=None, labels=range(7)))


# --- augmentation and statistics --------------------------------------------------------------------------------


def test_pictures_move_by_hand():
    picture = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1).repeat(3, 3)  # 0 1 2 / 3 4 5 / 6 7 8

    def cut(mirror, row, column, shift=1, padding="reflect"):
        found = shift_and_mirror(picture, np.array([mirror]), np.array([[row, column]]), shift, padding)
        assert (found[..., 0] == found[..., 2]).all()
        return found[0, :, :, 0].tolist()

    assert cut(False, 1, 1) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert cut(True, 1, 1) == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert cut(False, 0, 1) == [[3, 4, 5], [0, 1, 2], [3, 4, 5]]  # one down; above the first row comes the second
    assert cut(False, 1, 2, padding="zero") == [[1, 2, 0], [4, 5, 0], [7, 8, 0]]  # one to the left
    assert cut(True, 2, 0, padding="zero") == [[0, 5, 4], [0, 8, 7], [0, 0, 0]]
    assert cut(True, 0, 0, shift=0) == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


@pytest.mark.parametrize("cache", [False, True])
def test_a_sample_moves_the_same_whatever_batch_it_is_in(digits, cache):
    rows = read_class_rows(digits / "train.csv", None)
    statistics = ([0.5] * 3, [0.5] * 3)
    plain = ClassDataset(rows, (8, 8), statistics).__getitems__(range(48))
    dataset = ClassDataset(rows, (8, 8), statistics, mirror=True, shift=2, padding="zero", cache=cache, seed=5)
    whole = dataset.__getitems__(list(range(48)))
    assert whole["image"].shape == (48, 3, 8, 8) and whole["image"].dtype == torch.uint8
    one = dataset.__getitems__([7, 3])
    assert torch.equal(one["image"], whole["image"][[7, 3]]) and one["label"].tolist() == rows["label"].iloc[[7, 3]].tolist()
    found = set()
    for image, moved_image in zip(plain["image"], whole["image"]):  # each is the picture at one of 2 x 25 places
        padded = F.pad(image, (2, 2, 2, 2))
        fits = {(flip, row, column) for flip in (False, True) for row in range(5) for column in range(5)
                if torch.equal((padded.flip(-1) if flip else padded)[:, row:row + 8, column:column + 8], moved_image)}
        assert fits
        found |= fits
    assert {flip for flip, _, _ in found} == {False, True} and len({place[1:] for place in found}) > 15
    dataset.epoch = 1
    assert not torch.equal(dataset.__getitems__(range(48))["image"], whole["image"])
    dataset.epoch = 0
    assert torch.equal(dataset.__getitems__(range(48))["image"], whole["image"])
    other = ClassDataset(rows, (8, 8), statistics, mirror=True, shift=2, padding="zero", seed=6)
    assert not torch.equal(other.__getitems__(range(48))["image"], whole["image"])


def test_only_training_moves_its_pictures(digits, tmp_path):
    args = arguments(digits, tmp_path, "--mirror", "--shift", "1")
    args.mean, args.std = [0.5] * 3, [0.5] * 3
    rows = read_class_rows(digits / "valid.csv", args.classes)
    assert not CLASSIFICATION.dataset(rows, args, False).shift and not CLASSIFICATION.dataset(rows, args, False).mirror
    assert CLASSIFICATION.dataset(rows, args, True).shift == 1 and CLASSIFICATION.dataset(rows, args, True).mirror


def test_statistics_by_hand(tmp_path):
    """Red 0 and 255, green 51 everywhere, blue 0 0 0 255 in the first picture and 0 in the second: 8 pixels."""
    for number, (red, blue) in enumerate((([0, 255, 0, 255], [0, 0, 0, 255]), ([255, 0, 255, 0], [0, 0, 0, 0]))):
        picture = np.stack([blue, [51] * 4, red], 1).astype(np.uint8).reshape(2, 2, 3)  # OpenCV writes blue first
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    mean, std = channel_statistics([str(tmp_path / f"{n}.png") for n in (0, 1)], (2, 2))
    assert mean == pytest.approx([0.5, 0.2, 0.125]) and std == pytest.approx([0.5, 1, (0.125 * 0.875)**0.5])
    found = standardised(torch.tensor([[[[255]], [[51]], [[0]]]], dtype=torch.uint8), 255 * torch.tensor([mean, std]))
    assert found.flatten().tolist() == pytest.approx([1, 0, -0.125 / (0.125 * 0.875)**0.5], abs=1e-6)


def test_published_statistics_are_taken(digits, tmp_path):
    table = pd.read_csv(digits / "train.csv")
    table["image"] = [str(digits / name) for name in table["image"]]
    table.to_csv(tmp_path / "train.csv", index=False)
    write_json(tmp_path / "normalisation.json", {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]})
    args = arguments(digits, tmp_path, "--train_csv", str(tmp_path / "train.csv"))
    CLASSIFICATION.check(args, CLASSIFICATION.rows(args))
    assert CLASSIFICATION.config(args, "")["mean"] == [0.1, 0.2, 0.3] and args.std == [0.4, 0.5, 0.6]
    (tmp_path / "normalisation.json").write_text('{"mean": [0, 0, 0], "std": [0.5, 0, 0.5]}')
    with pytest.raises(UserError, match="normalisation.json: `std` must be three numbers in 1e-06..1"):
        CLASSIFICATION.check(args, CLASSIFICATION.rows(args))


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, parameters", [("preact_resnet18", 11_171_274), ("small_cnn", 94_762)])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 13), (32, 32)])
def test_classifiers_take_any_size(name, parameters, size):
    network = build_classifier(name, num_classes=10)
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert network(torch.zeros(2, 3, *size)).shape == (2, 10)


def test_a_shortcut_takes_the_activated_input():
    """With convolutions of nothing, a block gives relu(bn(x)), and a strided one its 1x1 convolution of that."""
    x = torch.randn(4, 8, 6, 6)
    strided = PreActBlock(8, 16, 2)
    for block, shortcut in ((PreActBlock(8, 8, 1), lambda a: a), (strided, strided.shortcut)):
        torch.nn.init.zeros_(block.conv2.weight)
        activated = F.relu((x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5)**0.5)
        torch.testing.assert_close(block(x), shortcut(activated), rtol=1e-4, atol=1e-5)
    assert strided(x).shape == (4, 16, 3, 3)


def test_the_stages_of_preact_resnet():
    """The published network has, before the mean over 4 x 4 places, no batch norm: negative numbers are left."""
    network = build_classifier("preact_resnet18")
    x = network.stages(network.stem(torch.randn(2, 3, 32, 32)))
    assert x.shape == (2, 512, 4, 4) and (x < 0).any()
    assert [block.conv1.stride[0] for block in network.stages] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [block.conv1.out_channels for block in network.stages] == [64, 64, 128, 128, 256, 256, 512, 512]


@pytest.mark.parametrize("encoder, file", [("mobilenet_v2", "mobilenet_v2-imagenet.safetensors"),
                                           ("tf_efficientnet_lite0", "tf_efficientnet_lite0-imagenet.safetensors")])
def test_a_pretrained_encoder_becomes_a_classifier(real_datasets, encoder, file):
    path = real_datasets.parent / "weights" / file
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    taught, plain = build_classifier("timm", encoder, str(path), 7), build_classifier("timm", encoder, None, 7)
    assert taught(torch.zeros(2, 3, 40, 33)).shape == (2, 7)
    first, other = (next(iter(network.encoder.parameters())) for network in (taught, plain))
    assert not torch.equal(first, other)


def test_networks_without_encoder_take_no_weights():
    with pytest.raises(ValueError, match="small_cnn has no encoder"):
        build_classifier("small_cnn", encoder_weights="imagenet")
    with pytest.raises(ValueError, match="unknown network for class labels 'unet'; there are " + ", ".join(CLASSIFIERS)):
        build_classifier("unet")


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
