"""A Dask scheduler and its workers as processes of their own, on the loopback, as a user starts them."""

import subprocess
import sys

from tests.conftest import ROOT, environment
from tests.small_runs import wait_for

NANNY = {"MALLOC_TRIM_THRESHOLD_": "65536"}  # what Dask's nanny sets, which not all workers here have


class DaskCluster:
    """Leaving the context kills all that is left of them.

    Args:
        folder: of the scheduler's file and the logs.
        resources: of each worker, as `dask worker --resources` takes them.
        nanny: each worker is the child of one that starts it again, as is Dask's default.
    """

    def __init__(self, folder, *resources, nanny=False):
        self.folder, self.file = folder, folder / "scheduler.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.resources, self.workers, self.nanny = resources, [], nanny

    def start(self, kind, *flags):
        with open(self.folder / f"{kind}.log", "a") as log:
            seen = {**environment(), "PYTHONPATH": str(ROOT), **NANNY}
            return subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{kind}", "--host", "127.0.0.1",
                                     "--no-dashboard", "--scheduler-file", str(self.file), *flags], cwd=self.folder,
                                    env=seen, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self):
        self.scheduler = self.start("scheduler", "--port", "0")
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("}"), self.scheduler, 300)
        self.workers = [self.start_worker(each) for each in self.resources]
        return self

    def start_worker(self, resources):
        nanny = "--nanny" if self.nanny else "--no-nanny"
        return self.start("worker", nanny, "--nthreads", "1", "--resources", resources)

    def replace(self, number):
        """Kill a worker and start another one with its resources."""
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self.start_worker(self.resources[number])

    def __exit__(self, *exception):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
