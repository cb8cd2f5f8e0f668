"""Train a label-assisted teacher: it sees each image with its label, noised, as a fourth channel (Qiu et al. 2024).

    L = CE(a, y) + CE(b, y) + consistency [D(a, b) + D(b, a)]      a, b = logits of two draws of the label channel

    python related/lad/train_lad_teacher.py --train_csv data/csv/scenes/train.csv --valid_csv data/csv/scenes/valid.csv \\
        --test_csv data/csv/scenes/test.csv --num-classes 4 --name teacher --load runs/image_net/best.ckpt

Each draw gives each class of each image a random code, so the teacher learns shapes from the label, and classes from the
image. D is channel-wise distillation. --load takes an ordinary network of images, whose first convolution is widened. Codes are
fixed at first and random from half of the epochs on (--codes-ramp), since random ones are hard to learn at once. Scores are of
the first of --eval-codes: the image's own label, zeros, or another image's label, which a teacher must not follow blindly.
The teacher is of no use without labels; train_lad_student.py hands down what it knows.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from cli.command_line import command_line, nonnegative_float, nonnegative_int, positive_int, share
from cli.files import UserError
from cli.lazy import torch
from engine.flags import train_parser
from engine.loop import run
from related.lad.assisted import EVAL_CODES, STRIDE, RandomShare, complete, teacher_task
from related.lad.distillation import cwd, pooled
from utils.losses import AUXILIARY_SHARE, main_logits, training_losses

RAMP = 0.5  # share of the epochs in which fixed codes become random


class DualPath:
    """The objective, see engine/objective.py: outputs are of 2B images, the first and the second draw of B."""

    def __init__(self, args: Namespace) -> None:
        self.args = args

    def __call__(self, outputs: list, batch: dict, epoch: int) -> list:
        losses = training_losses(outputs[0], torch.cat([batch["mask"]] * 2), auxiliary_share=self.args.aux_weight)  # (2B,)
        if epoch < self.args.consistency_from or not self.args.consistency:
            return [2 * losses.mean()]
        a, b = pooled(main_logits(outputs[0]), self.args.kd_stride).chunk(2)
        return [2 * losses.mean() + self.args.consistency * (cwd(a, b) + cwd(b, a))]


def teacher_parser() -> ArgumentParser:
    """The flags of a training of segmentation, and the teacher's own."""
    parser = train_parser(__doc__ or "")
    group = parser.add_argument_group("method")
    group.add_argument("--codes", choices=("random", "fixed"), default="random", help="of the classes in the label channel")
    group.add_argument("--codes-ramp", type=share, metavar="SHARE", help="random codes: fixed ones become random over this "
                       f"share of the epochs (default: {RAMP:g}; 0 = random from the start)")
    group.add_argument("--consistency", type=nonnegative_float, default=0.3, metavar="W", help="weight of D (published: 5)")
    group.add_argument("--consistency-from", type=nonnegative_int, metavar="EPOCH", help="first epoch with D, from 0 (default: "
                       "after half of the epochs)")
    group.add_argument("--kd-stride", type=positive_int, metavar="PX", help="D compares means of squares of PX px (default: "
                       f"{STRIDE})")
    group.add_argument("--aux-weight", type=nonnegative_float, metavar="W", help="of the auxiliary head's CE (default: "
                       f"{AUXILIARY_SHARE})")
    group.add_argument("--channel-dir", metavar="DIR", help="label maps, STEM.png of each training image, which the label "
                       "channel shows in the place of its annotation, such as coarser ones")
    group.add_argument("--eval-codes", nargs="+", choices=EVAL_CODES, default=["own"], metavar="own|zero|shuffled",
                       help="whose label the scores are of; the first one chooses the best epoch")
    return parser


def check(args: Namespace) -> None:
    """Fill in what is not given.

    Raises:
        UserError: a flag can have no effect, or leaves the teacher without what it will be used for.
    """
    for flag in ("consistency_from", "kd_stride"):
        if not args.consistency and getattr(args, flag) is not None:
            raise UserError(f"--{flag.replace('_', '-')}: without --consistency it has no effect; leave it out")
    if args.codes == "fixed" and args.codes_ramp is not None:
        raise UserError("--codes-ramp: goes with --codes random; leave it out")
    complete(args)
    if args.consistency_from is None:
        args.consistency_from = args.epochs // 2
    if args.consistency and args.consistency_from >= args.epochs:
        raise UserError(f"--consistency-from {args.consistency_from}: the last of {args.epochs} epochs is number "
                        f"{args.epochs - 1}; pass a smaller one, or --consistency 0")
    if args.codes_ramp is None:
        args.codes_ramp = RAMP
    if args.codes == "random" and RandomShare(args.codes_ramp, args.epochs)(args.epochs - 1) < 1:
        raise UserError(f"--codes-ramp {args.codes_ramp:g} --epochs {args.epochs}: no epoch has random codes, with which the "
                        "teacher will be used; pass more epochs or a smaller ramp")
    if len(set(args.eval_codes)) < len(args.eval_codes):
        raise UserError(f"--eval-codes {' '.join(args.eval_codes)}: one of them is named twice")
    if args.eval_codes != ["own"] and not (args.valid_csv or args.test_csv):
        raise UserError(f"--eval-codes {' '.join(args.eval_codes)}: no rows are scored; pass --valid_csv or --test_csv")


def main() -> None:
    args = teacher_parser().parse_args()
    check(args)
    run(args, task=teacher_task(args), objective=DualPath(args), pseudo_dir=args.channel_dir)


if __name__ == "__main__":
    command_line(main)
