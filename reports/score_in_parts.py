"""Weights of a set that is too large for one machine: parts are scored by the workers of a Dask scheduler, then joined.

    python reports/score_in_parts.py --parts 64 --scheduler tcp://10.0.0.1:8786 --csv data/csv/train.csv \\
        --pred-dir runs/teacher/pseudo --metric bf --sharpen --name train_bf

Without --scheduler, --jobs parts at a time are scored on this machine. Flags that are not listed go to
`utils/get_weight.py`, and the weights are byte for byte what one call of it leaves. Finished parts are skipped; other flags,
another CSV or other pseudo-labels need another --name. Leaves --out/NAME/weight.csv, which the train scripts read, and
weight.json beside it.
"""

import argparse
import os
from pathlib import Path

from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError
from engine import lock
from engine.run_folder import hashed, inside
from reports.plan import Job, named_files, run_plan
from reports.workers import add_worker_flags, workers_of

SCRIPT = "utils/get_weight.py"
OF_ALL = ("sharpen", "weak_judge", "truth")  # flags that concern the scores of all rows


def parse() -> tuple[argparse.Namespace, list[str]]:
    """(flags of this script, flags of get_weight that each part gets)."""
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="rows to score: images and their annotations")
    parser.add_argument("--pred-dir", required=True, help="folder of the teacher's pseudo-labels, or of another model's masks")
    parser.add_argument("--parts", type=positive_int, default=8, help="commands that score an equal share of the rows each")
    parser.add_argument("--out", default="runs/weights", help="where the folders of all sets are kept")
    parser.add_argument("--name", required=True, help="folder in --out of the weights, their parts and logs")
    parser.add_argument("--sharpen", action="store_true", help="see get_weight; fitted to the scores of all rows")
    parser.add_argument("--weak-judge", choices=("even", "use"), help="see get_weight")
    parser.add_argument("--truth", metavar="CSV", help="see get_weight")
    add_worker_flags(parser, jobs=2)
    args, other = parser.parse_known_args()
    own = [flag for flag in ("--shard", "--join", "--mix", "--known", "--overwrite")
           if flag in {word.partition("=")[0] for word in other}]
    if own:
        raise UserError(f"{own[0]}: does not go with parts; call utils/get_weight.py for it")
    args.home = inside(args.out, args.name)
    return args, other


def plan(args: argparse.Namespace, other: list[str]) -> Job:
    """The job that joins the parts; it needs those that score them."""
    home = args.home
    out = home / "weight.csv"
    judge = {args.pred_dir: folder_digest(args.pred_dir)}

    def job(result: Path, needs: list, *flags: object) -> Job:
        words = [SCRIPT, *map(str, flags), "--out", str(out), "--overwrite"]
        return Job(words, result, needs, home / "logs" / f"{result.stem}.out", home, {**named_files(words, home), **judge})

    rows = ["--csv", args.csv, "--pred-dir", args.pred_dir, *other]
    parts = [job(home / f"weight.part{number}of{args.parts}.csv", [], *rows, "--shard", f"{number}/{args.parts}")
             for number in range(1, args.parts + 1)]
    of_all = {"--" + name.replace("_", "-"): value for name in OF_ALL if (value := getattr(args, name))}
    flags = [word for flag, value in of_all.items() for word in ([flag] if value is True else [flag, value])]
    return job(out, parts, "--join", *flags)


def folder_digest(folder: Path | str) -> str:
    """16 hex digits that stand for the names, sizes and times of a folder's files.

    Raises:
        UserError: it is not there.
    """
    try:
        files = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(folder)]
    except OSError as error:
        raise UserError(f"--pred-dir {folder}: {error.strerror}") from None
    return hashed(sorted(files))


def main() -> None:
    args, other = parse()
    whole = plan(args, other)
    with lock.folder_lock(args.home):
        run_plan([whole], workers_of(args))
    print(whole.log.read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    command_line(main)
