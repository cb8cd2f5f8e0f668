"""Who runs the commands of a plan: processes of this machine, or the workers of a Dask scheduler.

Both take commands that are ready, give a future for each, and tell which futures have ended; the order of the commands is the
plan's alone. Dask places a command on a worker that has what the command asks for, and on another one where a worker is lost.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import itertools
import logging
import math
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import uuid
from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from cli.command_line import nonnegative_int, positive_int
from cli.files import UserError
from cli.machine import usable_cores
from engine import lock
from reports.command import ROOT, Command, CommandFailed, run

PATIENCE = 20  # seconds until a scheduler must have answered
TERMINATED = 128 + signal.SIGTERM  # exit code of a script that SIGTERM ended; it has saved
TRIM = "MALLOC_TRIM_THRESHOLD_"  # `dask worker` sets it to free memory sooner; a training's steps then take half as long again
INSTALL = "pip install -r requirements-cluster.txt"


class Workers(Protocol):
    """Leaving the context ends the commands that still run."""

    slots: float  # commands that it takes at a time

    def __enter__(self) -> Workers: ...

    def __exit__(self, *exception: object) -> None: ...

    def submit(self, command: Command) -> Any:
        """Run a command, see `command.run`; a future."""

    def wait(self, futures: Collection[Any]) -> set[Any]:
        """Wait until one of the futures has ended, or more; these."""


class LocalWorkers:
    """Processes of this machine, a thread each that waits for its end.

    Args:
        slots: commands side by side; they share the cores, unless OMP_NUM_THREADS says how many threads each takes.
        shown: let the commands print to the terminal instead of to their logs.
    """

    def __init__(self, slots: int = 1, shown: bool = False) -> None:
        self.slots: float = slots
        self.shown, self.closed, self.pool = shown, threading.Event(), ThreadPoolExecutor(slots)
        self.environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // slots)), **os.environ}

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed.set()
        self.pool.shutdown()

    def submit(self, command: Command) -> concurrent.futures.Future[None]:
        if self.shown:
            print(f"\n+ python {shlex.join(command.words)}", flush=True)
        return self.pool.submit(run, command, self.environment, self.closed.is_set, self.shown)

    def wait(self, futures: Collection[concurrent.futures.Future[None]]) -> set[concurrent.futures.Future[None]]:
        return concurrent.futures.wait(futures, return_when=FIRST_COMPLETED).done


class DaskWorkers:
    """The workers of a Dask scheduler, which see the same files under the same paths as this process.

    Args:
        address: of the scheduler, such as tcp://10.0.0.1:8786, or the file that it wrote (dask scheduler --scheduler-file).
        gpus: `gpu` that each command with networks asks of its worker.
        cores: `cores` that each command asks of its worker, and threads that it takes; None: it asks for none.
    """

    def __init__(self, address: str, gpus: int = 0, cores: int | None = None) -> None:
        self.slots, self.address, self.gpus, self.cores = math.inf, address, gpus, cores
        self.rank = itertools.count()
        self.told: set[str] = set()  # demands for which it was looked whether a worker meets them

    def __enter__(self) -> DaskWorkers:
        try:
            import distributed
        except ImportError:
            raise UserError(f"--scheduler {self.address}: needs Dask; {INSTALL}") from None
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost scheduler is told in one line here
        place = {"scheduler_file": self.address} if Path(self.address).is_file() else {"address": self.address}
        try:
            self.client = distributed.Client(**place, timeout=PATIENCE)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {self.address}: no Dask scheduler answers there; start one with `dask scheduler` "
                            f"({str(error).splitlines()[0]})") from None
        return self

    def __exit__(self, *exception: object) -> None:
        """The scheduler drops what this client still waits for; `run_on_worker` then ends the commands."""
        self.client.close()

    def asks(self, command: Command) -> dict[str, int]:
        """What a worker must have (dask worker --resources) to get a command."""
        wanted = {"gpu": self.gpus * command.networks, "cores": self.cores or 0}
        return {name: count for name, count in wanted.items() if count}

    def submit(self, command: Command) -> Any:
        """A future of Dask's. Its key is new in each call: what an earlier call left on a worker is not taken for it."""
        key = f"{command.name}-{uuid.uuid4().hex}"
        with self._connected():
            self._warn(self.asks(command))
            return self.client.submit(run_on_worker, command, str(ROOT), self.cores, key=key, resources=self.asks(command),
                                      priority=-next(self.rank), pure=False)

    def wait(self, futures: Collection[Any]) -> set[Any]:
        import distributed

        with self._connected():
            return set(distributed.wait(list(futures), return_when="FIRST_COMPLETED").done)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn whatever a lost scheduler raises into a UserError: futures are cancelled, new ones refused."""
        try:
            yield
        except Exception as error:
            if self.client.status == "running" and not isinstance(error, concurrent.futures.CancelledError):
                raise
            raise UserError(f"--scheduler {self.address}: the scheduler is gone; once it and its workers are there again, the "
                            "same call goes on from here") from None

    def _warn(self, asked: dict[str, int]) -> None:
        """Say once that commands wait for a worker, if none has what they ask for."""
        words = " ".join(f"{name}={count}" for name, count in asked.items())
        if words in self.told:
            return
        self.told.add(words)
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if not any(all(worker["resources"].get(name, 0) >= count for name, count in asked.items()) for worker in workers):
            flags = f" --resources '{words}'" if words else ""
            print(f"{self.address}: no worker yet that commands wait for: start `dask worker{flags}` there", file=sys.stderr)


def run_on_worker(command: Command, root: str, cores: int | None) -> None:
    """Run a command as a task of a Dask worker.

    The worker may be closed, or the client be gone, while the command runs: then it is ended and, where the scheduler still
    wants it, started on another worker.

    Args:
        root: folder of the project, as the client has it.
        cores: see `DaskWorkers`; None: OMP_NUM_THREADS of the worker, else its cores, shared by its threads.

    Raises:
        CommandFailed, UserError: the worker has the project elsewhere.
    """
    import distributed
    from distributed.core import Status
    from distributed.worker import thread_state

    worker, key = distributed.get_worker(), thread_state.key
    if str(ROOT) != root:
        raise UserError(f"{worker.address} has the project in {ROOT}, this call in {root}; start workers with the Python of "
                        "the same folder, on a file system that all share")
    if not os.path.isdir(command.folder):
        raise UserError(f"{worker.address}: no folder {command.folder}: workers need the same files under the same paths")

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status not in (Status.running, Status.paused) or task is None or task.state != "executing"

    multiprocessing.current_process().daemon = False  # as a nanny's child it were, and could have no processes of its own
    shared = os.environ.get("OMP_NUM_THREADS", str(max(1, usable_cores() // worker.state.nthreads)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores or shared), lock.JOB: command.stamp}
    environment.pop(TRIM, None)
    try:
        run(command, environment, unwanted)
    except CommandFailed as failure:
        if failure.code == TERMINATED or unwanted():  # a scheduler of machines may tell the training before the worker
            raise distributed.Reschedule from None
        raise


def add_worker_flags(parser: argparse.ArgumentParser, jobs: int) -> None:
    """--jobs, --scheduler, --gpus, --cores; see `workers_of`.

    Args:
        jobs: default of --jobs.
    """
    parser.add_argument("--jobs", type=positive_int, default=jobs, help="commands side by side on this machine")
    parser.add_argument("--scheduler", metavar="ADDRESS|FILE", help="run the commands on the workers of this Dask scheduler")
    parser.add_argument("--gpus", type=nonnegative_int, default=0,
                        help="with --scheduler: `gpu` that each command with networks asks of its worker's --resources")
    parser.add_argument("--cores", type=positive_int,
                        help="with --scheduler: `cores` that each command asks of its worker, and threads that it takes")


def workers_of(args: argparse.Namespace) -> Workers:
    """The workers that the flags name.

    Raises:
        UserError: --gpus or --cores without --scheduler.
    """
    if args.scheduler:
        return DaskWorkers(args.scheduler, args.gpus, args.cores)
    for flag in ("gpus", "cores"):
        if getattr(args, flag):
            raise UserError(f"--{flag} {getattr(args, flag)}: asks the workers of --scheduler; commands here share its cores")
    return LocalWorkers(args.jobs)
