"""Run many commands that depend on one another: skip finished ones, run the others in parallel."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from cli import warm
from cli.files import UserError, progress, read_json, write_json
from cli.machine import usable_cores
from engine.run_folder import FREE_FLAGS, file_digest, hashed

ROOT = Path(__file__).resolve().parents[1]  # of the scripts
SHOWN_LINES = 3  # of a failed command's log


@dataclass(eq=False)
class Job:
    """A command and the file that it leaves.

    Args:
        command: arguments of Python, a script of this project first.
        result: file that exists once the command has finished.
        needs: jobs whose results it reads.
        log: file for what it prints.
        home: folder of all jobs; paths in it count relative to it, so that it may be moved.
        inputs: dict of word of the command -> digest of the file or folder that it names; jobs' own results are not among them.
        pseudo: folder of the pseudo-labels that a job of weights scores by; None for other jobs.
    """

    command: list
    result: Path
    needs: list
    log: Path
    home: Path = Path()
    inputs: dict = field(default_factory=dict)
    pseudo: Path | None = None

    @cached_property
    def settings(self) -> dict[str, str]:
        """What the result depends on, except the results of other jobs: dict of flag -> text of its values."""
        home = os.path.join(self.home, "")
        words = [self.inputs.get(word, word.removeprefix(home) if self.home != Path() else word) for word in self.command]
        return flags_of(words)

    @cached_property
    def stamp(self) -> str:
        """16 hex digits that stand for the command, its input files and the stamps of its needs."""
        content = [self.settings, sorted(need.stamp for need in self.needs)]
        return hashed(content)

    @property
    def stamp_path(self) -> Path:
        return self.result.with_suffix(".stamp.json")

    def finished(self) -> bool:
        """Whether the result exists and was made by this command from these inputs.

        A result without a stamp does not count: its command runs again and skips what it has done already.
        """
        return self.result.exists() and self.stamp_path.exists() and read_json(self.stamp_path, "stamp")["stamp"] == self.stamp

    def note_stamp(self) -> None:
        """Leave the stamp beside the result."""
        write_json(self.stamp_path, {"stamp": self.stamp, "settings": self.settings})


def named_files(command: Sequence[str], home: Path | str) -> dict[str, str]:
    """dict of word -> digest of the files that a command names, without its script and the results of jobs in `home`."""
    home = Path(home).resolve()
    found = [word for word in command[1:] if (os.sep in word or "." in word) and os.path.isfile(word)]
    return {word: file_digest(word) for word in found if home not in Path(word).resolve().parents}


def flags_of(words: Sequence[str]) -> dict[str, str]:
    """The flags of a command, as dict of flag -> text of its values; those that do not change a result are left out.

    The script and other words before the first flag stand under "command".
    """
    free = {"--" + flag.replace("_", "-") for flag in FREE_FLAGS}
    flag = "command"
    flags: dict[str, list[str]] = {}
    for word in words:
        if re.match(r"--?[a-zA-Z]", word):
            flag, _, word = word.partition("=")
            flags[flag] = []  # the last one of its name counts, as argparse has it
        if word:
            flags.setdefault(flag, []).append(word)
    return {flag: " ".join(values) for flag, values in flags.items() if flag not in free}


def refuse_other_settings(jobs: Iterable[Job]) -> None:
    """Raise UserError if a job's result was made by another command, from other files, or from
    results that were made differently.

    Args:
        jobs: needs first, see `with_needs`.
    """
    for job in jobs:
        if job.result.exists() and job.stamp_path.exists() and not job.finished():
            before = read_json(job.stamp_path, "settings")["settings"]
            changed = [flag for flag in {**before, **job.settings} if before.get(flag) != job.settings.get(flag)]
            raise UserError(f"{job.result}: {_difference(changed, before, job) if changed else 'was made from other results'}; "
                            f"pass --name for another folder, or remove {job.home} to begin anew")


def _difference(changed: list[str], before: dict[str, str], job: Job) -> str:
    """How the settings of an existing result differ from those asked for now, in words."""
    digests, texts = set(job.inputs.values()), []
    for flag in changed:
        then, now = before.get(flag), job.settings.get(flag)
        if set((now or "").split()) & digests:
            names = ", ".join(word for word, digest in job.inputs.items() if digest in (now or "").split())
            texts.append(f"{names} held other files or rows")
        else:
            texts.append(" and ".join([f"it was made {_spelt(flag, then)}", f"this call asks for {now or 'none'}"]))
    return "; ".join(texts)


def _spelt(flag: str, value: str | None) -> str:
    return f"without {flag}" if value is None else f"with {flag} {value}".rstrip()


def with_needs(jobs: Iterable[Job]) -> list[Job]:
    """The jobs and all that they need, each once, needs first."""
    ordered: dict[Path, Job] = {}

    def add(job: Job) -> None:
        for need in job.needs:
            add(need)
        ordered.setdefault(job.result, job)

    for job in jobs:
        add(job)
    return list(ordered.values())


def run_plan(jobs: Iterable[Job], parallel: int = 1, shown: bool = False) -> None:
    """Run all jobs that are not finished, and those they need.

    Args:
        parallel: commands side by side.
        shown: let the commands print to the terminal instead of to their logs.

    A job that fails stops only those that need it.

    Raises:
        UserError: a result was made with other settings; or names every job that failed, with the end of its log.
    """
    ordered = with_needs(jobs)
    refuse_other_settings(ordered)
    todo = [job for job in ordered if not job.finished()]
    waiting, failed, done = list(todo), [], set()
    running: dict[Future[int], Job] = {}
    processes = Processes(max(1, usable_cores() // parallel), shown)
    with ThreadPoolExecutor(parallel) as pool, processes, progress(None, "runs", len(todo), "run", shown=not shown) as bar:
        while waiting or running:
            ready = [job for job in waiting if not any(need in todo and need not in done for need in job.needs)]
            for job in ready[:parallel - len(running)]:
                waiting.remove(job)
                running[pool.submit(processes.run, job)] = job
            if not running:
                break  # what still waits needs a job that failed
            bar.set_postfix_str(", ".join(job.log.stem for job in running.values()))
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                job = running.pop(future)
                if future.result() or not job.result.exists():
                    failed.append(job)
                else:
                    job.note_stamp()
                    done.add(job)
                bar.update()
    if failed:
        raise UserError(f"{len(failed)} of {len(todo)} commands failed; the same call goes on from here\n"
                        + "\n".join(f"  {shlex.join(job.command)}\n    {_end_of(job.log)}" for job in failed))


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return "\n    ".join(lines[-SHOWN_LINES:])


class Processes:
    """The commands that run now; leaving the context ends them.

    Args:
        threads: of each command, unless OMP_NUM_THREADS says so: commands side by side share the cores.
        shown: see `run_plan`.
    """

    def __init__(self, threads: int, shown: bool = False) -> None:
        self.running: set[subprocess.Popen | ForkServerProcess] = set()
        self.lock, self.closed, self.shown = threading.Lock(), False, shown
        self.environment = {"OMP_NUM_THREADS": str(threads), **os.environ}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.closed = True
            for process in self.running:
                process.terminate()

    def run(self, job: Job) -> int:
        """Run a job to its end; its exit code."""
        if self.shown:
            print(f"\n+ python {shlex.join(job.command)}", flush=True)
        else:
            job.log.parent.mkdir(parents=True, exist_ok=True)
        with self.lock:
            if self.closed:
                return 1
            process = self._start(job)
            self.running.add(process)
        try:
            return process.wait() if isinstance(process, subprocess.Popen) else warm.exit_code(process)
        finally:
            with self.lock:
                self.running.discard(process)

    def _start(self, job: Job) -> subprocess.Popen | ForkServerProcess:
        script, *flags = job.command
        if not script.startswith("-") and warm.available():
            return warm.start_script(ROOT / script, flags, self.environment, None if self.shown else job.log)
        command = [sys.executable, *([script] if script.startswith("-") else [str(ROOT / script)]), *flags]
        if self.shown:
            return subprocess.Popen(command, env=self.environment)
        with open(job.log, "w", encoding="utf-8") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
