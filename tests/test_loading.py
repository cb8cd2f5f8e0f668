"""Loaders: augmentation depends on seed, epoch and row only; loader processes may start by spawn."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from data.dataset import SegmentationDataset, as_it_is, sample_seed
from data.pictures import write_image, write_mask
from data.rows import read_rows
from engine import loaders, loop
from tests.small_runs import arguments

LARGEST_SEED = 2**32 - 1


def training_loader(csvs, folder, *flags):
    args = arguments(csvs, folder, "--augment", "--batch-size", "4", *flags)
    rows = {"train": read_rows(csvs / "train_noisy_60.csv")}
    return args, loaders.build_loaders(args, rows, loop.start_fabric(args))["train"]


def batches_of(args, loader, epoch):
    loaders.seed_epoch(args, loader, epoch, rank=0)
    return list(loader)


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("seed", [0, 20241124, LARGEST_SEED])
@pytest.mark.parametrize("epoch", [0, 10**6])
def test_any_seed_augments(csvs, tmp_path, seed, epoch):
    args, loader = training_loader(csvs, tmp_path, "--seed", str(seed))
    first = batches_of(args, loader, epoch)
    assert_same(first, batches_of(args, loader, epoch))
    assert not torch.equal(first[0]["image"], batches_of(args, loader, epoch + 1)[0]["image"])


def test_seeds_of_samples_differ_and_stay():
    triples = [(seed, epoch, row) for seed in (0, 1, LARGEST_SEED) for epoch in (0, 1, 2**31) for row in (0, 1, 10**7)]
    seeds = [sample_seed(*each) for each in triples]
    assert len(set(seeds)) == len(triples) and all(0 <= seed < 2**32 for seed in seeds)
    assert seeds == [sample_seed(*each) for each in triples]


@pytest.mark.parametrize("cache", [False, True])
def test_loader_processes_that_start_afresh_give_the_same_batches(csvs, tmp_path, cache):
    """As on macOS and from Python 3.14 on: nothing is inherited, all is pickled."""
    args, loader = training_loader(csvs, tmp_path, "--workers", "1")
    loader.dataset.cached = loader.dataset._fill_cache() if cache else None
    here = [loader.dataset.__getitems__(batch["index"].tolist()) for batch in batches_of(args, loader, 1)]
    loader.multiprocessing_context = "spawn"
    assert_same(batches_of(args, loader, 1), here)


def test_what_a_loader_carries_is_pickled(csvs, tmp_path):
    args, loader = training_loader(csvs, tmp_path)
    before = batches_of(args, loader, 1)
    carried = loader.dataset, loader.collate_fn, loader.worker_init_fn, loader.sampler
    dataset, collate, begin, sampler = pickle.loads(pickle.dumps(carried))
    assert collate is as_it_is and begin is loaders.leave_stopping
    assert [index for batch in before for index in batch["index"].tolist()] == list(sampler)
    assert_same(before, [dataset.__getitems__(batch["index"].tolist()) for batch in before])


def test_images_are_resampled_smoothly_and_labels_are_not(tmp_path):
    """A picture of two colours gets colours between them where it is scaled; its mask keeps its labels and 255."""
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::2] = 255
    write_image(tmp_path / "i.png", stripes)
    write_mask(tmp_path / "m.png", stripes[..., 0] // 255)
    rows = pd.DataFrame({"image": [str(tmp_path / "i.png")] * 8, "mask": [str(tmp_path / "m.png")] * 8})
    batch = SegmentationDataset(rows, (48, 48), 2, augment=True).__getitems__(range(8))
    colours = [len(image.flatten(1).unique(dim=1).T) for image in batch["image"]]
    assert min(colours) > 3, colours  # sampled by the nearest pixel: the two, and the one of what lies outside
    assert set(batch["mask"].unique().tolist()) == {0, 1, 255}
