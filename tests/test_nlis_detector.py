"""train_nlis.py, wrong_labels.py, evaluate.py and predict.py on drawn shapes, from COCO JSON to results; several processes."""

import argparse
import functools
import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster

from cli.files import UserError
from data.instances import InstanceDataset, read_categories, read_instances
from data.pictures import read_image
from engine import checkpoint
from engine.detection import at_own_size, results_of
from engine.instances import build_from_config, refuse_data_parallel, share_of
from related.nlis import wrong_labels
from related.nlis.wrong_labels import measured, trust_of, write_trust
from tests.conftest import run_script
from tests.ellipses import call
from tests.processes import run_together
from tests.script_calls import run
from tests.test_nlis import timeless, weights_in
from utils.instance_scores import InstanceScores

SCRIPT, JUDGE = "related/nlis/train_nlis.py", "related/nlis/wrong_labels.py"
SMALL = ("--rois", 32, "--width", 16, "--batch-size", 2, "--mirror", "--accelerator", "cpu", "--learning-rate", 0.01)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder with train.json (8 pictures of 64 x 64 px), noisy.json (half of the labels wrong), and test.json (6)."""
    folder = tmp_path_factory.mktemp("shapes")
    run_script("data/make_shapes.py", "--train", 8, "--test", 6, "--size", 64, 64, "--out", folder, "--seed", 2)
    run_script("utils/class_noise.py", "--csv", folder / "train.json", "--noise", "symmetric", "--rate", 0.5, "--out",
               folder / "noisy.json")
    return folder


def flags_of(shapes, home, *more):
    return ["--train_csv", shapes / "noisy.json", "--test_csv", shapes / "test.json", "--name", "run", "--out-dir", home,
            *SMALL, *more]


@pytest.fixture(scope="module")
def trained(shapes, tmp_path_factory):
    """The folder of a run of two epochs, one of each stage."""
    home = tmp_path_factory.mktemp("trained")
    run_script(SCRIPT, *flags_of(shapes, home, "--epochs", 2))
    return home / "run"


def test_drawn_shapes_are_what_their_json_says(shapes):
    rows = read_instances(shapes / "train.json")
    picture = read_image(rows["image"].iloc[0])
    assert picture.shape == (64, 64, 3) and len(rows) == 8
    assert all(each["bbox"][2] > 0 for instances in rows["instances"] for each in instances)


def test_a_detector_trains_in_two_stages_and_goes_on_bit_exactly(shapes, trained, tmp_path, monkeypatch, capsys):
    """Stopped after the third of four steps of stage 1."""
    import engine.loop as loop

    log = timeless(trained)
    assert [entry["stage"] for entry in log] == [1, 2]
    assert all(sum(entry["sets"].values()) == 8 * 32 and entry["sets"]["NEG"] >= 8 * 24 for entry in log)
    own, step = loop.train_step, {"count": 0}

    def stopping(*inputs):
        step["count"] += 1
        if step["count"] == 3:
            signal.raise_signal(signal.SIGTERM)
        return own(*inputs)

    monkeypatch.setattr(loop, "train_step", stopping)
    for expected in (143, 0):
        code, error = run(monkeypatch, capsys, ".", SCRIPT, *flags_of(shapes, tmp_path, "--epochs", 2, "--resume"))
        assert code == expected, error
    parts = weights_in(tmp_path / "run")
    assert all(torch.equal(value, parts[name]) for name, value in weights_in(trained).items())
    assert timeless(tmp_path / "run") == log


def test_scores_and_results_are_those_of_another_evaluation(shapes, trained, tmp_path):
    """predictions.json, read by COCO's own evaluation, gives what evaluate.py tells: pictures are of --size here."""
    both = ["--checkpoint", trained / "last.ckpt", "--csv", shapes / "test.json", "--accelerator", "cpu"]
    run_script("evaluate.py", *both, "--json", tmp_path / "s.json")
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["ap"] == json.loads((trained / "result.json").read_text())["test_last"][0]["ap"] and told["images"] == 6
    run_script("predict.py", *both, "--out-dir", tmp_path / "out", "--least", 0)
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert results and len(list((tmp_path / "out" / "overlays").iterdir())) == 6
    assert precisions_of(shapes / "test.json", results) == pytest.approx([told["ap"], told["ap50"]], abs=2e-3)


def test_detections_that_are_mostly_right_get_their_scores_from_cocos_own_evaluation_too(shapes):
    """The annotated masks moved by 0 to 3 px, every fourth of another class: written as results and read again."""
    rows, ids = read_instances(shapes / "test.json"), read_categories(shapes / "test.json")[1]
    targets, scores, results, dice = InstanceDataset(rows, (64, 64)).__getitems__(range(6))["targets"], InstanceScores(6), [], 0
    for row, target in zip(rows.itertuples(), targets):
        numbers = torch.arange(dice, dice + len(target["labels"]))
        dice += len(numbers)
        moved = [torch.roll(mask, int(number) % 4, 1) for mask, number in zip(target["masks"].float(), numbers)]
        found = {"masks": torch.stack(moved)[:, None], "boxes": target["boxes"], "scores": (numbers * 7 % 11 + 1) / 12,
                 "labels": torch.where(numbers % 4 == 3, target["labels"] % 6 + 1, target["labels"])}
        scores.update([found], [target])
        results += results_of(at_own_size(found, (64, 64), (64, 64)), row.id, ids)
    told = scores.compute()
    assert 0.2 < told["ap"] < told["ap50"] < 0.9
    assert precisions_of(shapes / "test.json", results) == pytest.approx([told["ap"], told["ap50"]], abs=2e-3)


def precisions_of(truth, results):
    """AP and AP50 of results by COCO's own evaluation."""
    truth = COCO(str(truth))
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "segm")
    evaluation.run()
    return evaluation.stats[:2].tolist()


def test_predictions_of_listed_images_are_at_their_own_size(shapes, trained, tmp_path):
    run_script("predict.py", "--checkpoint", trained / "last.ckpt", "--images", shapes / "images" / "0001.png", "--out-dir",
               tmp_path / "out", "--accelerator", "cpu")
    results = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert results and {each["image_id"] for each in results} == {1}
    assert all(each["segmentation"]["size"] == [64, 64] and 1 <= each["category_id"] <= 6 for each in results)


@pytest.mark.slow
def test_two_processes_give_what_one_gives(shapes, tmp_path):
    """A step of each stage, with unequal numbers of positives in the processes; what they learn differs by rounding alone.

    One process scores three of the five pictures of the test, the other two."""
    content = json.loads((shapes / "test.json").read_text())
    content["images"] = content["images"][:5]
    kept = {each["id"] for each in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (shapes / "five.json").write_text(json.dumps(content))
    for home, start in (("one", run_script), ("two", functools.partial(run_together, tmp_path))):
        start(SCRIPT, *flags_of(shapes, tmp_path / home, "--epochs", 2, "--batch-size", 8, "--test_csv", shapes / "five.json"))
    one, two = (tmp_path / home / "run" for home in ("one", "two"))
    assert [entry["sets"] for entry in timeless(one)] == [entry["sets"] for entry in timeless(two)]
    assert [entry["loss"][0] for entry in timeless(two)] == pytest.approx([e["loss"][0] for e in timeless(one)], rel=1e-5)
    torch.manual_seed(0)  # as the run's --seed
    start = build_from_config(checkpoint.load(one / "last.ckpt")["networks"][0]["config"]).state_dict()
    learnt, apart = (sum(((value - other[name]) ** 2).sum() for name, value in weights_in(one).items()) ** 0.5
                     for other in (start, weights_in(two)))
    assert 0.01 < learnt and apart < 5e-3 * learnt
    scores = [json.loads((folder / "result.json").read_text())["test_last"][0] for folder in (one, two)]
    assert json.loads((two / "result.json").read_text())["machine"]["processes"] == 2
    assert scores[1]["images"] == scores[0]["images"] == 5
    assert scores[1]["ap_per_class"] == pytest.approx(scores[0]["ap_per_class"], abs=1e-6)


def test_a_share_is_1_without_other_processes():
    assert share_of(5, torch.device("cpu")) == 1.0


@pytest.mark.parametrize("change, message", [
    (["--strategy", "dp"], "DataParallel cannot split lists of instances"),
    (["--compile"], "--compile: not with instances"),
    (["--norm", "frozen"], "--norm frozen: norms and first stages would stay as drawn at random; pass --encoder-weights"),
    (["--shift", 2], "--shift: goes with a class CSV"),
    (["--size", 16, 64], "--size 16 64: 32 px or more are needed"),
    (["--model", "small_cnn"], "--model small_cnn: not a network for instances"),
    (["--weighted"], "has no weight, which --weighted needs"),
    (["--encoder-weights", "none.pth"], "--encoder-weights none.pth: no such file"),
    (["--encoder", "vgg"], "--encoder vgg: not an encoder of maskrcnn")])
def test_flags_that_instances_cannot_have_are_refused(change, message, shapes, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, SCRIPT, *flags_of(shapes, tmp_path, *change))
    assert code == 2 and message in error, error


def test_several_gpus_without_torchrun_are_refused(monkeypatch):
    from argparse import Namespace

    monkeypatch.setattr("engine.instances.visible_gpus", lambda args: 2)
    args = Namespace(strategy="auto", accelerator="auto", devices="auto")
    with pytest.raises(UserError, match="start one process per device with torchrun"):
        refuse_data_parallel(args)
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "2")
    refuse_data_parallel(args)


def test_other_categories_are_refused(shapes, trained, tmp_path, monkeypatch, capsys):
    other = (shapes / "test.json").read_text().replace('"star"', '"sun"')
    (shapes / "other.json").write_text(other)
    code, error = run(monkeypatch, capsys, tmp_path, "evaluate.py", "--checkpoint", trained / "last.ckpt", "--csv",
                      shapes / "other.json")
    assert code == 2 and "its `categories` are not those of the run (disc, ring, half moon, square, triangle, ...)" in error


# --- wrong labels -----------------------------------------------------------------------------------------------


def test_trust_by_hand():
    objects = np.array([[.2, .1, .1], [.0, .3, .3], [0, 0, 0]])
    assert trust_of(objects, np.array([0, 1, 2])).tolist() == [.5, .5, 0]


def test_trust_is_written_in_the_order_of_the_json_and_measured_against_the_truth(shapes, tmp_path):
    rows = read_instances(shapes / "noisy.json")
    noisy, clean = (json.loads((shapes / f"{name}.json").read_text())["annotations"] for name in ("noisy", "train"))
    right = [one["category_id"] == other["category_id"] for one, other in zip(noisy, clean)]
    trust = pd.DataFrame({"id": [each["id"] for each in noisy], "trust": np.where(right, .8, .1), "predicted": 1})
    scores = write_trust(str(shapes / "noisy.json"), rows, tmp_path, trust.sample(frac=1, random_state=0))
    assert scores["annotation"].tolist() == [each["id"] for each in noisy]
    assert scores["trust"].tolist() == [.8 if each else .1 for each in right]
    noisy_json = str(shapes / "noisy.json")
    told = measured(scores, noisy_json, str(shapes / "train.json"))
    assert told["auroc"] == told["auprc"] == 1 and told["wrong"] == 1 - np.mean(right)
    assert measured(scores.assign(trust=-scores["trust"]), noisy_json, str(shapes / "train.json"))["auroc"] == 0
    again = read_instances(tmp_path / "weights.json", needs_weights=True)
    assert [each["weight"] for each in again["instances"].iloc[0]] == scores["trust"][:len(again["instances"].iloc[0])].tolist()


@pytest.mark.parametrize("change, message", [
    (lambda found: found["annotations"].reverse(), "has other annotations, or in another order, than"),
    (lambda found: found["annotations"].pop(), "has other annotations"),
    (lambda found: found["categories"][0].update(name="sun"), "has other `categories` than")])
def test_another_truth_is_refused_before_training(change, message, shapes, tmp_path, monkeypatch, capsys):
    truth = json.loads((shapes / "train.json").read_text())
    change(truth)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    code, error = run(monkeypatch, capsys, tmp_path, JUDGE, "--train_csv", shapes / "noisy.json", "--truth", "truth.json",
                      "--name", "x", "--out-dir", tmp_path, *SMALL, "--epochs", 1)
    assert code == 2 and message in error and not (tmp_path / "x").exists(), error


@pytest.mark.parametrize("folds", [2, 3])
def test_a_fold_trains_on_the_pictures_that_it_does_not_judge(shapes, tmp_path, monkeypatch, folds):
    rows, trained_on, judged = read_instances(shapes / "noisy.json"), [], []
    monkeypatch.setattr(wrong_labels, "run",
                        lambda args, task, **other: trained_on.append(set(task.rows(args)["train"]["image"])))
    monkeypatch.setattr(wrong_labels, "load_detector", lambda path: (None, None))
    monkeypatch.setattr(wrong_labels, "start_fabric", lambda args: argparse.Namespace(device="cpu"))
    monkeypatch.setattr(wrong_labels, "judged_by",
                        lambda network, config, rows, *other: judged.append(set(rows["image"])) or pd.DataFrame())
    args = argparse.Namespace(name="trust", out_dir=str(tmp_path), seed=0, batch_size=2, train_csv="x.json", stage1_epochs=1,
                              loss="nlis", pon_threshold=0.5, weighted=False)
    wrong_labels.judge(args, rows, folds)
    assert all(train and judge and train | judge == set(rows["image"]) and not train & judge
               for train, judge in zip(trained_on, judged)) and len(judged) == folds
    with pytest.raises(UserError, match="--folds 9: x.json has 8 pictures"):
        wrong_labels.judge(args, pd.concat([rows, rows]), 9)


def test_figures_of_an_earlier_truth_do_not_outlive_their_scores(shapes, tmp_path, monkeypatch):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "wrong_labels.json").write_text("{}")
    monkeypatch.setattr(wrong_labels, "judge", lambda args, rows, folds: pd.DataFrame(
        [{"id": each["id"], "trust": .5, "predicted": 1} for instances in rows["instances"] for each in instances]))
    call(monkeypatch, wrong_labels, "--train_csv", shapes / "noisy.json", "--name", "trust", "--out-dir", tmp_path, *SMALL)
    assert {path.name for path in (tmp_path / "trust").iterdir()} == {"scores.csv", "weights.json"}


def test_each_label_is_judged_by_a_detector_that_never_saw_its_picture(shapes, tmp_path):
    flags = ["--train_csv", shapes / "noisy.json", "--name", "trust", "--out-dir", tmp_path, *SMALL, "--epochs", 1]
    run_script(JUDGE, *flags, "--truth", shapes / "train.json")
    assert pd.api.types.is_integer_dtype(pd.read_csv(tmp_path / "trust" / "scores.csv")["predicted"])  # a category's id
    scores = pd.read_csv(tmp_path / "trust" / "scores.csv")
    count = len(json.loads((shapes / "noisy.json").read_text())["annotations"])
    assert len(scores) == count and scores["trust"].between(0, 1).all() and scores["trust"].nunique() > 1
    told = json.loads((tmp_path / "trust" / "wrong_labels.json").read_text())
    assert 0 <= told["auroc"] <= 1 and told["annotations"] == count
    parts = [json.loads((tmp_path / "trust" / f"fold{fold}" / "args.json").read_text())["rows"]["train"] for fold in (0, 1)]
    assert [part["count"] for part in parts] == [4, 4] and parts[0]["digest"] != parts[1]["digest"]
    run_script(SCRIPT, "--train_csv", tmp_path / "trust" / "weights.json", "--name", "w", "--out-dir", tmp_path, *SMALL,
               "--epochs", 1, "--stage1-epochs", 0, "--weighted", "--load", tmp_path / "trust" / "fold0" / "last.ckpt")
    assert checkpoint.load(tmp_path / "w" / "last.ckpt")["networks"][0]["config"]["norm"] == "group"


@pytest.mark.parametrize("flags, message", [(["--folds", 1], "--folds 1: a detector must not judge the labels that it saw"),
                                            (["--folds", 9], "--folds 9: "), (["--weighted"], "--weighted: not here")])
def test_folds_that_cannot_be_are_refused(flags, message, shapes, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, JUDGE, "--train_csv", shapes / "noisy.json", "--name", "x", *flags)
    assert code == 2 and message in error, error
