"""The commands of the comparison of label-assisted distillation: nothing is written while they are planned.

Per seed: an image-only network; a label-assisted teacher that starts from it; students, all from the same start, by
cross-entropy (CE), from the image-only network as a plain teacher, and from the label-assisted one. Nothing is chosen by
scores: the last epoch counts. Cost is counted in forward passes of an image, a backward pass as two.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from related.job_folder import JobFolder
from reports.plan import Job

FOLDER = "related/lad"
TITLES = {  # row -> what the reader sees
    "ce": "CE, no teacher", "kd": "plain KD, per pixel", "cwd": "plain KD, channel-wise (CWD)", "lad": "LAD",
    "lad_fixed": "LAD, fixed codes", "ce_long": "CE, at LAD's cost", "kd_long": "plain KD, per pixel, at LAD's cost",
    "cwd_long": "plain KD, channel-wise, at LAD's cost"}
AT_EQUAL_COST = ("ce_long", "kd_long", "cwd_long")
OF_SCENES = ("ce", "kd", "cwd", "lad", "lad_fixed", "ce_long")
PLAIN, DUAL, TAUGHT = 3, 6, 4  # passes of an image in an epoch: training, two draws, training beside a frozen teacher
HINTON = 16  # weight of the per-pixel KL: T^2, as Hinton et al. 2015 have it


class DataSet(NamedTuple):
    """What is trained on.

    Args:
        folder: of train.csv and test.csv.
        make: command that makes them; empty: they are there.
        student, teacher: flags of the networks; the image-only network is like the teacher.
        flags: of every training.
        epochs: of the image-only network, of the teacher, of the students at equal steps.
        taught: flags of the students that have a teacher.
    """

    folder: Path
    make: tuple
    student: tuple
    teacher: tuple
    flags: tuple
    epochs: tuple[int, int, int]
    taught: tuple = ()


def scenes(home: Path, seed: int, args: Namespace) -> DataSet:
    """Drawn scenes, a set for each seed.

    Args:
        args: `quick`, `other`, see `pictures`.
    """
    folder, unet = home / "data" / f"seed{seed}", ("--model", "unet", "--width", 8)
    flags = ("--num-classes", 4, "--size", 48, 48, "--theta", 2, "--optimizer", "adamw", "--learning-rate", 0.004, "--schedule",
             "poly", "--batch-size", 8, "--clip", 0, "--cache", *args.other)
    return DataSet(folder, ("data/make_scenes.py", "--valid", 0, "--seed", seed), unet, unet, flags,
                   (2, 2, 1) if args.quick else (8, 12, 1), ("--kd-stride", 1))  # objects of few px vanish in larger squares


def pictures(folder: Path, args: Namespace) -> DataSet:
    """A folder of train.csv and test.csv.

    Args:
        args: `model`, `encoder`, `encoder_weights`, `teacher_encoder`, `teacher_weights` (None: as the student), `epochs`,
            `teacher_epochs` (None: `epochs`), `other` (flags of every training, which win over those of here).
    """
    def network(encoder: str, weights: str | None) -> tuple:
        return "--model", args.model, "--encoder", encoder, "--encoder-weights", weights or "none"

    flags = ("--optimizer", "adamw", "--learning-rate", 0.001, "--schedule", "poly", "--batch-size", 8, "--clip", 0, "--cache",
             *args.other)
    taught = args.teacher_epochs or args.epochs
    own = network(args.encoder, args.encoder_weights)
    teacher = network(args.teacher_encoder, args.teacher_weights) if args.teacher_encoder else own
    return DataSet(folder, (), own, teacher, flags, (taught, taught, args.epochs))


def cost_of(epochs: tuple[int, int, int], row: str) -> tuple[int, int]:
    """(epochs of a row's student, passes of each training image in all its trainings)."""
    first, teacher, student = epochs
    lad = PLAIN * first + DUAL * teacher + TAUGHT * student
    if row in AT_EQUAL_COST:
        longer = (lad - (0 if row == "ce_long" else PLAIN * first)) / (PLAIN if row == "ce_long" else TAUGHT)
        student = round(longer)
    if row.startswith("ce"):
        return student, PLAIN * student
    return student, PLAIN * first + (DUAL * teacher if row.startswith("lad") else 0) + TAUGHT * student


class LadCell(JobFolder):
    """The jobs of a data set at a seed.

    Args:
        home, jobs: see JobFolder.
        seed: of the trainings.
    """

    def __init__(self, home: Path, jobs: dict[Path, Job], data: DataSet, seed: int) -> None:
        super().__init__(home, jobs)
        self.data, self.seed, self.folder = data, seed, home / f"seed{seed}"

    def _made(self) -> list[Job]:
        script, *flags = self.data.make or ("",)
        out = self.data.folder
        return [self.job(out / "test.csv", [], script, *flags, "--out", out, "--overwrite")] if script else []

    def _training(self, script: str, name: str, epochs: int, network: Sequence, needs: list[Job], *flags: object) -> Job:
        csvs = ["--train_csv", self.data.folder / "train.csv", "--test_csv", self.data.folder / "test.csv"]
        return self.job(self.folder / name / "result.json", self._made() + needs, script, *csvs, "--name", name, "--out-dir",
                        self.folder, *flags, *network, "--epochs", epochs, *self.data.flags, "--resume", "--seed", self.seed)

    def image_net(self) -> Job:
        """The image-only network: plain teacher, and start of the label-assisted one."""
        return self._training("train_without_weight.py", "image_net", self.data.epochs[0], self.data.teacher, [])

    def teacher(self) -> Job:
        """The label-assisted teacher."""
        start = self.image_net()
        return self._training(f"{FOLDER}/train_lad_teacher.py", "teacher", self.data.epochs[1], self.data.teacher, [start],
                              "--load", start.result.with_name("last.ckpt"), "--eval-codes", "own", "zero", "shuffled")

    def student(self, row: str) -> Job:
        """The student of a row of TITLES."""
        epochs, _ = cost_of(self.data.epochs, row)
        if row.startswith("ce"):
            return self._training("train_without_weight.py", row, epochs, self.data.student, [])
        kind = "lad" if row.startswith("lad") else "plain"
        teacher = self.teacher() if kind == "lad" else self.image_net()
        way = ["--kd", "kl", "--kd-weight", HINTON] if row.startswith("kd") else []
        codes = ["--codes", "fixed"] if row == "lad_fixed" else []
        return self._training(f"{FOLDER}/train_lad_student.py", row, epochs, self.data.student, [teacher], "--teacher",
                              teacher.result.with_name("last.ckpt"), "--teacher-kind", kind, *way, *codes, *self.data.taught)
