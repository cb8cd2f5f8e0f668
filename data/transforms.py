"""Joint transforms of an image and its mask, after both have been resized to the training size.

torchvision's v2 transforms move a `tv_tensors.Mask` with its image and always sample it by the nearest pixel, so
labels are never blurred. Pixels that a transform brings in from outside the picture are labelled 255 (ignored).
"""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from data import IGNORE_INDEX

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def build_transforms(augment):
    """A function (image uint8 (3, H, W), mask uint8 (H, W)) -> (float32 (3, H, W), int64 (H, W)).

    Args:
        augment: horizontal flip, scale in 0.75..1.25, colour jitter; off in the paper (section 4).
    """
    steps = []
    if augment:
        outside = {tv_tensors.Image: [round(255 * m) for m in IMAGENET_MEAN], tv_tensors.Mask: IGNORE_INDEX}
        steps = [v2.RandomHorizontalFlip(), v2.RandomAffine(degrees=0, scale=(0.75, 1.25), fill=outside),
                 v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02)]
    steps += [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
              v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    joint = v2.Compose(steps)

    def apply(image, mask):
        image, mask = joint(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor).long()

    return apply
