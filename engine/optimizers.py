"""The paper's optimizer and a plain one."""

import warnings

from cli.lazy import torch


def build_optimizer(args, parameters):
    """Ranger or AdamW, and the schedule that decays the learning rate every --lr-step epochs (paper, section 4).

    Returns:
        (optimizer, scheduler); step the scheduler once per epoch.
    """
    if args.optimizer == "ranger":
        optimizer = build_ranger(parameters, args.learning_rate, args.weight_decay)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, args.lr_step, args.lr_gamma)


def build_ranger(parameters, learning_rate, weight_decay):
    """Ranger = RAdam + LookAhead + gradient centralisation.

    torch-optimizer's Ranger has the first two; the third is done just before each step.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_optimizer import Ranger
    warnings.filterwarnings("ignore", message="This overload of add")  # the library calls torch in an older way
    optimizer = Ranger(parameters, lr=learning_rate, weight_decay=weight_decay)
    optimizer.register_step_pre_hook(lambda ranger, args, kwargs: centralise_gradients(ranger))
    return optimizer


def centralise_gradients(optimizer):
    """Subtract from each output unit's gradient its mean (Yong et al. 2020, eq. 1); biases and norms are left alone."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.dim() > 1:
                parameter.grad.sub_(parameter.grad.mean(dim=tuple(range(1, parameter.dim())), keepdim=True))
