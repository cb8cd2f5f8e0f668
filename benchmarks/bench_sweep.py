"""A table of four rows over three seeds, 12 trainings, with one command at a time and with two side by side, on this machine.

    python benchmarks/bench_sweep.py --out benchmarks/results/sweep.json

Each call is `tables.py` as a user calls it, imports and reports included, on drawn portraits, from nothing to the table. Every
command takes one thread, so that the ratio is what the second worker brings and not what a second thread does. With --scheduler
the same table also runs on the workers of a Dask scheduler. The digests of all results must agree. Beside it stands what two
cores give such trainings: 2 t1 / t2, t1 the time of one alone, t2 that of two at once. These two import their libraries, which
tables.py does not (it forks its commands from a process that has them), so this is no strict bound.
"""

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import ONE_THREAD, RESULTS, in_turn, keep, python, ratio, run_command, seconds_of, table
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


def at_once(args, data, home, count):
    """Seconds of so many trainings without weights at once, each a process that imports its libraries."""
    def train(number):
        run_command(["train_without_weight.py", "--train_csv", f"{data}/train.csv", "--test_csv", f"{data}/test.csv", "--name",
                     f"alone{number}", "--out-dir", home, "--overwrite", "--size", *args.size, "--epochs", args.epochs,
                     "--encoder-weights", "none", "--accelerator", "cpu", "--cache"], **ONE_THREAD)

    with ThreadPoolExecutor(count) as pool:
        return seconds_of(list, pool.map(train, range(count)))


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

        actions = {name: lambda name=name: seconds_of_way(name) for name in ways}
        actions.update({f"{number} at once": lambda number=number: at_once(args, data, folder, number) for number in (1, 2)})
        seconds = in_turn(actions, args.rounds)
    count = len(found["digests"])
    if count != len(ROWS) * len(args.seeds):
        raise UserError(f"{count} trainings were made, not {len(ROWS) * len(args.seeds)}; mend ROWS")
    lines = [[name, f"{min(seconds[name]):.1f}", f"{ratio(seconds, '1 worker', name):.2f}"] for name in ways]
    best = 2 * ratio(seconds, "1 at once", "2 at once")
    lines.append(["two cores at best: two trainings at once", f"{min(seconds['2 at once']):.1f}", f"{best:.2f}"])
    keep(args.out, {"seconds": seconds, "trainings": count}, {f"A table of {count} trainings": table(
        ("commands run on", "s", "times as fast as 1 worker"), lines)})


if __name__ == "__main__":
    command_line(main)
