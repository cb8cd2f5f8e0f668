"""Figures and tables of the comparison on detectors, from the runs of `detector_plan`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from cli.files import read_json
from related.nlis.detector_plan import FORKED_AT, DataSet, DetectorJobs
from related.nlis.roi_table import by_seed
from reports.comparison import difference, percent, spread
from reports.plan import Job
from utils.metrics import markdown_table

SCORES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
TITLES = {"ce": "cross-entropy (CE)", "nlis": "NLIS", "weighted": "NLIS, RCE weighted by out-of-fold trust"}
Jobs = dict[tuple[str, int, int], Job]  # by row or `trust`, percent of wrong labels, seed


def plan(home: Path, data: DataSet, seeds: Collection[int], quick: bool, shared: dict[Path, Job]) -> Jobs:
    """The jobs of a data set: CE and NLIS for all seeds; the weighted row, and trust at all rates, for the first one."""
    jobs, first = DetectorJobs(home, shared, data, quick), min(seeds)
    rates = data.rates[:1] if quick else data.rates
    found = {(row, FORKED_AT, seed): jobs.forked(row, FORKED_AT, seed) for row in ("ce", "nlis") for seed in seeds}
    if FORKED_AT in rates:
        found["weighted", FORKED_AT, first] = jobs.forked("weighted", FORKED_AT, first)
    return found | {("trust", rate, first): jobs.trust(rate, first) for rate in rates}


def collect(jobs: Jobs) -> dict:
    """JSON-ready: `rows`, row -> seed -> test scores of the last epoch; `trust`, percent -> seed -> what trust finds."""
    found: dict = {"rows": {}, "trust": {}}
    for (row, rate, seed), job in jobs.items():
        if row == "trust":
            found["trust"].setdefault(str(rate), {})[str(seed)] = read_json(job.result, "auroc", "auprc", "wrong")
        else:
            result = read_json(job.result, "test_last", "seconds", "sets")
            scores = {name: result["test_last"][0][name] for name in SCORES}
            found["rows"].setdefault(row, {})[str(seed)] = {**scores, "seconds": result["seconds"], "sets": result["sets"]}
    return found


def text_of(content: dict, name: str) -> str:
    """The tables of a data set as Markdown."""
    rows, lines = content["rows"], []
    for row in rows:
        of = {score: by_seed(rows, row, score) for score in SCORES}
        base = {score: by_seed(rows, "ce", score) for score in SCORES}
        lines.append([TITLES[row], str(len(rows[row])), *(spread(list(values.values())) for values in of.values()),
                      "-" if row == "ce" else difference(of["ap50"], base["ap50"])])
    heads = ["mask scores, %", "seeds", *(f"{title} ± sd" for title in SCORES.values()), "AP50 - CE ± 95 %"]
    forked = markdown_table(heads, lines)
    parts = [f"Detector on {name}, {FORKED_AT} % of the labels wrong, forked from one stage 1", forked]
    if content["trust"]:
        found = [[f"{rate} %", *(spread([each[key] for each in seeds.values()]) for key in ("auroc", "auprc")),
                  percent(next(iter(seeds.values()))["wrong"], 1)] for rate, seeds in content["trust"].items()]
        parts += [f"Wrong labels of {name}, found by the out-of-fold trust in each label, in percent",
                  markdown_table(["labels made wrong", "AUROC", "AUPRC", "chance of AUPRC: share that is wrong"], found)]
    return "\n\n".join(parts)
