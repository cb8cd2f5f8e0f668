"""What an audit says of each mask: the lines of ranking.csv and components.csv, and the sentences of its page."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError
from data.csv_files import read_table
from data.legend import Legend
from reports.audit_page import KINDS, group_table
from utils.faults import OBJECTS, Finding
from utils.own_scores import own_weights
from utils.verdict import Verdict

FORMULA = r"^[=+\-@\t\r]"  # beginning of a text that a spreadsheet runs; the page writes an apostrophe before it
PARTS = 5  # findings that a row of the page names
WEAK = 0.5  # median share of outlines in doubt above which the judge is called weak; a good one has 0.3 (docs/results/audit.md)
COUNTED = {"loose": "too loose", "tight": "too tight", "hasty": "with a hasty outline", "missing": "with an object missing",
           "extra": "with an object too many", "swapped": "with a class swapped"}


def ranking(rows: pd.DataFrame, verdicts: Sequence[Verdict], legend: Legend, notes: Sequence[str]) -> pd.DataFrame:
    """The table of ranking.csv, worst first, which train scripts read.

    Its columns: `image`, `mask`, `score`, `weight` (see `own_weights`), `kind`, `offset` (px, empty where there is none),
    `class`, `doubt`, `boxes` ("x y w h; ..."), `annotator` where the rows have it, `mend` where something was looked at, and
    `position`, that of the row.
    """
    table = rows[["image", "mask"]].reset_index(drop=True)
    findings = [verdict.finding for verdict in verdicts]
    table["score"] = [round(verdict.score, 4) for verdict in verdicts]
    outlined = [any(found.number and found.length for found in verdict.findings) for verdict in verdicts]
    table["weight"] = own_weights(table["score"].to_numpy(), np.array(outlined))[0].round(4)
    table["kind"] = [found.kind if found else "fine" for found in findings]
    table["offset"] = [round(found.offset, 1) if found else math.nan for found in findings]
    table["class"] = [legend.names[found.label] if found else "" for found in findings]
    table["doubt"] = [round(verdict.doubt, 3) for verdict in verdicts]
    table["boxes"] = ["; ".join(" ".join(map(str, box)) for box in verdict.places) for verdict in verdicts]
    if "annotator" in rows:
        table["annotator"] = rows["annotator"].to_numpy()
    if any(notes):
        table["mend"] = list(notes)
    table["position"] = np.arange(len(table))
    return table.sort_values("score", kind="stable")


def ticked_rows(csv: Path | str, rows: pd.DataFrame) -> list[int]:
    """Positions of the rows that are marked `fix` in the CSV that the page saves.

    Args:
        csv: with the columns `image`, `mask` and `tick`.
        rows: `image`, `mask`.

    Raises:
        UserError: no such columns, no row is marked `fix`, or one that is so is not among the rows.
    """
    table = read_table(csv, None)
    if not {"image", "mask", "tick"} <= set(table.columns):
        raise UserError(f"{csv}: no CSV of ticks, which has the columns image, mask and tick; the audit's page saves it")
    fixes = table[table["tick"] == "fix"]
    if fixes.empty:
        raise UserError(f"{csv}: no mask is ticked `fix`")
    known = {pair: position for position, pair in enumerate(zip(rows["image"], rows["mask"]))}
    written = {tuple(re.sub(FORMULA, r"'\g<0>", name) for name in pair): pair for pair in known}  # as the page has them
    pairs = [written.get(pair, pair) for pair in zip(fixes["image"], fixes["mask"])]
    for image, mask in pairs:
        if (image, mask) not in known:
            raise UserError(f"{csv}: {image} with {mask} is none of the rows of this audit; was it ticked on another page?")
    return [known[pair] for pair in pairs]


def component_table(rows: pd.DataFrame, verdicts: Sequence[Verdict], legend: Legend, order: Sequence[int]) -> pd.DataFrame:
    """The table of components.csv: a line for each component and each missing object, as the ranking has them."""
    lines = [{"image": rows["image"].iloc[position], "mask": rows["mask"].iloc[position], "kind": found.kind,
              "class": legend.names[found.label], "judge": legend.names[found.label if found.other is None else found.other],
              "offset": round(found.offset, 1), "doubt": round(found.doubt, 3), "length": found.length,
              "severity": round(found.severity, 3), "box": " ".join(map(str, found.box))}
             for position in order for found in sorted(verdicts[position].findings, key=lambda each: -each.importance)]
    columns = ["image", "mask", "kind", "class", "judge", "offset", "doubt", "length", "severity", "box"]
    return pd.DataFrame(lines, columns=columns)


def sentence(found: Finding | None, legend: Legend) -> str:
    """What is wrong, in a few words: "4.0 px too loose"."""
    if found is None:
        return "nothing annotated, nothing seen"
    name = f"{legend.names[found.label]}: " if len(legend.names) > 2 else ""
    if found.kind in ("loose", "tight"):
        return f"{name}{abs(found.offset):.1f} px {KINDS[found.kind]}"
    if found.kind == "hasty":
        return f"{name}hasty outline, {100 * found.doubt:.0f} % of it in doubt"
    if found.kind == "swapped":
        other = "nothing" if found.other is None else legend.names[found.other]
        return f"class swapped: annotated as {legend.names[found.label]}, the judge sees {other}"
    if found.kind == "fine":
        return "fine" if not name else f"fine; most doubt at {legend.names[found.label]}"
    return f"{name}{KINDS[found.kind]}"


def page_row(line: Any, verdict: Verdict, legend: Legend, shape: Sequence[int]) -> dict[str, Any]:
    """What the page says of a mask, see `audit_page`.

    Args:
        line: of `ranking`, a named tuple; its class under the name `label`.
        shape: (H, W) of the mask.
    """
    worst = sorted((each for each in verdict.findings if each.kind != "fine"), key=lambda each: -each.importance)
    parts = []
    for found in worst[:PARTS] if len(verdict.findings) > 1 or worst and worst[0].kind in OBJECTS else []:
        x, y, w, h = found.box
        doubt = "" if found.kind in OBJECTS else f", {100 * found.doubt:.0f} % of its outline in doubt"
        parts.append(f"{sentence(found, legend)} ({w} x {h} px at {x}, {y}{doubt})")
    if len(worst) > PARTS:
        parts.append(f"and {len(worst) - PARTS} more")
    if len(verdict.findings) == 1 and verdict.findings[0].kind not in OBJECTS:
        parts.append(f"{100 * verdict.doubt:.0f} % of the outline in doubt")
    return {"image": line.image, "mask": line.mask, "score": line.score, "kind": line.kind,
            "offset": None if math.isnan(line.offset) else line.offset, "class": line.label, "doubt": line.doubt,
            "annotator": getattr(line, "annotator", None), "verdict": sentence(verdict.finding, legend), "parts": parts,
            "shape": [shape[1], shape[0]]}


def lead_of(table: pd.DataFrame, unseen: Sequence[str] = ()) -> str:
    """The sentences on top of the page: how many masks look wrong, and how; and where not to trust the judge.

    Args:
        unseen: names of the classes that the judge does not see.
    """
    counts = Counter(table["kind"])
    wrong = len(table) - counts["fine"]
    doubt = table["doubt"].median()
    remedy = "Train it longer (--epochs), or name a better one (--pred-dir, --checkpoint)."
    if unseen and set(table["class"]) - {""} <= set(unseen):
        return f"No mask is judged: the judge does not see {', '.join(unseen)}. {remedy}"
    weak = (f" But the judge is weak: of half of the masks it doubts {100 * doubt:.0f} % of the outlines or more. {remedy}"
            if doubt > WEAK else "")
    if unseen:
        weak += f" It does not see {', '.join(unseen)}: masks of these classes are not judged."
    if not wrong:
        return f"All {len(table)} masks agree with the judge. Look at the first ones all the same.{weak}"
    parts = []
    for kind, words in COUNTED.items():
        if counts[kind]:
            offset = table.loc[table["kind"] == kind, "offset"].abs().median()
            by = f" (by {offset:.1f} px, the median)" if kind in ("loose", "tight") else ""
            parts.append(f"{counts[kind]} {words}{by}")
    agree = {0: "None agrees", 1: "1 agrees"}.get(counts["fine"], f"{counts['fine']} agree")
    return f"{wrong} of {len(table)} masks look wrong: {', '.join(parts)}. {agree} with the judge.{weak}"


def group_tables(table: pd.DataFrame) -> list[dict]:
    """The tables of the page: by class where there are several, and by annotator where the rows name them."""
    found = []
    if table["class"].nunique() > 1:
        found.append(group_table(table, "class", "By the class that is most in doubt"))
    if "annotator" in table:
        found.append(group_table(table.assign(annotator=table["annotator"].fillna("").replace("", "not named")), "annotator",
                                 "By annotator"))
    return found
