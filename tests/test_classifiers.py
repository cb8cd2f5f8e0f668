"""Classifiers take any size, as published or with a pretrained encoder; their scores by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score
from torch.nn import functional as F

from models import CLASSIFIERS, build_classifier
from models.preact_resnet import PreActBlock
from utils.class_scores import ClassScores, recall_table

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


# --- networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, parameters", [("preact_resnet18", 11_171_274), ("small_cnn", 94_762), ("roi_cnn", 111_274)])
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
