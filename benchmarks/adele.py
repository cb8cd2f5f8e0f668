"""ADELE: correct the labels of a class once the network has learnt it and before it memorises its errors.

    f_c(t) = a (1 - exp(-b t^g)), fitted to the training IoU of class c after the epochs t = 1, 2, ...
    class c is corrected from the end of the first epoch with |f_c'(1) - f_c'(t)| / |f_c'(1)| > r     (r = --slope-change)

    python benchmarks/adele.py --train_csv train_noisy.csv --test_csv test.csv --name adele

Correction, anew after each epoch, always of the given label: where the prediction averaged over --scales is class c with a
probability above --confidence, c is class 0 or in the picture's annotation, and the given label is of a class that is
corrected, the label becomes c. Class 0 is corrected as soon as another one is, so that a mask that is too large can shrink.
Ignored pixels stay ignored. The training IoU is measured against the given annotations, on the predictions of each epoch's
own steps, for nothing.

--consistency LAMBDA adds LAMBDA times the Jensen-Shannon divergence of the predictions at the scales, over the pixels that
their mean is sure of. It is off by default, since each step then costs a forward and backward pass per scale, about 3.7 times
the pixels. Masks that differ in each epoch (--augment) and torchrun are refused.

Source: Liu et al., "Adaptive Early-Learning Correction for Segmentation from Noisy Annotations", CVPR 2022. As in its published
code the exponent g is at most 1 and later epochs count more in the fit. The code corrects in several ways; this is nearest
to its way for medical images: anew from the given labels, class 0 among the corrected ones. (For VOC it adds correction to
correction, whatever the given class.) The table of rivals leaves --consistency off: it shows the correction alone.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from cli.command_line import command_line, nonnegative_float, positive_float, share
from cli.files import UserError, progress
from cli.lazy import torch
from data import IGNORE_INDEX
from engine.flags import processes_of_torchrun, train_parser
from engine.loaders import build_loaders, on_device
from engine.loop import run
from engine.task import SEGMENTATION
from utils.agreement import class_counts, hard_labels
from utils.losses import main_logits, training_losses

KEPT = IGNORE_INDEX  # in the memory: a pixel whose label was not corrected
SHORTEST = 4  # epochs: the curve has three parameters


# --- when: the curve of a class -----------------------------------------------------------------------------------


def iou_curve(t, a, b, g):
    """f(t) = a (1 - exp(-b t^g))."""
    return a * (1 - np.exp(-b * t**g))


def slope(t, a, b, g):
    """f'(t)."""
    return a * b * g * t**(g - 1) * np.exp(-b * t**g)


def slope_change(curve):
    """|f'(1) - f'(t)| / |f'(1)| at the last of the epochs, float in 0..1; 0 where no curve can be fitted.

    Args:
        curve: training IoU of a class after each epoch, list of float in 0..1.
    """
    from scipy.optimize import curve_fit

    if len(curve) < SHORTEST or not np.isfinite(curve).all() or not any(curve):
        return 0.0
    t = np.arange(1.0, len(curve) + 1)
    try:
        fitted, _ = curve_fit(iou_curve, t, curve, p0=(0.9, 1, 0.5), bounds=([0, 0, 0], [1, np.inf, 1]),
                              sigma=np.geomspace(1, 0.1, len(t)))
    except RuntimeError:  # it does not converge
        return 0.0
    first, last = slope(1.0, *fitted), slope(t[-1], *fitted)
    return float(abs(first - last) / first) if first > 0 else 0.0


# --- what: predictions over several scales ------------------------------------------------------------------------


def probabilities(logits):
    """Probability of each class, float32 (B, K, H, W), of logits (B, C, H, W); binary ones have K = 2."""
    logits = logits.float()
    if logits.shape[1] == 1:
        one = logits.sigmoid()
        return torch.cat([1 - one, one], 1)
    return logits.softmax(1)


def scaled_logits(network, images, scale):
    """Logits (B, C, H, W) of normalised images (B, 3, H, W) that the network sees at `scale` times their size."""
    resized = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=False)
    if scale == 1:
        return main_logits(network(images))
    small = resized(images, [max(1, round(side * scale)) for side in images.shape[-2:]], antialias=True)
    return resized(main_logits(network(small)), images.shape[-2:])


def sure_labels(network, images, scales, confidence):
    """The likeliest class by the mean over the scales, uint8 (B, H, W); KEPT where it is not above `confidence`."""
    highest, labels = sum(probabilities(scaled_logits(network, images, scale)) for scale in scales).div(len(scales)).max(1)
    return torch.where(highest > confidence, labels, KEPT).byte()


def divergence(logits, confidence):
    """Jensen-Shannon divergence of predictions, a tensor (): mean over the pixels where their mean is surer than `confidence`.

    Args:
        logits: list of (B, C, H, W), one per scale.
    """
    each = torch.stack([probabilities(one) for one in logits]).clamp(min=1e-6)  # (scales, B, K, H, W)
    mean = each.mean(0)
    pixels = (each * (each.log() - mean.log())).sum(2).mean(0)  # (B, H, W)
    sure = mean.max(1).values.detach() > confidence
    return (pixels * sure).sum() / sure.sum().clamp(min=1)


# --- in the loop --------------------------------------------------------------------------------------------------


class Memory:
    """Training IoU of each class so far, the epoch after which each was first corrected, and the corrected labels.

    Args:
        rows: N; size: (H, W), px; num_classes: C.
    """

    def __init__(self, rows, size, num_classes):
        self.labels = torch.full((rows, *size), KEPT, dtype=torch.uint8)  # (N, H, W)
        self.curves = torch.zeros(0, num_classes, dtype=torch.float64)  # (epochs, C); NaN: no pixel of this class
        self.counts = torch.zeros(3, num_classes, dtype=torch.float64)  # of this epoch so far, see `class_counts`
        self.switched = torch.full((num_classes,), -1)  # epoch, 0-based; -1 = not yet

    def state_dict(self):
        return {name: value.cpu().clone() for name, value in vars(self).items()}

    def load_state_dict(self, state):
        for name in vars(self):
            setattr(self, name, state[name].clone())

    def corrected(self, mask, index):
        """The masks int64 (B, H, W) of the rows `index`, with their corrected labels."""
        self.labels = self.labels.to(mask.device)
        new = self.labels[index].long()
        return torch.where((new == KEPT) | (mask == IGNORE_INDEX), mask, new)

    def count(self, predicted, mask):
        """Add a batch to the training IoU of this epoch."""
        counts = torch.stack([each.sum(0) for each in class_counts(predicted, mask, self.counts.shape[1])])
        self.counts = self.counts.to(mask.device) + counts

    def iou(self):
        """Training IoU of each class in this epoch, float64 (C,)."""
        both, predicted, given = self.counts.cpu()
        return both / (predicted + given - both)


def objective(memory, args, outputs, batch, epoch):
    """The plain loss on the corrected masks, and the divergence of the scales if it is asked for."""
    logits = main_logits(outputs[0])
    memory.count(hard_labels(logits.detach()), batch["mask"])
    loss = training_losses(outputs[0], memory.corrected(batch["mask"], batch["index"])).mean()
    if args.consistency:
        loss = loss + args.consistency * divergence([logits, *outputs[0]["scaled"]], args.confidence)
    return [loss]


def forward_scales(scales, network, batch):
    """Output of a network; while it is trained, a dict that also holds `scaled`, its logits at the other scales."""
    output = network(batch["image"])
    if not network.training:
        return output
    scaled = [scaled_logits(network, batch["image"], scale) for scale in scales if scale != 1]
    return {**(output if isinstance(output, dict) else {"logits": output}), "scaled": scaled}


def corrections(found, given, active):
    """The corrected labels, uint8 (B, H, W); KEPT where they are the given ones.

    Args:
        found: uint8 (B, H, W), of `sure_labels`.
        given: annotations (B, H, W).
        active: classes that are corrected, list of int, 0 first.
    """
    classes = torch.tensor(active)
    labels = torch.where((found != given) & torch.isin(given, classes) & torch.isin(found, classes.byte()), found, KEPT)
    for label in active[1:]:  # only into the background and classes that the annotation of the picture has
        absent = ~(given == label).flatten(1).any(1)
        labels[absent[:, None, None] & (labels == label)] = KEPT
    return labels


def after_epoch(memory, args, task, rows, fabric, state, stop):
    """Note the training IoU; correct the labels of the classes whose curves have flattened, now or before."""
    curves = torch.cat([memory.curves, memory.iou()[None]])
    changes = [slope_change(curve) for curve in curves.T.tolist()]
    due = [c for c, change in enumerate(changes) if c and change > args.slope_change and memory.switched[c] < 0]
    active = [0, *sorted({*due, *(memory.switched >= 0).nonzero().flatten().tolist()})]
    labels = torch.full_like(memory.labels, KEPT, device="cpu")
    if len(active) > 1:
        network = state.networks[0].eval()
        loader = build_loaders(args, {"corrected": rows}, fabric, task)["corrected"]
        for batch in progress(loader, "correcting", unit="batch"):
            with torch.no_grad(), fabric.autocast():
                found = sure_labels(network, on_device(fabric, batch, task)["image"], args.scales, args.confidence).cpu()
            labels[batch["index"]] = corrections(found, batch["mask"].cpu(), active)
            stop.check()  # nothing has changed yet
        if due:
            names = ", ".join(map(str, active))
            print(f"epoch {state.epoch + 1}: labels of class {names} are corrected from here on", flush=True)
    memory.labels, memory.curves, memory.counts = labels, curves, torch.zeros_like(memory.counts)
    memory.switched[due] = state.epoch
    return {"training_iou": [None if value != value else value for value in curves[-1].tolist()], "slope_change": changes,
            "corrected": due, "corrected_share": (labels != KEPT).double().mean().item()}


def parse():
    parser = train_parser(__doc__)
    group = parser.add_argument_group("correction")
    group.add_argument("--slope-change", type=share, default=0.9, metavar="R", help="of a class's curve when it is corrected")
    group.add_argument("--confidence", type=share, default=0.8, help="probability above which a label is corrected")
    group.add_argument("--scales", type=positive_float, nargs="+", default=[0.7, 1.0, 1.5], help="of the averaged prediction")
    group.add_argument("--consistency", type=nonnegative_float, default=0.0, metavar="LAMBDA",
                       help="share of the scales' divergence in the loss; each step then costs several times as much")
    args = parser.parse_args()
    if args.augment:
        raise UserError("--augment: corrected labels belong to the picture as it is; leave it out")
    if processes_of_torchrun() > 1:
        raise UserError("torchrun: labels are corrected by one process; run it with python")
    if args.consistency and not {*args.scales} - {1}:
        raise UserError("--consistency needs --scales besides 1")
    return args


def main():
    args = parse()
    splits = SEGMENTATION.rows(args)
    forward = partial(forward_scales, args.scales) if args.consistency else SEGMENTATION.forward
    task = replace(SEGMENTATION, rows=lambda args: splits, forward=forward)
    memory = Memory(len(splits["train"]), args.size, args.num_classes)
    run(args, task=task, objective=partial(objective, memory, args), memory=memory,
        after_epoch=partial(after_epoch, memory, args, task, splits["train"]))


if __name__ == "__main__":
    command_line(main)
