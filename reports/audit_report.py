"""What an audit leaves: ranking.csv, components.csv, report.html, proposals, mended masks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from cli.files import progress, write_rows
from data.legend import Legend
from data.pictures import image_size, read_checked_mask, read_image, resize_labels
from engine.annotation_audit import audit_rows, mend_rows, working_size
from reports.audit_judge import judge_of
from reports.audit_page import audit_page, picture_of, picture_side
from reports.audit_tables import component_table, group_tables, lead_of, page_row, ranking
from utils.faults import TOLERANCE
from utils.generate_noisy_label import noisy_mask_names
from utils.verdict import Verdict, doubtful_pixels, settled, tempered, unseen_classes


def write_audit(args: argparse.Namespace, rows: pd.DataFrame, legend: Legend, outputs: Sequence[Path],
                written_at: Callable[[Path], Path]) -> pd.DataFrame:
    """Judge all rows and write all that an audit leaves.

    Args:
        args: flags of audit.py.
        outputs: of ranking.csv, components.csv, report.html and, with --mend, mended.csv.
        written_at: of `cli.files.together`.

    Returns:
        `ranking`, with the sentence that sums it up in `attrs`.
    """
    names = noisy_mask_names(rows)
    judge, trust = judge_of(args, rows)
    proposals = [written_at(args.out / "proposals" / name) for name in names]
    found = audit_rows(rows, judge, args.num_classes, args.background, args.tolerance, proposals.__getitem__)
    unseen = [legend.names[label] for label in sorted(unseen_classes(found))]
    verdicts = [tempered(*pair, args.num_classes) for pair in zip(settled(found), trust.tolist())]
    notes = [""] * len(rows)
    if args.mend:
        mended = [written_at(args.out / "mended" / name) for name in names]
        notes = mend_rows(rows, verdicts, args.num_classes, args.background, args.tolerance, proposals, mended.__getitem__)
        masks = [str(args.out / "mended" / name) if path.exists() else mask
                 for name, path, mask in zip(names, mended, rows["mask"])]
        write_rows(written_at(outputs[3]), rows.assign(mask=masks))
    table = ranking(rows, verdicts, legend, notes)
    table.drop(columns="position").to_csv(written_at(outputs[0]), index=False)
    component_table(rows, verdicts, legend, table["position"].tolist()).to_csv(written_at(outputs[1]), index=False)
    table.attrs["lead"] = lead_of(table, unseen)
    write_page(args, written_at(outputs[2]), table, verdicts, legend, proposals)
    return table


def write_page(args: argparse.Namespace, path: Path, table: pd.DataFrame, verdicts: Sequence[Verdict], legend: Legend,
               proposals: Sequence[Path]) -> None:
    """Write report.html, piece by piece."""
    lines = [page_row(line, verdicts[position], legend, image_size(mask)) for line, position, mask in
             zip(table.rename(columns={"class": "label"}).itertuples(), table["position"].tolist(), table["mask"].tolist())]
    tolerance = f"{args.tolerance:g} px" if args.tolerance else f"{100 * TOLERANCE:.2g} % of the picture's diagonal"
    name = Path(args.folder).resolve().name if args.folder else Path(args.csv).name
    with open(path, "w", encoding="utf-8") as file:
        drawn = pictures(args, table, verdicts, proposals)
        for piece in audit_page(lines, drawn, f"Audit of {name}", table.attrs["lead"], tolerance, group_tables(table)):
            file.write(piece)


def pictures(args: argparse.Namespace, table: pd.DataFrame, verdicts: Sequence[Verdict],
             proposals: Sequence[Path]) -> Iterator[list]:
    """The pictures of the page, in the order of the ranking, each made when the page takes it."""
    for place, line in enumerate(progress(table.itertuples(), "drawing the page", len(table), "picture")):
        labels, proposal = (read_checked_mask(path, args.num_classes) for path in (line.mask, proposals[line.position]))
        size = working_size(labels.shape)
        scale = size[0] / labels.shape[0]
        labels, proposal = resize_labels(labels, size), resize_labels(proposal, size)
        tolerance = (args.tolerance * scale) if args.tolerance else max(1.0, TOLERANCE * math.hypot(*size))
        verdict = verdicts[line.position]
        wrong = sorted({found.label for found in verdict.findings if found.kind != "fine"}
                       | {found.other for found in verdict.findings if found.other is not None})
        classes = [1] if args.num_classes == 2 else [c for c in wrong if c != args.background]
        yield picture_of(read_image(line.image), labels, proposal, doubtful_pixels(labels, proposal, tolerance), classes,
                         picture_side(place, len(table)))
