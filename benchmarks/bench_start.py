"""Time until a script answers --help, or finds a missing file in a CSV of many rows; compared with importing PyTorch alone.

    python benchmarks/bench_start.py --out benchmarks/results/start.json
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import RESULTS, ROOT, in_turn, keep, ratio, seconds_of, table
from cli.command_line import command_line, positive_int, tool_parser
from data.pictures import write_mask

IMPORT = "import torch"


def run(words, code):
    """Seconds of a command that must end with `code`."""
    def call():
        done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != code:
            sys.exit(f"{' '.join(map(str, words))}: ended with {done.returncode}, {code} was expected\n{done.stderr}")

    return seconds_of(call)


def faulty_csv(folder, rows):
    """A CSV of that many rows, each with files of its own, but the last one's mask is missing."""
    import numpy as np

    lines = ["img,filename,weight"]
    for row in range(rows):
        if row % 10_000 == 0:  # a file system limits the links to one file
            write_mask(folder / "one.png", np.zeros((8, 8), np.uint8))
        os.link(folder / "one.png", folder / f"i{row}.png")
        if row < rows - 1:
            os.link(folder / "one.png", folder / f"m{row}.png")
        lines.append(f"{folder}/i{row}.png,{folder}/m{row}.png,0.5")
    (folder / "rows_bmscore.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows_bmscore.csv"


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "start.json"), help="JSON of the results")
    parser.add_argument("--rows", type=positive_int, default=100_000, help="of the faulty CSV")
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        csv = faulty_csv(Path(folder), args.rows)
        scripts = sorted(path.relative_to(ROOT).as_posix() for place in (".", "utils", "data", "benchmarks")
                         for path in (ROOT / place).glob("*.py") if "\n    command_line(main)" in path.read_text())
        actions = {IMPORT: lambda: run(["-c", IMPORT], 0)}
        actions.update({f"{script} --help": lambda script=script: run([script, "--help"], 0) for script in scripts})
        for script in ("train_with_KDweight.py", "train_teacher.py"):
            actions[f"{script}, {args.rows} rows, one file missing"] = lambda script=script: run(
                [script, "--train_csv", csv, "--name", "n", "--out-dir", folder], 2)
        seconds = in_turn(actions, args.rounds)
    lines = [[name, f"{min(each):.2f}", f"{ratio(seconds, name, IMPORT):.2f}"] for name, each in seconds.items()]
    keep(args.out, {"seconds": seconds}, {"Until the answer": table(("command", "s", "/ importing PyTorch"), lines)})


if __name__ == "__main__":
    command_line(main)
