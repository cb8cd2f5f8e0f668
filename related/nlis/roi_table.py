"""Figures and tables of the RoI bench, from the runs of `roi_plan`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cli.files import read_json
from related.nlis.roi_plan import NOISE, TITLES, RoiCell
from reports.comparison import difference, spread
from reports.plan import Job
from utils.metrics import markdown_table

SCORES = {"class_accuracy": "right class of digits", "foreground_accuracy": "digit or background"}
ROWS = {noise: ["ce", "sce", "gce", "nlis"] for noise in NOISE}
ROWS["SN50"] = ROWS["AN40"] = list(TITLES)
NOTES = {"SN50": "half of the digits' labels wrong, all other digits alike",
         "AN40": "40 % of the digits' labels wrong, each taken for the one that it looks like",
         "clean": "all labels right", "random": "every digit's label drawn from all ten: 10 % is chance"}


def plan(home: Path, seeds: Collection[int], quick: bool, shared: dict[Path, Job]) -> dict[tuple[str, int, str], Job]:
    """The last job of each (noise, seed, row)."""
    return {(noise, seed, row): RoiCell(home / "rois", shared, noise, seed, quick).row(row)
            for noise, rows in ROWS.items() for seed in seeds for row in rows}


def collect(jobs: dict[tuple[str, int, str], Job]) -> dict:
    """Test scores of the last epoch, JSON-ready: noise -> row -> seed -> figures."""
    found: dict = {}
    for (noise, seed, row), job in jobs.items():
        result = read_json(job.result, "test_last", "seconds", "sets")
        scores = {name: result["test_last"][0][name] for name in SCORES}
        found.setdefault(noise, {}).setdefault(row, {})[str(seed)] = {**scores, "seconds": result["seconds"],
                                                                      "sets": result["sets"]}
    return found


def by_seed(rows: dict, row: str, score: str) -> dict[int, float]:
    """A row's score by seed."""
    return {int(seed): figures[score] for seed, figures in rows[row].items()}


def text_of(content: dict) -> str:
    """The tables as Markdown."""
    parts = []
    for noise, rows in content.items():
        lines = []
        for row in rows:
            of = {score: by_seed(rows, row, score) for score in SCORES}
            lines.append([TITLES[row], *(cell for score, values in of.items() for cell in
                                         (spread(list(values.values())),
                                          "-" if row == "ce" else difference(values, by_seed(rows, "ce", score))))])
        heads = [head for title in SCORES.values() for head in (f"{title} ± sd", "- CE ± 95 %")]
        parts += [f"RoI bench, `{noise}`: {NOTES[noise]}; {len(rows['ce'])} seeds", markdown_table(["%", *heads], lines)]
    return "\n\n".join(parts)
