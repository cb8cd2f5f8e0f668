"""The paper's optimizer and two plain ones, and their learning rate as a function of epoch and step."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable

from cli.files import UserError
from cli.lazy import torch

POLY_POWER = 0.9  # Chen et al. 2017 (DeepLab), section 4.1


def build_optimizer(args: Namespace, parameters: Iterable[torch.nn.Parameter], steps: int = 1,
                    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimizer of --optimizer and the schedule of its learning rate.

    Args:
        steps: training steps of an epoch.

    Returns:
        (optimizer, scheduler); step the scheduler once per training step if `changes_by_step`, else once per epoch.
    """
    if args.optimizer == "ranger":
        optimizer = build_ranger(parameters, args.learning_rate, args.weight_decay)
    elif args.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, lr=args.learning_rate, momentum=args.momentum, weight_decay=args.weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
    # the schedule counts a step that selects no sample, though the optimizer skips it; PyTorch warns of that
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    if not changes_by_step(args):
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, args.lr_step, args.lr_gamma)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate_factor(args, steps))


def changes_by_step(args: Namespace) -> bool:
    """Whether the learning rate changes from one training step to the next, or only between epochs."""
    return args.schedule != "step" or args.warmup_steps > 0


def rate_factor(args: Namespace, steps: int) -> Callable[[int], float]:
    """A function of the training step, counted from 0 over all epochs, that gives its learning rate / --learning-rate.

    `poly`: (1 - step / total)^0.9. `step`: times --lr-gamma every --lr-step epochs (paper, section 4). The first
    --warmup-steps N steps take (step + 1) / N of that.

    Args:
        steps: training steps of an epoch.

    Raises:
        UserError: the warm-up is longer than the run.
    """
    total = args.epochs * steps
    if args.warmup_steps > total:
        raise UserError(f"--warmup-steps {args.warmup_steps}: the run has {total} steps; pass fewer, or more --epochs")

    def factor(step: int) -> float:
        if args.schedule == "poly":
            rate = max(0.0, 1 - step / total) ** POLY_POWER
        else:
            rate = args.lr_gamma ** (step // steps // args.lr_step)
        return rate * min(1.0, (step + 1) / max(1, args.warmup_steps))

    return factor


def build_ranger(parameters: Iterable[torch.nn.Parameter], learning_rate: float,
                 weight_decay: float) -> torch.optim.Optimizer:
    """Ranger = RAdam + LookAhead + gradient centralisation.

    torch-optimizer's Ranger has the first two; a hook does the third before each step.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_optimizer import Ranger
    warnings.filterwarnings("ignore", message="This overload of add")  # the library calls torch in an older way
    optimizer = Ranger(parameters, lr=learning_rate, weight_decay=weight_decay)
    optimizer.register_step_pre_hook(lambda ranger, args, kwargs: centralise_gradients(ranger))
    return optimizer


def centralise_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Subtract from each output unit's gradient its mean (Yong et al. 2020, eq. 1); biases and norms keep theirs."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.dim() > 1:
                parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.dim())), keepdim=True))
