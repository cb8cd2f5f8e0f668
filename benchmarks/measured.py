"""Run a script in this process, and write what the process took to a JSON once it has ended, however it ends.

    python benchmarks/measured.py usage.json report.py runs/a --out runs/report

`seconds`: wall seconds. `processor`: seconds of user and system, of this process and of those that it waited for. `MiB`: peak
resident memory of the largest of them; of a forked process (cli/warm.py) that counts the pages it shares with the process that
it was forked from, and not the peaks which that one had.
"""

import resource
import runpy
import sys
import time
from pathlib import Path

from cli.files import write_json

KINDS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes that ru_maxrss counts in


def processor_seconds():
    """Of this process and of the children that it has waited for."""
    return sum(sum(resource.getrusage(kind)[:2]) for kind in KINDS)


def run_measured(usage, script, flags):
    """Be `python SCRIPT FLAGS`, and write the usage to a file."""
    path = Path(__file__).resolve().parents[1] / script
    sys.argv = [str(path), *flags]
    began, processor = time.perf_counter(), processor_seconds()
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        peak = max(resource.getrusage(kind).ru_maxrss for kind in KINDS) * PEAK_UNIT / 2**20
        write_json(usage, {"seconds": time.perf_counter() - began, "processor": processor_seconds() - processor, "MiB": peak})


if __name__ == "__main__":
    run_measured(sys.argv[1], sys.argv[2], sys.argv[3:])
