"""One option over several tables: where it wins, and where it does not. Scores are in 0..1 here and in percent in the table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cli.files import UserError
from reports import comparison
from reports.experiment import DRAWN
from reports.report_files import unpacked


def share_title(share: float, content: dict) -> str:
    """What a column of this share of noisy masks is called.

    Args:
        share: 0..1.
        content: of a table.json of `tables.py`.
    """
    drawn = any(Path(folder).parts[-3:-2] == (DRAWN,) for folder in content["runs"])  # HOME/drawn/seed0/NAME: no noise added
    if not share:
        return "clean masks"
    return "coarse as drawn" if share == 1 and drawn else f"{100 * share:.3g} % noisy"


def rows_of(content: dict) -> list[dict]:
    """The rows of `comparison.compare` of a table.json, last epoch, each with `share`, text.

    Raises:
        ValueError: the table's baseline is not among its runs.
    """
    baseline = content.get("baseline")
    rows = comparison.compare(unpacked(content), "test_last", baseline, content.get("clean") or "clean")
    if baseline and all(row["name"] != baseline for row in rows):
        raise ValueError(f"no run has the name of its baseline, {baseline}")
    for row in rows:
        share = row["noise_share"]
        row["share"] = "-" if share is None else share_title(share, content) if share else "clean"
    return rows


def across_text(tables: dict[str, list[dict]], names: Sequence[str]) -> str:
    """The runs of these names in all tables, as one Markdown table, in percent: each against the baseline of its own table,
    noise share and network.

    Args:
        tables: dict of name -> `rows_of` it; a table may lack some of the runs.

    Raises:
        UserError: no table has runs of one of the names, or two tables are compared by other scores.
    """
    scores = {table: comparison.compared_in(rows) for table, rows in tables.items()}
    first, compared = next(iter(scores.items()))
    for table, own in scores.items():
        if own != compared:
            raise UserError(f"{table}: is compared by {', '.join(own.values())}, {first} by {', '.join(compared.values())}; "
                            "tabulate them apart")
    for name in names:
        if all(row["name"] != name for rows in tables.values() for row in rows):
            raise UserError(f"--rows {name}: no table has runs of this name")
    found = [(table, row) for table, rows in tables.items() for name in dict.fromkeys(names) for row in rows
             if row["name"] == name]
    lines = [row for _, row in found]
    frame = pd.DataFrame({
        "table": [table for table, _ in found], "noise": [row["share"] for row in lines],
        "run": [row["label"] for row in lines], "seeds": [str(len(row["seeds"])) for row in lines],
        comparison.spread_title(" / ".join(compared.values()), lines):
            [" / ".join(comparison.with_spread(row["scores"][score], 1) for score in compared) for row in lines],
        **{comparison.spread_title(f"Δ {title}", lines, "interval"):
           [comparison.difference_text(row, score) for row in lines] for score, title in compared.items()},
        f"gap recovered, {' / '.join(compared.values())}":
            [" / ".join(comparison.percent(row["scores"][score]["recovered"], 0) for score in compared) for row in lines]})
    return comparison.markdown(frame)
