"""The loop: weights are used as the equations say, steps are clipped, every sample is counted once, runs are kept."""

import argparse
import importlib
import inspect
import json
from functools import partial

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DataParallelStrategy

import train_with_KDweight
import train_with_Teacher_weight
import train_without_weight
from cli import machine
from cli.files import UserError, write_rows
from data.dataset import SegmentationDataset
from data.rows import read_rows
from data.transforms import normalised
from engine import devices, loaders, loop, networks
from engine.checkpoint import load, load_network, model_config
from engine.flags import metric_of, train_parser
from engine.optimizers import build_ranger, centralise_gradients
from engine.task import SegmentationScorer
from tests.conftest import TORCHRUN, run_script
from tests.test_agreement import slow_scores
from utils.losses import per_sample_loss, weighted_loss
from utils.metrics import SplitScores


def arguments(csvs, folder, *extra, train="train_noisy_60_PointRend_weight_bmscore.csv"):
    """Flags of a tiny run on CPU, with the methods' own flags at their defaults."""
    parser = train_parser("")
    for flag, default in (("--metric", "bm"), ("--lambda-warmup", 10), ("--lambda-max", 0.5), ("--min-weight", 0.0)):
        parser.add_argument(flag, default=default, type=type(default))
    return parser.parse_args([
        "--train_csv", str(csvs / train), "--valid_csv", str(csvs / "valid_noisy_60.csv"),
        "--test_csv", str(csvs / "test.csv"), "--name", "run", "--out-dir", str(folder), "--accelerator", "cpu",
        "--size", "48", "32", "--width", "4", "--epochs", "2", "--batch-size", "5", "--cache", *extra])


def epochs_of(folder):
    """log.jsonl without what depends on the clock."""
    entries = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in entries]


def test_kd_at_lambda_0_equals_teacher_weight_step_by_step(csvs, tmp_path):
    steps = {}
    for name, script in (("teacher", train_with_Teacher_weight), ("kd", train_with_KDweight)):
        args = arguments(csvs, tmp_path / name, "--lambda-max", "0", "--lambda-warmup", "0")
        seen = steps[name] = []

        def weigh(logits, batch, epoch, args=args, script=script, seen=seen):
            weights = script.weigh(args, logits, batch, epoch)
            seen.append((logits[0].clone(), weights[0].clone()))
            return weights

        loop.run(args, weigh, needs_weights=True)
    assert len(steps["kd"]) == 2 * 2  # 12 rows, batches of 5, the last 2 rows dropped in training
    for one, other in zip(steps["teacher"], steps["kd"]):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert epochs_of(tmp_path / "teacher") == epochs_of(tmp_path / "kd")


@pytest.mark.parametrize("metric, score", [("bf", lambda f1, iou: f1), ("miou", lambda f1, iou: iou),
                                           ("bm", lambda f1, iou: (f1 + iou) / 2)])
def test_kd_weight_by_hand(csvs, tmp_path, metric, score):
    """Eq. 6 with the student scored by brute force, by the metric of the CSV."""
    args = arguments(csvs, tmp_path, "--metric", metric, "--epochs", "20")
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(3, 1, 4, 4, generator=generator), (24, 24), mode="bilinear")
    masks = torch.nn.functional.interpolate(torch.randn(3, 1, 3, 3, generator=generator), (24, 24), mode="bilinear")[:, 0] > 0
    batch = {"mask": masks.long(), "weight": torch.tensor([0.2, 0.9, 1.0])}
    student = [score(*slow_scores((logits[i, 0] > 0).numpy().astype(np.uint8), masks[i].numpy().astype(np.uint8), 2, 3))
               for i in range(3)]
    weights, = train_with_KDweight.weigh(args, [logits], batch, epoch=14)  # lambda = 0.5 * 5 / 10
    expected = 0.25 * torch.tensor(student) + 0.75 * batch["weight"]
    torch.testing.assert_close(weights, expected.float())


def test_the_metric_is_read_from_the_csvs_name(csvs, tmp_path):
    args = arguments(csvs, tmp_path)
    args.metric = None
    named = {"train_noisy_60_PointRend_weight_bfscore.csv": "bf", "a_miouscore.csv": "miou", "x_bm.csv": "bm"}
    for name, metric in named.items():
        args.train_csv = f"some_bf_folder/{name}"
        assert metric_of(args) == metric
    for name in ("weights.csv", "bf_and_bm.csv", "abfc.csv"):
        args.train_csv = name
        with pytest.raises(UserError, match="--metric"):
            metric_of(args)


def test_weights_scale_the_step_and_carry_no_gradient(csvs, tmp_path):
    def weigh(logits, batch, epoch):
        assert not logits[0].requires_grad
        return [torch.zeros_like(batch["weight"]) + logits[0].sum() * 0]

    args = arguments(csvs, tmp_path, "--optimizer", "adamw", "--weight-decay", "0", "--epochs", "1")
    before = {}
    build = networks.build_networks

    def remember(*arguments):
        networks = build(*arguments)
        before.update({k: v.clone() for k, v in networks[0].named_parameters()})
        return networks

    networks.build_networks = remember
    try:
        loop.run(args, weigh)
    finally:
        networks.build_networks = build
    after = load_network(tmp_path / "run" / "last.ckpt")[0]
    for name, value in after.named_parameters():
        assert torch.equal(before[name], value)  # all weights 0: nothing moves


def test_gradients_are_clipped_before_the_step(csvs, tmp_path, monkeypatch):
    """Plain SGD with rate 1: no parameter may move by more than --clip in a step."""
    moved = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            before = [p.clone() for p in self.param_groups[0]["params"]]
            super().step(closure)
            moved.extend((a - b).abs().max().item() for a, b in zip(before, self.param_groups[0]["params"]))

    def build(args, parameters, steps):
        optimizer = Spy(list(parameters), lr=1.0)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1)

    monkeypatch.setattr(networks, "build_optimizer", build)
    loop.run(arguments(csvs, tmp_path, "--clip", "0.001", "--epochs", "1"), lambda logits, batch, epoch: [batch["weight"]])
    assert 0.0009 < max(moved) <= 0.001 + 1e-6


def test_gradient_centralisation_by_hand():
    matrix, bias = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))
    matrix.grad, bias.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]), torch.tensor([1.0, 2.0])
    centralise_gradients(torch.optim.SGD([matrix, bias], lr=1))
    assert matrix.grad.tolist() == [[-2, -1, 3], [-1, -1, 2]] and bias.grad.tolist() == [1, 2]
    # RAdam's first steps are momentum steps: lr * mean gradient / (1 - 0.95), mean = 0.05 * gradient
    optimizer = build_ranger([matrix, bias], 0.1, 0.0)
    matrix.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    optimizer.step()
    torch.testing.assert_close(matrix.data, -0.1 * torch.tensor([[-2.0, -1, 3], [-1, -1, 2]]))


def test_split_scores_by_hand():
    """One confusion matrix over the split, not a mean of per-image ratios; BF per image."""
    truth = torch.zeros(2, 6, 6, dtype=torch.long)
    truth[0, :3, :3] = 1
    truth[1, :, :5] = 1
    predicted = torch.zeros_like(truth)
    predicted[0, :3, :3] = 1
    predicted[1, :, :2] = 1
    truth[1, 5] = 255
    scores = SplitScores(2, 1.0)
    scores.update(predicted[:1], truth[:1])
    scores.update(predicted[1:], truth[1:])
    result = scores.compute()
    # foreground: 9 + 10 in both, 9 + 25 in either; background: 27 + 5 in both, 27 + 20 in either
    assert result["iou_per_class"] == pytest.approx([32 / 47, 19 / 34])
    assert result["miou"] == pytest.approx((32 / 47 + 19 / 34) / 2)
    assert result["bf"] == pytest.approx((1 + 0) / 2) and result["images"] == 2
    assert result["dice"] == pytest.approx((1 + 20 / 35) / 2)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_every_test_sample_counts_once_whatever_the_batch(csvs, tmp_path, batch_size):
    result = loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--batch-size", "4"), lambda lo, b, e: [b["weight"]])
    network, config = load_network(tmp_path / "run" / "best.ckpt")
    items = SegmentationDataset(read_rows(csvs / "test.csv"), config["size"], 2).__getitems__(range(4))
    with torch.no_grad():
        predicted = [(network(normalised(image[None]))[0, 0] > 0).numpy().astype(np.uint8) for image in items["image"]]
    both = np.array(predicted), items["mask"].numpy()
    ious = [((both[0] == c) & (both[1] == c)).sum() / ((both[0] == c) | (both[1] == c)).sum() for c in range(2)]
    args = arguments(csvs, tmp_path, "--batch-size", str(batch_size))
    fabric = loop.start_fabric(args)
    loader = loaders.build_loaders(args, {"test": read_rows(csvs / "test.csv")}, fabric)["test"]
    scores = loop.evaluate(fabric, fabric.setup_module(network), loader, SegmentationScorer(2, 3.0))
    assert scores["images"] == 4 and scores["miou"] == pytest.approx(np.mean(ious))
    assert scores["bf"] == pytest.approx(np.mean([slow_scores(p, t, 2, 3.0)[0] for p, t in zip(*both)]))
    assert scores["bf"] == pytest.approx(result["test"][0]["bf"])


def test_best_is_the_epoch_with_the_highest_mean_of_miou_and_bf(csvs, tmp_path):
    result = loop.run(arguments(csvs, tmp_path, "--epochs", "5", "--optimizer", "adamw", "-l", "0.01"),
                        lambda lo, b, e: [b["weight"]])
    scores = [(e["valid"][0]["miou"] + e["valid"][0]["bf"]) / 2 for e in epochs_of(tmp_path)]
    assert result["best_epoch"] == int(np.argmax(scores)) == load(tmp_path / "run" / "best.ckpt")["epoch"]


def test_an_existing_run_is_never_overwritten_unasked(csvs, tmp_path):
    weigh = partial(train_with_Teacher_weight.weigh, arguments(csvs, tmp_path))
    loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    with pytest.raises(UserError, match="--resume.*--overwrite"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh)
    with pytest.raises(UserError, match="cannot resume with --size"):
        loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--size", "32", "32", "--resume"), weigh)
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    (tmp_path / "run" / "result.json").write_text('{"kept": 1}')
    assert loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--resume"), weigh) == {"kept": 1}
    loop.run(arguments(csvs, tmp_path, "--epochs", "1", "--overwrite"), weigh)
    for name in ("../outside", "/abs", "."):
        args = arguments(csvs, tmp_path / "inner")
        args.name = name
        with pytest.raises(UserError, match="must be a folder inside"):
            loop.run(args, weigh)


def test_load_starts_from_the_weights_of_another_run(csvs, tmp_path):
    def weigh(lo, b, e):
        return [b["weight"]]

    loop.run(arguments(csvs, tmp_path / "a", "--epochs", "1"), weigh)
    start = str(tmp_path / "a" / "run" / "best.ckpt")
    args = arguments(csvs, tmp_path / "b", "--load", start)
    network, = networks.build_networks(args, [load(start)["networks"][0]["config"]])
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), load_network(start)[0].state_dict().values()))
    with pytest.raises(UserError, match="does not fit"):
        loop.run(arguments(csvs, tmp_path / "c", "--load", start, "--width", "8"), weigh)


@pytest.mark.parametrize("epoch, step", [(0, 1), (1, 2), (1, 25), (1, 30)])
def test_a_loss_that_is_not_finite_names_its_samples(csvs, tmp_path, epoch, step):
    """Planted in one step: the first, one found at the next check, or one found at the epoch's end."""
    seen, steps = [], 0
    rows = read_rows(csvs / "train_noisy_60.csv")
    table = pd.concat([rows] * 5)  # 30 steps of 2
    write_rows(tmp_path / "train.csv", table)

    def weigh(logits, batch, now):
        nonlocal steps
        steps = 1 if not seen or now != seen[-1][0] else steps + 1
        seen.append((now, batch["index"].tolist()))
        return [batch["weight"] * (float("nan") if (now, steps) == (epoch, step) else 1)]

    args = arguments(csvs, tmp_path, "--batch-size", "2")
    args.train_csv = str(tmp_path / "train.csv")
    with pytest.raises(UserError) as error:
        loop.run(args, weigh)
    index = seen[30 * epoch + step - 1][1]
    names = ", ".join(table["image"].tolist()[i] for i in index)
    assert (f"epoch {epoch + 1}, step {step}: the loss is nan, at learning rate 0.1, on {names}; look at these"
            in str(error.value))
    assert (tmp_path / "run" / "last.ckpt").exists() == (epoch == 1)
    if epoch:
        assert load(tmp_path / "run" / "last.ckpt")["epoch"] == 1
        assert str(error.value).endswith("last.ckpt holds epoch 1")


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"format": "nlkd-1", "networks": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="not a checkpoint"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


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


def test_two_processes_by_torchrun(csvs, tmp_path):
    done = run_script(*TORCHRUN, "train_without_weight.py", "--train_csv", csvs / "train_noisy_60.csv",
                      "--valid_csv", csvs / "valid_noisy_60.csv", "--test_csv", csvs / "test.csv", "--name", "ddp",
                      "--out-dir", tmp_path, "--accelerator", "cpu", "--size", 48, 32, "--width", 4, "--epochs", 1,
                      "--batch-size", 4)
    result = json.loads((tmp_path / "ddp" / "result.json").read_text())
    assert result["test"][0]["images"] == 4 and result["valid"][0]["images"] == 3, done.stdout
    assert result["machine"]["processes"] == 2


# --- speed and memory: no waits for a GPU, sizes of batches and caches ------------------------------------------------


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
    monkeypatch.setattr(loaders, "free_memory", lambda: 19 * 4 * 48 * 32 - 1)  # 12 + 3 + 4 rows
    with pytest.raises(UserError, match=r"--cache: 19 samples of 48x32 take 0\.00 GiB, 0\.00 GiB are free; leave it out"):
        loop.run(arguments(csvs, tmp_path, "--cache"), train_without_weight.weigh)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(loaders, "free_memory", lambda: 19 * 4 * 48 * 32)
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
