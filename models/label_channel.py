"""One more input channel for a network of images: its label, as numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from models import IMAGE_CHANNELS

DEVIATION = 0.1  # of a new plane's weights


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """The convolution that sees the image, and its name in the network; None if it does not mix its input channels."""
    found = next(((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)
    return found if found and found[1].groups == 1 else None


def widen(network: nn.Module, channels: int) -> None:
    """Let a network of 3 input channels take more, in place: its weights stay, those of new planes are N(0, 0.1^2).

    Call it after the encoder's weights are loaded.

    Raises:
        ValueError: there is no such convolution, see `first_convolution`, or it takes no image.
    """
    found = first_convolution(network)
    if not found:
        raise ValueError("the network's first layer is no convolution over all input channels, so it cannot take one more")
    layer = found[1]
    if layer.in_channels != IMAGE_CHANNELS:
        raise ValueError(f"the network's first convolution takes {layer.in_channels} channels, not the {IMAGE_CHANNELS} of an "
                         "image, so it cannot take one more")
    more = torch.randn(layer.weight.shape[0], channels - layer.in_channels, *layer.kernel_size) * DEVIATION
    layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), more.to(layer.weight)], 1))
    layer.in_channels = channels


def widened(state: Mapping[str, torch.Tensor], network: nn.Module) -> Mapping[str, torch.Tensor]:
    """Weights of a network of 3 input channels, as a wider one takes them: it keeps its own further planes.

    Args:
        state: a state dict; it is returned as it is if `network` is not wider, or of another shape.
    """
    found = first_convolution(network)
    name = f"{found[0]}.weight" if found else ""
    if not found or found[1].in_channels <= IMAGE_CHANNELS or name not in state or state[name].shape[1] != IMAGE_CHANNELS:
        return state
    own = found[1].weight.detach()
    return {**state, name: torch.cat([state[name], own[:, IMAGE_CHANNELS:].to(state[name])], 1)}
