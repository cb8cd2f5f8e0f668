"""From the command to the first training step: what the check of many files takes, cold and remembered, beside reading them.

    python benchmarks/bench_first_step.py --out benchmarks/results/first_step.json

The rows are drawn portraits of 128 x 96 px, each file under many names. *Reading alone* decodes and resizes all files once.
*Cold* is a run that has no memory of these files (data/file_memory.py), *remembered* one after it. Runs start as those of a
sweep do, forked from a process that has the libraries (cli/warm.py). Processor seconds (user and system) count what other work
on the machine does not change; wall seconds are in the JSON, too.
"""

import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import ONE_THREAD, RESULTS, ROOT, in_turn, keep, ratio, table
from cli import warm
from cli.command_line import command_line, positive_int, tool_parser
from data.file_memory import VARIABLE
from data.make_sample import draw_set
from data.pictures import read_image, read_mask, resize_image, resize_labels
from data.splits import pair_folder

DRAWN, SMALLEST, OWN_SIZE, SIZE = 100, 16, (128, 96), (64, 48)
STOPPED = """
import json, os, runpy, sys, time
import engine.loop
def first_step(*inputs):
    print(json.dumps(time.process_time()), flush=True)
    os._exit(0)
engine.loop.train_step = first_step
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def many_names(folder, rows):
    """CSVs of `rows` rows and of a few, each row with file names of its own; returns their paths."""
    draw_set(folder, DRAWN, OWN_SIZE)
    pairs, lines = pair_folder(folder), ["img,filename"]
    for row in range(rows):
        pair = pairs.iloc[row % DRAWN]
        names = [folder / f"{kind}{row}{Path(path).suffix}" for kind, path in (("i", pair["image"]), ("m", pair["mask"]))]
        for path, name in zip((pair["image"], pair["mask"]), names):
            os.link(path, name)
        lines.append(",".join(map(str, names)))
    for name, count in (("many.csv", rows), ("few.csv", SMALLEST)):
        (folder / name).write_text("\n".join(lines[:1 + count]) + "\n")
    return folder / "many.csv", folder / "few.csv"


def read_all(csv):
    """Processor seconds of decoding and resizing every file of a CSV."""
    began = time.process_time()
    for line in csv.read_text().splitlines()[1:]:
        image, mask = line.split(",")
        resize_image(read_image(image), SIZE)
        resize_labels(read_mask(mask), SIZE)
    return time.process_time() - began


class Starts:
    """Runs up to their first step, each in a new folder; `wall` keeps the wall seconds of each way."""

    def __init__(self, folder):
        self.folder, self.numbers, self.wall = folder, itertools.count(), {}
        (folder / "stopped.py").write_text(STOPPED)

    def __call__(self, way, csv, memory, *flags):
        """Processor seconds of a run until its first step."""
        environment = {**os.environ, **ONE_THREAD, VARIABLE: str(memory), "PYTHONPATH": str(ROOT)}
        command = ["train_without_weight.py", "--train_csv", csv, "--size", *SIZE, "--width", 4, "--accelerator", "cpu",
                   "--batch-size", 16, "--out-dir", self.folder / "runs", "--name", next(self.numbers), *flags]
        began = time.perf_counter()
        done = warm.run_script(self.folder / "stopped.py", list(map(str, command)), environment, ROOT)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        self.wall.setdefault(way, []).append(time.perf_counter() - began)
        return json.loads(done.stdout.splitlines()[-1])

    def cold(self, way, csv, *flags):
        """A run that remembers nothing; what it learns is kept for the next one."""
        (self.folder / "files").unlink(missing_ok=True)
        return self(way, csv, self.folder / "files", *flags)


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "first_step.json"), help="JSON of the results")
    parser.add_argument("--rows", type=positive_int, default=10_000)
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        many, few = many_names(Path(home), args.rows)
        time.sleep(2)  # files that changed a moment ago are not remembered
        starts, memory = Starts(Path(home)), Path(home) / "files"
        actions = {"reading alone": lambda: read_all(many)}
        for name, flags in (("", []), (" --cache", ["--cache"])):
            for way, call in ((f"{SMALLEST} rows{name}", lambda way, flags: starts(way, few, "", *flags)),
                              (f"cold{name}", lambda way, flags: starts.cold(way, many, *flags)),
                              (f"remembered{name}", lambda way, flags: starts(way, many, memory, *flags))):
                actions[way] = lambda way=way, call=call, flags=flags: call(way, flags)
        seconds = in_turn(actions, args.rounds)
    lines = [[name, f"{min(each):.2f}", f"{ratio(seconds, name, 'reading alone'):.2f}",
              f"{min(each) - min(seconds[_base(name)]):.2f}" if name in starts.wall else "-"] for name, each in seconds.items()]
    titles = ("run", "processor s to the first step", "/ reading alone", f"s more than {SMALLEST} rows")
    keep(args.out, {"rows": args.rows, "processor seconds": seconds, "wall seconds": starts.wall},
         {f"{args.rows} rows of {OWN_SIZE[0]}x{OWN_SIZE[1]}": table(titles, lines)})


def _base(name):
    """The run on a few rows that a run is compared with."""
    return f"{SMALLEST} rows" + (" --cache" if "--cache" in name else "")


if __name__ == "__main__":
    command_line(main)
