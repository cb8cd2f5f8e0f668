"""Every train script against the same training written out here, from the definitions: order, weights, loss, clip, step, rate.

What the loop of this file shares with the project's: the networks, the resized pictures, and torch-optimizer's Ranger.
"""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch_optimizer import Ranger

from cli.files import write_rows
from data.dataset import SegmentationDataset
from data.make_sample import draw_set
from data.rows import read_rows
from data.splits import pair_folder
from data.transforms import normalised
from engine import checkpoint, loop, networks
from engine.devices import start_fabric
from engine.flags import add_pair_flags, train_parser
from engine.objective import WeightedLoss
from engine.task import SEGMENTATION, Task
from models import build_model
from tests.small_runs import arguments, epochs_of
from tests.test_agreement import slow_scores
from utils.losses import training_losses, weighted_loss

SEED, EPOCHS, BATCH, RATE, SIZE, DISAGREE = 3, 3, 4, 0.1, (48, 32), 0.15  # so small networks hardly ever agree to 0.9
WEIGHTED = "train_noisy_60_PointRend_weight_{}score.csv"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Folder of CSVs of drawn portraits, 12 to train on and 3 to validate on: the same wherever the tests run."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_set(folder, 15, (64, 48))
    rows = pair_folder(folder)
    train = rows[:12].assign(iterations=np.arange(12) % 3 * 4, weight=np.linspace(0.3, 1, 12))
    write_rows(folder / "train_noisy_60.csv", train, "iterations")
    for metric in ("miou", "bf", "bm"):
        write_rows(folder / WEIGHTED.format(metric), train, "weight")
    write_rows(folder / "valid_noisy_60.csv", rows[12:].assign(iterations=0), "iterations")
    return folder


# --- the methods, sample by sample: (hard predictions, losses, masks, weights of the CSV, epoch) -> a list per network -----


def baseline(labels, losses, masks, given, epoch):
    return [[1.0] * len(given)]


def teacher(labels, losses, masks, given, epoch):
    return [given]


def kd(metric, warmup, maximum=0.5):
    """Eq. 6: the share of the student is 0 for `warmup` epochs and `maximum` in the last one."""
    def weigh(labels, losses, masks, given, epoch):
        share = maximum * max(0, epoch + 1 - warmup) / (EPOCHS - warmup)
        scores = [slow_scores(label, mask, 2, 3) for label, mask in zip(labels[0], masks)]
        student = [{"bf": bf, "miou": miou, "bm": (bf + miou) / 2}[metric] for bf, miou in scores]
        return [[share * s + (1 - share) * w for s, w in zip(student, given)]]

    return weigh


def disagreed(labels):
    return [i for i, (a, b) in enumerate(zip(*labels)) if slow_scores(a, b, 2, 3)[1] < DISAGREE]


def decoupling(labels, losses, masks, given, epoch):
    return [[float(i in disagreed(labels)) for i in range(len(given))]] * 2


def smallest(losses, among, epoch):
    """1 for the samples of smallest loss, a half of them from the second epoch on (--forget-rate 0.5 --ramp-epochs 1)."""
    kept = sorted(among, key=lambda i: losses[i])[:int((0.5 if epoch else 1) * len(among))]
    return [float(i in kept) for i in range(len(losses))]


def co_teaching(labels, losses, masks, given, epoch):
    return [smallest(losses[1], range(len(given)), epoch), smallest(losses[0], range(len(given)), epoch)]


def co_teaching_plus(labels, losses, masks, given, epoch):
    return [smallest(losses[1], disagreed(labels), epoch), smallest(losses[0], disagreed(labels), epoch)]


# --- the loop ---------------------------------------------------------------------------------------------------


def sample_losses(logits, masks):
    return [F.binary_cross_entropy_with_logits(one[0], mask.float()) for one, mask in zip(logits, masks)]


def trained_by_hand(csv, method, count, selects):
    """State dicts of the networks after EPOCHS, and the weights of all steps."""
    torch.manual_seed(SEED)
    networks = [build_model("unet", width=4).to(memory_format=torch.channels_last) for _ in range(count)]
    optimizers = [Ranger(network.parameters(), lr=RATE, weight_decay=5e-4) for network in networks]
    rows, used = read_rows(csv), []
    data = SegmentationDataset(rows, SIZE, 2).__getitems__(range(len(rows)))
    given = rows["weight"].tolist() if "weight" in rows else [1.0] * len(rows)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
        for index in (order[i:i + BATCH] for i in range(0, len(rows), BATCH)):
            images, masks = normalised(data["image"][index]), data["mask"][index]
            logits = [network.train()(images) for network in networks]
            losses = [sample_losses(each, masks) for each in logits]
            labels = [(each[:, 0] > 0).numpy().astype(np.uint8) for each in logits]
            weights = method(labels, [[loss.item() for loss in each] for each in losses], masks.numpy(),
                             [given[i] for i in index], epoch)
            used.append(weights)
            for network, optimizer, loss, weight in zip(networks, optimizers, losses, weights):
                if selects and sum(weight) == 0:
                    continue
                total = sum(w * each for w, each in zip(weight, loss)) / (sum(weight) if selects else BATCH)
                step(network, optimizer, total, RATE * 0.5**epoch)
    return [network.state_dict() for network in networks], np.array(used)


def step(network, optimizer, loss, rate):
    """Clip each gradient value to 0.1, centralise what is left, and step."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
        gradient = gradient.clamp(-0.1, 0.1)
        if gradient.dim() > 1:
            gradient = gradient - gradient.flatten(1).mean(1).view(-1, *[1] * (gradient.dim() - 1))
        parameter.grad = gradient
    optimizer.param_groups[0]["lr"] = rate
    optimizer.step()


CASES = {
    "train_without_weight": (baseline, "train_noisy_60.csv", []),
    "train_with_Teacher_weight": (teacher, WEIGHTED.format("bm"), []),
    "train_with_KDweight, miou": (kd("miou", 1), WEIGHTED.format("miou"), ["--lambda-warmup", "1"]),
    "train_with_KDweight, bf": (kd("bf", 0), WEIGHTED.format("bf"), ["--lambda-warmup", "0"]),
    "train_with_KDweight, bm": (kd("bm", 1, 0.9), WEIGHTED.format("bm"), ["--lambda-warmup", "1", "--lambda-max", "0.9"]),
    "train_decoupling": (decoupling, "train_noisy_60.csv", ["--disagree-below", str(DISAGREE)]),
    "train_co_teaching": (co_teaching, "train_noisy_60.csv", ["--forget-rate", "0.5", "--ramp-epochs", "1"]),
    "train_co_teaching+": (co_teaching_plus, "train_noisy_60.csv", ["--forget-rate", "0.5", "--ramp-epochs", "1",
                                                                   "--disagree-below", str(DISAGREE)]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_script_trains_as_its_equations_say(drawn, tmp_path, monkeypatch, case):
    method, train, flags = CASES[case]
    script, selects = case.split(",")[0], "weight" not in case
    if selects:
        flags = [*flags, "--model-b", "unet"]
    monkeypatch.setattr(sys, "argv", [
        f"{script}.py", "--train_csv", str(drawn / train), "--valid_csv", str(drawn / "valid_noisy_60.csv"), "--name", "run",
        "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--learning-rate", str(RATE), "--out-dir", str(tmp_path),
        "--size", *map(str, SIZE), "--width", "4", "--accelerator", "cpu", "--lr-step", "1", "--seed", str(SEED), *flags])
    importlib.import_module(script).main()
    networks, weights = trained_by_hand(drawn / train, method, 1 + selects, selects)  # weights: (steps, networks, samples)
    saved = checkpoint.load(tmp_path / "run" / "last.ckpt")["networks"]
    for mine, its in zip(networks, saved, strict=True):
        for name, value in mine.items():
            torch.testing.assert_close(its["state"][name], value, rtol=1e-4, atol=3e-5)  # rounding, which depends on the data
    logged = [entry["weight"] for entry in epochs_of(tmp_path)]
    np.testing.assert_allclose(logged, weights.reshape(EPOCHS, 3, *weights.shape[1:]).mean((1, 3)), atol=1e-5)
    if selects:
        assert {0.0, 1.0} == set(weights.flatten())
        assert (weights[:, 0] != weights[:, 1]).any() == (script != "train_decoupling")  # each network by its own


@pytest.mark.parametrize("case", CASES)
def test_a_script_trains_the_same_when_task_and_objective_are_passed(drawn, tmp_path, monkeypatch, case):
    """Whole checkpoints, bit-exact: each method with the defaults, and with the same task and objective passed."""
    _, train, flags = CASES[case]
    module, selects = importlib.import_module(case.split(",")[0]), "weight" not in case
    task = Task(**vars(SEGMENTATION))

    def passed(args, weigh, selects=False, **more):
        def plain(outputs, batch, epoch):
            with torch.no_grad():
                weights = weigh([output.detach() for output in outputs], batch, epoch)
            return [weighted_loss(training_losses(output, batch["mask"]), each) for output, each in zip(outputs, weights)]

        args.name = "passed"
        objective = WeightedLoss(start_fabric(args), task, weigh, True) if selects else plain
        return loop.run(args, objective=objective, **{**more, "task": task})

    for run in (loop.run, passed):
        monkeypatch.setattr(module, "run", run)
        monkeypatch.setattr(sys, "argv", [
            f"{module.__name__}.py", "--train_csv", str(drawn / train), "--valid_csv", str(drawn / "valid_noisy_60.csv"),
            "--name", "run", "--epochs", str(EPOCHS), "--batch-size", str(BATCH), "--out-dir", str(tmp_path),
            "--size", *map(str, SIZE), "--width", "4", "--accelerator", "cpu", *flags, *["--model-b", "unet"] * selects])
        module.main()
    for name in ("last.ckpt", "best.ckpt"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "passed" / name).read_bytes()


# --- parts of the loop, one by one ------------------------------------------------------------------------------


def test_the_learning_rate_halves_when_the_schedule_says(csvs, tmp_path, monkeypatch):
    """In the log, and in every step that the optimizer takes."""
    stepped, build = [], networks.build_optimizer

    def remember(args, parameters, steps):
        optimizer, scheduler = build(args, parameters, steps)
        optimizer.register_step_pre_hook(lambda it, args, kwargs: stepped.append(it.param_groups[0]["lr"]))
        return optimizer, scheduler

    monkeypatch.setattr(networks, "build_optimizer", remember)
    loop.run(arguments(csvs, tmp_path, "--epochs", "5", "--lr-step", "2", "--lr-gamma", "0.5"), baseline_weigh)
    rates = [0.1, 0.1, 0.05, 0.05, 0.025]
    assert [entry["learning_rate"] for entry in epochs_of(tmp_path)] == pytest.approx(rates)
    assert stepped == pytest.approx([rate for rate in rates for _ in range(2)])


def baseline_weigh(logits, batch, epoch):
    return [torch.ones_like(batch["weight"])]


def test_every_epoch_has_an_order_of_its_own_which_the_seed_decides(csvs, tmp_path):
    def orders(home, *flags):
        seen = [[], []]

        def weigh(logits, batch, epoch):
            seen[epoch] += batch["index"].tolist()
            return [batch["weight"]]

        loop.run(arguments(csvs, tmp_path / home, "--batch-size", "4", *flags), weigh)
        return seen

    first, second = orders("a")
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert orders("again") == [first, second]
    assert first not in (other := orders("other", "--seed", "7")) and second not in other


@pytest.mark.parametrize("kept", [0, 1])
def test_each_network_is_updated_by_its_own_selection(csvs, tmp_path, monkeypatch, kept):
    """One network keeps all samples and learns, the other one keeps none and stays as it was; then the other way round."""
    before, build = [], networks.build_networks

    def remember(*given):
        networks = build(*given)
        before.extend([{name: value.clone() for name, value in network.named_parameters()} for network in networks])
        return networks

    def weigh(logits, batch, epoch):
        return [torch.full_like(batch["weight"], float(k == kept)) for k in range(2)]

    monkeypatch.setattr(networks, "build_networks", remember)
    parser = train_parser("", add_pair_flags)
    args = parser.parse_args(["--train_csv", str(csvs / "train_noisy_60.csv"), "--name", "run", "--out-dir", str(tmp_path),
                              "--model-b", "unet", "--size", "48", "32", "--width", "4", "--accelerator", "cpu",
                              "--epochs", "1"])
    loop.run(args, weigh, networks=("_a", "_b"), selects=True)
    saved = checkpoint.load(tmp_path / "run" / "last.ckpt")["networks"]
    for k in range(2):
        moved = [not torch.equal(value, saved[k]["state"][name]) for name, value in before[k].items()]
        assert all(moved) if k == kept else not any(moved)
