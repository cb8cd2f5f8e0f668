"""Train an ordinary network of images with a frozen teacher in its objective (Qiu et al. 2024; plain distillation beside it).

    L = CE(s, y) + kd_weight * KD(s, t)      s, t = logits of student and teacher; KD: channel-wise, per pixel, or DIST

    python related/lad/train_lad_student.py --train_csv data/csv/scenes/train.csv --valid_csv data/csv/scenes/valid.csv \\
        --test_csv data/csv/scenes/test.csv --num-classes 4 --name student --teacher runs/teacher/best.ckpt

The teacher of train_lad_teacher.py sees each image with its label; with --teacher-kind plain it is any network of images, and
this is ordinary knowledge distillation. The student sees images alone, so evaluate.py and predict.py take its checkpoints.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.command_line import command_line, nonnegative_float, positive_float, positive_int
from cli.files import UserError, read_json
from cli.lazy import torch
from engine.flags import train_parser
from engine.loop import run
from engine.run_folder import file_digest, inside
from engine.task import SEGMENTATION, Task
from related.lad.assisted import STRIDE, LabelledImages, codes_of, complete, labelled, load_teacher
from related.lad.distillation import DISTILLATIONS, pooled
from related.lad.label_codes import described
from utils.losses import AUXILIARY_SHARE, main_logits, training_losses


class Distilled:
    """The objective, see engine/objective.py: outputs are of the student and of the frozen teacher."""

    def __init__(self, args: Namespace) -> None:
        self.args = args

    def __call__(self, outputs: list, batch: dict, epoch: int) -> list:
        losses = training_losses(outputs[0], batch["mask"], auxiliary_share=self.args.aux_weight)  # (B,)
        student, teacher = (pooled(main_logits(output), self.args.kd_stride) for output in outputs)
        return [losses.mean() + self.args.kd_weight * DISTILLATIONS[self.args.kd](student, teacher)]


class Teacher:
    """The frozen teacher, loaded by `run` once it has checked the rows: `network`, and of a label-assisted one `codes`, and
    what is `told` of them in result.json."""

    network: torch.nn.Module | None = None
    codes = ""
    told: dict[str, Any] | None = None

    def __call__(self, args: Namespace) -> list[torch.nn.Module]:
        self.network, config = load_teacher(args.teacher, args.num_classes, args.teacher_kind)
        if args.teacher_kind == "lad":
            self.codes = codes_of(args.teacher, config, args.codes)
            self.told = described(self.codes, args.num_classes, args.seed)
        return [self.network]

    def facts(self, rows: Any) -> dict[str, Any]:
        """What result.json says: `teacher_codes`, those that the teacher got, whether --codes named them or not; None of a
        teacher of images alone."""
        return {"teacher_codes": self.told}


def student_task(args: Namespace, teacher: Teacher) -> Task:
    """Segmentation in which a label-assisted teacher, and no other network, sees labels."""
    if args.teacher_kind == "plain":
        return SEGMENTATION

    def forward(network: Any, batch: dict) -> Any:
        return network(labelled(batch, args.num_classes, teacher.codes, batch["seeds"][0]) if network is teacher.network
                       else batch["image"])

    return replace(SEGMENTATION, dataset=LabelledImages, forward=forward)


def student_parser() -> ArgumentParser:
    """The flags of a training of segmentation, and the student's own."""
    parser = train_parser(__doc__ or "")
    group = parser.add_argument_group("method")
    group.add_argument("--teacher", required=True, metavar="CKPT", help="checkpoint of the frozen teacher")
    group.add_argument("--teacher-kind", choices=("lad", "plain"), default="lad", help="label-assisted, or of images alone")
    group.add_argument("--codes", choices=("random", "fixed"), help="of the classes in a label-assisted teacher's label "
                       "channel (default: those of its training)")
    group.add_argument("--kd", choices=tuple(DISTILLATIONS), default="cwd", help="what is compared: where each class lies, the "
                       "classes of each pixel, or their correlations")
    group.add_argument("--kd-weight", type=positive_float, default=3.0, metavar="W", help="weight of KD")
    group.add_argument("--kd-stride", type=positive_int, metavar="PX", help="KD compares means of squares of PX px (default: "
                       f"{STRIDE})")
    group.add_argument("--aux-weight", type=nonnegative_float, metavar="W", help="of the auxiliary head's CE (default: "
                       f"{AUXILIARY_SHARE}, published: 0.02)")
    return parser


def check(args: Namespace) -> None:
    """Fill in what is not given, and the digest of the teacher's file, which is kept with the run.

    Raises:
        UserError: flags contradict one another, or the run that --resume continues had another teacher.
    """
    complete(args)
    if args.codes and args.teacher_kind == "plain":
        raise UserError("--codes: goes with --teacher-kind lad; a network of images gets no label channel")
    if not Path(args.teacher).is_file():
        raise UserError(f"--teacher {args.teacher}: no such checkpoint")
    args.teacher_digest = file_digest(args.teacher)
    begun = inside(args.out_dir, args.name) / "args.json"
    if args.resume and begun.exists() and read_json(begun).get("teacher_digest", args.teacher_digest) != args.teacher_digest:
        raise UserError(f"--teacher {args.teacher}: the run in {begun.parent} was begun with another teacher than the one that "
                        "this file holds now; pass --overwrite or another --name")


def main() -> None:
    args, teacher = student_parser().parse_args(), Teacher()
    check(args)
    run(args, task=student_task(args, teacher), objective=Distilled(args), frozen=teacher)


if __name__ == "__main__":
    command_line(main)
