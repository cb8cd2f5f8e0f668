"""torchvision's Mask R-CNN, opened where training needs it: RoI logits and labels come out beside the losses.

Legend: B pictures, N sampled RoIs of all of them, n instances of one picture, C classes with the background as number 0.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from models.smp import fit_encoder, load_encoder

RESNET = ("layer1", "layer2", "layer3", "layer4")
LEVELS = {"resnet18": RESNET, "resnet50": RESNET, "mobilenet_v2": ("3", "6", "13", "18")}
"""Modules of each encoder whose outputs, of stride 4, 8, 16 and 32, enter the feature pyramid."""
ENCODERS = tuple(LEVELS)
PROPOSALS = {"training": 2000, "testing": 1000}  # at most, of a picture; before the suppression, of each level
LEVELS_OF_PYRAMID = len(RESNET) + 1  # the last one pools that of stride 32


class SeededSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler, whose draws depend on each picture's seed alone: not on its batch, nor on its process."""

    seeds: list[int] = []  # of the pictures of the batch
    sampled = 0  # in the last batch

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of the positives and of the negatives that are drawn, for each picture."""
        drawn = []
        with torch.random.fork_rng():
            for each, seed in zip(matched_idxs, self.seeds, strict=True):
                torch.manual_seed(seed)
                drawn.append([found[0] for found in super().__call__([each])])
        positives, negatives = map(list, zip(*drawn))
        self.sampled = int(sum(each.sum() for each in positives + negatives))
        return positives, negatives


class SampledHeads(RoIHeads):
    """torchvision's heads, which keep what they sampled: `labels`, of each picture's RoIs, and `matched`, the instance each of
    them lies on (0 where it lies on none); and `logits` (N, C)."""

    labels: list[Tensor]
    matched: list[Tensor]
    logits: Tensor

    def select_training_samples(self, proposals: list[Tensor], targets: Any) -> Any:
        """See RoIHeads."""
        found = super().select_training_samples(proposals, targets)
        _, self.matched, self.labels, _ = found
        return found


class Detector(nn.Module):
    """Mask R-CNN on normalised pictures of one size.

    Args:
        encoder: of ENCODERS.
        encoder_weights: see `models.build_model`.
        num_classes: C.
        size: (H, W), px.
        norm: `frozen`, batch norm with fixed statistics and the first stages fixed, for pretrained encoders; `group`, group
            norm in encoder, pyramid and mask head, for networks trained from scratch (He et al., ICCV 2019). Neither depends
            on the batch.
        rois: RoIs sampled from each picture while training. Proposals, before and after the suppression of overlapping ones,
            are four times as many, at most torchvision's 2,000 (training) and 1,000.
        width: channels of the feature pyramid and of the heads; torchvision's has 256.
        anchor: side of the smallest anchors, px, twice as large on each level of the pyramid; torchvision's is 32.

    Raises:
        ValueError: weights that cannot be fetched or do not fit.
    """

    def __init__(self, encoder: str, encoder_weights: str | None, num_classes: int, size: tuple[int, int], norm: str = "frozen",
                 rois: int = 512, width: int = 256, anchor: int = 32) -> None:
        super().__init__()
        backbone = build_backbone(encoder, encoder_weights, norm, width)
        self.network = build_network(backbone, num_classes, size, width, anchor, norm)
        heads = self.network.roi_heads
        heads = SampledHeads(heads.box_roi_pool, heads.box_head, heads.box_predictor, 0.5, 0.5, rois, 0.25, None,
                             heads.score_thresh, heads.nms_thresh, heads.detections_per_img, heads.mask_roi_pool,
                             heads.mask_head, heads.mask_predictor)
        heads.fg_bg_sampler = SeededSampler(rois, 0.25)
        heads.box_predictor.register_forward_hook(lambda module, inputs, output: setattr(heads, "logits", output[0]))
        self.network.roi_heads = heads
        rpn = self.network.rpn
        rpn.fg_bg_sampler = SeededSampler(256, 0.5)
        rpn._pre_nms_top_n = rpn._post_nms_top_n = {mode: min(4 * rois, most) for mode, most in PROPOSALS.items()}

    def forward(self, images: Tensor, targets: list[dict] | None = None, seeds: list[int] | None = None) -> Any:
        """Losses while training, else detections.

        Args:
            images: float (B, 3, H, W).
            targets: of training: list of B dicts of `boxes`, `labels`, `masks`, `weight`; see `data.instances`.
            seeds: of training: B int, of what is drawn.

        Returns:
            while training, a dict: `logits` (N, C); `labels` int64 (N,); `weights` (N,), the `weight` of the instance that an
            RoI lies on, 1 for the background; `parts`, dict of the losses of torchvision's other four heads, each a mean over
            as many samples as `counts` says. Else list of B dicts of `boxes` (n, 4), `labels` (n,), `scores` (n,) and
            `masks` (n, 1, H, W), probabilities.
        """
        if not self.training:
            return self.network(list(images))
        assert targets is not None
        heads, rpn = self.network.roi_heads, self.network.rpn
        heads.fg_bg_sampler.seeds = rpn.fg_bg_sampler.seeds = seeds
        wanted = [{name: each[name] for name in ("boxes", "labels", "masks")} for each in targets]
        losses = self.network(list(images), wanted)
        labels, logits = torch.cat(heads.labels), heads.logits
        weights = torch.cat([_weights(*each) for each in zip(heads.labels, heads.matched, targets)])
        counts = {"loss_objectness": rpn.fg_bg_sampler.sampled, "loss_rpn_box_reg": rpn.fg_bg_sampler.sampled,
                  "loss_box_reg": len(labels), "loss_mask": int((labels > 0).sum())}
        del heads.labels, heads.matched, heads.logits  # or their graph would live until the next step
        return {"logits": logits, "labels": labels, "weights": weights, "parts": {name: losses[name] for name in counts},
                "counts": counts}

    @torch.no_grad()
    def probabilities(self, images: Tensor, boxes: list[Tensor]) -> list[Tensor]:
        """The probability of each class for given boxes, list of B (n, C); in eval mode.

        Args:
            images: float (B, 3, H, W).
            boxes: list of B (n, 4), x0, y0, x1, y1 in px.
        """
        heads, features = self.network.roi_heads, self.network.backbone(images)
        pooled = heads.box_roi_pool(features, boxes, [tuple(images.shape[-2:])] * len(images))
        logits = heads.box_predictor(heads.box_head(pooled))[0]
        return list(logits.float().softmax(1).split(list(map(len, boxes))))


def _weights(labels: Tensor, matched: Tensor, target: dict) -> Tensor:
    """The weights of a picture's RoIs, see `Detector.forward`."""
    if not len(target["weight"]):
        return torch.ones_like(labels, dtype=torch.float32)
    return torch.where(labels > 0, target["weight"][matched], 1.0)


def build_network(backbone: BackboneWithFPN, num_classes: int, size: tuple[int, int], width: int, anchor: int,
                  norm: str) -> MaskRCNN:
    """torchvision's Mask R-CNN whose RPN and heads have `width` channels, on pictures that are normalised already."""
    sides = tuple((anchor * 2**level,) for level in range(LEVELS_OF_PYRAMID))
    return MaskRCNN(backbone, None, image_mean=[0.0] * 3, image_std=[1.0] * 3, fixed_size=size[::-1],
                    rpn_anchor_generator=AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides)),
                    box_head=TwoMLPHead(width * 7**2, 4 * width), box_predictor=FastRCNNPredictor(4 * width, num_classes),
                    mask_head=MaskRCNNHeads(width, (width,) * 4, 1, group_norm if norm == "group" else None),
                    mask_predictor=MaskRCNNPredictor(width, width, num_classes))


def build_backbone(encoder: str, encoder_weights: str | None, norm: str, width: int) -> BackboneWithFPN:
    """An encoder with a feature pyramid of strides 4 to 64; arguments and errors of `Detector`."""
    whole: Any = get_model(encoder, weights=None, norm_layer=FrozenBatchNorm2d if norm == "frozen" else group_norm)
    body = whole.features if encoder == "mobilenet_v2" else whole
    levels = LEVELS[encoder]
    used = IntermediateLayerGetter(body, {levels[-1]: "0"})
    if encoder_weights == "imagenet":
        fit_encoder(used, imagenet_weights(encoder), encoder_weights, "features.")
    elif encoder_weights:
        load_encoder(used, encoder_weights, "features.")
    if norm == "frozen":
        for name, stage in body.named_children():
            stage.requires_grad_(False)
            if name == levels[0]:
                break  # the last one of the first residual stage
    with torch.no_grad():
        maps = IntermediateLayerGetter(body, {name: name for name in levels}).eval()(torch.zeros(1, 3, 64, 64))
    channels = [each.shape[1] for each in maps.values()]
    names = {name: str(place) for place, name in enumerate(levels)}
    return BackboneWithFPN(body, names, channels, width, LastLevelMaxPool(), None if norm == "frozen" else group_norm)


def imagenet_weights(encoder: str) -> dict[str, Tensor]:
    """torchvision's state dict of an encoder, fetched once; group norm takes the scales and shifts of its batch norm.

    Raises:
        ValueError: it could not be fetched.
    """
    try:
        return get_model_weights(encoder).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except Exception as error:
        raise ValueError(f"ImageNet weights of {encoder} could not be fetched ({type(error).__name__}); "
                         "pass --encoder-weights FILE or none") from error


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of at most 32 groups (Wu & He, ECCV 2018)."""
    return nn.GroupNorm(math.gcd(32, channels), channels)
