"""Jobs of a comparison that lie in one folder, each result computed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reports.plan import Job, named_files


@dataclass
class JobFolder:
    """Makes the jobs of a comparison.

    Args:
        home: folder of all of them.
        jobs: dict of result file -> job; a second job of one result is the first.
        quick: train fewer epochs.
    """

    home: Path
    jobs: dict[Path, Job]
    quick: bool = False

    def job(self, result: Path, needs: list[Job], *command: object) -> Job:
        """The job of a command that leaves `result`, a path in `home`."""
        words = [str(word) for word in command]
        log = self.home / "logs" / ("_".join(result.relative_to(self.home).with_suffix("").parts) + ".out")
        return self.jobs.setdefault(result, Job(words, result, needs, log, self.home, named_files(words, self.home)))
