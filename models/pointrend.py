"""PointRend (Kirillov et al. 2020): coarse logits, and a head on fine features that corrects the uncertain points.

The paper's better teacher: its outlines stay sharp, while a decoder's upsampling rounds them off.

Legend: B images, C logits per pixel (1 = binary), N points; points are (x, y) in 0..1 of the padded picture.
"""

from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from models.smp import build_with_encoder, pad_to_stride


def build_pointrend(encoder: str, encoder_weights: str | None, channels: int) -> nn.Module:
    """See `models.build_model`."""
    def make(weights: str | None) -> nn.Module:
        return smp.FPN(encoder, encoder_weights=weights, classes=channels, upsampling=1)  # logits at a quarter of the size

    return PointRend(build_with_encoder(make, encoder, encoder_weights), channels)


class PointRend(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C, H, W).

    While training, a dict instead: `logits`, the coarse ones brought to (H, W); `point_logits` (B, C, N) and `points`
    (B, N, 2; x, y in pixels). The loss is that of the coarse logits plus that of the points, in equal parts.

    Args:
        network: segmentation-models-pytorch's FPN, its logits at a quarter of the size.
        channels: C.
        width: hidden channels of the point head.
        train_share: points per pixel while training (Kirillov et al.: 2048 of 512 x 1024; more here, pictures are small).
        refine_share: points corrected per pixel of each doubling.
    """

    def __init__(self, network: Any, channels: int, width: int = 256, train_share: float = 1 / 32,
                 refine_share: float = 1 / 8) -> None:
        super().__init__()
        self.network = network
        self.train_share, self.refine_share = train_share, refine_share
        self.head = PointHead(sum(network.encoder.out_channels[1:3]), channels, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        height, width = x.shape[-2:]
        padded = pad_to_stride(x)
        features = self.network.encoder(padded)
        coarse = self.network.segmentation_head(self.network.decoder(features))  # (B, C, H / 4, W / 4)
        fine = [each for each in features[1:3] if each.shape[1]]  # 1/2 and 1/4 of the size; some encoders have no 1/2

        def point_logits(points: torch.Tensor) -> torch.Tensor:
            seen = torch.cat([sample_at(each, points) for each in fine], dim=1)
            return self.head(seen, sample_at(coarse, points))  # (B, C, N)

        if not self.training:
            return subdivide(coarse, point_logits, self.refine_share)[..., :height, :width]
        size = coarse.new_tensor([padded.shape[-1], padded.shape[-2]], dtype=torch.float32)
        inside = coarse.new_tensor([width, height], dtype=torch.float32) / size  # no point falls into the padding
        points = draw_points(coarse, max(16, int(height * width * self.train_share)), inside)
        logits = F.interpolate(coarse, padded.shape[-2:], mode="bilinear", align_corners=False)
        return {"logits": logits[..., :height, :width], "point_logits": point_logits(points), "points": points * size}


class PointHead(nn.Module):
    """Fine features (B, F, N) and coarse logits (B, C, N) of points -> logits (B, C, N).

    Three layers shared by all points; the coarse logits are an input of each.
    """

    def __init__(self, features: int, channels: int, width: int, layers: int = 3) -> None:
        super().__init__()
        inputs = [features] + [width] * (layers - 1)
        self.layers = nn.ModuleList(nn.Conv1d(each + channels, width, 1) for each in inputs)
        self.last = nn.Conv1d(width + channels, channels, 1)
        nn.init.normal_(self.last.weight, std=0.001)  # logits start near 0
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.relu(layer(torch.cat([x, coarse], dim=1)))
        return self.last(torch.cat([x, coarse], dim=1))


def uncertainty(logits: torch.Tensor) -> torch.Tensor:
    """How close a pixel or point is to changing its label: float (B, ...) from (B, C, ...), 0 = undecided, below 0 = surer."""
    if logits.shape[1] == 1:
        return -logits[:, 0].abs()
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def sample_at(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of a map (B, F, h, w) at points (B, N, 2) in 0..1: float32 (B, F, N)."""
    grid = 2 * points[:, None] - 1
    return F.grid_sample(features.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


@torch.no_grad()
def draw_points(logits: torch.Tensor, count: int, inside: torch.Tensor, oversampling: int = 3,
                uncertain_share: float = 0.75) -> torch.Tensor:
    """Training points: most of them are the least certain of a larger random draw, the rest are uniform.

    Args:
        logits: (B, C, h, w).
        count: N.
        inside: (x, y) in 0..1, the part of the map that points are drawn from.
        oversampling, uncertain_share: k and beta of Kirillov et al., section 3.1.

    Returns:
        float32 (B, N, 2) in 0..1.
    """
    drawn = torch.rand(len(logits), oversampling * count, 2, device=logits.device) * inside
    uncertain = round(uncertain_share * count)
    chosen = uncertainty(sample_at(logits, drawn)).topk(uncertain, dim=1).indices  # (B, uncertain)
    uniform = torch.rand(len(logits), count - uncertain, 2, device=logits.device) * inside
    return torch.cat([drawn.gather(1, chosen[..., None].expand(-1, -1, 2)), uniform], dim=1)


def subdivide(logits: torch.Tensor, point_logits: Callable[[torch.Tensor], torch.Tensor], share: float,
              steps: int = 2) -> torch.Tensor:
    """Double a map `steps` times; each time correct its least certain pixels (Kirillov et al., section 3.2).

    Args:
        logits: (B, C, h, w).
        point_logits: function of points (B, N, 2) in 0..1 -> logits (B, C, N).
        share: N as a share of the pixels of the doubled map.
        steps: 2 lead from a quarter of the size to the full size.

    Returns:
        (B, C, h * 2**steps, w * 2**steps)
    """
    for _ in range(steps):
        logits = F.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
        height, width = logits.shape[-2:]
        index = uncertainty(logits).flatten(1).topk(max(1, int(share * height * width)), dim=1).indices  # (B, N)
        points = torch.stack([(index % width + 0.5) / width, (index // width + 0.5) / height], dim=-1)  # pixel centres
        values = point_logits(points).to(logits.dtype)
        where = index[:, None].expand(-1, logits.shape[1], -1)
        logits = logits.flatten(2).scatter(2, where, values).view_as(logits)
    return logits
