"""What is known of files that were checked before, so that each run of a sweep does not decode all of them again.

A fact belongs to a file as it was when it was checked: to its path, size, times of change and inode. A file that has changed
since then, in whatever way, is checked again; faults are never remembered. All runs share one small file of facts,
~/.cache/nlkd/files or what the environment variable NLKD_FILES names; NLKD_FILES= (empty) switches it off. A file of facts that
is damaged, or that cannot be written, is as good as none.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cli.files import UserError, atomic_path

VARIABLE = "NLKD_FILES"
HEAD = b"facts of files, 1\n"  # another number for each change of what is checked or how it is stored
KEY_BYTES, SUM_BYTES = 16, 32
MOST = 1_000_000  # facts that are kept, 40 bytes each
RECENT = 2.0  # s; a file that changed so lately may change again without another time of change
Facts = tuple[int, int, int]


class FileMemory:
    """Facts of checked files.

    Args:
        path: of the file of facts; None = remember nothing after this process.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.loaded = path, False
        self.known: dict[bytes, Facts] = {}
        self.used: dict[bytes, Facts] = {}  # by this process, new ones among them
        self.changed = False

    def facts(self, path: Path | str, kind: str, check: Callable[[], Facts], again: bool = False) -> Facts:
        """What `check()` gave for a file, three whole numbers in int64: now, or when it was checked as it is.

        Args:
            kind: what was checked, and by which settings.
            again: call `check` in any case, and remember what it gives.
        """
        if not self.loaded:
            self.known, self.loaded = _read(self.path), True
        try:
            found = os.stat(path)
        except OSError:  # the check says what is wrong
            return check()
        words = (kind, os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        key = hashlib.blake2b("\0".join(map(str, words)).encode(errors="surrogateescape"), digest_size=KEY_BYTES).digest()
        facts = None if again else self.used.get(key) or self.known.get(key)
        if facts is None:
            facts = check()
            if time.time() - max(found.st_mtime, found.st_ctime) < RECENT:
                return facts
            self.changed = self.changed or key not in self.known
        self.used[key] = facts
        return facts

    def save(self) -> None:
        """Add what this process has learnt to the file of facts, beside what others wrote meanwhile; the oldest facts go."""
        if self.path is None or not self.changed:
            return
        known = _read(self.path)
        kept = {key: facts for key, facts in known.items() if key not in self.used} | self.used
        items = list(kept.items())[-MOST:]
        content = b"".join(key for key, _ in items) + np.array([facts for _, facts in items], "<i8").tobytes()
        with contextlib.suppress(UserError), atomic_path(self.path) as temporary:
            temporary.write_bytes(HEAD + hashlib.sha256(content).digest() + content)
        self.known, self.changed = kept, False


def _read(path: Path | None) -> dict[bytes, Facts]:
    """The facts of a file, oldest first; none if it is missing, damaged or of another version."""
    try:
        whole = path.read_bytes() if path else b""
    except OSError:
        return {}
    content = whole[len(HEAD) + SUM_BYTES:]
    if not whole.startswith(HEAD) or hashlib.sha256(content).digest() != whole[len(HEAD):len(HEAD) + SUM_BYTES]:
        return {}
    count = len(content) // (KEY_BYTES + 24)
    keys = [content[at:at + KEY_BYTES] for at in range(0, count * KEY_BYTES, KEY_BYTES)]
    facts = np.frombuffer(content, "<i8", 3 * count, count * KEY_BYTES).reshape(-1, 3).tolist()
    return {key: (one, two, three) for key, (one, two, three) in zip(keys, facts)}


_memories: dict[str, FileMemory] = {}  # one for each name of the file of facts


def file_memory() -> FileMemory:
    """The memory that all runs share, see the head of this module."""
    default = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nlkd", "files")
    name = os.environ.get(VARIABLE, default)
    if name not in _memories:
        _memories[name] = FileMemory(Path(name) if name else None)
    return _memories[name]
