"""Augmentation and normalisation of images and masks that have been resized to the training size.

torchvision's v2 transforms move a `tv_tensors.Mask` with its image. They sample the image bilinearly here, and a mask always
by the nearest pixel, so labels are never blurred. Pixels that come from outside the picture get the label 255 (ignored).
"""

from __future__ import annotations

import functools

from cli.lazy import torch
from data import IGNORE_INDEX

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Augmentation:
    """Change an image and its label maps at random, in the same way: horizontal flip, scale in 0.75..1.25, colour jitter. The
    paper trains without it (section 4).

    It is a class, not a closure, so that it can be pickled for loader processes that start by spawn or forkserver.
    """

    def __init__(self) -> None:
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode, v2

        outside = {tv_tensors.Image: [round(255 * m) for m in IMAGENET_MEAN], tv_tensors.Mask: IGNORE_INDEX}
        scale = v2.RandomAffine(degrees=0, scale=(0.75, 1.25), fill=outside, interpolation=InterpolationMode.BILINEAR)
        self.joint = v2.Compose([v2.RandomHorizontalFlip(), scale,
                                 v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02)])

    def __call__(self, image: torch.Tensor, *maps: torch.Tensor) -> list[torch.Tensor]:
        """Image uint8 (3, H, W), integer maps (..., H, W) -> the same, changed; maps get 255 outside the picture."""
        from torchvision import tv_tensors

        moved = self.joint(tv_tensors.Image(image), *map(tv_tensors.Mask, maps))
        return [each.as_subclass(torch.Tensor) for each in moved]


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Images normalised by ImageNet's mean and standard deviation, as pretrained encoders expect.

    Call it on the device, after the copy: bytes are a quarter of the size of floats, and a GPU normalises quickly.

    Args:
        images: uint8 (B, 3, H, W).

    Returns:
        float32 (B, 3, H, W), channels last in memory.
    """
    mean, std = _statistics(images.device)
    return images.to(torch.float32, memory_format=torch.channels_last).sub_(mean).div_(std)


@functools.lru_cache
def _statistics(device: torch.device) -> list[torch.Tensor]:
    """Mean and standard deviation of ImageNet's bytes, (3, 1, 1), kept on the device: a copy per batch would make it wait."""
    return [255 * torch.tensor(each, device=device).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD)]
