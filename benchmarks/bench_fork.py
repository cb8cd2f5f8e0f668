"""A training of one epoch on a few drawn pictures, called by `python SCRIPT`, and forked from a process that has its libraries.

    python benchmarks/bench_fork.py --out benchmarks/results/fork.json

The first fork waits for the imports, so it is left out: a plan has them once. See cli/warm.py.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import RESULTS, ROOT, in_turn, keep, python, ratio, seconds_of, table
from cli import warm
from cli.command_line import command_line, positive_int, tool_parser

CALLED, FORKED = "python SCRIPT", "forked"


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "fork.json"), help="JSON of the results")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos, csvs = Path(folder, "sample"), Path(folder, "csv")
        python("data/make_sample.py", "--out", photos, "--count", 40)
        python("data/prepare_folder.py", photos, "--out", csvs)
        flags = ["--train_csv", csvs / "train.csv", "--name", "run", "--out-dir", folder, "--overwrite", "--model", "unet",
                 "--width", 8, "--size", 48, 48, "--epochs", 1, "--batch-size", 8, "--accelerator", "cpu"]
        command = ["train_without_weight.py", *map(str, flags)]

        def called():
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)

        def forked():
            assert warm.run_script(command[0], command[1:], os.environ, ROOT).returncode == 0

        forked()
        seconds = in_turn({CALLED: lambda: seconds_of(called), FORKED: lambda: seconds_of(forked)}, args.rounds)
    lines = [[name, f"{min(each):.2f}", f"{ratio(seconds, name, CALLED):.2f}"] for name, each in seconds.items()]
    keep(args.out, {"seconds": seconds}, {"A tiny training": table(("started", "s, best", f"/ {CALLED}"), lines)}, ("torch",))


if __name__ == "__main__":
    command_line(main)
