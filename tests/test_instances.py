"""Instances as a task: what is read and refused, batches at the training size, losses, draws."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.detection import roi_heads as torchvision_heads

from cli.files import UserError
from data.coco_files import annotation_of, categories, image_of, run_lengths, write_coco
from data.instances import InstanceDataset, check_instance_files, decoded, mirrored, read_categories, read_instances
from data.pictures import write_image
from engine.instances import build_from_config, detect, instance_losses
from models import maskrcnn

CONFIG = {"name": "maskrcnn", "encoder": "resnet18", "norm": "group", "rois": 16, "width": 16, "num_classes": 4,
          "size": [64, 64]}
NAMES = ["cat", "dog", "cow"]


def rectangle(top, left, bottom, right, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def write_set(folder, pictures=3):
    """Pictures of 40 x 60 px with two rectangles each, in colours; the second one is a crowd in picture 3."""
    images, annotations = [], []
    for number in range(1, pictures + 1):
        image = np.full((40, 60, 3), 90, np.uint8)
        for place, mask in enumerate((rectangle(4, 6, 24, 30), rectangle(10, 36, 36, 54)), 1):
            image[mask > 0] = (40 * place, 200 - 60 * place, 20 * number)
            annotations.append(annotation_of(10 * number + place, number, [5, 7, 9][(number + place) % 3], mask,
                                             crowd=number == 3 and place == 2))
        write_image(folder / "images" / f"{number}.png", image)
        images.append({**image_of(number, folder / "images" / f"{number}.png", (40, 60)), "file_name": f"{number}.png"})
    content = {"images": images, "annotations": annotations, "categories": categories(NAMES, [5, 7, 9])}
    write_coco({folder / "set.json": content}, overwrite=True)
    return content


@pytest.fixture
def coco(tmp_path):
    """(folder with set.json, its content)"""
    return tmp_path, write_set(tmp_path)


def test_rows(coco):
    folder, content = coco
    rows = read_instances(folder / "set.json")
    assert read_categories(folder / "set.json") == (NAMES, [5, 7, 9])
    assert rows["image"].tolist() == [str(folder / "images" / f"{number}.png") for number in (1, 2, 3)]
    assert [[each["label"] for each in row] for row in rows["instances"]] == [[3, 1], [1, 2], [2, 3]]
    assert [[each["iscrowd"] for each in row] for row in rows["instances"]] == [[0, 0], [0, 0], [0, 1]]
    assert rows["instances"].iloc[0][0]["bbox"] == [6, 4, 24, 20]
    check_instance_files(folder / "set.json", rows)


def test_every_kind_of_segmentation_gives_the_same_mask(coco):
    mask = rectangle(4, 6, 24, 30)
    from faster_coco_eval.core import mask as library

    compressed = library.encode(np.asfortranarray(mask))
    counts = compressed["counts"] if isinstance(compressed["counts"], str) else compressed["counts"].decode()
    polygon = [[6, 4, 30, 4, 30, 24, 6, 24]]
    halves = [[6, 4, 18, 4, 18, 24, 6, 24], [18, 4, 30, 4, 30, 24, 18, 24]]
    for shape in (run_lengths(mask), {"size": [40, 60], "counts": counts}, polygon, halves):
        assert np.array_equal(decoded(shape, 40, 60), mask), shape
    assert run_lengths(np.array([[1, 0], [1, 1]])) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


@pytest.mark.parametrize("where, key, value, message", [
    ("annotations", "category_id", 6, "annotation 11: category_id 6 is none of `categories`"),
    ("annotations", "image_id", 44, "annotation 11: image_id 44 is none of `images`"),
    ("annotations", "bbox", [1, 2, 3], r"annotation 11: bbox \[1, 2, 3\] is not \[x, y, width, height\]"),
    ("annotations", "bbox", [1, 2, -3, 4], "annotation 11: bbox"),
    ("annotations", "segmentation", [[1, 2, 3, 4]], "annotation 11: segmentation is neither polygons of three points"),
    ("annotations", "segmentation", {"size": [40, 60], "counts": [3]}, "annotation 11: segmentation is neither"),
    ("annotations", "segmentation", None, "annotation 11: segmentation is neither"),
    ("annotations", "bbox", [4, 6, 20, 24], r"annotation 11: bbox \[4, 6, 20, 24\] is not the box around its segmentation"),
    ("annotations", "bbox", [6, 4, 30, 24], "is not the box around its segmentation"),
    ("annotations", "segmentation", [[36, 10, 54, 10, 54, 36]], "is not the box around its segmentation"),
    ("annotations", "segmentation", {"size": [40, 60], "counts": [2400]}, "is not the box around its segmentation"),
    ("annotations", "iscrowd", 2, "annotation 11: iscrowd 2 is neither 0 nor 1"),
    ("annotations", "weight", 1.5, "annotation 11: weight 1.5: weights lie in 0..1"),
    ("images", "file_name", "none.png", "image 'none.png': no such file; pass --image-dir"),
    ("images", "id", 2, "two of them have the same id"),
    ("images", "height", "40", "lacks a `file_name`, or a whole `id`"),
    ("categories", "name", 3, "`categories` must be a list of objects")])
def test_faults_are_named(coco, where, key, value, message):
    folder, content = coco
    content[where][0][key] = value
    (folder / "set.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_instances(folder / "set.json")


def test_boxes_may_be_rounded_and_reach_beyond_the_picture(coco):
    """Rounded by less than 2 px + a tenth of the longer side, 24 px; what lies beyond the picture of 40 x 60 px is left out."""
    folder, content = coco
    content["annotations"][0]["bbox"] = [6.4, 3.5, 25.5, 20.9]
    content["annotations"][1] |= {"bbox": [40, 10, 90, 70], "segmentation": [[40, 10, 61, 10, 61, 44]]}
    (folder / "set.json").write_text(json.dumps(content))
    assert len(read_instances(folder / "set.json")) == 3


def test_weights_are_demanded_and_sizes_compared(coco):
    folder, content = coco
    with pytest.raises(UserError, match="annotation 11: has no weight, which --weighted needs"):
        read_instances(folder / "set.json", needs_weights=True)
    content["images"][0]["height"] = 30
    for each in content["annotations"][:2]:
        each |= {"segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]}
    (folder / "set.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="1.png: has 40 x 60 px, the JSON says 30 x 60"):
        check_instance_files(folder / "set.json", read_instances(folder / "set.json"))


def test_batches_are_at_the_training_size(coco):
    rows = read_instances(coco[0] / "set.json")
    batch = InstanceDataset(rows, (80, 60), training=True).__getitems__([0, 2])
    assert batch["image"].shape == (2, 3, 80, 60) and batch["image"].dtype == torch.uint8
    first, last = batch["targets"]
    assert first["boxes"].tolist() == [[6, 8, 30, 48], [36, 20, 54, 72]] and first["labels"].tolist() == [3, 1]
    assert np.array_equal(first["masks"][0].numpy(), rectangle(8, 6, 48, 30, (80, 60)))
    assert last["labels"].tolist() == [2] and last["weight"].tolist() == [1]  # the crowd is left out
    whole = InstanceDataset(rows, (80, 60)).__getitems__([2])["targets"][0]
    assert whole["labels"].tolist() == [2, 3] and whole["crowd"].tolist() == [0, 1]
    tiny = InstanceDataset(rows, (32, 3), training=True).__getitems__([0])["targets"][0]
    assert tiny["labels"].tolist() == [3] and tiny["boxes"].shape == (1, 4)  # 18 of 60 px become 0.9


def test_mirroring_moves_all_alike_and_draws_do_not_depend_on_the_batch(coco):
    rows = read_instances(coco[0] / "set.json")
    image, target = np.arange(5 * 60 * 3).reshape(5, 60, 3), {"boxes": np.array([[6., 4, 30, 24]], np.float32),
                                                              "masks": rectangle(4, 6, 24, 30)[None]}
    turned, moved = mirrored(image, target)
    assert moved["boxes"].tolist() == [[30, 4, 54, 24]] and moved["masks"][0, 4, 30:54].all() and not moved["masks"][0, 4, 29]
    assert (turned[:, 0] == image[:, 59]).all() and target["boxes"].tolist() == [[6, 4, 30, 24]]
    dataset = InstanceDataset(rows, (40, 60), training=True, mirror=True, seed=4)
    seen = set()
    for dataset.epoch in range(12):
        both, alone = dataset.__getitems__([0, 1]), dataset.__getitems__([1])
        assert both["seeds"][1:] == alone["seeds"] and torch.equal(both["image"][1], alone["image"][0])
        seen.add(tuple(alone["targets"][0]["boxes"][0].tolist()))
    assert seen == {(6, 4, 30, 24), (30, 4, 54, 24)}


# --- the network ------------------------------------------------------------------------------------------------


def detector(**changed):
    torch.manual_seed(0)
    return build_from_config({**CONFIG, **changed})


def batch_of(folder, indices=(0, 1)):
    batch = InstanceDataset(read_instances(folder / "set.json"), (64, 64), training=True).__getitems__(list(indices))
    return {**batch, "image": batch["image"] / 255.0}


def test_the_outputs_give_torchvisions_own_loss_and_reach_every_weight(coco, monkeypatch):
    """The dropped loss_classifier, which torchvision computes on its own, is the mean CE of the logits that come out."""
    seen = []
    own = torchvision_heads.fastrcnn_loss
    monkeypatch.setattr(torchvision_heads, "fastrcnn_loss", lambda *inputs: seen.append(own(*inputs)) or seen[-1])
    network, batch = detector().train(), batch_of(coco[0])
    output = detect(network, batch)
    assert len(output["logits"]) == len(output["labels"]) == len(output["weights"]) == output["counts"]["loss_box_reg"] <= 32
    loss = torch.nn.functional.cross_entropy(output["logits"], output["labels"])
    assert loss.item() == pytest.approx(seen[0][0].item(), rel=1e-6)
    assert output["other"].item() == pytest.approx(sum(part.item() for part in output["parts"].values()), rel=1e-6)
    assert set(output["parts"]) == {"loss_objectness", "loss_rpn_box_reg", "loss_box_reg", "loss_mask"}
    instance_losses(output, batch).sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_each_roi_has_the_weight_of_its_instance(coco):
    network, batch = detector(rois=64).train(), batch_of(coco[0])
    for number, target in enumerate(batch["targets"]):
        target["weight"] = torch.tensor([0.25, 0.5]) + number / 4  # labels (3, 1) and (1, 2)
    output = detect(network, batch)
    half = output["counts"]["loss_box_reg"] // 2
    pairs = {(number, label, weight) for number, part in enumerate((slice(None, half), slice(half, None)))
             for label, weight in zip(output["labels"][part].tolist(), output["weights"][part].tolist())}
    assert pairs == {(0, 0, 1), (0, 3, .25), (0, 1, .5), (1, 0, 1), (1, 1, .5), (1, 2, .75)}


def test_draws_depend_on_the_seeds_alone(coco):
    network, batch = detector().train(), batch_of(coco[0])
    first = detect(network, batch)["labels"]
    torch.manual_seed(99)
    again = detect(network, batch)
    assert torch.equal(first, again["labels"])
    alone = detect(network, batch_of(coco[0], [1]))
    assert torch.allclose(again["logits"][-len(alone["logits"]):], alone["logits"], atol=1e-5)
    boxes = [each["boxes"] for each in batch["targets"]]
    chances = network.eval().probabilities(batch["image"], boxes)
    assert [each.shape for each in chances] == [(2, 4), (2, 4)] and torch.allclose(chances[0].sum(1), torch.ones(2))


def test_there_are_four_proposals_for_each_roi_at_most_torchvisions():
    for rois, wanted in ((16, (64, 64)), (512, (2000, 1000))):
        rpn = detector(rois=rois).network.rpn
        assert all((n["training"], n["testing"]) == wanted for n in (rpn._pre_nms_top_n, rpn._post_nms_top_n))
        assert (rpn.training, rpn.pre_nms_top_n(), rpn.post_nms_top_n()) == (True, wanted[0], wanted[0])
        rpn.eval()
        assert rpn.pre_nms_top_n() == rpn.post_nms_top_n() == wanted[1]


def test_anchors_are_those_of_the_config_and_of_checkpoints_before_it_had_them():
    for changed, wanted in (({}, 32), ({"anchor": 8}, 8)):
        sizes = detector(**changed).network.rpn.anchor_generator.sizes
        assert sizes == tuple((wanted * 2**level,) for level in range(5))


def test_a_picture_without_instances_teaches_the_background(coco):
    network, batch = detector().train(), batch_of(coco[0])
    batch["targets"] = [{name: value[:0] for name, value in each.items()} for each in batch["targets"]]
    output = detect(network, batch)
    assert not output["labels"].any() and torch.isfinite(instance_losses(output, batch)).all()


@pytest.mark.parametrize("encoder, norm", [("resnet18", "frozen"), ("mobilenet_v2", "frozen"), ("mobilenet_v2", "group")])
def test_frozen_norms_and_stages(encoder, norm):
    network = detector(encoder=encoder, norm=norm)
    body = dict(network.network.backbone.body.named_parameters())
    fixed = [name for name, weight in body.items() if not weight.requires_grad]
    assert bool(fixed) == (norm == "frozen") and len(fixed) < len(body) / 2
    assert not any("bn" in name or "downsample.1" in name for name in body) or norm == "group"  # frozen ones are no parameters
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("GroupNorm" in kinds) == (norm == "group") and "BatchNorm2d" not in kinds


@pytest.mark.parametrize("change, words", [
    ({"id": 1}, "two of them have the same id"),
    ({"id": [1]}, "no whole id"),
    ({"category_id": [1]}, "category_id .* is none"),
    ({"category_id": True}, "category_id True is none"),
    ({"image_id": {}}, "image_id {} is none"),
    ({"bbox": [0, 0, 10**400, 1]}, "is not .x, y, width, height."),
    ({"segmentation": {"size": [24, 32], "counts": "no code"}}, "segmentation is neither"),
    ({"segmentation": {"size": [24, 32], "counts": ""}}, "segmentation is neither"),
    ({"segmentation": {"size": [24, 32], "counts": [24 * 32.0]}}, "segmentation is neither"),
    ({"segmentation": [[0, 0, 1e9, 0, 0, 5]]}, "segmentation is neither"),
])
def test_values_of_another_kind_are_named(tmp_path, change, words):
    write_image(tmp_path / "a.png", np.zeros((24, 32, 3), np.uint8))
    right = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 6, 1, 6, 6]], "iscrowd": 0}
    content = {"images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
               "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
               "annotations": [right, {**right, "id": 2, **change}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        read_instances(tmp_path / "x.json")


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_imagenet_weights_go_into_either_norm(norm, monkeypatch):
    """Scales and shifts of the batch norm are those of the group norm; what cannot be fetched is told."""
    torch.manual_seed(0)
    fetched = {name: torch.rand_like(value) if value.is_floating_point() else value
               for name, value in torchvision.models.resnet18().state_dict().items()}
    hub = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=lambda **flags: fetched))
    monkeypatch.setattr(maskrcnn, "get_model_weights", lambda encoder: hub)
    body = maskrcnn.build_backbone("resnet18", "imagenet", norm, 16).body.state_dict()
    assert len(body) >= 60 and all(torch.equal(value, fetched[name]) for name, value in body.items())
    monkeypatch.setattr(maskrcnn, "get_model_weights", lambda encoder: 1 / 0)
    with pytest.raises(ValueError, match=r"ImageNet weights of resnet18 could not be fetched \(ZeroDivisionError\)"):
        maskrcnn.build_backbone("resnet18", "imagenet", norm, 16)
