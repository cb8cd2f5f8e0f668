"""The commands of an experiment: one data set at one share of noisy masks and one seed is a *cell*.

The methods of a cell return jobs (`reports.plan`). Equal calls return the same job, so tables share their runs. Planning
writes no files.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from cli.files import UserError
from data.rows import read_rows
from engine import run_folder
from engine.flags import train_parser
from reports.command import ROOT
from reports.plan import Job, named_files, with_needs

PLAIN, TEACHER, KD = "train_without_weight.py", "train_with_Teacher_weight.py", "train_with_KDweight.py"
OWN = "train_with_own_weight.py"
PASSES = ("own", "own2", "own3")  # runs of own weights, each of which follows the one before; the last one is recommended
WEIGHING = (TEACHER, KD)  # scripts that ask how good the judge is
SHARP_THETA = 2 / 3  # of the test's tolerance: it finds coarse masks better (docs/results)
PLANNED = {"train_csv", "valid_csv", "test_csv", "name", "out_dir", "resume", "overwrite", "size", "theta", "num_classes",
           "seed", "model", "encoder", "encoder_weights"}  # flags of a training that the plan sets
TRUTH = "train_truth.csv"  # better masks of the rows of train.csv, in its folder, where those are really coarse
DRAWN = "drawn"  # stands for a share of noise: annotations that were drawn coarsely, and better ones exist for comparison


def add_plan_judge_flag(parser: argparse.ArgumentParser) -> None:
    """--weak-judge of all jobs of a plan."""
    parser.add_argument("--weak-judge", choices=("even", "use"), default="even",
                        help="weights by teachers that hardly agree with the annotations: all 1, or used as they are")


def training_flags(words: Sequence[str]) -> list[str]:
    """The flags that go to every training, each once and by its long name, so that two spellings count as the same setting.

    Args:
        words: as the user spells them.

    Raises:
        UserError: the plan sets one of the flags itself.
        SystemExit: trainings have no such flag.
    """
    parser = train_parser("")
    args = parser.parse_args(["--train_csv", "", "--name", "", *words])
    plain = parser.parse_args(["--train_csv", "", "--name", ""])
    flags, told = [], set()
    for action in parser._actions:
        if action.dest in told:
            continue  # another spelling of a flag: --fast
        told.add(action.dest)
        value = getattr(args, action.dest, None)
        if action.dest in PLANNED:
            if value != getattr(plain, action.dest):
                raise UserError(f"{action.option_strings[-1]} {value}: is set for each training of the plan, leave it out")
        elif hasattr(args, action.dest) and value != getattr(plain, action.dest):
            values = [] if value is True else [str(each) for each in (value if isinstance(value, list) else [value])]
            flags += [max(action.option_strings, key=len), *values]
    return flags


class Cell:
    """Jobs at one share of noisy masks and one seed.

    Args:
        settings: Namespace: `splits` (folder of train.csv, test.csv, and train_truth.csv where the annotations are really
            coarse), `home` (folder of all cells), `size`, `theta`, `num_classes`, `noise`, `background`, `encoder`,
            `encoder_weights`, `folds`, `flip`, `weak_judge`, `lambda_warmup`, `ramp_epochs`, and `training`, flags of every
            training.
        share: 0..1, or DRAWN.
        seed: of the noise, the folds and the trainings.
        home: folder of this cell; default: one in `settings.home`, named by share and seed.
        splitting: the job that makes `settings.splits`; None: its files are there.
        validated: whether the trainings score the coarse masks of valid.csv after each epoch.
    """

    def __init__(self, settings: argparse.Namespace, share: float | str, seed: int, home: Path | None = None,
                 splitting: Job | None = None, validated: bool = False) -> None:
        self.settings, self.share, self.seed = settings, share, seed
        self.home = home or settings.home / (DRAWN if share == DRAWN else f"noise{100 * share:g}") / f"seed{seed}"
        self.splitting, self.validated = splitting, validated
        self.jobs: dict[Path, Job] = {}

    def _job(self, result: Path | str, needs: list[Job], *command: object, pseudo: Path | None = None,
             listed: Sequence[str] = ()) -> Job:
        path, words = self.home / result, [str(word) for word in command]
        name = "_".join(path.relative_to(self.home).with_suffix("").parts)
        if self.splitting:
            needs = [self.splitting, *needs]
        inputs = named_files(words, self.settings.home)
        inputs.update({word: _digest(word, os.path.getmtime(word)) for word in words if self._is_split(word)})
        log = self.home / "logs" / f"{name}.out"
        return self.jobs.setdefault(path, Job(words, path, needs, log, self.settings.home, inputs, pseudo, listed))

    def _is_split(self, word: str) -> bool:
        """Whether a word names a CSV that was there before all jobs."""
        return not self.splitting and word.endswith(".csv") and Path(word).parent == self.settings.splits

    def prepared(self, result: str, needs: list[Job], script: str, *flags: object) -> Job:
        """A job of any script that makes the CSV `result`, a path inside this cell's folder."""
        return self._job(result, needs, script, *flags, "--out", self.home / result, "--overwrite",
                         "--num-classes", self.settings.num_classes)

    # --- annotations --------------------------------------------------------------------------------------------

    @cached_property
    def clean(self) -> Job:
        """CSV of the untouched training masks, with noise level 0; a job."""
        source = TRUTH if drawn_coarsely(self.settings.splits) else "train.csv"
        return self._annotations("train_clean", self.settings.splits / source, "--ratio", 0)

    @cached_property
    def noisy(self) -> Job:
        """CSV of the training annotations; a job."""
        return self.clean if self.share == 0 else self._annotations("train_noisy", self.settings.splits / "train.csv",
                                                                    *self._noise)

    @cached_property
    def valid(self) -> Job:
        """CSV of the validation annotations, as coarse as those of training; a job."""
        return self._annotations("valid_noisy", self.settings.splits / "valid.csv", *self._noise)

    @property
    def _noise(self) -> list:
        return ["--as-drawn"] if self.share == DRAWN else ["--ratio", self.share]

    def _annotations(self, name: str, source: Path, *noise: object) -> Job:
        out = f"csv/{name}.csv"
        background = "none" if self.settings.background is None else self.settings.background
        return self._job(out, [], "utils/generate_noisy_label.py", "--csv", source, "--out", self.home / out, *noise,
                         "--seed", self.seed, "--overwrite", "--num-classes", self.settings.num_classes,
                         "--noise", self.settings.noise, "--background", background)

    # --- networks -----------------------------------------------------------------------------------------------

    def _network(self, model: str, suffix: str = "") -> list[str]:
        return [f"--model{suffix}", model, f"--encoder{suffix}", self.settings.encoder,
                f"--encoder-weights{suffix}", self.settings.encoder_weights]

    def _training(self, result: str, script: str, annotations: Job, *flags: object, after: Job | None = None) -> Job:
        """A training on the CSV that the job `annotations` makes; a job. The folder of `result` names the run.

        Args:
            after: the job of a training that it goes on from: by its network alone (--load), or by all that own weights
                remember (--after).
        """
        needs, valid = [annotations], []
        if self.validated:
            needs, valid = [annotations, self.valid], ["--valid_csv", self.valid.result]
        training = self.settings.training
        if after:
            folder = after.result.parent
            needs = [*needs, after]
            training = without_value(training, "--load")  # it is for the first training; this one goes on from `after`
            flags = *(["--after", folder] if script == OWN else ["--load", folder / "last.ckpt"]), *flags
        weighs = "--weighted" in flags or script in WEIGHING
        judge = ["--weak-judge", "use"] * (weighs and self.settings.weak_judge == "use")
        return self._job(result, needs, script, "--train_csv", annotations.result, *valid, *flags, *judge,
                         "--name", Path(result).parent, "--out-dir", self.home, "--size", *self.settings.size,
                         "--theta", self.settings.theta, "--num-classes", self.settings.num_classes, "--seed", self.seed,
                         "--resume", *training)

    def teacher(self, model: str, rounds: int = 1) -> Job:
        """Train out-of-fold teachers; a second round weights each annotation by the first round's teachers; a job."""
        annotations = self.weights(model, "bf", rounds - 1, sharpen=True) if rounds > 1 else self.noisy
        name = f"teacher_{model}{rounds if rounds > 1 else ''}"
        return self._training(f"{name}/teacher.json", "train_teacher.py", annotations, *["--weighted"] * (rounds > 1),
                              "--folds", self.settings.folds, *["--flip"] * self.settings.flip, *self._network(model))

    def weights(self, model: str, metric: str, rounds: int = 1, sharpen: bool = False) -> Job:
        """Weight CSV from a teacher's pseudo-labels; a job, which shares its command with those of other metrics. Sharpened
        weights use a smaller tolerance than the test."""
        theta = self.settings.theta * (SHARP_THETA if sharpen else 1)
        teacher = self.teacher(model, rounds)
        pseudo = teacher.result.parent / "pseudo"
        out = f"csv/train_noisy_{model}{rounds if rounds > 1 else ''}_{'sharp' if sharpen else 'weight'}_{metric}score.csv"
        return self._job(out, [self.noisy, self.clean, teacher], "utils/get_weight.py", "--csv", self.noisy.result,
                         "--pred-dir", pseudo, "--metric", metric, "--truth", self.clean.result,
                         "--out", self.home / out, "--overwrite", "--size", *self.settings.size, "--theta", f"{theta:g}",
                         "--num-classes", self.settings.num_classes, *["--sharpen"] * sharpen,
                         *["--weak-judge", "use"] * (self.settings.weak_judge == "use"), pseudo=pseudo,
                         listed=("--metric", "--out"))

    def oracle_weights(self, weight: float) -> Job:
        """Weight CSV by the noise that was added: 1 for an untouched mask, `weight` for a noisy one; a job."""
        out = f"csv/train_noisy_known_weight_{weight}.csv"
        return self._job(out, [self.noisy], "utils/get_weight.py", "--csv", self.noisy.result, "--known", weight,
                         "--out", self.home / out, "--overwrite")

    def student(self, name: str, script: str, annotations: Job, *flags: object, model: str | None = "smp_unet",
                after: Job | None = None) -> Job:
        """A training and its test; a job.

        Args:
            annotations: the job that makes the CSV.
            model: None for two networks, U-Net and DeepLabv3+ (paper, section 4).
            after: see `_training`.
        """
        networks = self._network(model) if model else [*self._network("smp_unet", "-a"), *self._network("deeplabv3plus", "-b")]
        return self._training(f"{name}/result.json", script, annotations, "--test_csv", self.settings.splits / "test.csv",
                              *networks, *flags, after=after)

    def passes(self, names: Sequence[str], script: str, annotations: Job, *flags: object, model: str = "smp_unet") -> list[Job]:
        """Trainings of these names, each of which goes on from the one before, see `_training`; their jobs."""
        jobs: list[Job] = []
        for name in names:
            jobs.append(self.student(name, script, annotations, *flags, model=model, after=jobs[-1] if jobs else None))
        return jobs


def without_value(words: Sequence[str], flag: str) -> list[str]:
    """The words without a flag and its value, if they have it."""
    if flag not in words:
        return list(words)
    place = list(words).index(flag)
    return [*words[:place], *words[place + 2:]]


def trainings(job: Job) -> int:
    """What a job costs with all that it needs, in trainings of one network on all rows: out-of-fold teachers, each of which
    leaves out its fold, cost one less than there are folds, and a pair of networks costs two."""
    def cost(one: Job) -> int:
        if "--folds" in one.command:
            return max(1, int(one.command[one.command.index("--folds") + 1]) - 1)
        return ("--train_csv" in one.command) + ("--model-a" in one.command)

    return sum(map(cost, with_needs([job])))


@lru_cache
def _digest(csv: str, changed: float) -> str:
    """`run_folder.digest` of a CSV's rows, made once for all jobs.

    Args:
        changed: time of its last change.
    """
    return run_folder.digest(read_rows(csv))


def splits_folder(data: str) -> Path:
    """Folder of train.csv and test.csv: `data` itself, or what is prepared under that name.

    Raises:
        UserError: there is none.
    """
    for folder in (Path(data), Path("data/csv") / data, ROOT / "data/csv" / data):
        if (folder / "train.csv").exists() and (folder / "test.csv").exists():
            return folder
    raise UserError(f"--data {data}: neither a folder with train.csv and test.csv, nor a prepared name in data/csv; make one "
                    f"with python data/prepare_folder.py DIR --out data/csv/{Path(data).name}")


def drawn_coarsely(splits: Path) -> bool:
    """Whether the masks of a folder of splits are really coarse: it holds better ones too, so that no noise is drawn."""
    return (splits / TRUTH).exists()


def refuse_noise(splits: Path, flags: Iterable[str]) -> None:
    """Raise UserError if `flags`, names of what the user has set about noise, has any and the masks are really coarse."""
    flag = min(flags, default=None)
    if flag and drawn_coarsely(splits):
        raise UserError(f"--{flag}: {splits} holds {TRUTH}, so that its masks are taken as coarse as they are; leave it out")
