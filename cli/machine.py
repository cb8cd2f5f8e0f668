"""Cores and memory that this process may use, within the limits of its container (cgroup v2)."""

import math
import re
from pathlib import Path

import psutil

CGROUP = "/sys/fs/cgroup"
PROCESSOR = "/proc/cpuinfo"


def usable_cores() -> int:
    """Number of cores that this process may use, 1 or more: those it is bound to, or the container's share if that is less."""
    process = psutil.Process()
    bound = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1  # not on macOS
    try:
        quota, period = Path(CGROUP, "cpu.max").read_text().split()
    except OSError:
        return bound
    return bound if quota == "max" else min(bound, math.ceil(int(quota) / int(period)))


def free_memory() -> int:
    """Free memory in bytes, within the limit of the container."""
    free = psutil.virtual_memory().available
    try:
        limit, used, stat = (Path(CGROUP, f"memory.{name}").read_text() for name in ("max", "current", "stat"))
    except OSError:
        return free
    if limit.strip() == "max":
        return free
    inactive = re.search(r"^inactive_file (\d+)$", stat, re.M)  # cached files, which the system drops if memory is needed
    given_back = int(inactive[1]) if inactive else 0
    return min(free, int(limit) - int(used) + given_back)


def processor_features() -> set[str]:
    """The instruction sets of an x86 processor as Linux names them, such as `avx512_bf16`; empty on other systems."""
    try:
        text = Path(PROCESSOR).read_text(encoding="utf-8")
    except OSError:
        return set()
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    return set(found[1].split()) if found else set()
