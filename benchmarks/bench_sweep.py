"""A table of four rows over three seeds, 12 trainings, with one command at a time and with two side by side, on this machine.

    python benchmarks/bench_sweep.py --out benchmarks/results/sweep.json

Each call is `tables.py` as a user calls it, imports and reports included, on drawn portraits, from nothing to the table. Every
command takes one thread, so that the ratio is what the second worker brings and not what a second thread does. With --scheduler
the same table also runs on the workers of a Dask scheduler. The digests of all results must agree.
"""

import hashlib
import tempfile
from pathlib import Path

from benchmarks.measure import ONE_THREAD, RESULTS, in_turn, keep, python, ratio, run_command, table
from cli.command_line import command_line, nonnegative_int, positive_int, tool_parser
from cli.files import UserError

ROWS = ("noisy", "own", "oracle", "clean")  # of table 4, each one training without teachers


def call(args, data, home, *flags):
    """Seconds of tables.py in a new folder; notes the digests of its checkpoints."""
    with tempfile.TemporaryDirectory(dir=home) as out:
        seconds, _ = run_command(["tables.py", "table4", "--data", data, "--out", out, "--name", "t", "--rows", *ROWS,
                                  "--seeds", *args.seeds, "--size", *args.size, "--epochs", args.epochs,
                                  "--encoder-weights", "none", "--accelerator", "cpu", *flags], **ONE_THREAD)
        found = {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
                 for path in sorted(Path(out).rglob("last.ckpt"))}
    return seconds, found


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "sweep.json"), help="JSON of the results")
    parser.add_argument("--portraits", type=positive_int, default=120)
    parser.add_argument("--size", type=positive_int, nargs=2, default=[96, 96], metavar=("H", "W"), help="px")
    parser.add_argument("--epochs", type=positive_int, default=4, help="of each training")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--scheduler", metavar="ADDRESS|FILE", help="of a Dask scheduler with two workers on this machine")
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    ways = {"1 worker": ["--jobs", 1], "2 workers": ["--jobs", 2]}
    if args.scheduler:
        ways["workers of Dask"] = ["--scheduler", args.scheduler]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        photos, data = Path(folder, "photos"), Path(folder, "csv")
        python("data/make_sample.py", "--out", photos, "--count", args.portraits, "--size", *args.size)
        python("data/prepare_folder.py", photos, "--out", data)

        def seconds_of_way(name):
            seconds, digests = call(args, data, folder, *ways[name])
            if found.setdefault("digests", digests) != digests:
                raise UserError(f"{name}: its checkpoints differ from those of {next(iter(ways))}")
            return seconds

        seconds = in_turn({name: lambda name=name: seconds_of_way(name) for name in ways}, args.rounds)
    count = len(found["digests"])
    if count != len(ROWS) * len(args.seeds):
        raise UserError(f"{count} trainings were made, not {len(ROWS) * len(args.seeds)}; mend ROWS")
    lines = [[name, f"{min(each):.1f}", f"{ratio(seconds, '1 worker', name):.2f}"] for name, each in seconds.items()]
    keep(args.out, {"seconds": seconds, "trainings": count}, {f"A table of {count} trainings": table(
        ("commands run on", "s", "times as fast as 1 worker"), lines)})


if __name__ == "__main__":
    command_line(main)
