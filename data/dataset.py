"""Rows -> batches: the datasets of every script.

`__getitems__` makes a whole batch, so a DataLoader must not collate it again: `collate_fn=as_it_is`. Images stay bytes
until they are on the device, see `data.transforms.normalised`.

Legend: B samples, N rows, H x W pixels of the training size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pandas as pd

from cli.files import progress
from cli.lazy import torch
from cli.machine import usable_cores
from data import IGNORE_INDEX
from data.pictures import read_image, read_mask, resize_image, resize_labels
from data.samples import Samples, label_columns
from data.transforms import Augmentation

Batch = TypeVar("Batch")
IMAGE_BYTES_PER_PIXEL = 3  # in the cache; a label map takes one more


def cache_bytes(rows: pd.DataFrame, size: Sequence[int]) -> int:
    """Memory that the cached samples of rows take at a size (H, W)."""
    return len(rows) * size[0] * size[1] * (IMAGE_BYTES_PER_PIXEL + 1 + ("pseudo" in rows))


def sample_seed(*numbers: int) -> int:
    """A seed for torch, 0..2**32-1, from numbers in 0..2**32-1; similar numbers give unrelated random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def coordinates(size: Sequence[int]) -> torch.Tensor:
    """y and x of each pixel, int32 (2, H, W)."""
    return torch.stack(torch.meshgrid(*(torch.arange(each, dtype=torch.int32) for each in size), indexing="ij"))


def as_it_is(batch: Batch) -> Batch:
    """The collate function of datasets that give whole batches."""
    return batch


class ImageDataset:
    """Images alone, for prediction.

    A batch is a dict: `image` uint8 (B, 3, H, W), at `size`; `own_size`, a list of the (H, W) that the pictures have on
    disk; `index`, a list of int.
    """

    def __init__(self, images: Sequence[str], size: Sequence[int]) -> None:
        self.images, self.size = images, tuple(size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> dict:
        pictures = [read_image(self.images[index]) for index in indices]
        images = torch.stack([torch.from_numpy(resize_image(picture, self.size)) for picture in pictures])  # (B, H, W, 3)
        return {"image": images.permute(0, 3, 1, 2), "own_size": [picture.shape[:2] for picture in pictures], "index": indices}


class SegmentationDataset:
    """Samples of a CSV at one size.

    Args:
        rows: DataFrame of `read_rows`; may have a column `pseudo`, paths of pseudo-labels.
        size: (H, W), pixels; images and masks are resized to it.
        num_classes: C; 2 = binary.
        augment: flip, scale and colour at random (training only).
        cache: keep the decoded, resized samples in memory, see `cache_bytes`.
        seed: of the augmentation, together with `epoch`, which the loop sets before each epoch.
        sources: give `source` as well; with `augment` only.
        samples: of these rows at this size, in place of `cache`: `check_rows` has read them already.

    A batch is a dict: `image` uint8 (B, 3, H, W), channels last in memory; `mask` uint8 (B, H, W), 0..C-1 or 255; `weight`
    float32 (B,) in 0..1 (1 where the CSV has none); `index` int64 (B,), position in the rows; and, where the rows have them,
    `pseudo` uint8 (B, H, W), pseudo-labels; and, where `sources` asks for it, `source` int32 (B, H, W), the position
    y * W + x of each mask pixel before the picture was augmented, -1 = outside it. Legend below: L label maps of a sample.
    """

    def __init__(self, rows: pd.DataFrame, size: Sequence[int], num_classes: int, augment: bool = False, cache: bool = False,
                 seed: int = 0, sources: bool = False, samples: Samples | None = None) -> None:
        self.image_paths = self.names = rows["image"].tolist()
        self.label_paths = list(zip(*(rows[column] for column in label_columns(rows))))
        self.weights = torch.tensor(rows["weight"].tolist() if "weight" in rows else [1.0] * len(rows), dtype=torch.float32)
        self.size, self.num_classes = tuple(size), num_classes
        self.seed, self.epoch = seed, 0
        self.augment, self.sources = Augmentation() if augment else None, sources
        self.cached: tuple[torch.Tensor, ...] | None = None
        if samples:
            self.cached = torch.from_numpy(samples.images), torch.from_numpy(samples.labels)
        elif cache:
            self.cached = self._fill_cache()

    def _fill_cache(self) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.empty(len(self), *self.size, 3, dtype=torch.uint8)
        labels = torch.empty(len(self), len(self.label_paths[0]), *self.size, dtype=torch.uint8)

        def fill(index: int) -> None:
            images[index], labels[index] = self._load(index)

        with ThreadPoolExecutor(usable_cores()) as pool:
            list(progress(pool.map(fill, range(len(self))), "filling the cache", len(self), "sample"))
        return images, labels

    def _load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (H, W, 3) and label maps (L, H, W), uint8, from their files."""
        image = resize_image(read_image(self.image_paths[index]), self.size)
        labels = [resize_labels(read_mask(path, self.num_classes), self.size) for path in self.label_paths[index]]
        return torch.from_numpy(image), torch.from_numpy(np.stack(labels))

    def _augmented(self, image: torch.Tensor, labels: torch.Tensor, index: int) -> list[torch.Tensor]:
        """The augmented sample of this epoch, and its `source` where asked; it does not depend on the process or the batch."""
        assert self.augment
        maps = [labels, coordinates(self.size) + IGNORE_INDEX + 1] if self.sources else [labels]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(sample_seed(self.seed, self.epoch, index))
            image, labels, *moved = self.augment(image, *maps)
        if moved:  # what lies outside has got IGNORE_INDEX, thus -1
            y, x = moved[0] - (IGNORE_INDEX + 1)
            return [image, labels, torch.where(y < 0, -1, y * self.size[1] + x)]
        return [image, labels]

    def __len__(self) -> int:
        return len(self.image_paths)

    def __getitems__(self, indices: list[int]) -> dict:
        if self.cached:
            images, labels = (each[indices] for each in self.cached)
        else:
            images, labels = map(torch.stack, zip(*map(self._load, indices)))
        images = images.permute(0, 3, 1, 2)  # (B, 3, H, W)
        maps = {}
        if self.augment:
            images, labels, *source = map(torch.stack, zip(*map(self._augmented, images, labels, indices)))
            maps = {"source": source[0]} if source else {}
        maps.update(zip(("mask", "pseudo"), labels.unbind(1)))
        return {"image": images, **maps, "weight": self.weights[indices], "index": torch.tensor(indices)}
