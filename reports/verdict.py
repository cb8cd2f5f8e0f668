"""What a report says in words: how far its teachers can be trusted, and what weights bring on this data."""

from pathlib import Path

import pandas as pd

from reports import comparison
from utils.judge import weakness
from utils.metrics import markdown_table

SEED_POINTS = 0.02  # BF, 0..1: two trainings that differ in their seed alone often differ so much
LISTED = 20  # annotations with the lowest weights


def verdict(results: dict, weights: dict, recommended: str, baseline: str | None = None, clean: str = "clean") -> str | None:
    """One sentence: what weights bring at the last epoch, and which option to take; None where runs are missing.

    Args:
        results: dict of folder -> content of result.json.
        weights: dict of name -> summary of a weight CSV, see `report_files.weight_summaries`.
        recommended: name of the runs of the recommended option.
        baseline, clean: see `comparison.compare`.
    """
    rows = {row["name"]: row for row in comparison.compare(results, "test_last", baseline, clean) if not row["network"]}
    baseline = baseline or next(iter(rows))
    option, base, upper = (rows.get(name) for name in (recommended, baseline, clean))
    if option is None or base is None or option["bf"]["difference"] is None:
        return None
    alone = f"take no weights (`{baseline}`)"
    gap = upper["bf"]["mean"] - base["bf"]["mean"] if upper else None
    if gap is not None and gap < SEED_POINTS:
        return (f"Clean masks bring {_points(gap)} of BF here, no more than one seed changes, so weights have nothing to win "
                f"back: {alone}.")
    others = [row for row in rows.values() if row["name"] not in (recommended, baseline, clean)]
    best = max((row for row in others if row["bf"]["difference"] is not None), key=lambda row: row["bf"]["difference"],
               default=None)
    return _choice(option, best, _summary_of(recommended, results, weights), alone)


def _choice(option, other, summary, alone):
    """The sentence where weights have something to win.

    Args:
        option: row of the recommended option.
        other: the best row of another option, or None.
        summary: of the recommended option's weights.
        alone: advice to take no weights.
    """
    gain, won = option["bf"]["difference"], other and other["bf"]["difference"] > SEED_POINTS
    if summary.get("fallback") or summary.get("mean_weight") == 1:
        reason = summary.get("fallback") or "since no mask stands out as coarse to the teacher"
        advice = f"`{other['name']}` brings {_gain(other)}, take it" if won else alone
        return f"All weights of `{option['name']}` are 1, {reason}: {advice}, or train the teachers longer or on more masks."
    if won and (gain <= SEED_POINTS or other["bf"]["difference"] > gain + SEED_POINTS):
        return (f"Weights bring {_gain(other)}, and the recommended `{option['name']}` brings {_points(gain)}: take "
                f"`{other['name']}`.")
    if gain > SEED_POINTS:
        return f"Weights bring {_gain(option)}: take `{option['name']}`."
    if gain >= -SEED_POINTS:
        return f"Weights bring {_points(gain)} of BF here, no difference beyond what one seed changes: {alone}."
    return f"Weights cost {_points(-gain)} of BF here: {alone}."


def _gain(row):
    share = row["bf"]["recovered"]
    gap = "" if share is None else f", {100 * share:.0f} % of the gap to clean masks"
    return f"{_points(row['bf']['difference'])} of BF here{gap}"


def _points(value):
    return f"{100 * value:+.1f} points" if value < 0 else f"{100 * value:.1f} points"


def _summary_of(name, results, weights):
    """The summary of the weights that the runs of a name learn by; empty where it is not known."""
    csvs = {Path(result["args"]["train_csv"]).stem for result in results.values() if Path(result["name"]).name == name}
    return next((summary for key, summary in weights.items() if Path(key).name in csvs), {})


def teacher_text(weights: dict) -> str:
    """A paragraph per weight CSV whose teacher's agreement is known, with a warning where it is low; empty where none is.

    Args:
        weights: see `verdict`.
    """
    lines = []
    for name, summary in weights.items():
        agreement = summary.get("agreement")
        if agreement:
            tolerance = f" (BF within {summary['theta']:.3g} px)" if (summary.get("theta") or 0) >= 1 else ""
            line = ("Teacher of {}: on average its pseudo-labels agree with the annotations by mIoU {miou:.3f}, BF {bf:.3f}, "
                    "bm {bm:.3f}{}.").format(name, tolerance, **agreement)
            if weakness(agreement):
                line += (" Warning: this teacher is weak, and a weak teacher gives good masks low weights too. Train it longer "
                         "or on more masks before you trust its weights.")
            lines.append(line)
    return "".join(f"{line}\n\n" for line in lines)


def lowest_weights(tables: dict[str, pd.DataFrame], count: int = LISTED) -> str:
    """The annotations with the lowest weights, lowest first, as a Markdown table of weight, mask and image.

    Args:
        tables: dict of name -> rows of a weight CSV. The last one whose weights differ is shown; without one, the text is
            empty.
    """
    name, rows = next(((name, rows) for name, rows in reversed(tables.items()) if rows["weight"].nunique() > 1), ("", None))
    if rows is None:
        return ""
    found = rows.sort_values("weight", kind="stable").head(count)
    lines = [[f"{row.weight:.3f}", *(str(path).replace("|", "\\|") for path in (row.mask, row.image))]
             for row in found.itertuples()]
    table = markdown_table(["weight", "mask", "image"], lines)
    return f"Lowest weights of {name}, {len(lines)} of {len(rows)} annotations:\n\n{table}\n"
