"""Networks: `build_model` gives a module that maps images (B, 3, H, W) to logits (B, C, H, W) at any H, W.

Binary tasks (`num_classes` 2) have one logit per pixel, C = 1; others have C = num_classes.
"""

from models.smp import build_smp
from models.unet import UNet

NAMES = ("unet", "smp_unet", "deeplabv3plus")


def build_model(name, encoder="resnet34", encoder_weights=None, num_classes=2, width=64):
    """Build a network by name.

    Args:
        name: `unet`, the classic U-Net, no encoder; `smp_unet` or `deeplabv3plus`, any encoder of
            segmentation-models-pytorch.
        encoder: name of the encoder (e.g. `resnet34`, `mobilenet_v2`, `tu-<timm name>`).
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
        return UNet(channels, width)
    if name in NAMES:
        return build_smp(name, encoder, encoder_weights, channels)
    raise ValueError(f"unknown network {name!r}; there are {', '.join(NAMES)}")
