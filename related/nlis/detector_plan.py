"""The commands of the comparison on detectors: drawn shapes, and photographs if given; nothing is written while planned.

Forked rows: a detector is trained by cross-entropy (stage 1), and each loss goes on from its weights alone. Wrong labels: each
instance is judged by a detector that never saw its picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from related.job_folder import JobFolder
from related.nlis.roi_plan import FOLDER
from reports.plan import Job

FORKED_AT = 50  # percent, of the forked rows
LOSSES = ("ce", "nlis")


class DataSet(NamedTuple):
    """A set of pictures with instances, and how detectors are trained on it.

    Args:
        name: of its folder.
        make: command that makes train.json and test.json in the folder that `--out` names.
        flags: of every training.
        epochs: of stage 1, and of each loss that goes on from it.
        fold_epochs: of the detectors that judge.
        rates: percent of wrong labels, symmetric, in which wrong ones are sought; if FORKED_AT is among them, there is a row of
            weights too.
    """

    name: str
    make: tuple
    flags: tuple
    epochs: tuple[int, int]
    fold_epochs: int
    rates: tuple


SMALL = ("--width", 64, "--anchor", 16, "--rois", 32, "--batch-size", 4, "--mirror", "--momentum", 0.9, "--weight-decay",
         0.0001)
SHAPES = DataSet("shapes", ("data/make_shapes.py", "--train", 150, "--test", 100),
                 ("--size", 96, 96, "--encoder", "resnet18", "--optimizer", "adamw", "--learning-rate", 0.002, "--warmup-steps",
                  20, *SMALL), (10, 7), 10, (20, 40, 50, 60))


def photographs(json: Path, weights: Path | None) -> DataSet:
    """A COCO JSON of photographs, half of them to test on, and the file of MobileNetV2's ImageNet weights."""
    start = ("--encoder-weights", weights) if weights else ()
    return DataSet("coco200", ("data/prepare_coco.py", json, "--test", 0.5, "--groups"),
                   ("--size", 128, 160, "--encoder", "mobilenet_v2", *start, "--learning-rate", 0.01, "--warmup-steps", 10,
                    *SMALL), (6, 6), 8, (20, 40, 60))


class DetectorJobs(JobFolder):
    """The jobs of one data set."""

    def __init__(self, home: Path, jobs: dict[Path, Job], data: DataSet, quick: bool = False) -> None:
        super().__init__(home / data.name, jobs, quick)
        self.data, self.folder = data, home / data.name / "data"

    def labels(self, rate: int, seed: int) -> Job:
        """The training JSON with so many percent of wrong labels."""
        script, *flags = self.data.make
        made = self.job(self.folder / "test.json", [], script, *flags, "--out", self.folder, "--overwrite")
        if not rate:
            return made
        out = self.folder / f"train_SN{rate}_{seed}.json"
        return self.job(out, [made], "utils/class_noise.py", "--csv", self.folder / "train.json", "--noise", "symmetric",
                        "--rate", rate / 100, "--seed", seed, "--out", out, "--overwrite")

    def csv(self, rate: int, seed: int) -> Path:
        """The path of `labels`, the training JSON."""
        return self.labels(rate, seed).result if rate else self.folder / "train.json"

    def _training(self, folder: Path, name: str, csv: Path, seed: int, needs: list[Job], epochs: int, *flags: object) -> Job:
        few = max(1, epochs // 6) if self.quick else epochs
        return self.job(folder / name / "result.json", needs, f"{FOLDER}/train_nlis.py", "--train_csv", csv, "--test_csv",
                        self.folder / "test.json", "--name", name, "--out-dir", folder, *flags, "--epochs", few, "--lr-step",
                        max(1, few * 2 // 3) if "--load" in flags else few, *self.data.flags, "--resume", "--seed", seed)

    def trust(self, rate: int, seed: int) -> Job:
        """Out-of-fold trust in every label."""
        folder = self.home / f"SN{rate}" / f"seed{seed}"
        few = 2 if self.quick else self.data.fold_epochs  # one epoch of half of the pictures is shorter than the warm-up
        return self.job(folder / "trust" / "wrong_labels.json", [self.labels(rate, seed)], f"{FOLDER}/wrong_labels.py",
                        "--train_csv", self.csv(rate, seed), "--truth", self.folder / "train.json", "--name", "trust",
                        "--out-dir", folder, "--folds", 2, "--loss", "nlis", "--epochs", few, "--lr-step", max(1, few * 3 // 4),
                        *self.data.flags, "--resume", "--seed", seed)

    def forked(self, row: str, rate: int, seed: int) -> Job:
        """A row: `ce`, `nlis`, or `weighted`, nlis with the trust of `trust` as weights."""
        folder, csv = self.home / f"SN{rate}" / f"seed{seed}", self.csv(rate, seed)
        needs = [self._training(folder, "stage1", csv, seed, [self.labels(rate, seed)], self.data.epochs[0], "--loss",
                                "ce")]
        flags: list[object] = ["--loss", row if row in LOSSES else "nlis"]
        if row == "weighted":
            needs.append(self.trust(rate, seed))
            csv, flags = needs[-1].result.with_name("weights.json"), [*flags, "--weighted"]
        return self._training(folder, row, csv, seed, needs, self.data.epochs[1], *flags, "--load",
                              folder / "stage1" / "last.ckpt", "--stage1-epochs", 0)
