"""DataParallel on several devices of one process: each takes its part of a batch, and together they train as one."""

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DataParallelStrategy, dp
from torch.func import functional_call

from cli.files import write_rows
from data.rows import read_rows
from engine import checkpoint, loop
from tests.small_runs import arguments, epochs_of


class TwoDevices(torch.nn.DataParallel):
    """PyTorch's DataParallel on two devices that are both this CPU; `seen` holds the images of each replica, step by step.

    Its `forward` decides what is cut, copied and joined; only what would move tensors between GPUs is replaced.
    """

    seen = []

    def __init__(self, module, device_ids):
        torch.nn.Module.__init__(self)
        self.module, self.device_ids, self.output_device, self.dim = module, device_ids, device_ids[0], 0
        self.src_device_obj = torch.device("cpu")

    def scatter(self, inputs, kwargs, device_ids):
        cut = list(zip(*(each.chunk(len(device_ids), self.dim) for each in inputs)))
        return cut, [kwargs] * len(cut)

    def replicate(self, module, device_ids):
        def replica(*inputs):  # a replica has the network's weights, and buffers of its own
            return functional_call(module, {name: value.clone() for name, value in module.named_buffers()}, inputs)

        return [module, *[replica] * (len(device_ids) - 1)]

    def parallel_apply(self, replicas, inputs, kwargs):
        self.seen.append([images for images, in inputs])
        return [replica(*each) for replica, each in zip(replicas, inputs, strict=True)]

    def gather(self, outputs, output_device):
        return torch.cat(outputs, self.dim)


@pytest.fixture
def two_devices(monkeypatch):
    """Trainings run on two devices; returns `TwoDevices.seen`."""
    def start_fabric(args):
        fabric = Fabric(accelerator="cpu", strategy=DataParallelStrategy(parallel_devices=[torch.device("cpu")] * 2))
        fabric.seed_everything(args.seed, verbose=False)
        return fabric

    monkeypatch.setattr(dp, "DataParallel", TwoDevices)
    monkeypatch.setattr(loop, "start_fabric", start_fabric)
    monkeypatch.setattr(TwoDevices, "seen", [])
    return TwoDevices.seen


def weigh(logits, batch, epoch):
    return [batch["weight"]]


def test_two_devices_train_as_one(csvs, tmp_path, monkeypatch, request):
    """Batch normalisation takes each half's own statistics, so all rows here show one picture, with masks of their own."""
    rows = read_rows(csvs / "train_noisy_60_PointRend_weight_bmscore.csv")
    write_rows(tmp_path / "train.csv", rows.assign(image=rows["image"].iloc[0]), "weight")

    def train(home):
        args = arguments(csvs, tmp_path / home, "--batch-size", "4")
        args.train_csv = str(tmp_path / "train.csv")
        loop.run(args, weigh)
        state = checkpoint.load(tmp_path / home / "run" / "last.ckpt")["networks"][0]["state"]
        weights = {name: value for name, value in state.items() if "running_" not in name}  # variances of 2 or 4 samples
        return [entry["loss"][0] for entry in epochs_of(tmp_path / home)], weights

    losses, weights = train("one")
    seen = request.getfixturevalue("two_devices")
    on_two, weights_of_two = train("two")
    assert seen and on_two == pytest.approx(losses, rel=1e-5) and losses[0] != losses[1]
    for name, value in weights.items():
        torch.testing.assert_close(weights_of_two[name], value, rtol=1e-4, atol=1e-5)


def test_each_device_takes_its_own_half_of_a_batch(csvs, tmp_path, two_devices):
    loop.run(arguments(csvs, tmp_path, "--batch-size", "4", "--epochs", "1"), weigh)
    steps = two_devices[:3]  # an epoch of 12 rows; validation comes after them
    assert [[len(images) for images in halves] for halves in steps] == [[2, 2]] * 3
    assert len(torch.cat([images for halves in steps for images in halves]).flatten(1).unique(dim=0)) == 12
