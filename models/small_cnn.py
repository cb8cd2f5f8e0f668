"""A small convolutional classifier, for digits and other small pictures."""

import torch
from torch import nn

WIDTHS = (32, 64, 128)


class SmallCNN(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C), any H, W >= 4.

    Three times a 3x3 convolution (32, 64, 128 channels), batch norm and ReLU, with 2x2 max pooling between them; then the mean
    over all places, and a linear layer.

    Args:
        num_classes: C.
        hidden: units of a layer with ReLU before the last one, as the box head of a detector has; 0: there is none.
    """

    def __init__(self, num_classes: int, hidden: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *WIDTHS), WIDTHS):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
                       nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers[:-1])
        last = nn.Linear(hidden or WIDTHS[-1], num_classes)
        self.head = nn.Sequential(nn.Linear(WIDTHS[-1], hidden), nn.ReLU(inplace=True), last) if hidden else last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)  # (B, 128, H / 4, W / 4)
        return self.head(x.mean((2, 3)))
