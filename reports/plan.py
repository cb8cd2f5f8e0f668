"""Plans of many commands that depend on one another: what each needs, which are finished, and in which order the others run.

A job leaves one file. Jobs that one command can do together run as one; each keeps its own stamp, so that a later plan finds
those results that it needs, whichever others were made with them.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cli.files import UserError, progress, read_json
from engine.run_folder import FREE_FLAGS, file_digest, hashed
from reports.command import Command, CommandFailed, Output, has_stamp, note_stamp, stamp_path
from reports.workers import LocalWorkers, Workers

SHOWN_LINES = 3  # of a failed command's log
SHOWN_NAMES = 4  # of commands that run
LATE = 60  # seconds until a file of another machine must be seen here: network file systems keep what they knew for a while
PREPARATION = ("-", "data/", "utils/", "report.py", "benchmarks/refine_masks.py", "benchmarks/confident_filter.py",
               "related/blindkd/split_rows.py")  # beginnings of commands that run no networks


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
        listed: flags of the command that take a list, one value of each for each result: jobs that differ in these alone run as
            one command. A job has one value.
    """

    command: list
    result: Path
    needs: list
    log: Path
    home: Path = Path()
    inputs: dict = field(default_factory=dict)
    pseudo: Path | None = None
    listed: Sequence[str] = ()

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
    def networks(self) -> bool:
        """Whether it runs networks, so that a GPU helps."""
        return not self.command[0].startswith(PREPARATION)

    def finished(self) -> bool:
        """Whether the result exists and was made by this command from these inputs.

        A result without a stamp does not count: its command runs again and skips what it has done already.
        """
        return has_stamp(self.result, self.stamp)

    def note_stamp(self) -> None:
        """Leave the stamp beside the result."""
        note_stamp(self.result, self.stamp, self.settings)

    def splits(self) -> Iterator[tuple[str, bool]]:
        """The words of the command, each with whether it is the value of a flag in `listed`."""
        words = list(map(str, self.command))
        return ((word, before in self.listed) for before, word in zip(["", *words], words))


def groups_of(jobs: Iterable[Job]) -> list[list[Job]]:
    """The jobs in groups of which each is one command, in the order of the groups' first jobs."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        shared = tuple(None if differs else word for word, differs in job.splits())
        key = (shared, frozenset(need.result for need in job.needs)) if job.listed else job.result
        groups.setdefault(key, []).append(job)
    return list(groups.values())


def command_of(jobs: Sequence[Job]) -> Command:
    """What a process needs to know of the jobs of a group; it has the first one's log."""
    first, words = jobs[0], []
    for same in zip(*(job.splits() for job in jobs)):
        words += [word for word, _ in same] if same[0][1] else [same[0][0]]
    outputs = tuple(Output(os.path.abspath(job.result), job.stamp, job.settings) for job in jobs)
    return Command(first.log.stem, words, outputs, os.path.abspath(first.log), os.getcwd(), first.networks)


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


def refuse_other_settings(jobs: Iterable[Job], remedy: str | None = None) -> None:
    """Raise UserError if a job's result was made by another command, from other files, or from
    results that were made differently.

    Args:
        jobs: needs first, see `with_needs`.
        remedy: what to do, where it is not `--name`.
    """
    for job in jobs:
        if job.result.exists():
            refuse_other_stamp(stamp_path(job.result), job, remedy)


def refuse_other_stamp(place: Path, job: Job, remedy: str | None = None) -> None:
    """Raise UserError if the stamp at `place`, where there is one, is of another command or other files than the job's."""
    noted = read_json(place, "stamp", "settings") if place.exists() else None
    if noted and noted["stamp"] != job.stamp:
        before = noted["settings"]
        changed = [flag for flag in {**before, **job.settings} if before.get(flag) != job.settings.get(flag)]
        raise UserError(f"{job.result}: {_difference(changed, before, job) if changed else 'was made from other results'}; "
                        + (remedy or f"pass --name for another folder, or remove {job.home} to begin anew"))


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


def run_plan(jobs: Iterable[Job], workers: Workers | None = None) -> None:
    """Run all jobs that are not finished, and those they need.

    Args:
        workers: who runs them; default: this machine, one after the other.

    A job that fails stops only those that need it.

    Raises:
        UserError: a result was made with other settings; or names every job that failed, with the end of its log.
    """
    ordered = with_needs(jobs)
    refuse_other_settings(ordered)
    groups = groups_of(job for job in ordered if not job.finished())
    failed = _run(groups, workers or LocalWorkers()) if groups else []
    if failed:
        raise UserError(f"{len(failed)} of {len(groups)} commands failed; the same call goes on from here\n"
                        + "\n".join(f"  {shlex.join(command.words)}\n    {why}" for command, why in failed))


def _run(groups: list[list[Job]], workers: Workers) -> list[tuple[Command, str]]:
    """Run groups of jobs, each once its needs are done; the commands that failed, and why.

    Args:
        groups: needs first.
    """
    waiting, failed = list(groups), []
    missing = {job.result for group in groups for job in group}  # results: two jobs that are equal have the same
    running: dict[Any, tuple[list[Job], Command]] = {}
    shown = isinstance(workers, LocalWorkers) and workers.shown
    with workers, progress(None, "runs", len(groups), "run", shown=not shown) as bar:
        while waiting or running:
            for group in [group for group in waiting if not any(need.result in missing for need in group[0].needs)]:
                if len(running) < workers.slots:
                    waiting.remove(group)
                    command = command_of(group)
                    running[workers.submit(command)] = group, command
            if not running:
                break  # what still waits needs a job that failed
            names = [command.name for _, command in running.values()]
            more = len(names) - SHOWN_NAMES
            bar.set_postfix_str(", ".join(names[:SHOWN_NAMES]) + f" and {more} more" * (more > 0))
            for future in workers.wait(running):
                group, command = running.pop(future)
                why = _reason(command, future.exception())
                if why is None:
                    missing -= {job.result for job in group}
                else:
                    failed.append((command, why))
                bar.update()
    return failed


def _reason(command: Command, error: BaseException | None) -> str | None:
    """Why a command failed, in a few lines; None if all that it leaves is there."""
    if isinstance(error, CommandFailed):
        return _end_of(Path(command.log), error.code)
    if error is not None:  # a worker that has no such files, or that died again and again
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return said.partition(". ")[0]
    until = time.monotonic() + LATE
    for output in command.outputs:
        while not Path(output.path).exists():
            if time.monotonic() > until:
                return f"{output.path}: was made by a worker, but is not here; workers need the same files under the same paths"
            time.sleep(1)
    return None


def _end_of(log: Path, code: int) -> str:
    if not log.exists():  # a command that wrote to the terminal
        return f"exit code {code}, its output stands above"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n    ".join(lines[-SHOWN_LINES:]) or f"exit code {code}, {log} is empty"
