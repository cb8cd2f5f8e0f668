"""OCRNet (Yuan et al. 2020): each pixel's features are joined with those of the object regions it resembles.

The paper's second teacher, there on an HRNet (`tu-hrnet_w18` ... `tu-hrnet_w48`, timm's, through
segmentation-models-pytorch); any other encoder works too.

Legend: B images, C logits per pixel (1 = binary), K regions = classes (2 for binary), D channels, h x w a quarter of H x W.
"""

from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from models.smp import build_with_encoder, pad_to_stride


def build_ocrnet(encoder: str, encoder_weights: str | None, channels: int) -> nn.Module:
    """See `models.build_model`."""
    def make(weights: str | None) -> nn.Module:
        return OCRNet(smp.encoders.get_encoder(encoder, weights=weights), channels)

    return build_with_encoder(make, encoder, encoder_weights)


def conv_block(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; h and w stay."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs),
                         nn.ReLU(inplace=True))


class OCRNet(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C, H, W).

    While training, a dict instead: `logits`, and `auxiliary` (B, C, H, W), the logits of the soft regions, whose loss counts
    0.4 (Yuan et al., section 3.4).

    Args:
        encoder: of segmentation-models-pytorch; its maps of 1/4 of the size and less are resized to 1/4 and joined, as HRNetV2
            joins its branches, each with D / 4 channels (timm's HRNets widen them to 128..1024).
        channels: C.
        width: D of the pixels; keys have half of it.
    """

    def __init__(self, encoder: Any, channels: int, width: int = 256) -> None:
        super().__init__()
        self.encoder = encoder
        self.branches = nn.ModuleList(conv_block(channels_in, width // 4) for channels_in in encoder.out_channels[2:])
        joined = len(self.branches) * (width // 4)
        self.regions = nn.Sequential(conv_block(joined, width), nn.Conv2d(width, channels, 1))
        self.pixels = conv_block(joined, width, kernel=3)
        self.context = ObjectContext(width, width // 2)
        self.last = nn.Conv2d(width, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        height, width = x.shape[-2:]
        padded = pad_to_stride(x)
        maps = [branch(each) for branch, each in zip(self.branches, self.encoder(padded)[2:])]  # 1/4 ... 1/32 of the size
        size = maps[0].shape[-2:]
        joined = torch.cat([maps[0]] + [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps[1:]], dim=1)
        auxiliary = self.regions(joined)  # (B, C, h, w)
        logits = self.last(self.context(self.pixels(joined), auxiliary))  # (B, C, h, w)

        def full(each: torch.Tensor) -> torch.Tensor:
            return F.interpolate(each, padded.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]

        return {"logits": full(logits), "auxiliary": full(auxiliary)} if self.training else full(logits)


class ObjectContext(nn.Module):
    """Pixels (B, D, h, w) and the logits of soft regions (B, C, h, w) -> pixels with their object context (B, D, h, w).

    A region is the mean of the pixels, weighted by how much they belong to it; a pixel's context is the mean of the regions,
    weighted by how much it resembles them (Yuan et al., eq. 2-4).
    """

    def __init__(self, width: int, key: int) -> None:
        super().__init__()
        self.query = nn.Sequential(conv_block(width, key), conv_block(key, key))
        self.key = nn.Sequential(conv_block(width, key), conv_block(key, key))
        self.value = conv_block(width, key)
        self.out = conv_block(key, width)
        self.merge = conv_block(2 * width, width)

    def forward(self, pixels: torch.Tensor, region_logits: torch.Tensor) -> torch.Tensor:
        regions = gather_regions(pixels, region_logits)[..., None]  # (B, D, K, 1), an image of K pixels
        query = self.query(pixels).flatten(2).float()  # (B, key, h w)
        key, value = (f(regions).flatten(2).float() for f in (self.key, self.value))  # (B, key, K)
        relation = (query.transpose(1, 2) @ key * key.shape[1] ** -0.5).softmax(dim=-1)  # (B, h w, K)
        context = (relation @ value.transpose(1, 2)).transpose(1, 2).unflatten(2, pixels.shape[-2:])  # (B, key, h, w)
        return self.merge(torch.cat([pixels, self.out(context).to(pixels.dtype)], dim=1))


def gather_regions(pixels: torch.Tensor, region_logits: torch.Tensor) -> torch.Tensor:
    """Mean of the pixels in each soft region.

    Args:
        pixels: (B, D, h, w).
        region_logits: (B, C, h, w); one logit z stands for the two regions -z (background) and z.

    Returns:
        float32 (B, D, K): the sum of the pixels, weighted by the softmax of their logits over the picture.
    """
    if region_logits.shape[1] == 1:
        region_logits = torch.cat([-region_logits, region_logits], dim=1)
    share = region_logits.flatten(2).float().softmax(dim=-1)  # (B, K, h w)
    return pixels.flatten(2).float() @ share.transpose(1, 2)
