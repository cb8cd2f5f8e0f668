"""The main job, `bash run.sh`, stage by stage: wall seconds, processor seconds and peak memory of each of its commands.

    python benchmarks/bench_main_job.py

The sample is drawn and quick.py's plan carried out with the flags that run.sh gives them, in a temporary folder; further flags
go to quick.py. As there, each command is forked from a process that has the libraries, and it measures itself, see
benchmarks/measured.py. Its memory counts the pages of the libraries, which it shares with that process: the line `libraries`
shows a command that does nothing, and is no part of the whole. Shares are those of the whole's seconds: where commands run side
by side (--jobs), they sum to more than 100 %.
"""

import re
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

import quick
from benchmarks.measure import RESULTS, ROOT, keep, python, seconds_of, table
from cli.command_line import command_line, tool_parser
from cli.files import read_json
from reports.plan import run_plan, with_needs
from reports.workers import LocalWorkers

MEASURED = "benchmarks/measured.py"


class MeasuringWorkers(LocalWorkers):
    """Processes of this machine, each of which leaves NAME.json of what it took.

    Args:
        folder: of these files, whole path.
        slots: commands side by side.
    """

    def __init__(self, folder, slots):
        super().__init__(slots)
        self.folder = folder

    def submit(self, command):
        return super().submit(replace(command, words=[MEASURED, str(self.folder / f"{command.name}.json"), *command.words]))


def words_of_run_sh():
    """Words that run.sh gives data/make_sample.py and quick.py, each without the folder of the sample."""
    text = (ROOT / "run.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    drawing = re.search(r'"\$python" data/make_sample\.py --out data/generated/sample(.*)', text)
    training = re.search(r'"\$python" quick\.py data/generated/sample(.*)"\$@"', text)
    return shlex.split(drawing[1]), shlex.split(training[1])


def measure(folder, other):
    """Carry out the main job in a folder.

    Args:
        folder: whole path.
        other: words for quick.py, after those of run.sh.

    Returns:
        (dict of stage -> what it took, see benchmarks/measured.py, and its script; wall seconds of all commands of the plan;
        commands side by side)
    """
    drawing, training = words_of_run_sh()
    photos, usage, nothing = folder / "sample", folder / "usage", folder / "nothing.py"
    usage.mkdir()
    nothing.touch()
    python(nothing)  # the first one waits until the libraries are loaded
    python(MEASURED, usage / "libraries.json", nothing)
    python(MEASURED, usage / "sample.json", "data/make_sample.py", "--out", photos, *drawing)
    args = quick.parse([str(photos), "--out-dir", str(folder / "runs"), *training, *other])
    report = quick.plan(args)
    seconds = seconds_of(run_plan, [report], MeasuringWorkers(usage, args.jobs))
    scripts = {"libraries": "-", "sample": "data/make_sample.py"}
    scripts.update({job.log.stem: job.command[0] for job in with_needs([report])})
    return {name: {"script": script, **read_json(usage / f"{name}.json", "seconds", "processor", "MiB")}
            for name, script in scripts.items()}, seconds, args.jobs


def lines_of(stages, seconds, jobs):
    """Rows of the table; arguments as `measure` returns them. Side by side, seconds of the stages overlap."""
    whole = seconds + stages["sample"]["seconds"]
    commands = [stage for name, stage in stages.items() if name != "libraries"]
    lines = [[name, stage["script"], f"{stage['seconds']:.1f}",
              "-" if name == "libraries" else f"{100 * stage['seconds'] / whole:.1f} %",
              f"{stage['processor']:.1f}", f"{stage['MiB']:.0f}"] for name, stage in stages.items()]
    if jobs == 1:
        rest = whole - sum(stage["seconds"] for stage in commands)
        lines.append(["starting the commands", "-", f"{rest:.1f}", f"{100 * rest / whole:.1f} %", "-", "-"])
    processor, peak = sum(stage["processor"] for stage in commands), max(stage["MiB"] for stage in commands)
    return [*lines, ["all", "-", f"{whole:.1f}", "100.0 %", f"{processor:.1f}", f"{peak:.0f}"]]


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--out", default=str(RESULTS / "main_job.json"), help="JSON of the results")
    args, other = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        stages, seconds, jobs = measure(Path(folder).resolve(), other)
    titles = ("stage", "script", "s", "share", "processor s", "MiB, peak")
    keep(args.out, {"stages": stages, "seconds of the plan": seconds, "side by side": jobs},
         {f"The main job, by stage, {jobs} at a time": table(titles, lines_of(stages, seconds, jobs))}, ("torch",))


if __name__ == "__main__":
    command_line(main)
