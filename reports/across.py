"""One option over several tables: where it wins, and where it does not. Scores are in 0..1 here and in percent in the table."""

from collections.abc import Sequence

import pandas as pd

from cli.files import UserError
from reports import comparison
from reports.experiment import DRAWN
from reports.report_files import unpacked


def share_title(share: float, content: dict) -> str:
    """What a column of this share of noisy annotations is called.

    Args:
        share: 0..1.
        content: of a table.json.
    """
    drawn = any(f"/{DRAWN}/" in folder for folder in content["runs"])  # nothing was added: they are coarse as they are
    if share in (0, 1) and (drawn or not share):
        return "coarse as drawn" if share else "clean masks"
    return f"{100 * share:.0f} % noisy"


def across_rows(contents: dict[str, dict], names: Sequence[str]) -> list[dict]:
    """Each run of these names in each table, at each share of noisy annotations.

    Args:
        contents: dict of name -> content of a table.json.
        names: of runs; a table may lack some.

    Returns:
        list of dict: `table`, `share` (text) and a row of `comparison.compare`, whose differences are those to the baseline of
        its own table and network.

    Raises:
        UserError: no table has runs of one of the names, or two tables are compared by other scores.
    """
    found, compared = [], {}
    for table, content in contents.items():
        rows = [row for row in comparison.compare(unpacked(content), "test_last", content.get("baseline"),
                                                  content.get("clean") or "clean") if not row["network"]]
        compared[table] = comparison.compared_in(rows)
        for name in names:
            found += [{"table": table, "share": "-" if row["noise_share"] is None else share_title(row["noise_share"], content),
                       **row} for row in rows if row["name"] == name]
    for name in names:
        if all(row["name"] != name for row in found):
            raise UserError(f"--rows {name}: no table has runs of this name")
    first = next(iter(compared))
    for table, scores in compared.items():
        if scores != compared[first]:
            raise UserError(f"{table}: is compared by {', '.join(scores.values())}, {first} by "
                            f"{', '.join(compared[first].values())}; tabulate them apart")
    return found


def across_text(contents: dict[str, dict], names: Sequence[str]) -> str:
    """`across_rows` as a Markdown table, in percent.

    Args:
        contents, names: see `across_rows`.
    """
    rows = across_rows(contents, names)
    compared = comparison.compared_in(rows)
    frame = pd.DataFrame({
        "table": [row["table"] for row in rows], "noise": [row["share"] for row in rows], "run": [row["name"] for row in rows],
        "seeds": [str(len(row["seeds"])) for row in rows],
        comparison.spread_title(" / ".join(compared.values()), rows):
            [" / ".join(comparison.with_spread(row["scores"][score], 1) for score in compared) for row in rows],
        **{comparison.spread_title(f"Δ {title}", rows, "interval"):
           [comparison.difference_text(row["scores"][score]) for row in rows] for score, title in compared.items()},
        f"gap recovered, {' / '.join(compared.values())}":
            [" / ".join(comparison.percent(row["scores"][score]["recovered"], 0) for score in compared) for row in rows]})
    return comparison.markdown(frame)
