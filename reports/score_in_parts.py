"""Weights of a set that is too large for one machine: parts are scored by the workers of a Dask scheduler, then joined.

    python reports/score_in_parts.py --parts 64 --scheduler tcp://10.0.0.1:8786 --csv data/csv/train.csv \\
        --pred-dir runs/teacher/pseudo --metric bf --sharpen --name train_bf

Without --scheduler, --jobs parts at a time are scored on this machine. Flags that are not listed go to
`utils/get_weight.py`, and the weights are byte for byte what one call of it leaves. Finished parts are skipped; other flags,
another CSV, or masks and pseudo-labels that have changed need another --name. Leaves --out/NAME/weight.csv, which the train
scripts read, and weight.json beside it.
"""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError, counted
from data.rows import pseudo_label_paths, read_rows
from engine import lock
from engine.run_folder import file_digest, hashed, inside, listing
from reports.plan import Job, run_plan
from reports.workers import add_worker_flags, workers_of
from utils.get_weight import check_flags, part_path, truth_masks, weight_parser

SCRIPT = "utils/get_weight.py"
OF_ALL = ("sharpen", "weak_judge", "truth")  # flags that concern the scores of all rows
NEVER = ("--shard", "--join", "--mix", "--known", "--overwrite")


def parse() -> tuple[argparse.Namespace, list[str]]:
    """(flags of this script, flags of get_weight that each part gets)."""
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--csv", required=True, help="rows to score: images and their annotations")
    parser.add_argument("--pred-dir", required=True, help="folder of the teacher's pseudo-labels, or of another model's "
                                                             "masks; it may end in a pattern: masks/{stem}_mask.png")
    parser.add_argument("--parts", type=positive_int, default=8, help="commands that score an equal share of the rows each")
    parser.add_argument("--out", default="runs/weights", help="where the folders of all sets are kept")
    parser.add_argument("--name", required=True, help="folder in --out of the weights, their parts and logs")
    parser.add_argument("--sharpen", action="store_true", help="see get_weight; fitted to the scores of all rows")
    parser.add_argument("--weak-judge", choices=("even", "use"), help="see get_weight")
    parser.add_argument("--truth", metavar="CSV", help="see get_weight")
    add_worker_flags(parser, jobs=2)
    args, other = parser.parse_known_args()
    own = [flag for flag in NEVER if flag in {word.partition("=")[0] for word in other}]
    if own:
        raise UserError(f"{own[0]}: does not go with parts; call {SCRIPT} for it")
    args.home = inside(args.out, args.name)
    return args, other


def check(args: argparse.Namespace, other: list[str]) -> dict[str, str]:
    """Digests of what the parts read: dict of --csv, --truth and --pred-dir -> 16 hex digits.

    Raises:
        UserError: get_weight would refuse its flags or files, a pseudo-label is missing, or parts of another number lie there.
    """
    score = weight_parser().parse_args(["--csv", args.csv, "--pred-dir", args.pred_dir, *other, "--out", "weight.csv",
                                        *["--truth", args.truth] * bool(args.truth)])
    if len(score.metric) > 1:
        raise UserError(f"--metric {' '.join(score.metric)}: parts are scored by one metric; call this script for each, with "
                        "another --name")
    check_flags(score)
    rows = read_rows(args.csv)
    if args.parts > len(rows):
        raise UserError(f"--parts {args.parts}: {args.csv} has only {counted(len(rows), 'row')}; take fewer parts")
    asked = {part_path(args.home / "weight.csv", number, args.parts) for number in range(1, args.parts + 1)}
    others = sorted(set(args.home.glob("weight.part*of*.csv")) - asked)
    if others:
        raise UserError(f"{others[0]}: is a part of another number than --parts {args.parts}; pass --name for another folder, "
                        f"or remove {args.home} to begin anew")
    pseudo = pseudo_label_paths(rows, args.pred_dir, pattern=score.pred_name)
    found = {args.csv: rows_digest(args.csv, rows["mask"]), args.pred_dir: listing(map(os.path.abspath, pseudo))}
    if args.truth:
        found[args.truth] = rows_digest(args.truth, truth_masks(score, rows))
    return found


def rows_digest(csv: str, masks: Iterable[str]) -> str:
    """16 hex digits that stand for a CSV and the names, sizes and times of its masks."""
    return hashed([file_digest(csv), listing(map(os.path.abspath, masks))])


def plan(args: argparse.Namespace, other: list[str], inputs: dict[str, str]) -> Job:
    """The job that joins the parts; it needs those that score them.

    Args:
        inputs: see `Job`.
    """
    out = args.home / "weight.csv"

    def job(result: Path, needs: list, *flags: str) -> Job:
        words = [SCRIPT, *flags, "--out", str(out), "--overwrite"]
        return Job(words, result, needs, args.home / "logs" / f"{result.stem}.out", args.home, inputs)

    rows = ["--csv", args.csv, "--pred-dir", args.pred_dir, *other]
    parts = [job(part_path(out, number, args.parts), [], *rows, "--shard", f"{number}/{args.parts}")
             for number in range(1, args.parts + 1)]
    of_all = {"--" + name.replace("_", "-"): value for name in OF_ALL if (value := getattr(args, name))}
    flags = [word for flag, value in of_all.items() for word in ([flag] if value is True else [flag, value])]
    return job(out, parts, "--join", *flags)


def main() -> None:
    args, other = parse()
    whole = plan(args, other, check(args, other))
    workers = workers_of(args)
    with lock.folder_lock(args.home):
        run_plan([whole], workers)
    print(whole.log.read_text(encoding="utf-8").strip() if whole.log.exists() else whole.result)


if __name__ == "__main__":
    command_line(main)
