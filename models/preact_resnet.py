"""PreAct-ResNet-18 (He et al. 2016, Identity Mappings in Deep Residual Networks), in its form for pictures of 32 x 32 pixels.

A 3x3 stem of 64 channels, batch norm and ReLU; stages of 64, 128, 256 and 512 channels, two blocks each, with strides
1, 2, 2, 2; the mean over all places, and a linear layer. A block's shortcut takes the *activated* input, also where it is the
identity, and no batch norm stands before the mean: as in the published code of label-noise methods.
"""

import torch
from torch import nn
from torch.nn import functional as F


class PreActBlock(nn.Module):
    """x (B, inputs, H, W) -> (B, outputs, H / stride, W / stride): a = relu(bn(x)); conv(relu(bn(conv(a)))) + shortcut(a)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(x))
        x = self.conv1(activated)
        return self.conv2(F.relu(self.bn2(x))) + self.shortcut(activated)


class PreActResNet18(nn.Module):
    """Images (B, 3, H, W) -> logits (B, C), any size; 11,171,274 parameters at 10 classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        blocks, inputs = [], 64
        for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [PreActBlock(inputs, outputs, stride), PreActBlock(outputs, outputs, 1)]
            inputs = outputs
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(512, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(x))  # (B, 512, H / 8, W / 8)
        return self.head(x.mean((2, 3)))
