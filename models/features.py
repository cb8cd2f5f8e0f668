"""Features of a frozen pretrained encoder: its last feature maps, averaged over all pixels."""

from types import SimpleNamespace
from typing import Any

import torch
from segmentation_models_pytorch.encoders import get_encoder, get_preprocessing_params
from torch import nn

from data.transforms import IMAGENET_MEAN, IMAGENET_STD
from models.smp import build_with_encoder, pad_to_stride


class PooledFeatures(nn.Module):
    """An encoder in eval mode, without gradient: images uint8 (B, 3, H, W) -> features float32 (B, D).

    Args:
        encoder: of segmentation-models-pytorch.
        mean, std: of each channel, as the encoder was trained, in 0..1.
        maps: the last feature maps, this many, are averaged over their pixels and joined.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: nn.Module, mean: Any, std: Any, maps: int = 1) -> None:
        super().__init__()
        self.encoder, self.maps = encoder, maps
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalised = images.to(torch.float32, memory_format=torch.channels_last).sub(self.mean).div(self.std)
        maps = self.encoder(pad_to_stride(normalised))[-self.maps:]
        return torch.cat([each.mean((2, 3)) for each in maps], 1)


def build_features(encoder: str, encoder_weights: str | None, maps: int = 1) -> PooledFeatures:
    """The features of an encoder; `tu-` encoders (timm's) get the mean and deviation that they were trained with, others those
    of ImageNet.

    Args:
        encoder, encoder_weights: see `models.build_model`.
        maps: see `PooledFeatures`.

    Raises:
        ValueError: see `models.build_model`.
    """
    def make(weights: str | None) -> SimpleNamespace:
        return SimpleNamespace(encoder=get_encoder(encoder, weights=weights))

    network: Any = build_with_encoder(make, encoder, encoder_weights).encoder
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if encoder.startswith("tu-"):
        try:
            published = get_preprocessing_params(encoder)
            mean, std = published["mean"], published["std"]
        except ValueError:
            pass  # nobody has published weights of it
    return PooledFeatures(network, mean, std, maps)
