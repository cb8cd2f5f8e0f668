"""The commands of an experiment: one data set at one share of noisy masks and one seed is a *cell*.

A cell's methods give jobs (`utils.plan`); equal calls give the same job, so tables share what they have in common.
"""

from functools import cached_property
from pathlib import Path

from data.files import UserError, write_rows
from data.rows import read_rows
from utils.plan import Job

SHARP_THETA = 2 / 3  # of the test's tolerance: it finds coarse masks better (docs/results)
DRAWN = "drawn"  # the share of annotations that are as coarse as they were drawn, where better ones exist


class Cell:
    """Jobs at one share of noisy masks and one seed.

    Args:
        settings: Namespace: `splits` (folder of train.csv, test.csv, and train_truth.csv where the annotations are really
            coarse), `home` (folder of all cells), `size`, `theta`, `num_classes`, `noise`, `background`, `encoder`,
            `encoder_weights`, `folds`, `flip`, `lambda_warmup`, `ramp_epochs`, and `training`, flags of every training.
        share: 0..1, or DRAWN.
        seed: of the noise, the folds and the trainings.
    """

    def __init__(self, settings, share, seed):
        self.settings, self.share, self.seed = settings, share, seed
        self.home = settings.home / (DRAWN if share == DRAWN else f"noise{round(100 * share)}") / f"seed{seed}"
        self.jobs = {}

    def _job(self, result, needs, *command):
        result = self.home / result
        name = "_".join(result.relative_to(self.home).with_suffix("").parts)
        log = self.home / "logs" / f"{name}.out"
        return self.jobs.setdefault(result, Job([str(word) for word in command], result, needs, log))

    # --- annotations --------------------------------------------------------------------------------------------

    @cached_property
    def clean_csv(self):
        """CSV of the untouched training masks, with noise level 0."""
        truth = self.settings.splits / "train_truth.csv"
        return self._with_level("train_clean.csv", truth if truth.exists() else self.settings.splits / "train.csv", 0)

    def _with_level(self, name, source, level):
        path = self.home / "csv" / name
        if not path.exists():
            write_rows(path, read_rows(source).assign(iterations=level), "iterations")
        return path

    @cached_property
    def noisy(self):
        """(CSV of the training annotations, the jobs that make it)."""
        if self.share == 0:
            return self.clean_csv, []
        if self.share == DRAWN:
            return self._with_level("train_noisy.csv", self.settings.splits / "train.csv", 1), []
        job = self._job("csv/train_noisy.csv", [], "utils/generate_noisy_label.py", "--csv", self.settings.splits / "train.csv",
                        "--out", self.home / "csv/train_noisy.csv", "--ratio", self.share, "--seed", self.seed, "--overwrite",
                        "--num-classes", self.settings.num_classes, "--noise", self.settings.noise,
                        "--background", "none" if self.settings.background is None else self.settings.background)
        return job.result, [job]

    # --- networks -----------------------------------------------------------------------------------------------

    def _network(self, model, suffix=""):
        return [f"--model{suffix}", model, f"--encoder{suffix}", self.settings.encoder,
                f"--encoder-weights{suffix}", self.settings.encoder_weights]

    def _training(self, name):
        return ["--name", name, "--out-dir", self.home, "--size", *self.settings.size, "--theta", self.settings.theta,
                "--num-classes", self.settings.num_classes, "--seed", self.seed, "--resume", *self.settings.training]

    def teacher(self, model, rounds=1):
        """Out-of-fold teachers of the annotations; in a second round each counts as much as the first one trusts it; a job."""
        csv, needs, weighted = *self.noisy, []
        if rounds > 1:
            trust = self.weights(model, "bf", rounds - 1, sharpen=True)
            csv, needs, weighted = trust.result, [trust], ["--weighted"]
        name = f"teacher_{model}{rounds if rounds > 1 else ''}"
        return self._job(f"{name}/teacher.json", needs, "train_teacher.py", "--train_csv", csv, *weighted,
                         "--folds", self.settings.folds, *["--flip"] * self.settings.flip, *self._network(model),
                         *self._training(name))

    def weights(self, model, metric, rounds=1, sharpen=False):
        """Weight CSV by a teacher's pseudo-labels, scored with the test's tolerance, sharpened with a stricter one; a job."""
        theta = self.settings.theta * (SHARP_THETA if sharpen else 1)
        csv, needs = self.noisy
        teacher = self.teacher(model, rounds)
        out = f"csv/train_noisy_{model}{rounds if rounds > 1 else ''}_{'sharp' if sharpen else 'weight'}_{metric}score.csv"
        return self._job(out, [*needs, teacher], "utils/get_weight.py", "--csv", csv,
                         "--pred-dir", teacher.result.parent / "pseudo", "--metric", metric, "--truth", self.clean_csv,
                         "--out", self.home / out, "--overwrite", "--size", *self.settings.size, "--theta", f"{theta:g}",
                         "--num-classes", self.settings.num_classes, *["--sharpen"] * sharpen)

    def known(self, weight):
        """Weight CSV by someone who knows the noise: 1 for an untouched mask, `weight` for a noisy one; a job."""
        csv, needs = self.noisy
        out = f"csv/train_noisy_known_weight_{weight}.csv"
        return self._job(out, needs, "utils/get_weight.py", "--csv", csv, "--known", weight, "--out", self.home / out,
                         "--overwrite")

    def student(self, name, script, annotations, *flags, model="smp_unet"):
        """A training and its test.

        Args:
            annotations: (CSV, jobs), or a job that makes the CSV.
        """
        csv, needs = (annotations.result, [annotations]) if isinstance(annotations, Job) else annotations
        networks = self._network(model)
        if model is None:  # two networks (paper, section 4)
            networks = [*self._network("smp_unet", "-a"), *self._network("deeplabv3plus", "-b")]
        return self._job(f"{name}/result.json", needs, script, "--train_csv", csv,
                         "--test_csv", self.settings.splits / "test.csv", *networks, *self._training(name), *flags)


def splits_folder(data):
    """Folder of train.csv and test.csv: `data` itself, or what is prepared under that name.

    Raises:
        UserError: there is none.
    """
    for folder in (Path(data), Path("data/csv") / data):
        if (folder / "train.csv").exists() and (folder / "test.csv").exists():
            return folder
    raise UserError(f"--data {data}: neither a folder with train.csv and test.csv, nor a prepared name in data/csv; make one "
                    f"with python data/prepare_folder.py DIR --out data/csv/{Path(data).name}")
