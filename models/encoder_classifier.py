"""A pretrained encoder as a classifier: mean of its deepest feature map over all places, and a linear layer."""

import segmentation_models_pytorch as smp
import torch
from torch import nn

from models.smp import build_with_encoder


class EncoderClassifier(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C)."""

    def __init__(self, encoder: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x)[-1].mean((2, 3)))


def build_encoder_classifier(encoder: str, encoder_weights: str | None, num_classes: int) -> nn.Module:
    """See `models.build_classifier`."""
    has_name = encoder in smp.encoders.get_encoder_names() or encoder.startswith("tu-")

    def make(weights: str | None) -> nn.Module:
        network = smp.encoders.get_encoder(encoder if has_name else f"tu-{encoder}", weights=weights)  # `tu-`: of timm
        return EncoderClassifier(network, network.out_channels[-1], num_classes)

    return build_with_encoder(make, encoder, encoder_weights)
