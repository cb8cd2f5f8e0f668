"""Networks of segmentation-models-pytorch: any encoder, any input size, encoder weights from a file.

U-Net and DeepLabv3+; DeepLabv3 and PSPNet at output stride 8, with an auxiliary head on the encoder's third stage.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

DECODERS = {"smp_unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus, "deeplabv3": smp.DeepLabV3, "pspnet": smp.PSPNet}
FLAGS: dict[str, dict[str, Any]] = {  # of networks with an auxiliary head; dropout as Qiu et al. 2024 have it
    "deeplabv3": {"decoder_aspp_dropout": 0.01}, "pspnet": {"encoder_depth": 5, "output_stride": 8, "psp_dropout": 0.1}}
STRIDE = 32  # the deepest feature map of an encoder


def pad_to_stride(x: torch.Tensor) -> torch.Tensor:
    """Images (B, 3, H, W), continued at the right and at the bottom to multiples of the encoder's stride."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


class AnySize(nn.Module):
    """Pads the input to a multiple of the encoder's stride and crops the logits back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(pad_to_stride(x))[..., :x.shape[-2], :x.shape[-1]]


class WithAuxiliary(nn.Module):
    """Pads as `AnySize`; while training, a dict of `logits` and `auxiliary`, those of a small head on the encoder's features
    before the last (Zhao et al. 2017, PSPNet, section 3.3).

    Args:
        network: smp's, with encoder, decoder and segmentation_head.
        classes: logits per pixel.
    """

    def __init__(self, network: Any, classes: int) -> None:
        super().__init__()
        self.network = network
        inputs = network.encoder.out_channels[-2]
        width = max(1, inputs // 4)
        self.auxiliary = nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                                       nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Conv2d(width, classes, 1))

    def forward(self, x: torch.Tensor) -> Any:
        height, width = x.shape[-2:]
        padded = pad_to_stride(x)
        maps = self.network.encoder(padded)
        logits = self.network.segmentation_head(self.network.decoder(maps))[..., :height, :width]
        if not self.training:
            return logits
        auxiliary = F.interpolate(self.auxiliary(maps[-2]), padded.shape[-2:], mode="bilinear", align_corners=False)
        return {"logits": logits, "auxiliary": auxiliary[..., :height, :width]}


def build_smp(name: str, encoder: str, encoder_weights: str | None, channels: int) -> nn.Module:
    """See `models.build_model`."""
    def make(weights: str | None) -> nn.Module:
        return DECODERS[name](encoder, encoder_weights=weights, classes=channels, **FLAGS.get(name, {}))

    network = build_with_encoder(make, encoder, encoder_weights)
    return WithAuxiliary(network, channels) if name in FLAGS else AnySize(network)


def build_with_encoder(make: Callable[[str | None], Any], encoder: str, encoder_weights: str | None) -> nn.Module:
    """Build a network and load its encoder's weights.

    Args:
        make: function of `imagenet` (fetch from the hub) or None that gives a module with an `encoder`.
        encoder, encoder_weights: see `models.build_model`.
    """
    from_hub = encoder_weights == "imagenet"
    try:
        network = make("imagenet" if from_hub else None)
    except KeyError as error:
        raise ValueError(f"encoder {encoder!r}: {error.args[0]}") from None
    except Exception as error:
        if not from_hub:
            raise ValueError(f"encoder {encoder!r}: {error}") from error
        raise ValueError(f"ImageNet weights of {encoder} could not be fetched ({type(error).__name__}); "
                         "pass --encoder-weights FILE or none") from error
    if encoder_weights and not from_hub:
        load_encoder(network.encoder, encoder_weights)
    return network


def load_encoder(encoder: nn.Module, file: str, prefix: str = "") -> None:
    """Load an encoder's weights from a .safetensors or .pth file.

    Key prefixes that wrappers add (`model.`, `encoder.`, `module.`) are ignored, and so is a classifier in the file; the file
    must hold every weight of the encoder.

    Args:
        prefix: another one that is ignored.

    Raises:
        ValueError: unreadable, or a weight is missing or has another shape.
    """
    if not Path(file).is_file():
        raise ValueError(f"--encoder-weights {file}: no such file (or `imagenet`, `none`)")
    try:
        state: dict[str, Any] = (load_file(file) if str(file).endswith(".safetensors")
                 else torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(f"--encoder-weights {file}: not a readable weights file ({type(error).__name__})") from error
    inner = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(inner, dict) or not all(isinstance(key, str) and isinstance(value, torch.Tensor)
                                              for key, value in inner.items()):
        raise ValueError(f"--encoder-weights {file}: holds no state dict, names and their tensors")
    fit_encoder(encoder, inner, file, prefix)


def fit_encoder(encoder: nn.Module, state: dict[str, Any], source: str, prefix: str = "") -> None:
    """Load an encoder's weights of a state dict, see `load_encoder`.

    Args:
        source: what the user passed as --encoder-weights.
    """
    found = {_bare(key).removeprefix(prefix): value for key, value in state.items()}
    own = encoder.state_dict()
    fitting = {key: found.get(_bare(key), own[key] if key.endswith("num_batches_tracked") else None) for key in own}
    missing = [key for key, value in fitting.items() if value is None or value.shape != own[key].shape]
    if missing:
        raise ValueError(f"--encoder-weights {source}: does not fit this encoder, {len(missing)} of {len(own)} weights are "
                         f"missing or of another shape (first: {missing[0]})")
    # nn.Module's own method, since smp's encoders override it and drop classifier keys, which are gone already
    nn.Module.load_state_dict(encoder, fitting)


def _bare(key: str) -> str:
    return re.sub(r"^((module|encoder|model)\.)+", "", key)
