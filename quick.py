"""The main job on a folder of photographs and masks: how much coarse masks cost, and how much weights recover.

    python quick.py my_photos --model smp_unet --encoder-weights none --epochs 12

split -> noise on --ratio of the masks of train and valid -> trainings: `noisy` without weights; `kd_bm` the paper's NLKD, with
out-of-fold teachers; `own` by the student's own scores, without a teacher, and two further passes of it, `own2` and `own3`, the
recommended option (see train_with_own_weight.py --after); `clean` on clean masks -> a table, a sentence that says what weights
bring here, and figures in runs/NAME/report.

FOLDER holds images/ and masks/, or the train.csv, valid.csv and test.csv of a data/prepare_*.py script; with train_truth.csv
beside them its masks are used unchanged, and no noise is added. All trainings validate on the same, coarse
masks. Flags that are not listed go to every training (e.g. --precision bf16-mixed). A second call does only what is missing; a
call with other flags, or after files were added to the folder, is refused under the same --name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.command_line import (
    command_line,
    given_names,
    nonnegative_int,
    positive_float,
    positive_int,
    seed_number,
    share,
    tool_parser,
)
from cli.files import UserError, read_json
from cli.flags import add_class_flag, add_noise_flags
from data.legend import FILE_NAME as LEGEND
from data.splits import is_picture
from engine import lock, run_folder
from engine.run_folder import inside
from models import NAMES
from reports.experiment import (
    DRAWN,
    KD,
    OWN,
    PASSES,
    PLAIN,
    Cell,
    add_plan_judge_flag,
    drawn_coarsely,
    refuse_noise,
    training_flags,
)
from reports.plan import Job, named_files, run_plan
from reports.report_files import report_text
from reports.workers import LocalWorkers

RECOMMENDED = PASSES[-1]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags, by default of the command line; unknown ones go to every training."""
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("folder", help="images/ and masks/, or train.csv, valid.csv and test.csv")
    parser.add_argument("--name", help="folder in runs/ (default: the name of FOLDER)")
    parser.add_argument("--out-dir", default="runs", help="where runs are kept")
    parser.add_argument("-e", "--epochs", type=positive_int, default=12,
                        help="of each training; the learning rate is halved after each third")
    parser.add_argument("--folds", type=positive_int, default=2, help="teachers")
    parser.add_argument("--ratio", type=share, default=0.6, help="share of the masks that are made noisy")
    parser.add_argument("--limit", type=positive_int, help="use only this many pairs, chosen at random")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the split, the noise, the folds and the trainings")
    parser.add_argument("--model", default="smp_unet", choices=NAMES, help="network of teachers and students")
    parser.add_argument("--encoder", default="mobilenet_v2", help="encoder of teachers and students")
    parser.add_argument("--encoder-weights", default="imagenet", metavar="imagenet|none|FILE")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"), help="training size, px")
    parser.add_argument("--theta", type=positive_float, default=3.0, help="boundary tolerance of BF, px")
    parser.add_argument("--lambda-warmup", type=nonnegative_int, default=2, help="epochs without the student's weight")
    parser.add_argument("--jobs", type=positive_int, default=1, help="trainings side by side, which share the cores")
    add_plan_judge_flag(parser)
    add_class_flag(parser)
    add_noise_flags(parser)
    args, other = parser.parse_known_args(words)
    args.training = training_flags(["--epochs", str(args.epochs), "--lr-step", str(max(1, args.epochs // 3)), "--batch-size",
                                    "16", "--optimizer", "adamw", "--learning-rate", "0.001", "--cache", *other])
    args.flip, args.given = False, given_names(parser, args, words)
    args.home = inside(args.out_dir, args.name or Path(args.folder).resolve().name)
    return args


def splitting_job(args: argparse.Namespace) -> Job | None:
    """The job that splits the folder's pairs; None if the folder holds CSVs.

    Raises:
        UserError: the folder holds neither, or a flag has no meaning for what it holds.
    """
    folder = Path(args.folder)
    args.splits = folder if (folder / "train.csv").exists() else args.home / "csv"
    if args.splits == folder:
        for name in ("valid.csv", "test.csv"):
            if not (folder / name).exists():
                raise UserError(f"{folder}: holds train.csv and no {name}; all three are needed, see data/prepare_folder.py")
        if args.limit:
            raise UserError(f"--limit {args.limit}: {folder} holds CSVs, which are taken as they are; leave it out")
        return None
    if not all((folder / name).is_dir() for name in ("images", "masks")):
        raise UserError(f"{folder}: images/ and masks/, or train.csv, valid.csv and test.csv, are needed in it")
    command = ["data/prepare_folder.py", str(folder), "--out", str(args.splits), "--seed", str(args.seed), "--overwrite",
               *(["--limit", str(args.limit)] if args.limit else [])]
    return Job(command, args.splits / "test.csv", [], args.home / "logs" / "split.out", args.home,
               {str(folder): listing(folder)})


def listing(folder: Path) -> str:
    """16 hex digits that change with the pictures in images/ (names, sizes) and masks/ (names, content)."""
    found = [(name, path.name, path.stat().st_size if name == "images" else run_folder.file_digest(path))
             for name in ("images", "masks") for path in sorted((folder / name).iterdir()) if is_picture(path)]
    return run_folder.hashed(found)


def plan(args: argparse.Namespace) -> Job:
    """The job of the report, which needs all others."""
    splitting = splitting_job(args)
    drawn = splitting is None and drawn_coarsely(args.splits)
    if drawn:
        refuse_noise(args.splits, args.given & {"ratio", "noise"})
    cell = Cell(args, DRAWN if drawn else args.ratio, args.seed, args.home, splitting, validated=True)
    by_both = cell.weights(args.model, "bm")
    passes = cell.passes(PASSES, OWN, cell.noisy, model=args.model)
    students = [cell.student("noisy", PLAIN, cell.noisy, model=args.model),
                cell.student("kd_bm", KD, by_both, "--lambda-warmup", args.lambda_warmup, "--weak-judge", "use",
                             model=args.model),  # so a weak teacher stops no job; the report says it
                *passes,
                cell.student("clean", PLAIN, cell.clean, model=args.model)]
    weights, legend = [by_both.result, passes[-1].result.parent / "weights.csv"], args.splits / LEGEND
    command = ["report.py", *(job.result.parent for job in students), "--out", args.home / "report",
               "--recommended", RECOMMENDED, "--weights", *weights, "--pred-dir", by_both.pseudo,
               *(["--classes", legend] if legend.exists() else [])]
    command = [str(word) for word in command]
    return Job(command, args.home / "report" / "table.json", [by_both, *students], args.home / "logs" / "report.out",
               args.home, named_files(command, args.home))


def main() -> None:
    args = parse()
    report = plan(args)
    with lock.folder_lock(args.home):
        finished = report.finished()
        if finished:
            print(report_text(read_json(report.result)))
        run_plan([report], LocalWorkers(args.jobs, shown=args.jobs == 1))
        if args.jobs > 1 and not finished:  # what the report says has gone to its log
            print(report_text(read_json(report.result)))
    print(f"all of it in one page: {report.result.with_name('report.html')}")


if __name__ == "__main__":
    command_line(main)
