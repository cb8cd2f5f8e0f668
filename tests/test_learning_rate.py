"""The learning rate of every step by hand, and how many steps there are."""

import argparse

import pytest
import torch

from cli.files import UserError
from data.dataset import as_it_is
from engine import loaders, loop
from engine.flags import add_optimizer_flags
from engine.optimizers import build_optimizer, rate_factor
from tests import number_task
from tests.number_task import NUMBERS, uniform
from tests.small_runs import epochs_of

numbers = number_task.numbers


def rates(steps, *flags, epochs=4):
    """Learning rates of all steps of 4 epochs, from 1."""
    parser = argparse.ArgumentParser()
    add_optimizer_flags(parser)
    args = parser.parse_args([*flags, "--optimizer", "sgd"])
    args.learning_rate, args.epochs = 1.0, epochs
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer, scheduler = build_optimizer(args, [parameter], steps)
    taken = []
    for _ in range(epochs * steps):
        taken.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.zeros(1)
        optimizer.step()
        scheduler.step()
    return taken


def test_poly_by_hand():
    assert rates(2, "--schedule", "poly") == pytest.approx([(1 - step / 8)**0.9 for step in range(8)])
    assert rates(1, "--schedule", "poly") == pytest.approx([1, 0.7719, 0.5359, 0.2872], abs=5e-5)


def test_the_published_rates_of_label_assisted_distillation():
    """.001 (1 - (it - 1) / 40,000)^.9, it counted from 1 (Qiu et al. 2024)."""
    factor = rate_factor(argparse.Namespace(epochs=50, warmup_steps=0, schedule="poly"), 800)
    assert [.001 * factor(it - 1) for it in (1, 20_001, 32_100)] == pytest.approx([.001, .000536, .000232], abs=5e-7)


def test_warm_up_by_hand():
    assert rates(2, "--warmup-steps", "4", "--lr-step", "2") == pytest.approx([0.25, 0.5, 0.75, 1, 0.5, 0.5, 0.5, 0.5])
    assert rates(1, "--schedule", "poly", "--warmup-steps", "2") == pytest.approx([0.5, 0.7719, 0.5359, 0.2872], abs=5e-5)
    with pytest.raises(UserError, match="--warmup-steps 9: the run has 8 steps"):
        rates(2, "--warmup-steps", "9")


def test_momentum_is_that_of_sgd():
    """Two steps along a gradient of 1: 1, and then 1 + 0.5."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    args = argparse.Namespace(optimizer="sgd", momentum=0.5, weight_decay=0.0, learning_rate=1.0, schedule="step",
                              warmup_steps=0, lr_step=1, lr_gamma=1.0)
    optimizer, _ = build_optimizer(args, [parameter])
    for place in (-1, -2.5):
        parameter.grad = torch.ones(1)
        optimizer.step()
        assert parameter.item() == place


def test_every_step_of_a_run_takes_its_own_rate(numbers, tmp_path):
    """In the log the rate of each epoch's first step."""
    loop.run(numbers("--schedule", "poly", "-l", "0.1"), uniform, task=NUMBERS)
    logged = [entry["learning_rate"] for entry in epochs_of(tmp_path)]
    assert logged == pytest.approx([0.1 * (1 - epoch / 6)**0.9 for epoch in range(6)])
    with pytest.raises(UserError, match="--warmup-steps 49: the run has 48 steps"):
        loop.run(numbers("--overwrite", "--warmup-steps", "49"), uniform, task=NUMBERS)


@pytest.mark.parametrize("rows", [1, 3, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_steps_are_counted_as_the_loader_has_them(rows, processes):
    args = argparse.Namespace(batch_size=8)
    sampler = torch.utils.data.DistributedSampler(range(rows), processes, 0)
    loader = torch.utils.data.DataLoader(range(rows), 8 // processes, sampler=sampler, collate_fn=as_it_is,
                                         drop_last=loaders.drops_last(args, rows))
    assert loaders.steps_per_epoch(args, rows, processes) == len(loader)
