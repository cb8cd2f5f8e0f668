"""Many commands that build on one another: what is finished is skipped, the rest runs side by side."""

import os
import subprocess
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from data.files import UserError, progress
from data.machine import usable_cores

SHOWN_LINES = 3  # of a failed command's log


@dataclass(eq=False)
class Job:
    """A command and what it leaves.

    Args:
        command: arguments of Python, a script first.
        result: file that exists once the command has finished; then it is not run again.
        needs: jobs whose results it reads.
        log: file for what it prints.
    """

    command: list
    result: Path
    needs: list
    log: Path

    def finished(self):
        return self.result.exists()


def with_needs(jobs):
    """The jobs and all that they need, each once, needs first."""
    ordered = {}

    def add(job):
        for need in job.needs:
            add(need)
        ordered.setdefault(job.result, job)

    for job in jobs:
        add(job)
    return list(ordered.values())


def run_plan(jobs, parallel=1):
    """Run all jobs that are not finished, and those they need.

    Args:
        parallel: commands side by side.

    A job that fails stops only those that need it.

    Raises:
        UserError: names every job that failed, with the end of its log.
    """
    todo = [job for job in with_needs(jobs) if not job.finished()]
    waiting, running, failed, processes = list(todo), {}, [], Processes(max(1, usable_cores() // parallel))
    bar = progress(None, "runs", len(todo), "run")
    with ThreadPoolExecutor(parallel) as pool, processes:
        while waiting or running:
            ready = [job for job in waiting if all(need.finished() for need in job.needs)]
            for job in ready[:parallel - len(running)]:
                waiting.remove(job)
                running[pool.submit(processes.run, job)] = job
            if not running:
                break  # what still waits needs a job that failed
            bar.set_postfix_str(", ".join(job.log.stem for job in running.values()))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                if future.result() or not job.finished():
                    failed.append(job)
                bar.update()
    bar.close()
    if failed:
        raise UserError(f"{len(failed)} of {len(todo)} commands failed; the same call goes on from here\n"
                        + "\n".join(f"  {' '.join(job.command)}\n    {_end_of(job.log)}" for job in failed))


def _end_of(log):
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return "\n    ".join(lines[-SHOWN_LINES:])


class Processes:
    """The commands that run now; leaving the context ends them.

    Args:
        threads: of each command, unless OMP_NUM_THREADS says so: commands side by side share the cores.
    """

    def __init__(self, threads):
        self.running, self.lock, self.closed = set(), threading.Lock(), False
        self.environment = {"OMP_NUM_THREADS": str(threads), **os.environ}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with self.lock:
            self.closed = True
            for process in self.running:
                process.terminate()

    def run(self, job):
        """Run a job to its end; its exit code."""
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "w", encoding="utf-8") as log:
            with self.lock:
                if self.closed:
                    return 1
                process = subprocess.Popen([sys.executable, *job.command], stdout=log, stderr=subprocess.STDOUT,
                                           env=self.environment)
                self.running.add(process)
            try:
                return process.wait()
            finally:
                with self.lock:
                    self.running.discard(process)
