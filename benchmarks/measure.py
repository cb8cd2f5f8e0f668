"""Timing of commands and functions, and the files that results are kept in.

Ratios are what counts: each round measures all things in turn, and ratios are computed within a round, since a machine that is
slow for a while is slow for all of them.
"""

import datetime
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cli import warm
from cli.files import UserError, write_json
from engine.run_folder import versions
from utils.metrics import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# a small process in between, since a child's peak memory includes that of the process that forked it
LAUNCHER = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}


def run_command(command, **environment):
    """Run a command to its end, from the project's root.

    Returns:
        (wall seconds, peak resident memory in MiB of the largest of its processes)
    """
    done = subprocess.run([sys.executable, "-S", "-c", LAUNCHER, sys.executable, *map(str, command)], cwd=ROOT, text=True,
                          env={**os.environ, **environment}, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: ended with {done.returncode}")
    seconds, kibibytes = done.stdout.split()
    return float(seconds), float(kibibytes) / 1024


def python(*command):
    """Run a script of the project from its root, and show its output only if it fails."""
    done = warm.run_script(str(command[0]), list(map(str, command[1:])), os.environ, ROOT)
    if done.returncode:
        raise UserError(f"{' '.join(map(str, command))}: ended with {done.returncode}\n{done.stderr}")


def in_turn(actions, rounds):
    """Run functions that return seconds, one after the other, `rounds` times.

    Args:
        actions: dict of name -> function without arguments.

    Returns:
        dict of name -> list of seconds, one per round.
    """
    seconds = {name: [] for name in actions}
    for number in range(rounds):
        for name, action in actions.items():
            seconds[name].append(action())
            print(f"  round {number + 1}/{rounds}  {name}: {seconds[name][-1]:.3f} s", file=sys.stderr, flush=True)
    return seconds


def seconds_of(function, *args):
    """Wall seconds of one call."""
    began = time.perf_counter()
    function(*args)
    return time.perf_counter() - began


def ratio(seconds, name, base):
    """Median over the rounds of the time of `name` over that of `base`."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base]))


def machine(*packages):
    """GPU, CPU, cores, date and versions, which every published figure must name."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"gpu": gpu, "cpu": _cpu_name(), "cores": len(os.sched_getaffinity(0)), "date": datetime.date.today().isoformat(),
            **versions(("numpy", "opencv-python-headless", "torch", *packages))}


def _cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def table(titles, rows):
    """Lines of a Markdown table."""
    return markdown_table(titles, [map(str, row) for row in rows]).splitlines()


def keep(path, content, tables, packages=()):
    """Print the tables and write them, with the measurements, as JSON.

    Args:
        path: of the JSON.
        content: the measurements, JSON-ready.
        tables: dict of title -> lines of a table.
    """
    for title, lines in tables.items():
        print(f"\n{title}\n\n" + "\n".join(lines))
    write_json(path, {"command": shlex.join(["python", *sys.argv]), "machine": machine(*packages), "tables": tables, **content})
    print(f"\n{path}")
