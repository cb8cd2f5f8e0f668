"""The classic U-Net (Ronneberger et al. 2015), padded and batch-normalised, 64..1024 channels: the paper's student."""

import torch
from torch import nn
from torch.nn import functional as F


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Twice: 3x3 convolution, batch norm, ReLU; H and W stay."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Images (B, 3, H, W) -> logits (B, channels, H, W), any H, W >= 16.

    Args:
        channels: logits per pixel.
        width: channels of the first level, doubled at each of four poolings (64 -> 1024).
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(double_conv(a, b) for a, b in zip([3, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in zip(widths, widths[1:]))
        self.merge = nn.ModuleList(double_conv(2 * a, a) for a in widths[:-1])
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))  # (B, width * 2**level, H / 2**level, W / 2**level)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](x)
            skip = skips[level]
            if x.shape[-2:] != skip.shape[-2:]:  # an odd size lost a row or column when it was pooled
                x = F.interpolate(x, skip.shape[-2:], mode="nearest")
            x = self.merge[level](torch.cat([skip, x], dim=1))
        return self.head(x)
