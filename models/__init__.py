"""Networks: `build_model` gives a module that maps images (B, 3, H, W) to logits (B, C, H, W) at any H, W.

While training, PointRend, OCRNet, DeepLabv3 and PSPNet give a dict: these logits and what else they learn from (see
utils/losses.py).

Binary tasks (`num_classes` 2) have one logit per pixel, C = 1; others have C = num_classes.

`build_classifier` gives one that maps images (B, 3, H, W) to logits of whole pictures, (B, C), C = num_classes.

`build_detector` gives one that finds instances: boxes, classes and masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

IMAGE_CHANNELS = 3  # of a network whose config has no `channels`
NAMES = ("unet", "smp_unet", "deeplabv3plus", "pointrend", "ocrnet", "deeplabv3", "pspnet")
WITH_AUXILIARY = ("ocrnet", "deeplabv3", "pspnet")  # networks with a further head, whose loss counts less
CLASSIFIERS = ("small_cnn", "roi_cnn", "preact_resnet18", "timm")
DETECTORS = ("maskrcnn",)


def build_model(name: str, encoder: str = "resnet34", encoder_weights: str | None = None, num_classes: int = 2,
                width: int = 64) -> nn.Module:
    """Build a network by name.

    Args:
        name: `unet`, the classic U-Net, no encoder; `smp_unet`, `deeplabv3plus`, `pointrend`, `ocrnet`, `deeplabv3` or
            `pspnet`, any encoder of segmentation-models-pytorch.
        encoder: name of the encoder (e.g. `resnet34`, `mobilenet_v2`, `tu-<timm name>`; the paper's OCRNet has an HRNet,
            e.g. `tu-hrnet_w48`).
        encoder_weights: None, `imagenet` (fetched from the hub), or a .safetensors/.pth file of the encoder.
        num_classes: classes of the task, background included; >= 2.
        width: channels of the classic U-Net's first level; the published network has 64.

    Raises:
        ValueError: unknown name or encoder, weights that cannot be fetched or do not fit.
    """
    channels = 1 if num_classes == 2 else num_classes
    if name == "unet":
        if encoder_weights:
            raise ValueError("the classic unet has no encoder to load weights into; use smp_unet")
        from models.unet import UNet  # imported here so that --help and other networks do not load it

        return UNet(channels, width)
    if name == "pointrend":
        from models.pointrend import build_pointrend

        return build_pointrend(encoder, encoder_weights, channels)
    if name == "ocrnet":
        from models.ocrnet import build_ocrnet

        return build_ocrnet(encoder, encoder_weights, channels)
    if name in NAMES:
        from models.smp import build_smp

        return build_smp(name, encoder, encoder_weights, channels)
    raise ValueError(f"unknown network {name!r}; there are {', '.join(NAMES)}")


def build_classifier(name: str, encoder: str = "resnet34", encoder_weights: str | None = None,
                     num_classes: int = 10) -> nn.Module:
    """Build a network for class labels by name.

    Args:
        name: `small_cnn`, `roi_cnn` (the same with a hidden layer of 128) or `preact_resnet18`, which have no encoder; or
            `timm`, a pretrained encoder and a linear layer.
        encoder: of `timm`: a name of segmentation-models-pytorch (`resnet34`, `mobilenet_v2`), else of timm.
        encoder_weights: of `timm`, see `build_model`.
        num_classes: >= 2.

    Raises:
        ValueError: unknown name or encoder, weights that cannot be fetched or do not fit, or for a network without encoder.
    """
    if name == "timm":
        from models.encoder_classifier import build_encoder_classifier

        return build_encoder_classifier(encoder, encoder_weights, num_classes)
    if encoder_weights and name in CLASSIFIERS:
        raise ValueError(f"{name} has no encoder to load weights into; use timm")
    if name in ("small_cnn", "roi_cnn"):
        from models.small_cnn import SmallCNN

        return SmallCNN(num_classes, 128 if name == "roi_cnn" else 0)
    if name == "preact_resnet18":
        from models.preact_resnet import PreActResNet18

        return PreActResNet18(num_classes)
    raise ValueError(f"unknown network for class labels {name!r}; there are {', '.join(CLASSIFIERS)}")


def build_detector(name: str, encoder: str, encoder_weights: str | None, num_classes: int, size: tuple[int, int], norm: str,
                   rois: int, width: int, anchor: int) -> nn.Module:
    """Build a network for instances by name, `maskrcnn`; the other arguments are those of `models.maskrcnn.Detector`.

    Raises:
        ValueError: unknown name or encoder, weights that cannot be fetched or do not fit.
    """
    from models.maskrcnn import ENCODERS, Detector

    if name not in DETECTORS:
        raise ValueError(f"unknown network for instances {name!r}; there are {', '.join(DETECTORS)}")
    if encoder not in ENCODERS:
        raise ValueError(f"--encoder {encoder}: not an encoder of {name}; choose from {', '.join(ENCODERS)}")
    return Detector(encoder, encoder_weights, num_classes, size, norm, rois, width, anchor)
