"""Figures and tables of the comparison, from the runs of `lad_plan`."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping
from pathlib import Path

from cli.files import counted, read_json
from related.lad.lad_plan import TITLES, LadCell, cost_of
from reports.comparison import difference, paired_difference, percent, spread
from reports.plan import Job
from utils.metrics import markdown_table

SCORES = {"miou": "mIoU", "bf": "BF"}
LABELS = {"image": "image alone", "own": "image and its own label", "zero": "image and zeros",
          "shuffled": "image and another's label"}
REACH = (("teacher with own label - image alone", 0.08), ("own label - another image's", 0.20), ("LAD - CE", 0.02))


def collect(args: argparse.Namespace, cells: Mapping[int, tuple[LadCell, dict[str, Job]]]) -> dict:
    """JSON-ready: `teachers`, label -> seed -> scores; `students`, row -> seed -> scores, seconds, epochs, passes."""
    teachers: dict = {}
    students: dict = {}
    for seed, (cell, jobs) in cells.items():
        image, teacher = (read_json(job.result, "test_last", "seconds") for job in (cell.image_net(), cell.teacher()))
        own = teacher["test_last"][0]
        of = {"image": image["test_last"][0], "own": own,
              **{label: {name: own[f"{name}_{label}"] for name in SCORES} for label in ("zero", "shuffled")}}
        for label, scores in of.items():
            teachers.setdefault(label, {})[str(seed)] = {name: scores[name] for name in SCORES}
        for row, job in jobs.items():
            result = read_json(job.result, "test_last", "seconds")
            epochs, passes = cost_of(cell.data.epochs, row)
            before = 0 if row.startswith("ce") else image["seconds"] + (teacher["seconds"] if row.startswith("lad") else 0)
            scores = {name: result["test_last"][0][name] for name in SCORES}
            students.setdefault(row, {})[str(seed)] = {**scores, "seconds": result["seconds"] + before, "epochs": epochs,
                                                       "passes": passes}
    kept = {flag: getattr(args, flag) for flag in ("seeds", "quick", "rows")}
    kept["other"] = [os.path.basename(word) if os.path.isabs(word) else word for word in args.other]  # no path of this machine
    if args.data:
        kept.update((flag, getattr(args, flag)) for flag in ("epochs", "teacher_epochs", "model", "encoder", "teacher_encoder"))
        kept["encoder_weights"] = Path(args.encoder_weights or "none").name
    data = Path(args.data).resolve().name if args.data else "scenes"
    return {"args": {**kept, "data": data}, "machine": image["machine"], "lad": {"teachers": teachers, "students": students}}


def by_seed(rows: dict, row: str, score: str) -> dict[int, float]:
    """A row's score by seed."""
    return {int(seed): figures[score] for seed, figures in rows[row].items()}


def teacher_table(teachers: dict) -> str:
    """Scores of the image-only network, and of the teacher by what it gets as label."""
    lines = []
    for label in teachers:
        cells = []
        for score in SCORES:
            own = by_seed(teachers, label, score)
            cells += [spread(list(own.values())), "-" if label == "image" else
                      difference(own, by_seed(teachers, "image", score))]
        lines.append([LABELS[label], *cells])
    return markdown_table(["teacher, %", *(head for title in SCORES.values() for head in
                                           (f"{title} ± sd", "- image alone ± 95 %"))], lines)


def student_table(students: dict) -> str:
    """Scores of each student, what it costs, also as a share of LAD's time, and its difference to cross-entropy."""
    lines = []
    seconds = {row: statistics.fmean(each["seconds"] for each in seeds.values()) for row, seeds in students.items()}
    for row, seeds in students.items():
        first = next(iter(seeds.values()))
        ratio = f"{seconds[row] / seconds['lad']:.2f}" if "lad" in seconds else "-"
        cells = [cell for score in SCORES for own in [by_seed(students, row, score)] for cell in
                 (spread(list(own.values())), "-" if row == "ce" else difference(own, by_seed(students, "ce", score)))]
        lines.append([TITLES[row], str(first["epochs"]), str(first["passes"]), f"{seconds[row] / 60:.1f}", ratio, *cells])
    return markdown_table(["student, %", "epochs", "passes of an image", "minutes, its teacher's too", "of LAD's time",
                           *(head for title in SCORES.values() for head in (f"{title} ± sd", "- CE ± 95 %"))], lines)


def rival_table(students: dict) -> str:
    """LAD's difference to each other row, and what may be said of it; nothing without LAD."""
    if "lad" not in students:
        return ""
    lines = []
    for row in students:
        if row != "lad":
            pairs = {score: (by_seed(students, "lad", score), by_seed(students, row, score)) for score in SCORES}
            lines.append([TITLES[row], *(difference(*pair) for pair in pairs.values()), verdict(*pairs["miou"])])
    return markdown_table(["LAD against", *(f"{title} ± 95 %" for title in SCORES.values()), "by mIoU LAD is"], lines)


def verdict(ours: dict, other: dict) -> str:
    """`better` or `worse` where the 95 % interval of the difference is clear of 0, else `not clear`; `one seed` has none."""
    mean, half, _ = paired_difference(ours, other)
    if len(ours) == 1:
        return "one seed"
    if mean is None or half is None or abs(mean) <= half:
        return "not clear"
    return "better" if mean > 0 else "worse"


def reach_table(teachers: dict, students: dict) -> str:
    """What the drawn scenes must show, as means over the seeds."""
    def mean(rows: dict, row: str) -> float:
        return statistics.fmean(by_seed(rows, row, "miou").values())

    found = [mean(teachers, "own") - mean(teachers, "image"), mean(teachers, "own") - mean(teachers, "shuffled")]
    found += [mean(students, "lad") - mean(students, "ce")] if "lad" in students else []
    lines = [[title, percent(least, 0, sign=True), percent(value, 1, sign=True), "yes" if value >= least else "no"]
             for (title, least), value in zip(REACH, found)]
    return markdown_table(["mIoU, points", "at least", "found", "reached"], lines)


def text_of(content: dict) -> str:
    """All tables of a table.json as Markdown."""
    teachers, students = content["lad"]["teachers"], content["lad"]["students"]
    drawn = content["args"]["data"] == "scenes"
    title = f"Label-assisted distillation on {content['args']['data']}, {counted(len(students['ce']), 'seed')}"
    parts = [title, teacher_table(teachers), student_table(students), rival_table(students)]
    parts += [reach_table(teachers, students)] * (drawn and not content["args"]["quick"])
    return "\n\n".join(part for part in parts if part)
