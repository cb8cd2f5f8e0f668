"""A linear classifier on fixed features: what it predicts, which labels it judges wrong, and the run that it leaves."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

import train_on_features
from cli.files import UserError
from data.class_sets import class_rows
from data.classification import read_class_rows
from data.pictures import write_image
from models.features import PooledFeatures, build_features
from tests.conftest import ROOT
from utils.confident import class_thresholds, confident_classes, wrong_labels
from utils.linear import choose_strength, out_of_fold, stratified_folds, trained
from utils.ranking import precision_recall_f1

WEIGHTS = ROOT.parent / "shared" / "weights" / "mobilenet_v2-imagenet.safetensors"


def clusters(count=60, seed=0):
    """Features (3 x count, 2) around three corners far apart, and their classes."""
    labels = np.repeat(np.arange(3), count)
    corners = np.array([[0, 0], [10, 0], [0, 10]])
    return (corners[labels] + np.random.default_rng(seed).normal(0, 1, (3 * count, 2))).astype(np.float32), labels


# --- precision, recall, F1 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags, noisy, precision, recall, f1", [
    ([1, 1, 0, 0], [1, 0, 1, 1], 1 / 2, 1 / 3, 2 / 5),
    ([0, 0, 0], [1, 0, 1], None, 0, 0),
    ([1, 0, 1], [0, 0, 0], 0, None, 0),
    ([0, 0], [0, 0], None, None, None),
    ([1, 1], [1, 1], 1, 1, 1)])
def test_precision_recall_and_f1_by_hand(flags, noisy, precision, recall, f1):
    found = precision_recall_f1(np.array(flags, bool), np.array(noisy, bool))
    assert found == {"precision": pytest.approx(precision), "recall": pytest.approx(recall), "f1": pytest.approx(f1)}


# --- the rule ---------------------------------------------------------------------------------------------------


def test_confident_classes_by_hand():
    probabilities = np.array([[.9, .1, 0], [.5, .5, 0], [.4, .6, 0], [.2, .8, 0], [.65, .35, 0], [.75, .25, 0]])
    labels = np.array([0, 0, 1, 1, 1, 1])
    thresholds = class_thresholds(probabilities, labels)
    np.testing.assert_allclose(thresholds, [.7, .5, np.inf])  # (.9 + .5) / 2, (.6 + .8 + .35 + .25) / 4, nobody's
    assert confident_classes(probabilities, thresholds, labels).tolist() == [0, 1, 1, 1, -1, 0]
    assert wrong_labels(probabilities, labels).tolist() == [False, True, False, False, False, True]


def test_of_two_confident_classes_the_likelier_one_counts():
    thresholds = np.array([.2, .3, .9])
    probabilities = np.array([[.25, .35, .4], [.4, .35, .25], [.4, .4, .2], [.4, .4, .2], [.15, .2, .65]])
    assert confident_classes(probabilities, thresholds, np.array([2, 2, 2, 1, 2])).tolist() == [1, 0, 0, 1, -1]


def test_one_probability_for_all_flags_nothing():
    probabilities = np.full((30, 3), 1 / 3)  # means differ from 1/3 in the last bits
    assert not wrong_labels(probabilities, np.repeat([0, 1, 2], 10)).any()


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_flags_are_cleanlabs_where_its_rule_is_ours(noise):
    """cleanlab keeps what the likeliest class of all confirms, and takes that class where two or more are confident."""
    cleanlab_count, cleanlab_filter = pytest.importorskip("cleanlab.count"), pytest.importorskip("cleanlab.filter")
    draw = np.random.default_rng(3)
    true = draw.integers(0, 5, 500)
    labels = np.where(draw.random(500) < noise, draw.integers(0, 5, 500), true)
    probabilities = draw.dirichlet(np.ones(5), 500) + 0.6 * np.eye(5)[true]
    probabilities /= probabilities.sum(1, keepdims=True)
    thresholds = class_thresholds(probabilities, labels)
    np.testing.assert_allclose(thresholds, cleanlab_count.get_confident_thresholds(labels, probabilities))
    theirs = cleanlab_filter.find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    ours, likeliest = wrong_labels(probabilities, labels), probabilities.argmax(1)
    confident = probabilities >= thresholds
    same_rule = confident[np.arange(500), likeliest] | (confident.sum(1) < 2)
    assert same_rule.mean() > 0.9 and 0.5 * noise < theirs.mean() < 2 * noise
    assert ((ours & (likeliest != labels)) == theirs)[same_rule].all()


# --- out-of-fold probabilities ----------------------------------------------------------------------------------


def test_a_planted_wrong_label_gets_the_lowest_probability():
    features, labels = clusters()
    labels[7] = 2
    fold_of = stratified_folds(labels, list(map(str, range(180))), 5, 0, "abc")
    strength, probabilities, trials = choose_strength(features, labels, fold_of, 3)
    given = probabilities[np.arange(180), labels]
    assert given.argmin() == 7 and np.flatnonzero(wrong_labels(probabilities, labels)).tolist() == [7]
    losses = {trial["C"]: trial["log_loss"] for trial in trials}
    assert losses[strength] == min(losses.values()) == pytest.approx(-np.log(given).mean())
    assert (trained(features, labels, strength).predict(np.array([[0, 0], [11, 1], [1, 9]])) == [0, 1, 2]).all()


def test_its_own_label_has_no_influence_on_a_samples_probabilities():
    features, labels = clusters()
    fold_of = stratified_folds(labels, list(map(str, range(180))), 5, 0, "abc")
    flipped = labels.copy()
    flipped[7] = 2
    before, after = (out_of_fold(features, each, fold_of, 0.1, 3) for each in (labels, flipped))
    np.testing.assert_array_equal(before[7], after[7])
    same = fold_of == fold_of[7]
    np.testing.assert_array_equal(before[same], after[same])
    assert (before[~same] != after[~same]).any(1).all()  # it teaches the others


def test_an_absent_class_has_probability_0():
    features, labels = clusters()
    fold_of = stratified_folds(labels * 2, list(map(str, range(180))), 3, 0, "abcde")
    probabilities = out_of_fold(features, labels * 2, fold_of, 0.1, 5)
    assert not probabilities[:, [1, 3]].any()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == labels * 2).all()


def test_folds_are_spread_over_classes_and_keep_an_images_rows_together():
    labels, images = np.repeat([0, 1, 2], [50, 20, 10]), [f"{n // 2}.png" for n in range(80)]
    for paths in (list(map(str, range(80))), images):
        fold_of = stratified_folds(labels, paths, 5, 1, "abc")
        counts = pd.crosstab(labels, fold_of).to_numpy()
        assert (counts == np.array([[10], [4], [2]])).all()
    assert (fold_of[::2] == fold_of[1::2]).all()


@pytest.mark.parametrize("labels, images, message", [
    ([0, 0, 0, 1, 1], "abcde", "class cat has 2 images, fewer than --folds 3; lower it"),
    ([0, 0, 0, 1, 1, 1], "abcdde", "class cat has 2 images"),
    ([1, 1, 1], "abc", "all rows are labelled cat")])
def test_classes_too_rare_for_the_folds_are_named(labels, images, message):
    with pytest.raises(UserError, match=message):
        stratified_folds(np.array(labels), list(images), 3, 0, ["dog", "cat"])


# --- features ---------------------------------------------------------------------------------------------------


def test_pooled_features_by_hand():
    class Maps(torch.nn.Module):
        def forward(self, x):
            return [x, x[:, :1] * 2, x[:, 1:]]

    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    images[0, :, :16] = torch.tensor([255, 51, 102], dtype=torch.uint8)[:, None, None]  # upper half: 1, .2, .4
    network = PooledFeatures(Maps(), (0.1, 0.2, 0.3), (0.5, 1.0, 0.1), maps=2)
    means = [2 * (0.5 - 0.1) / 0.5, (0.1 - 0.2) / 1.0, (0.2 - 0.3) / 0.1]
    np.testing.assert_allclose(network(images)[0].numpy(), means, rtol=1e-5)
    assert network(images[..., :20]).shape == (1, 3)


@pytest.mark.slow
def test_a_frozen_encoder_from_a_file_tells_photographs_from_noise():
    if not WEIGHTS.exists():
        pytest.skip(f"no weights at {WEIGHTS}")
    network = build_features("mobilenet_v2", str(WEIGHTS))
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    found = network(images)
    assert found.shape == (2, 1280) and torch.equal(found, network(images))
    assert not torch.allclose(found, build_features("mobilenet_v2", None)(images))
    with pytest.raises(ValueError, match="does not fit"):
        build_features("resnet18", str(WEIGHTS))


def test_an_encoder_of_timm_gets_its_own_mean_and_deviation():
    assert build_features("tu-tf_efficientnet_lite0", None).mean.flatten().tolist() == [127.5] * 3


# --- the run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Folder of train.csv (200 handwritten digits of 4 classes, 8 x 8 px, every 10th label wrong) and test.csv (100)."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(n_class=4, return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))  # the file's order is that of the writers
    images, labels, names = images[order], labels[order], ["zero", "one", "two", "three"]
    paths = [folder / "images" / f"{n:04}.png" for n in range(300)]
    for path, image in zip(paths, images):
        write_image(path, (15 * image.reshape(8, 8)).astype(np.uint8))
    given = labels[:300].copy()
    given[:200:10] = (given[:200:10] + 1) % 4
    class_rows(paths[:200], given[:200], names).to_csv(folder / "train.csv", index=False)
    class_rows(paths[200:], given[200:], names).to_csv(folder / "test.csv", index=False)
    (folder / "classes.json").write_text(json.dumps({"names": names}))
    return folder


def start(monkeypatch, digits, out, *flags):
    """Run the script on the digits' pixels; the content of result.json."""
    arguments = ["--train_csv", digits / "train.csv", "--test_csv", digits / "test.csv", "--name", "n", "--encoder", "pixels",
                 "--out-dir", out, "--accelerator", "cpu", *flags]
    monkeypatch.setattr(sys, "argv", ["train_on_features.py", *map(str, arguments)])
    train_on_features.main()
    return json.loads((out / "n" / "result.json").read_text())


def test_a_run_on_pixels(digits, tmp_path, monkeypatch, capsys):
    result = start(monkeypatch, digits, tmp_path)
    assert result["test"][0]["accuracy"] >= 0.95 and result["compared"] == ["accuracy"] and result["noise_share"] is None
    assert result["rows"] == {"train": 200, "test": 100} and result["features"] == 192 and result["args"]["size"] == [8, 8]
    run, wrong = tmp_path / "n", np.arange(200) % 10 == 0
    scores, flags = pd.read_csv(run / "scores.csv"), np.load(run / "flags.npy")
    assert flags.dtype == bool and (scores["wrong"] == flags).all() and precision_recall_f1(flags, wrong)["f1"] > 0.8
    assert scores["probability"][wrong].max() < scores["probability"][~wrong].mean()
    rows = read_class_rows(run / "weights.csv", json.loads((run / "classes.json").read_text())["names"], needs_weights=True)
    given = read_class_rows(digits / "train.csv", ["zero", "one", "two", "three"])
    assert rows["label"].tolist() == given["label"].tolist() and rows["image"].tolist() == given["image"].tolist()
    np.testing.assert_allclose(rows["weight"], scores["probability"])
    assert [path.name for path in run.glob(".*")] == []

    with pytest.raises(UserError, match="pass --resume"):
        start(monkeypatch, digits, tmp_path)
    assert start(monkeypatch, digits, tmp_path, "--resume") == result and "finished already" in capsys.readouterr().out
    with pytest.raises(UserError, match="cannot resume with --seed 1"):
        start(monkeypatch, digits, tmp_path, "--resume", "--seed", 1)


def test_kept_features_are_those_of_the_same_pictures_alone(digits, tmp_path, monkeypatch):
    kept = ("--features-dir", tmp_path / "kept")
    first = start(monkeypatch, digits, tmp_path, *kept)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    again = start(monkeypatch, digits, tmp_path, *kept, "--overwrite")
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} and len(files) == 2
    assert again["test"] == first["test"] and again["out_of_fold"] == first["out_of_fold"]
    start(monkeypatch, digits, tmp_path, *kept, "--overwrite", "--size", 4, 4)
    assert len(list((tmp_path / "kept").iterdir())) == 4


@pytest.mark.parametrize("flags, message", [
    (["--folds", 1], "--folds 1: a classifier must not judge"),
    (["--folds", 100], "fewer than --folds 100"),
    (["--num-classes", 3], "--num-classes 3"),
    (["--encoder", "mobilenet_v9", "--encoder-weights", "none"], "mobilenet_v9"),
    (["--encoder", "mobilenet_v2", "--encoder-weights", "no.pth"], "no.pth: no such file"),
    (["--test_csv", "gone.csv"], "gone.csv"),
    (["--size", 9000, 9000], "362 GiB of memory, .* lower --size")])
def test_bad_input_is_named_and_nothing_is_left(digits, tmp_path, monkeypatch, flags, message):
    with pytest.raises(UserError, match=message):
        start(monkeypatch, digits, tmp_path, *flags)
    assert not list(tmp_path.iterdir())
