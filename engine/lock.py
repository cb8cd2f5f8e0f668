"""One process per run: a lock that says who holds it, and that the dead do not hold.

The operating system's lock on the file decides (it goes when its process goes, however that ended); what stands in the file,
host and process number, tells the others who it is, and shields a folder that several machines see through a file system
that does not pass such locks on.
"""

import contextlib
import fcntl
import json
import os
import socket
from pathlib import Path

from cli.files import UserError

FILE_NAME = ".lock"


def is_first_process():
    """Whether this process, of those that torchrun or Lightning started together, is the one that writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


@contextlib.contextmanager
def held(folder):
    """Hold a folder; it is made, and goes again if nothing came into it.

    Of several processes that work together only the first one holds it.

    Raises:
        UserError: another process holds it.
    """
    if not is_first_process():
        yield
        return
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    try:
        with _locked(path) as file:
            _refuse_other_host(path, file)
            file.seek(0)
            file.truncate()
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)  # while it is still held: whoever waits finds that the file is another one
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()


@contextlib.contextmanager
def _locked(path):
    """The lock file, open and locked."""
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes would inherit it
            except (BlockingIOError, PermissionError):
                raise UserError(f"{path.parent}: {_named(_holder(file))} is at work on it; wait, or choose another --name"
                                ) from None
            if _is_at(file, path):
                yield file
                return


def _is_at(file, path):
    """Whether the open file is still the one of that name; its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _refuse_other_host(path, file):
    holder = _holder(file)
    if holder and holder["host"] != socket.gethostname():
        raise UserError(f"{path.parent}: {_named(holder)} was at work on it; if that one is gone, remove {path}")


def _holder(file):
    """`host` and `pid` that stand in an open lock file; None in one that is new, or whose writer died at once."""
    file.seek(0)
    try:
        content = json.loads(file.read())
        return {key: content[key] for key in ("host", "pid")}
    except (ValueError, KeyError, TypeError):
        return None


def _named(holder):
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"
