"""The sentences of a report: how well its teachers agree with the annotations, and what the weights win."""

from pathlib import Path

import pandas as pd

from reports import comparison
from reports.scores import Results
from utils.judge import weakness
from utils.metrics import markdown_table

Option = tuple[str, dict]  # name of its runs, its decisive score of `comparison.compare`

SEED_POINTS = 0.02  # of a score in 0..1: two trainings that differ only in their seed often differ by this much
LISTED = 20  # annotations with the lowest weights


def verdict(results: Results, weights: dict[str, dict], recommended: str, baseline: str | None = None,
            clean: str = "clean") -> str | None:
    """One sentence: what weights bring at the last epoch, and which option to take; None where runs are missing, or the
    option or the baseline stands in several rows.

    It goes by one score, see `comparison.decisive_score`.

    Args:
        results: dict of folder -> content of result.json.
        weights: dict of name -> summary of a weight CSV, see `report_files.weight_summaries`.
        recommended: name of the runs of the recommended option.
        baseline, clean: see `comparison.compare`.
    """
    compared = comparison.compare(results, "test_last", baseline, clean)
    firsts = [row for row in compared if not row["network"]]
    rows = {row["name"]: row for row in firsts}
    baseline = baseline or next(iter(rows))
    if any(sum(row["name"] == each for row in firsts) > 1 for each in (recommended, baseline)):
        return None  # one sentence cannot speak of several shares of noise, or lengths of training
    name = comparison.decisive_score(compared)
    scores = {each: row["scores"][name] for each, row in rows.items()}
    option, base, upper = (scores.get(each) for each in (recommended, baseline, clean))
    if option is None or base is None or option["difference"] is None:
        return None
    alone = f"take no weights (`{baseline}`)"
    gap = upper["mean"] - base["mean"] if upper and upper["mean"] is not None else None
    if gap is not None and gap < SEED_POINTS:
        return (f"Training on clean annotations gains only {_points(gap)} of {option['title']} here, and another seed can "
                f"change as much, so weights have nothing to win back: {alone}.")
    others = [each for each, score in scores.items()
              if each not in (recommended, baseline, clean) and score["difference"] is not None]
    best = max(others, key=lambda each: scores[each]["difference"], default=None)
    return _choice((recommended, option), (best, scores[best]) if best else None, _summary_of(recommended, results, weights),
                   alone)


def _choice(option: Option, other: Option | None, summary: dict, alone: str) -> str:
    """The sentence where weights have something to win.

    Args:
        option: the recommended one.
        other: the best one of the others, or None.
        summary: of the recommended option's weights.
        alone: advice to take no weights.
    """
    name, score = option
    gain, title = score["difference"], score["title"]
    better = other if other and other[1]["difference"] > SEED_POINTS else None  # than the baseline
    if summary.get("fallback") or summary.get("mean_weight") == 1:
        judge, remedy = (("its network", "longer") if summary.get("own") else
                         ("the teacher", "the teachers longer or on more annotations"))
        reason = summary.get("fallback") or f"since no annotation stands out as noisy to {judge}"
        advice = f"`{better[0]}` brings {_gain(better[1])}, take it" if better else alone
        return f"All weights of `{name}` are 1, {reason}: {advice}, or train {remedy}."
    if better and (gain <= SEED_POINTS or better[1]["difference"] > gain + SEED_POINTS):
        return (f"Weights bring {_gain(better[1])}, and the recommended `{name}` brings {_points(gain)}: take "
                f"`{better[0]}`.")
    if gain > SEED_POINTS:
        return f"Weights bring {_gain(score)}: take `{name}`."
    if gain >= -SEED_POINTS:
        return f"Weights bring {_points(gain)} of {title} here, another seed can change as much: {alone}."
    return f"Weights cost {_points(-gain)} of {title} here: {alone}."


def _gain(score: dict) -> str:
    share = score["recovered"]
    gap = "" if share is None else f", {100 * share:.0f} % of the gap to clean annotations"
    return f"{_points(score['difference'])} of {score['title']} here{gap}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points" if value < 0 else f"{100 * value:.1f} points"


def _summary_of(name: str, results: Results, weights: dict[str, dict]) -> dict:
    """The summary of the weights that the runs of a name learn by; empty where it is not known.

    Where no weight CSV of theirs is in the report, it is what their result.json says: `mean_weight`, the mean over the runs;
    `fallback`, where each of them has one; and `own`, since these weights have no teacher. A further pass that learnt doubted
    masks tells nothing: what it learnt does not go by its last weights.
    """
    runs = [result for result in results.values() if Path(result["name"]).name == name]
    csvs = {Path(result["args"]["train_csv"]).stem for result in runs}
    of_csv = next((summary for key, summary in weights.items() if Path(key).name in csvs), None)
    facts = [result.get("weights") or {} for result in runs]
    if of_csv is not None or not facts or any(each.get("mean") is None or each.get("doubted") for each in facts):
        return of_csv or {}
    reasons = [each.get("fallback") for each in facts]
    return {"mean_weight": sum(each["mean"] for each in facts) / len(facts), "fallback": reasons[0] if all(reasons) else None,
            "own": all("from_epoch" in result["args"] for result in runs)}


def teacher_text(weights: dict[str, dict], titles: dict[str, str]) -> str:
    """A paragraph per weight CSV whose teacher's agreement is known, with a warning where it is low; empty where none is.

    Args:
        weights: see `verdict`.
        titles: score name -> title; agreement scores without one go by their names.
    """
    lines = []
    for name, summary in weights.items():
        agreement = summary.get("agreement")
        if agreement:
            tolerance = f" (BF within {summary['theta']:.3g} px)" if (summary.get("theta") or 0) >= 1 else ""
            scores = ", ".join(f"{titles.get(score, score)} {value:.3f}" for score, value in agreement.items()
                               if value is not None)
            line = f"Teacher of {name}: on average its pseudo-labels agree with the annotations by {scores}{tolerance}."
            if "bm" in agreement and weakness(agreement):
                line += (" Warning: this teacher is weak, and a weak teacher gives good annotations low weights too. Train it "
                         "longer or on more annotations before you trust its weights.")
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
