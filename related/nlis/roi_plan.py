"""The commands of the RoI bench: digits beside background patches, one kind of noise at one seed is a cell.

Each cell trains one network by cross-entropy (stage 1); from the same weights, each loss then goes on alone. So rows differ in
their loss and in nothing else. Nothing is written while jobs are planned.
"""

from __future__ import annotations

from pathlib import Path

from related.job_folder import JobFolder
from reports.plan import Job

FOLDER = "related/nlis"
BACKGROUND = ["--keep", "background"]
NOISE: dict[str, list] = {  # kind -> flags of utils/class_noise.py; `random`: every digit's label is drawn from all ten alike
    "SN50": ["--noise", "symmetric", "--rate", 0.5, *BACKGROUND], "AN40": ["--noise", "asymmetric", "--rate", 0.4],
    "clean": [], "random": ["--noise", "symmetric", "--rate", 0.9, *BACKGROUND]}
LOSSES = ("ce", "sce", "gce", "nlis")
TITLES = {"ce": "cross-entropy (CE)", "sce": "SCE", "gce": "GCE", "nlis": "NLIS", "pon": "NLIS with PON at 6",
          "weighted": "NLIS, RCE weighted by out-of-fold trust"}
OPTIONS: dict[str, list] = {"pon": ["--pon-threshold", 6], "weighted": ["--weighted"]}  # row -> further flags of nlis
STAGE_1, STAGE_2 = 12, 24  # epochs
QUICK = 3  # times fewer epochs with --quick


class RoiCell(JobFolder):
    """The jobs of a kind of noise and a seed.

    Args:
        home, jobs, quick: see JobFolder; with `quick` QUICK times fewer epochs.
        noise: key of NOISE.
        seed: of the drawn noise and the trainings.
    """

    def __init__(self, home: Path, jobs: dict[Path, Job], noise: str, seed: int, quick: bool = False) -> None:
        super().__init__(home, jobs, quick)
        self.noise, self.seed = noise, seed
        self.data, self.folder = home / "digits", home / noise / f"seed{seed}"  # of the CSVs, of the cell's runs

    def labels(self) -> Job:
        """The job that makes the training CSV."""
        made = self.job(self.data / "test.csv", [], "data/make_digits.py", "--background", "--out", self.data, "--overwrite")
        if not NOISE[self.noise]:
            return made
        out = self.data / f"train_{self.noise}_{self.seed}.csv"
        return self.job(out, [made], "utils/class_noise.py", "--csv", self.data / "train_clean.csv", *NOISE[self.noise],
                         "--seed", self.seed, "--out", out, "--overwrite")

    @property
    def csv(self) -> Path:
        """The training CSV."""
        return self.labels().result if NOISE[self.noise] else self.data / "train_clean.csv"

    def _training(self, name: str, csv: Path, needs: list[Job], epochs: int, lr_step: int, *flags: object) -> Job:
        scale = QUICK if self.quick else 1
        return self.job(self.folder / name / "result.json", needs, f"{FOLDER}/train_nlis.py", "--train_csv", csv,
                         "--test_csv", self.data / "test.csv", "--name", name, "--out-dir", self.folder, *flags, "--model",
                         "roi_cnn", "--epochs", epochs // scale, "--lr-step", lr_step // scale, "--batch-size", 128,
                         "--learning-rate", 0.02, "--weight-decay", 0.0005, "--cache", "--resume", "--seed", self.seed)

    def stage1(self) -> Job:
        """The training that all rows go on from; its learning rate does not decay within its epochs."""
        return self._training("stage1", self.csv, [self.labels()], STAGE_1, STAGE_1, "--loss", "ce")

    def trust(self) -> Job:
        """A linear classifier's out-of-fold probability of each given label, as the CSV's weight."""
        name, csv = "trust", self.csv
        return self.job(self.folder / name / "weights.csv", [self.labels()], "train_on_features.py", "--train_csv", csv,
                         "--name", name, "--out-dir", self.folder, "--encoder", "pixels", "--encoder-weights", "none",
                         "--seed", self.seed, "--resume")

    def row(self, row: str) -> Job:
        """The training of a row of TITLES."""
        needs, csv = [self.stage1()], self.csv
        if row == "weighted":
            needs.append(self.trust())
            csv = self.trust().result
        loss = row if row in LOSSES else "nlis"
        return self._training(row, csv, needs, STAGE_2, STAGE_2 * 2 // 3, "--loss", loss, *OPTIONS.get(row, []), "--load",
                              self.folder / "stage1" / "last.ckpt", "--stage1-epochs", 0)
