"""Compare label-assisted distillation (LAD) with no teacher and with plain teachers, at equal steps and at equal cost.

    bash run.sh lad                 drawn scenes, three seeds
    bash run.sh lad --quick         one seed and few epochs, to see that all of it runs
    bash run.sh lad --data data/csv/camvid --num-classes 11 --size 96 128 --theta 2.4 --epochs 20

Per seed: an image-only network, a label-assisted teacher that starts from it, and students: by cross-entropy, from the
image-only network (plain KD), and from the label-assisted teacher. The teacher is scored with each image's own label, without,
and with another image's. Students `at LAD's cost` get as many epochs as LAD's teacher costs. --data is a folder of train.csv
and test.csv. Flags that are not listed go to every training. Scores are of the last epoch; nothing is chosen by them.

Finished runs are skipped, broken ones go on; other flags need another --name. Leaves --out/NAME/table.json and table.md;
--json FILE prints the tables of such a file again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.command_line import command_line, given_names, none_or_str, positive_int, refuse_given, seed_number, tool_parser
from cli.files import UserError, read_json
from engine.flags import train_parser
from engine.run_folder import inside
from models import NAMES
from related.lad.lad_plan import OF_SCENES, TITLES, LadCell, pictures, scenes
from related.lad.lad_text import collect, text_of
from reports.comparison_files import run_and_write
from reports.experiment import PLANNED
from reports.plan import Job
from reports.workers import add_worker_flags, workers_of

SET_HERE = PLANNED - {"size", "theta", "num_classes"} | {"epochs", "load"}  # flags of a training that this plan sets
Cells = dict[int, tuple[LadCell, dict[str, Job]]]


def parse() -> argparse.Namespace:
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--json", metavar="FILE", help="print the tables of a table.json; runs nothing")
    parser.add_argument("--data", metavar="DIR", help="folder of train.csv and test.csv (default: drawn scenes)")
    parser.add_argument("--rows", nargs="+", choices=tuple(TITLES), help="students (default: all; of scenes all but "
                        "kd_long and cwd_long)")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="(default: 0 1 2; with --quick: 0)")
    parser.add_argument("--quick", action="store_true", help="scenes: one seed and few epochs: no result, but all of it runs")
    add_worker_flags(parser, jobs=2)
    parser.add_argument("--out", default="runs/lad", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: scenes, quick, or the name of --data)")
    group = parser.add_argument_group("with --data")
    group.add_argument("--epochs", type=positive_int, default=20, help="of students at equal steps")
    group.add_argument("--teacher-epochs", type=positive_int, help="of the image-only network, and of the teacher (--epochs)")
    group.add_argument("--model", default="smp_unet", choices=NAMES)
    group.add_argument("--encoder", default="mobilenet_v2", help="of students, and of teachers without --teacher-encoder")
    group.add_argument("--encoder-weights", type=none_or_str, default="imagenet", metavar="imagenet|none|FILE")
    group.add_argument("--teacher-encoder", help="of the teachers (default: --encoder)")
    group.add_argument("--teacher-weights", type=none_or_str, metavar="imagenet|none|FILE", help="of --teacher-encoder")
    args, other = parser.parse_known_args()
    args.other = other
    given = given_names(parser, args)
    args.needless = [action.option_strings[0] for action in group._group_actions if action.dest in given and not args.data]
    args.seeds = args.seeds or ([0] if args.quick else [0, 1, 2])
    args.rows = list(dict.fromkeys(args.rows or (TITLES if args.data else OF_SCENES)))
    check(args)
    args.home = inside(args.out, args.name or (Path(args.data).resolve().name if args.data else
                                               "quick" if args.quick else "scenes"))
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UserError if flags contradict one another, or --data lacks a file."""
    if args.json:
        return
    if "ce" not in args.rows:
        raise UserError("--rows: needs ce, with which all others are compared")
    refuse_planned(args.other)
    for flag in args.needless:
        raise UserError(f"{flag}: goes with --data; the drawn scenes have networks and epochs of their own")
    if args.teacher_weights and not args.teacher_encoder:
        raise UserError("--teacher-weights: goes with --teacher-encoder")
    if args.data and not args.name and Path(args.data).resolve().name in ("scenes", "quick"):
        raise UserError(f"--data {args.data}: pass --name, since runs of that name are those of the drawn scenes")
    if args.data and args.quick:
        raise UserError("--quick: goes with the drawn scenes; with --data pass fewer --epochs")
    for name in ("train.csv", "test.csv") if args.data else ():
        if not (Path(args.data) / name).is_file():
            raise UserError(f"--data {args.data}: has no {name}; make it with a prepare script")


def refuse_planned(words: Sequence[str]) -> None:
    """Raise UserError if flags that go to every training are among those that the plan sets, by whichever spelling."""
    parser, words = train_parser(""), ["--train_csv", ".", "--name", ".", *words]
    args = parser.parse_args(words)
    names = {name for name in SET_HERE if getattr(args, name) != "."}
    refuse_given(parser, args, names, "is set for each training of the plan, leave it out", words)


def plan(args: argparse.Namespace, shared: dict[Path, Job]) -> Cells:
    """The jobs of each seed: the cell, and row -> student."""
    found = {}
    for seed in args.seeds:
        data = pictures(Path(args.data), args) if args.data else scenes(args.home, seed, args)
        cell = LadCell(args.home, shared, data, seed)
        found[seed] = (cell, {row: cell.student(row) for row in args.rows})
    return found


def main() -> None:
    args = parse()
    if args.json:
        content = read_json(args.json, "args", "lad")
        try:
            print(text_of(content))
        except (KeyError, TypeError, AttributeError, StopIteration):
            raise UserError(f"{args.json}: no table of this script; name a table.json that it left") from None
        return
    cells = plan(args, {})
    jobs = [job for cell, students in cells.values() for job in (*students.values(), cell.teacher())]
    run_and_write(args.home, jobs, workers_of(args), lambda: collect(args, cells), text_of)


if __name__ == "__main__":
    command_line(main)
