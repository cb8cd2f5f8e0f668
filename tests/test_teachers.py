"""PointRend and OCRNet by hand-made maps and on photographs; rounds of out-of-fold teachers."""

import json

import lightning_fabric
import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from data.dataset import SegmentationDataset
from data.pictures import read_image, read_mask, resize_image, write_image
from data.rows import pseudo_label_names, read_rows
from data.splits import pair_folder
from data.transforms import normalised
from engine.prediction import predict
from models import build_model
from models.ocrnet import gather_regions
from models.pointrend import draw_points, sample_at, subdivide, uncertainty
from tests.conftest import run_script
from utils.agreement import bf, hard_labels
from utils.losses import AUXILIARY_SHARE, per_sample_loss, training_losses, values_at
from utils.scoring import score_rows

# --- PointRend --------------------------------------------------------------------------------------------------


def test_uncertainty_by_hand():
    assert uncertainty(torch.tensor([[[0.5, -3.0, 0.0]]])).tolist() == [[-0.5, -3.0, 0.0]]
    three = torch.tensor([[[1.0, 2.0], [0.5, 2.0], [0.0, -1.0]]])  # (1, 3, 2)
    assert uncertainty(three).tolist() == [[-0.5, 0.0]]


def test_points_are_sampled_at_pixel_centres_and_between():
    values = torch.tensor([[[[0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0]]]])  # (1, 1, 2, 4)
    points = torch.tensor([[[0.5 / 4, 0.25], [3.5 / 4, 0.75], [2 / 4, 0.25], [0.5 / 4, 0.5], [0.0, 0.0]]])
    assert sample_at(values, points)[0, 0].tolist() == [0, 13, 1.5, 5, 0]


def test_most_points_are_drawn_where_the_map_is_undecided():
    logits = torch.full((2, 1, 20, 20), 5.0)
    logits[..., 10:] = -5.0  # undecided at x = 0.5
    inside = torch.tensor([0.9, 0.6])
    torch.manual_seed(0)
    points = draw_points(logits, 100, inside)
    assert points.shape == (2, 100, 2) and (points >= 0).all() and (points <= inside).all()
    ramp = torch.linspace(-5, 5, 20).expand(2, 1, 20, 20)
    points = draw_points(ramp, 100, torch.ones(2))
    closest = (points[..., 0] - 0.5).abs().sort(dim=1).values
    assert (closest[:, 74] < 0.2).all()  # 75 of 300 uniform ones lie within 0.125
    assert (points[..., 0] - 0.5).abs().max() > 0.3  # the last quarter is uniform


def test_subdivision_corrects_the_least_certain_pixels_only():
    coarse = torch.tensor([[[[-8.0, -8.0], [8.0, 8.0]]]])  # undecided half-way down
    asked = []

    def head(points):
        asked.append(points)
        return torch.full((1, 1, points.shape[1]), 100.0)

    fine = subdivide(coarse, head, share=0.25, steps=1)
    plain = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)  # rows -8, -4, 4, 8
    changed = fine != plain
    assert changed.sum() == 4 and (fine[changed] == 100).all()
    assert plain[changed].abs().unique().tolist() == [4.0]
    centres = {(round(x * 4 - 0.5), round(y * 4 - 0.5)) for x, y in asked[0][0].tolist()}
    assert centres == {(x, y) for _, _, y, x in changed.nonzero().tolist()}
    assert subdivide(coarse, head, share=0.25, steps=2).shape == (1, 1, 8, 8)


def test_subdivision_of_many_classes_replaces_whole_pixels():
    coarse = torch.randn(2, 5, 3, 3)
    fine = subdivide(coarse, lambda points: torch.arange(5.0)[None, :, None].expand(2, 5, points.shape[1]), 0.5, steps=1)
    corrected = (fine == torch.arange(5.0)[None, :, None, None]).all(dim=1)
    assert corrected.flatten(1).sum(1).tolist() == [18, 18]


def test_training_points_lie_in_the_picture_and_learn_from_its_labels():
    network = build_model("pointrend", "mobilenet_v2")
    output = network.train()(torch.randn(2, 3, 37, 70))  # padded to 64 x 96
    x, y = output["points"].unbind(-1)
    assert (x >= 0).all() and (x <= 70).all() and (y >= 0).all() and (y <= 37).all() and x.max() > 60 and y.max() > 30
    mask = torch.zeros(1, 4, 5, dtype=torch.long)
    mask[0, 2, 3], mask[0, 0, 0] = 1, 255
    points = torch.tensor([[[3.0, 2.0], [3.99, 2.99], [4.0, 2.0], [5.0, 4.0], [0.5, 0.5]]])
    assert values_at(mask, points).tolist() == [[1, 1, 0, 0, 255]]


# --- OCRNet -----------------------------------------------------------------------------------------------------


def test_a_region_is_the_mean_of_its_pixels():
    pixels = torch.tensor([[[[1.0, 3.0], [5.0, 9.0]]]])  # (1, 1, 2, 2)
    sure = torch.tensor([[[[30.0, 30.0], [-30.0, -30.0]], [[-30.0, -30.0], [-30.0, 30.0]]]])  # two regions
    torch.testing.assert_close(gather_regions(pixels, sure)[0, 0], torch.tensor([2.0, 9.0]))
    binary = torch.tensor([[[[30.0, 30.0], [30.0, -30.0]]]])  # foreground is three pixels, background one
    torch.testing.assert_close(gather_regions(pixels, binary)[0, 0], torch.tensor([9.0, 3.0]))
    even = torch.zeros(1, 3, 2, 2)
    torch.testing.assert_close(gather_regions(pixels, even)[0, 0], torch.tensor([4.5, 4.5, 4.5]))


# --- both -------------------------------------------------------------------------------------------------------


def test_what_a_network_learns_from_adds_up():
    mask = torch.randint(0, 3, (2, 6, 8))
    mask[0, 0, 0] = 255
    logits, auxiliary, point_logits = torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 4)
    points = torch.tensor([[0.5, 0.5], [1.5, 0.5], [7.5, 5.5], [3.0, 3.0]]).expand(2, 4, 2)
    plain = training_losses(logits, mask)
    assert torch.equal(plain, per_sample_loss(logits, mask))
    ocr = training_losses({"logits": logits, "auxiliary": auxiliary}, mask)
    torch.testing.assert_close(ocr, plain + AUXILIARY_SHARE * per_sample_loss(auxiliary, mask))
    pointrend = training_losses({"logits": logits, "point_logits": point_logits, "points": points}, mask)
    labels = mask[:, [0, 0, 5, 3], [0, 1, 7, 3]]  # (2, 4)
    expected = torch.stack([F.cross_entropy(point_logits[b].T, labels[b], ignore_index=255) for b in range(2)])
    torch.testing.assert_close(pointrend, plain + expected)


@pytest.mark.slow
@pytest.mark.parametrize("name, steps", [("pointrend", 110), ("ocrnet", 140)])
def test_a_teacher_overfits_four_photographs(photos, name, steps):
    torch.manual_seed(0)
    items = SegmentationDataset(pair_folder(photos).iloc[:4], (96, 64), 2).__getitems__(range(4))
    images, masks = normalised(items["image"]), items["mask"].long()
    network = build_model(name, "mobilenet_v2")
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.002)
    for _ in range(steps):
        loss = training_losses(network.train()(images), masks).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        scores = bf(hard_labels(network.eval()(images)), masks, 2)
    assert scores.mean() > 0.95, scores


def test_a_second_round_learns_with_the_weights_of_the_first(csvs, tmp_path):
    train = csvs / "train_noisy_60.csv"
    run_script("train_teacher.py", "--train_csv", train, "--valid_csv", csvs / "valid_noisy_60.csv", "--name", "t", "--out-dir",
               tmp_path, "--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--epochs", 2, "--folds", 2, "--rounds", 2,
               "-l", 0.01, "--optimizer", "adamw")
    record = json.loads((tmp_path / "t" / "teacher.json").read_text())
    rows = read_rows(train)
    first = score_rows(rows, tmp_path / "t" / "round1" / "pseudo", 2, "bf", 3.0, (48, 32))
    weight_of = dict(zip(rows["image"], first))
    (one,), two = record["earlier_rounds"], record["folds"]
    for before, after in zip(one, two):
        assert before["judges"] == after["judges"] and not before["weighted"] and after["weighted"]  # the same folds
        trained_on = read_rows(after["trained_on"], needs_weights=True)
        assert not set(pseudo_label_names(trained_on)) & set(after["judges"])
        assert trained_on["weight"].tolist() == pytest.approx([weight_of[image] for image in trained_on["image"]])
        assert "weight" not in read_rows(before["trained_on"])
    logged = json.loads((tmp_path / "t" / "fold0" / "log.jsonl").read_text().splitlines()[0])
    assert logged["weight"][0] == pytest.approx(read_rows(two[0]["trained_on"])["weight"].mean(), abs=0.25)
    assert logged["weight"][0] < 0.999
    assert len(list((tmp_path / "t" / "pseudo").iterdir())) == len(rows)
    # the same in two calls: the first round's weights as a CSV
    run_script("utils/get_weight.py", "--csv", train, "--pred-dir", tmp_path / "t" / "round1" / "pseudo", "--metric", "bf",
               "--size", 48, 32, "--out", tmp_path / "w.csv")
    run_script("train_teacher.py", "--train_csv", tmp_path / "w.csv", "--weighted", "--valid_csv", csvs / "valid_noisy_60.csv",
               "--name", "v", "--out-dir", tmp_path, "--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--epochs", 2,
               "--folds", 2, "-l", 0.01, "--optimizer", "adamw")
    for path in (tmp_path / "t" / "pseudo").iterdir():
        assert np.array_equal(read_mask(path), read_mask(tmp_path / "v" / "pseudo" / path.name))
    logs = [(tmp_path / name / "fold1" / "log.jsonl").read_text().splitlines() for name in "tv"]
    assert json.loads(logs[0][1])["loss"] == json.loads(logs[1][1])["loss"]
    # detectors, by the same teachers: each mask is judged once by the network that never saw it, once by one that did
    run_script("benchmarks/bench_detectors.py", "--teacher", tmp_path / "t", "--csv", train, "--truth", train, "--size", 48, 32,
               "--out", tmp_path / "d.json")
    found = json.loads((tmp_path / "d.json").read_text())["detectors"]
    ours = [each for each in found if "cleanlab" not in each["score"]]
    assert [(each["teacher"], each["score"]) for each in ours] == [(kind, metric) for kind in ("out-of-fold", "in-sample")
                                                                  for metric in ("miou", "bf", "bm", "bf, strict")]
    assert all(0 <= each["auroc"] <= 1 for each in ours) and ours[0]["auroc"] != ours[4]["auroc"]
    done = run_script("train_teacher.py", "--train_csv", train, "--name", "u", "--out-dir", tmp_path, "--folds", 1,
                      "--rounds", 2, check=False)
    assert done.returncode == 2 and "--rounds needs --folds 2" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pointrend", "ocrnet"])
def test_a_teacher_of_other_data_judges_these_rows(csvs, tmp_path, name):
    """--folds 1: trained on clean rows of another CSV, exports by the code of predict.py."""
    run_script("train_teacher.py", "--train_csv", csvs / "test.csv", "--predict_csv", csvs / "train_noisy_60.csv",
               "--folds", 1, "--name", "t", "--out-dir", tmp_path, "--model", name, "--encoder", "mobilenet_v2", "--epochs", 1,
               "--size", 48, 32, "--accelerator", "cpu")
    record = json.loads((tmp_path / "t" / "teacher.json").read_text())
    assert not record["out_of_fold"] and record["model"] == name
    assert record["folds"][0]["trained_on"] == str(csvs / "test.csv")
    assert sorted(p.name for p in (tmp_path / "t" / "pseudo").iterdir()) == sorted(record["folds"][0]["judges"])
    run_script("utils/get_weight.py", "--csv", csvs / "train_noisy_60.csv", "--pred-dir", tmp_path / "t" / "pseudo", "--out",
               tmp_path / "w.csv")
    assert np.isfinite(read_rows(tmp_path / "w.csv", needs_weights=True)["weight"]).all()


def test_a_flipped_prediction_mirrors_with_its_picture(photos, tmp_path):
    """Averaged with the mirrored picture, a network that prefers one side no longer does; alone, it does."""
    picture = resize_image(read_image(pair_folder(photos).iloc[0].image), (48, 32))
    for name, pixels in (("as_it_is", picture), ("mirrored", picture[:, ::-1].copy())):
        write_image(tmp_path / "images" / f"{name}.png", pixels)
    rows = pd.DataFrame({"image": [str(tmp_path / "images" / f"{name}.png") for name in ("as_it_is", "mirrored")]})
    torch.manual_seed(0)
    network = build_model("unet", width=4)
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    config = {"size": (48, 32), "num_classes": 2}
    with torch.no_grad():
        network.eval()  # shift the logits so that half of the pixels are foreground
        network.head.bias -= network(normalised(torch.from_numpy(picture).permute(2, 0, 1)[None])).median()
    labels = {}
    for flip in (False, True):
        predict(fabric, network, config, rows, pseudo_label_names(rows), tmp_path / str(flip), flip=flip)
        labels[flip] = [read_mask(tmp_path / str(flip) / name) for name in pseudo_label_names(rows)]
    assert np.array_equal(labels[True][0], labels[True][1][:, ::-1]) and 0 < labels[True][0].mean() < 1
    assert not np.array_equal(labels[False][0], labels[False][1][:, ::-1])


def test_an_hrnet_serves_ocrnet():
    network = build_model("ocrnet", "tu-hrnet_w18_small")
    training_losses(network(torch.randn(2, 3, 64, 48)), torch.zeros(2, 64, 48, dtype=torch.long)).mean().backward()
    assert all(p.grad is not None for p in network.parameters())  # DDP waits for each of them
    assert network.eval()(torch.randn(1, 3, 64, 48)).shape == (1, 1, 64, 48)
