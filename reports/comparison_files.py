"""The end of every comparison: run what it plans, and leave its tables as table.json and table.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cli.files import atomic_path, write_json
from engine import lock
from reports.plan import Job, run_plan
from reports.workers import Workers


def run_and_write(home: Path, jobs: Iterable[Job], workers: Workers, collect: Callable[[], dict],
                  text_of: Callable[[dict], str]) -> None:
    """Run the jobs of a comparison, and write and print its tables.

    Args:
        home: folder of the comparison, locked while jobs run; gets table.json and table.md.
        jobs, workers: see `run_plan`.
        collect: gives what the tables show, JSON-ready; called once all jobs are finished.
        text_of: that -> the tables as Markdown.

    Raises:
        UserError: see `lock.folder_lock` and `run_plan`.
    """
    with lock.folder_lock(home):
        run_plan(jobs, workers)
    content = collect()
    text = text_of(content)
    write_json(home / "table.json", content)
    with atomic_path(home / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\ntables: {home / 'table.md'}")
