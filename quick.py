"""The main job on a folder of photographs and masks: what coarse masks cost, and what weights win back.

    python quick.py my_photos --model smp_unet --encoder-weights none --epochs 12

split -> noise on --ratio of the masks of train and valid -> out-of-fold teachers -> weights -> trainings without weights, with
the teacher's weights, with teacher and student (NLKD), and on clean masks -> a table and figures in runs/NAME/report.

FOLDER holds images/ and masks/, or the train.csv, valid.csv and test.csv of a data/prepare_*.py script; with train_truth.csv
beside them its masks are taken as coarse as they are, and no noise is added. All trainings validate on the same, coarse
masks. Flags that are not listed go to every training (e.g. --precision bf16-mixed). A second call does only what is missing; a
call with other flags, or after files were added to the folder, is refused under the same --name.
"""

import hashlib
import json
from pathlib import Path

from cli.command_line import command_line, nonnegative_int, positive_float, positive_int, seed_number, share, tool_parser
from cli.files import UserError
from cli.flags import add_class_flag, add_noise_flags
from data.legend import FILE_NAME as LEGEND
from engine import lock
from engine.flags import train_parser
from engine.run_folder import inside
from models import NAMES
from reports.experiment import DRAWN, Cell
from reports.plan import Job, run_plan
from utils.agreement import METRICS

PLAIN, TEACHER, KD = "train_without_weight.py", "train_with_Teacher_weight.py", "train_with_KDweight.py"


def parse():
    """The flags; those not known here go to every training."""
    parser = tool_parser(__doc__)
    parser.add_argument("folder", help="images/ and masks/, or train.csv, valid.csv and test.csv")
    parser.add_argument("--name", help="folder in runs/ (default: the name of FOLDER)")
    parser.add_argument("--out-dir", default="runs", help="where runs are kept")
    parser.add_argument("--folds", type=positive_int, default=2, help="teachers")
    parser.add_argument("--ratio", type=share, default=0.6, help="share of the masks that are made noisy")
    parser.add_argument("--limit", type=positive_int, help="take so many pairs only, at random")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the split, the noise, the folds and the trainings")
    parser.add_argument("--model", default="smp_unet", choices=NAMES, help="of teachers and students")
    parser.add_argument("--encoder", default="mobilenet_v2", help="of teachers and students")
    parser.add_argument("--encoder-weights", default="imagenet", metavar="imagenet|none|FILE")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"), help="training size, px")
    parser.add_argument("--theta", type=positive_float, default=3.0, help="boundary tolerance of BF, px")
    parser.add_argument("--lambda-warmup", type=nonnegative_int, default=2, help="epochs without the student's weight")
    add_class_flag(parser)
    add_noise_flags(parser)
    args, other = parser.parse_known_args()
    args.training = ["--epochs", "12", "--batch-size", "16", "--optimizer", "adamw", "--learning-rate", "0.001",
                     "--lr-step", "4", "--cache", *other]
    train_parser("").parse_args(["--train_csv", "", "--name", "", *args.training])  # a wrong flag ends here
    args.flip = False
    args.home = inside(args.out_dir, args.name or Path(args.folder).resolve().name)
    return args


def splitting_job(args):
    """The job that splits the folder's pairs; None where its CSVs are there.

    Raises:
        UserError: the folder holds neither.
    """
    folder = Path(args.folder)
    args.splits = folder if (folder / "train.csv").exists() else args.home / "csv"
    if args.splits == folder:
        for name in ("valid.csv", "test.csv"):
            if not (folder / name).exists():
                raise UserError(f"{folder}: holds train.csv and no {name}; all three are needed, see data/prepare_folder.py")
        return None
    if not all((folder / name).is_dir() for name in ("images", "masks")):
        raise UserError(f"{folder}: images/ and masks/, or train.csv, valid.csv and test.csv, are needed in it")
    command = ["data/prepare_folder.py", str(folder), "--out", str(args.splits), "--seed", str(args.seed), "--overwrite",
               *(["--limit", str(args.limit)] if args.limit else [])]
    return Job(command, args.splits / "test.csv", [], args.home / "logs" / "split.out", args.home,
               {str(folder): listing(folder)})


def listing(folder):
    """16 hex digits that change with the names and sizes of the files in images/ and masks/."""
    found = sorted((str(path.relative_to(folder)), path.stat().st_size) for name in ("images", "masks")
                   for path in (folder / name).rglob("*") if path.is_file())
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def plan(args):
    """The job of the report, which needs all others."""
    splitting = splitting_job(args)
    drawn = splitting is None and (args.splits / "train_truth.csv").exists()
    cell = Cell(args, DRAWN if drawn else args.ratio, args.seed, args.home, splitting, validated=True)
    weights = [cell.weights(args.model, metric) for metric in METRICS]
    by_both = cell.weights(args.model, "bm")
    students = [cell.student("noisy", PLAIN, cell.noisy, model=args.model),
                cell.student("teacher_bm", TEACHER, by_both, model=args.model),
                cell.student("kd_bm", KD, by_both, "--lambda-warmup", args.lambda_warmup, model=args.model),
                cell.student("clean", PLAIN, cell.clean, model=args.model)]
    legend = args.splits / LEGEND
    command = ["report.py", *(job.result.parent for job in students), "--out", args.home / "report",
               "--weights", *(job.result for job in weights), "--pred-dir", by_both.pseudo,
               *(["--classes", legend] if legend.exists() else [])]
    return Job([str(word) for word in command], args.home / "report" / "table.json", [*weights, *students],
               args.home / "logs" / "report.out", args.home)


def main():
    args = parse()
    report = plan(args)
    with lock.folder_lock(args.home):
        if report.finished():
            print(report.result.with_name("table.md").read_text(encoding="utf-8"))
        run_plan([report], shown=True)
    print(f"all of it in one page: {report.result.with_name('report.html')}")


if __name__ == "__main__":
    command_line(main)
