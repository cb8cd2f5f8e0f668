"""The commands that compare Blind Knowledge Distillation with its baselines: one noise type at one seed is a cell.

All networks of a cell train on the same rows and choose their best epoch by the same noisy validation rows. The linear
classifier has all of them: its own folds judge. Nothing is written while jobs are planned.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cli.files import UserError
from reports.plan import Job, named_files

FOLDER = "related/blindkd"
SYMMETRIC = 0.4  # rate of the drawn noise of that name
# share of wrong labels, which Co-teaching is told as its forget rate; those of CIFAR-10N as its label file gives them
RATES = {"worst": 0.4021, "aggre": 0.0901, "rand1": 0.1723, "rand2": 0.1812, "rand3": 0.1764, "symmetric": SYMMETRIC}
TITLES = {  # row -> what the reader sees
    "ce": "cross-entropy (no method)", "co_teaching": "Co-teaching, told the share of wrong labels",
    "blindkd": "BlindKD", "unmasked": "ablation: BlindKD, unmasked",
    "features": "linear classifier on frozen {encoder} features",
    "clean": "upper bound: cross-entropy, true labels"}
DRAWN = ("worst", "aggre", "rand1", "symmetric")  # noise that is drawn for the digits
DETECTING = ("blindkd", "unmasked", "features")


@dataclass
class Cell:
    """The jobs of a noise type and a seed.

    Args:
        settings: Namespace: `data`, folder of the CSVs of labels by people, None = digits with drawn noise; `home`,
            folder of all jobs; `model`, `size`, `shift`, `mirror`, `epochs`, `batch_size`, `lr_step`, `val_ratio`,
            `forget_rate`, `encoder`, `encoder_weights`, `features_size`.
        noise: type of noise; the CSV is train_NOISE.csv, of drawn noise train_NOISE_SEED.csv.
        seed: of the drawn noise, the split and the trainings.
        jobs: dict of result file -> job, shared by all cells: each result is computed once.
    """

    settings: argparse.Namespace
    noise: str
    seed: int
    jobs: dict[Path, Job]

    @property
    def folder(self) -> Path:
        """Folder of the CSVs."""
        return Path(self.settings.data or self.settings.home / "digits")

    @property
    def kind(self) -> str:
        """What the training CSV is called: train_KIND.csv."""
        return self.noise if self.settings.data else f"{self.noise}_{self.seed}"

    @property
    def csv(self) -> Path:
        """The CSV with the wrong labels."""
        return self.folder / f"train_{self.kind}.csv"

    @property
    def truth(self) -> Path:
        """The CSV with the true labels, which detection.py, the table and the upper bound read."""
        return self.folder / "train_clean.csv"

    @property
    def home(self) -> Path:
        """Folder of the cell's runs."""
        return self.settings.home / self.noise / f"seed{self.seed}"

    @property
    def clean_home(self) -> Path:
        """Folder of the runs on true labels, which are the same for each type of noise."""
        return self.settings.home / "true" / f"seed{self.seed}"

    def _job(self, result: Path, needs: list[Job], *command: object) -> Job:
        words, root = [str(word) for word in command], self.settings.home
        log = root / "logs" / ("_".join(result.relative_to(root).with_suffix("").parts) + ".out")
        return self.jobs.setdefault(result, Job(words, result, needs, log, root, named_files(words, root)))

    # --- labels -------------------------------------------------------------------------------------------------

    @cached_property
    def pictures(self) -> list[Job]:
        """The jobs that make the pictures with their true labels; none where they are there.

        Raises:
            UserError: --data lacks a CSV, or there is no such noise.
        """
        if not self.settings.data:
            if self.noise not in DRAWN:
                raise UserError(f"--noise {self.noise}: digits get {', '.join(DRAWN)}; labels of your own go with --data")
            return [self._job(self.folder / "test.csv", [], "data/make_digits.py", "--out", self.folder, "--overwrite")]
        for path in (self.csv, self.truth, self.folder / "test.csv"):
            if not path.is_file():
                raise UserError(f"--data {self.folder}: has no {path.name}; make it with data/prepare_cifar_n.py, or choose "
                                "another --noise")
        return []

    @cached_property
    def labels(self) -> list[Job]:
        """The jobs that make the training CSV; none where it is there."""
        if self.settings.data:
            return self.pictures
        rate = ["--rate", SYMMETRIC] if self.noise == "symmetric" else []
        return [self._job(self.csv, self.pictures, "utils/class_noise.py", "--csv", self.truth, "--noise", self.noise, *rate,
                          "--seed", self.seed, "--out", self.csv, "--overwrite")]

    def _split(self, home: Path, csv: Path, needs: list[Job]) -> Job:
        out = home / "csv"
        return self._job(out / "train.csv", needs, f"{FOLDER}/split_rows.py", "--csv", csv, "--val_ratio",
                         self.settings.val_ratio, "--seed", self.seed, "--out", out, "--overwrite")

    # --- runs ---------------------------------------------------------------------------------------------------

    @property
    def _training(self) -> list[object]:
        """Flags of every training of networks."""
        flags, pair = self.settings, ["--mirror"] * self.settings.mirror
        return ["--size", *flags.size, "--shift", flags.shift, *pair, "--optimizer", "sgd", "--momentum", 0.9, "--weight-decay",
                0.0005, "--lr-step", flags.lr_step, "--lr-gamma", 0.1, "--clip", 0, "--cache", "--resume", "--seed", self.seed]

    def _baseline(self, name: str, script: str, csv: Path, *flags: object) -> Job:
        """A training by one of the scripts at the top; a job."""
        settings, train = self.settings, csv
        as_blind = ["--padding", "zero"] * self.folder.name.startswith("cifar100")  # BlindKD's default for these alone
        home, needs = (self.clean_home, self.pictures) if csv == self.truth else (self.home, self.labels)
        valid: list[object] = []
        if settings.val_ratio:
            split = self._split(home, csv, needs)
            needs, train, valid = [split], split.result, ["--valid_csv", split.result.with_name("valid.csv")]
        return self._job(home / name / "result.json", needs, script, "--train_csv", train, *valid, "--test_csv",
                         self.folder / "test.csv", "--name", name, "--out-dir", home, *flags, *as_blind, "--epochs",
                         settings.epochs, "--batch-size", settings.batch_size, "--learning-rate", 0.02, *self._training)

    def _blind(self, name: str, *flags: object) -> Job:
        """Train a pair, then measure it with learning.py and detection.py; the last job."""
        settings, results = self.settings, self.home / name
        named = ["--dataset", self.folder.name, "--noise_path", self.csv, "--noise_type", self.kind, "--seed", self.seed,
                 "--results", results]
        still = ["--no-mirror"] * (not settings.mirror)  # sets named cifar... are mirrored by default
        run = results / f"{self.folder.name}_{self.kind}_seed_{self.seed}"
        trained = self._job(run / "blindkd.json", self.labels, f"{FOLDER}/blind_knowledge_dist_training.py", *named, *flags,
                            *still, "--val_ratio", settings.val_ratio, "--n_epoch", settings.epochs, "--batch_size",
                            settings.batch_size, "--lr", 0.02, "--model", settings.model, *self._training)
        told = self._job(run / "learning.json", [trained], f"{FOLDER}/learning.py", *named, "--overwrite")
        return self._job(run / "detection.json", [told], f"{FOLDER}/detection.py", *named, "--overwrite")

    def _co_teaching(self, name: str) -> Job:
        """Co-teaching of two networks of one architecture; a job."""
        model, rate = self.settings.model, self.settings.forget_rate
        rate = RATES.get(self.noise) if rate is None else rate
        if rate is None:
            raise UserError(f"--noise {self.noise}: its share of wrong labels is not known; pass --forget-rate, or leave "
                            "co_teaching out of --rows")
        return self._baseline(name, "train_co_teaching.py", self.csv, "--model-a", model, "--model-b", model,
                              "--forget-rate", rate)

    def _features(self, name: str) -> Job:
        """A linear classifier on frozen features; a job."""
        settings = self.settings
        size = ["--size", *settings.features_size] if settings.features_size else []
        return self._job(self.home / name / "result.json", self.labels, "train_on_features.py", "--train_csv", self.csv,
                         "--test_csv", self.folder / "test.csv", "--name", name, "--out-dir", self.home, "--encoder",
                         settings.encoder, "--encoder-weights", settings.encoder_weights, *size, "--seed", self.seed,
                         "--resume", "--features-dir", settings.home / "features")

    def _cross_entropy(self, name: str, csv: Path) -> Job:
        """A training without a method; a job."""
        return self._baseline(name, "train_without_weight.py", csv, "--model", self.settings.model)

    def job(self, row: str) -> Job:
        """The last job of a row of TITLES; its result lies in the folder of the run."""
        return ROWS[row](self, row)


ROWS: dict[str, Callable[[Cell, str], Job]] = {  # row of TITLES -> the function that plans it
    "ce": lambda cell, row: cell._cross_entropy(row, cell.csv),
    "co_teaching": Cell._co_teaching,
    "blindkd": Cell._blind,
    "unmasked": lambda cell, row: cell._blind(row, "--unmasked"),
    "features": Cell._features,
    "clean": lambda cell, row: cell._cross_entropy(row, cell.truth)}
