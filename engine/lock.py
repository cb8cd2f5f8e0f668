"""One process per folder: filelock locks a file in it, and the file names the host and the number of the process that works.

The operating system drops the lock when its process ends, however it ends. The host in the file protects a folder that several
machines share through a file system which does not pass locks on.
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import filelock

from cli.files import UserError

FILE_NAME = ".lock"
JOB = "NLKD_JOB"  # variable that names a job of a plan where a scheduler places the jobs on workers, one at a time
LOST = 60  # seconds to wait for the lock of the same job on a worker that the scheduler has given up: its process soon ends
PATIENCE = 0.2  # seconds to wait for the lock: enough to open the file anew if its last holder has just removed it


def is_first_process() -> bool:
    """Whether this process, of those that torchrun or Lightning started together, is the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


@contextlib.contextmanager
def folder_lock(folder: Path | str) -> Iterator[None]:
    """Lock a folder for this process. Make the folder, and remove it again if it stays empty.

    It stays where a process that came at the same moment had made it and was refused.

    Of several processes that torchrun starts together, only the first one locks. A job of a plan takes over from a worker that
    had the same job and was lost: its scheduler gives a job to one worker at a time.

    Raises:
        UserError: another process has locked it, or one of another machine left its lock file.
    """
    if not is_first_process():
        yield
        return
    folder = Path(folder)
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    again = _is_same_job(path)
    lock = filelock.FileLock(path, timeout=LOST if again else PATIENCE)
    try:
        if not again:
            _refuse_other_host(path)  # before the lock is taken: some versions of filelock empty the file then
        with _acquired(lock, path):
            path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job": os.environ.get(JOB)}),
                            encoding="utf-8")
            try:
                yield
            finally:
                path.unlink(missing_ok=True)  # still locked: a process that waits finds the file gone and opens a new one
    finally:
        for each in new_folders:
            with contextlib.suppress(OSError):
                each.rmdir()


@contextlib.contextmanager
def _acquired(lock: filelock.BaseFileLock, path: Path) -> Iterator[None]:
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"{path.parent}: {_process(_owner(path))} is at work on it; wait, or choose another --name") from None
    try:
        yield
    finally:
        lock.release()


def _refuse_other_host(path: Path) -> None:
    owner = _owner(path)
    if owner and owner["host"] != socket.gethostname():
        raise UserError(f"{path.parent}: {_process(owner)} was at work on it; if that one is gone, remove {path}")


def _owner(path: Path) -> dict | None:
    """`host` and `pid` in a lock file; None if there is no file, or nothing in it yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {key: content[key] for key in ("host", "pid")} | {"job": content.get("job")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_same_job(path: Path) -> bool:
    """Whether the lock was left by the job that this process does, on a worker that was lost."""
    owner, job = _owner(path), os.environ.get(JOB)
    return bool(owner and job and owner["job"] == job)


def _process(owner: dict | None) -> str:
    return f"process {owner['pid']} on {owner['host']}" if owner else "another process"
