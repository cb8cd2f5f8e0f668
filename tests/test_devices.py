"""Several devices and processes; no waits for a GPU; sizes of batches and caches."""

import argparse
import importlib
import inspect
import json
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DataParallelStrategy

import train_without_weight
from cli import machine
from cli.files import UserError
from data.rows import read_rows
from engine import cache_memory, devices, loaders, loop, networks
from engine.checkpoint import model_config
from tests.conftest import TORCHRUN, run_script
from tests.processes import run_together
from tests.small_runs import arguments, epochs_of
from utils.losses import per_sample_loss, weighted_loss


@pytest.mark.parametrize("gpus, torchrun, strategy",
                         [(0, False, "auto"), (1, False, "auto"), (4, False, "dp"), (4, True, "ddp")])
def test_dataparallel_is_the_default_on_several_gpus(csvs, tmp_path, monkeypatch, gpus, torchrun, strategy):
    asked = {}

    class Recorder:
        def __init__(self, **settings):
            asked.update(settings)

        def launch(self):
            pass

        def seed_everything(self, *args, **kwargs):
            pass

    monkeypatch.setattr(devices.lightning_fabric, "Fabric", Recorder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    if torchrun:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        monkeypatch.setenv("WORLD_SIZE", "8")
    args = arguments(csvs, tmp_path)
    args.accelerator = "auto"
    loop.start_fabric(args)
    assert asked["strategy"] == strategy
    if torchrun:
        assert asked["devices"] == 4 and asked["num_nodes"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU, PyTorch's DataParallel refuses a CPU")
def test_dataparallel_gives_what_one_device_gives(csvs, tmp_path, monkeypatch):
    """Lightning's DataParallel strategy itself, wrapped around a CPU: same losses, same scores."""
    one = loop.run(arguments(csvs, tmp_path / "one"), lambda lo, b, e: [b["weight"]])

    def start_fabric(args):
        fabric = Fabric(accelerator="cpu", strategy=DataParallelStrategy(parallel_devices=[torch.device("cpu")]))
        fabric.seed_everything(args.seed, verbose=False)
        return fabric

    monkeypatch.setattr(loop, "start_fabric", start_fabric)
    parallel = loop.run(arguments(csvs, tmp_path / "dp"), lambda lo, b, e: [b["weight"]])
    assert epochs_of(tmp_path / "one") == epochs_of(tmp_path / "dp")
    assert one["test"] == parallel["test"]


@pytest.mark.parametrize("batch, devices, smallest", [(4, 4, 1), (5, 4, 1), (8, 4, 2), (9, 4, 3), (3, 4, 1), (7, 2, 3),
                                                      (6, 1, 6)])
def test_the_smallest_part_of_a_batch_is_tried(batch, devices, smallest):
    """DataParallel cuts a batch as torch.chunk does; networks are checked on the smallest part."""
    fabric = SimpleNamespace(world_size=1, strategy=SimpleNamespace(parallel_devices=[torch.device("cpu")] * devices))
    assert networks.smallest_part(batch, fabric) == smallest == min(map(len, torch.arange(batch).chunk(devices)))
    alone = SimpleNamespace(world_size=2, strategy=SimpleNamespace(parallel_devices=[torch.device("cpu")] * 2))
    assert networks.smallest_part(batch, alone) == batch // 2


def test_two_processes_by_torchrun(csvs, tmp_path):
    """And by `run_together`, which stands for torchrun in other tests: the same losses and scores."""
    command = ["train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv", "--valid_csv",
               csvs / "valid_noisy_60.csv", "--test_csv", csvs / "test.csv", "--name", "run", "--accelerator", "cpu",
               "--size", 48, 32, "--width", 4, "--epochs", 1, "--batch-size", 4]
    done = run_script(*TORCHRUN, *command, "--out-dir", tmp_path / "torchrun")
    run_together(tmp_path, *command, "--out-dir", tmp_path / "forked")
    assert epochs_of(tmp_path / "torchrun") == epochs_of(tmp_path / "forked")
    one, other = (json.loads((tmp_path / home / "run" / "result.json").read_text()) for home in ("torchrun", "forked"))
    assert one["test"] == other["test"] and one["machine"] == other["machine"]
    assert one["test"][0]["images"] == 4 and one["valid"][0]["images"] == 3, done.stdout
    assert one["machine"]["processes"] == 2


@pytest.mark.parametrize("script", ["train_without_weight", "train_with_Teacher_weight", "train_with_KDweight",
                                    "train_decoupling", "train_co_teaching", "train_co_teaching+"])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_weights_are_made_without_asking_the_device_for_a_value(script, num_classes):
    """Tensors on the meta device have no values, so reading one (which makes a GPU wait) raises."""
    args = argparse.Namespace(num_classes=num_classes, theta=3.0, epochs=4, metric="bm", lambda_warmup=0, lambda_max=0.5,
                              min_weight=0.0, forget_rate=0.5, ramp_epochs=2, select_by="bm", disagree_below=0.9)
    weigh = importlib.import_module(script).weigh
    weigh = partial(weigh, args) if "args" in inspect.signature(weigh).parameters else weigh
    networks = 1 if "weight" in script else 2
    batch = {"mask": torch.zeros(3, 24, 20, dtype=torch.long), "weight": torch.ones(3), "index": torch.arange(3)}
    logits = [torch.zeros(3, 1 if num_classes == 2 else num_classes, 24, 20, device="meta") for _ in range(networks)]
    weights = weigh(logits, {key: value.to("meta") for key, value in batch.items()}, 2)
    assert [tuple(each.shape) for each in weights] == [(3,)] * networks
    losses = per_sample_loss(logits[0], batch["mask"].to("meta"))
    assert weighted_loss(losses, weights[0]).shape == ()


def test_augmentation_does_not_depend_on_workers_or_batches(csvs, tmp_path):
    fabric = loop.start_fabric(arguments(csvs, tmp_path))
    rows = {"train": read_rows(csvs / "train_noisy_60.csv")}

    def augmented(epoch, *flags):
        args = arguments(csvs, tmp_path, "--augment", *flags)
        args.cache = "--workers" not in flags
        loader = loaders.build_loaders(args, rows, fabric)["train"]
        loaders.seed_epoch(args, loader, epoch, 0)
        batches = list(loader)
        index = torch.cat([batch["index"] for batch in batches])
        return [torch.cat([batch[key] for batch in batches])[index.argsort()] for key in ("image", "mask")]

    first = augmented(1, "--batch-size", "3")
    for flags in (["--batch-size", "4"], ["--batch-size", "4", "--workers", "2"], ["--batch-size", "3", "--workers", "0"]):
        assert all(map(torch.equal, augmented(1, *flags), first)), flags
    assert not any(map(torch.equal, augmented(2, "--batch-size", "3"), first))


def test_a_cpu_that_trains_loads_by_itself_and_a_gpu_has_help(monkeypatch):
    on = {kind: argparse.Namespace(device=torch.device(kind)) for kind in ("cpu", "cuda")}
    monkeypatch.setattr(loaders, "usable_cores", lambda: 6)
    assert [loaders.worker_count(argparse.Namespace(workers=None), on[kind]) for kind in ("cpu", "cuda")] == [0, 6]
    assert [loaders.worker_count(argparse.Namespace(workers=3), on[kind]) for kind in ("cpu", "cuda")] == [3, 3]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert loaders.worker_count(argparse.Namespace(workers=None), on["cuda"]) == 2


def test_a_cache_that_does_not_fit_is_refused_with_its_size(csvs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache_memory, "free_memory", lambda: 19 * 4 * 48 * 32 - 1)  # 12 + 3 + 4 rows
    with pytest.raises(UserError, match=r"--cache: 19 samples of 48x32 take 0\.00 GiB, 0\.00 GiB are free; leave it out"):
        loop.run(arguments(csvs, tmp_path, "--cache"), train_without_weight.weigh)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(cache_memory, "free_memory", lambda: 19 * 4 * 48 * 32)
    loop.run(arguments(csvs, tmp_path, "--cache", "--epochs", "1"), train_without_weight.weigh)
    assert "GiB for 19 samples" in capsys.readouterr().out


def test_free_memory_is_the_containers_where_that_is_less(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert 0 < machine.free_memory() <= psutil.virtual_memory().total
    for name, content in (("max", "3000"), ("current", "1000"), ("stat", "anon 1\ninactive_file 250\nactive_file 7")):
        (tmp_path / f"memory.{name}").write_text(content + "\n")
    assert machine.free_memory() == 3000 - 1000 + 250
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() > 3000


def test_usable_cores_are_those_of_the_process_and_its_container(tmp_path, monkeypatch):
    """Affinity to five cores gives 5, a CPU quota of 2.5 cores gives 3, and the lower of both counts."""
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda process: [0, 3, 5, 7, 8], raising=False)
    assert machine.usable_cores() == 5
    for limit, cores in (("max 100000", 5), ("250000 100000", 3), ("50000 100000", 1), ("900000 100000", 5)):
        (tmp_path / "cpu.max").write_text(limit + "\n")
        assert machine.usable_cores() == cores, limit


def test_compiled_networks_keep_the_names_of_their_weights(csvs, tmp_path):
    plain, = networks.build_networks(*with_config(arguments(csvs, tmp_path)))
    compiled, = networks.build_networks(*with_config(arguments(csvs, tmp_path, "--compile")))
    assert plain._compiled_call_impl is None and compiled._compiled_call_impl is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def with_config(args):
    return args, [model_config(args)]
