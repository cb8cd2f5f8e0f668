"""One command of a plan, complete in itself: it may run here, or on another machine that sees the same files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from cli import warm
from cli.files import read_json, write_json

ROOT = warm.ROOT  # of the scripts
POLL = 0.5  # seconds between two looks whether a running command is still wanted
Process = subprocess.Popen | ForkServerProcess


class CommandFailed(Exception):
    """A command ended with an error, or without all its outputs; its log says why.

    Args:
        code: its exit code, or minus the signal that ended it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Output:
    """A file that a command leaves: its whole path; `stamp` and `settings`, see `plan.Job`."""

    path: str
    stamp: str
    settings: dict[str, str]

    def finished(self) -> bool:
        """Whether the file is there and has the stamp."""
        return has_stamp(self.path, self.stamp)


@dataclass(frozen=True)
class Command:
    """What one process does.

    Args:
        name: few words for a progress bar.
        words: arguments of Python, a script of this project first.
        outputs: what it leaves.
        log: whole path of the file for what it prints.
        folder: where it runs; paths among its words count from there.
        networks: it runs networks, so that a GPU helps it.
    """

    name: str
    words: list[str]
    outputs: tuple[Output, ...]
    log: str
    folder: str
    networks: bool = False

    @property
    def stamp(self) -> str:
        """The stamps of all outputs."""
        return "+".join(output.stamp for output in self.outputs)


def stamp_path(result: Path | str) -> Path:
    """Where the stamp of a result lies."""
    return Path(result).with_suffix(".stamp.json")


def has_stamp(result: Path | str, stamp: str) -> bool:
    """Whether a result is there and has this stamp."""
    place = stamp_path(result)
    return Path(result).exists() and place.exists() and read_json(place, "stamp")["stamp"] == stamp


def note_stamp(result: Path | str, stamp: str, settings: Mapping[str, str]) -> None:
    """Leave the stamp beside a result."""
    write_json(stamp_path(result), {"stamp": stamp, "settings": dict(settings)})


def run(command: Command, environment: Mapping[str, str], unwanted: Callable[[], bool], shown: bool = False) -> None:
    """Run a command to its end and leave the stamps of its outputs; nothing happens where all have theirs already.

    Args:
        environment: all variables that it sees.
        unwanted: asked twice a second; once it says True, the command is ended (SIGTERM, so that a training saves).
        shown: let it print to the terminal instead of to its log.

    Raises:
        CommandFailed: also for a command that was ended.
    """
    if command.outputs and all(output.finished() for output in command.outputs):
        return
    if unwanted():
        raise CommandFailed(1)
    process, told = _start(command, environment, shown), False
    while not _ends(process, POLL):
        if not told and unwanted():
            process.terminate()
            told = True  # a second signal would not let it save
    code = process.returncode if isinstance(process, subprocess.Popen) else warm.exit_code(process)
    if code or not all(Path(output.path).exists() for output in command.outputs):
        raise CommandFailed(code)
    for output in command.outputs:
        note_stamp(output.path, output.stamp, output.settings)


def _ends(process: Process, seconds: float) -> bool:
    """Wait for the end of a process, no longer than so many seconds; whether it has ended."""
    if not isinstance(process, subprocess.Popen):
        return bool(wait([process.sentinel], seconds))
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _start(command: Command, environment: Mapping[str, str], shown: bool) -> Process:
    script, *flags = command.words
    if shown:
        Path(command.log).unlink(missing_ok=True)  # of an earlier call, whose end is no reason for this one
    else:
        Path(command.log).parent.mkdir(parents=True, exist_ok=True)
    if not script.startswith("-") and warm.available():
        return warm.start_script(ROOT / script, flags, environment, None if shown else command.log, folder=command.folder)
    words = [sys.executable, *([script] if script.startswith("-") else [str(ROOT / script)]), *flags]
    if shown:
        return subprocess.Popen(words, env=environment, cwd=command.folder)
    with open(command.log, "w", encoding="utf-8") as log:
        return subprocess.Popen(words, env=environment, cwd=command.folder, stdout=log, stderr=subprocess.STDOUT)
