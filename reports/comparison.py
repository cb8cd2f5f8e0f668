"""Compare finished runs: means over seeds, differences to the baseline, and how much of the gap a method wins back.

A *group* is the runs that differ in nothing but their seed: one method at one noise share. Scores are in 0..1 here and in
percent in the tables.
"""

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from cli.files import UserError, read_json
from cli.lazy import scipy_stats
from reports.groups import NETWORK_FLAGS, agreeing, group_runs, network_of, settings_of
from reports.scores import Results, check_same_scores, column_titles, compared_of
from utils.metrics import markdown_table

EPOCHS = {"test": "best epoch by validation", "test_last": "last epoch"}

TEST_FLAGS = ("size", "theta", "num_classes")  # where a task has them: with other values, scores are not comparable


def read_runs(folders: Iterable[Path | str]) -> Results:
    """Read the result.json of each folder.

    Raises:
        UserError: a run is unfinished, has no test scores, or was tested on other rows or otherwise than the first.
    """
    results = {}
    for folder in folders:
        path = Path(folder) / "result.json"
        if not path.is_file():
            raise UserError(f"{folder}: no result.json; the run is not finished (resume it with --resume)")
        results[str(folder)] = read_json(path, "script", "name", "args", "test", "test_last")
    check_comparable(results)
    return results


def check_comparable(results: Results) -> None:
    """Raise UserError unless all runs were tested on the same rows, at the same size and tolerance, by the same scores.

    Runs of unlike precision are named on the standard error.
    """
    first_folder, first = next(iter(results.items()))
    for folder, result in results.items():
        if not result["test"]:
            raise UserError(f"{folder}: was run without --test_csv, there is nothing to tabulate")
        for flag in TEST_FLAGS:
            own, other = result["args"].get(flag), first["args"].get(flag)
            if own != other and None not in (own, other):  # None: as the data has it, and the test rows are compared below
                raise UserError(f"{folder}: tested with --{flag.replace('_', '-')} {own}, {first_folder} with {other}; "
                                "tabulate them apart")
        if not _same_test_set(result, first):
            raise UserError(f"{folder}: tested on {result['args']['test_csv']}, which holds other rows than "
                            f"{first['args']['test_csv']} of {first_folder}; tabulate them apart")
    check_same_scores(results)
    found = {result["args"]["precision"]: folder for folder, result in results.items() if result["args"].get("precision")}
    if len(found) > 1:  # by --fast on machines of two kinds, for instance
        print("trained with unlike --precision: " + ", ".join(f"{each} ({folder})" for each, folder in sorted(found.items()))
              + "; differences between such runs are also those of the precision", file=sys.stderr)


def _same_test_set(one: dict, other: dict) -> bool:
    digests = [result.get("test_set") for result in (one, other)]
    if None in digests:  # a run may be older than the digest
        return one["args"]["test_csv"] == other["args"]["test_csv"]
    return digests[0] == digests[1]


# --- statistics -------------------------------------------------------------------------------------------------


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """(mean or None without values, standard deviation over seeds or None for one seed)."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def paired_difference(method: dict[int, float],
                      baseline: dict[int, float]) -> tuple[float | None, float | None, int | None]:
    """The mean difference between a method and the baseline, taken seed by seed.

    Args:
        method, baseline: dict of seed -> score.

    Returns:
        (mean difference, half the width of its 95 % interval by Student's t, seeds); the half width is None with one seed,
        all are None with no seed in common.
    """
    differences = [method[seed] - baseline[seed] for seed in method.keys() & baseline.keys()]
    n = len(differences)
    if n < 2:
        return (differences[0] if n else None), None, n or None
    half_width = float(scipy_stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return statistics.fmean(differences), half_width, n


def recovered(method: float, baseline: float, clean: float, least: float = 0.01) -> float | None:
    """The share of the gap that a method wins back: (method - baseline) / (clean - baseline).

    1 means as good as a training on clean annotations.

    Args:
        method, baseline, clean: mean scores, 0..1.
        least: the smallest gap that counts, one point by default; another seed can change a score by as much.

    Returns:
        float; None where the gap is smaller than `least`.
    """
    return (method - baseline) / (clean - baseline) if clean - baseline >= least else None


def compare(results: Results, which: str = "test", baseline: str | None = None, clean: str = "clean") -> list[dict]:
    """Each group's scores, and where it stands between the baseline and the training on clean annotations.

    Args:
        results: dict of folder -> content of result.json.
        which: `test` (best epoch by validation) or `test_last`.
        baseline: name of the baseline's runs; default: of the first one. It is taken at the same noise share.
        clean: name of the runs on clean annotations; they serve every noise share.

    Each network is compared with its own kind: the baseline of another architecture is the run that differs from the named
    one in its network alone, and so is the run on clean annotations; where there is none, nothing is compared.

    Returns:
        list of dict, JSON-ready, one per group and network: `label`, `name`, `network` (0-based), `noise_share`, `rows` (to
        train on, None where the number is not known), `seeds`, `auroc` (mean, of the training weights), and `scores`: dict of
        score name -> {`title`, `mean`, `sd`}, of the compared scores with `difference`, `interval` (half width, 95 %),
        `pairs` (seeds of the difference), `recovered`. All scores are None where no seed has a value.
    """
    groups, titles = group_runs(results), column_titles(results)
    compared = compared_of(next(iter(results.values())))
    baselines, uppers = (_of_each_network(groups, results, name) for name in (baseline or groups[0]["name"], clean))
    rows = []
    for group in groups:
        first = results[next(iter(group["runs"].values()))]
        for network in range(len(first[which])):
            kind = network_of(first["args"], network)
            upper = agreeing(group, uppers.get(kind, []), results)
            lower = _baseline_of(group, baselines.get(kind, []), upper, results)
            row = {"label": group["label"] + (f", network {network + 1}" if network else ""), "name": group["name"],
                   "network": network, "noise_share": group["noise_share"], "rows": first.get("rows", {}).get("train"),
                   "seeds": sorted(group["runs"]), "auroc": _mean_auroc(results, group), "scores": {}}
            for score, title in titles.items():
                own = _by_seed(results, group, which, network, score)
                mean, spread = mean_and_spread(list(own.values()))
                row["scores"][score] = {"title": title, "mean": mean, "sd": spread}
                if score in compared:
                    row["scores"][score].update(_against(results, which, score, own, group, lower, upper))
            rows.append(row)
    return rows


def _of_each_network(groups: list[dict], results: Results, name: str) -> dict[tuple, list[dict]]:
    """The groups called `name`, and those that differ from one of them in their network alone.

    Returns:
        dict of `network_of` -> list of groups.
    """
    firsts = [results[next(iter(group["runs"].values()))] for group in groups]
    named = [first for group, first in zip(groups, firsts) if group["name"] == name]
    twins = {settings_of(first, NETWORK_FLAGS) for first in named}
    kinds = {network_of(first["args"]) for first in named}
    found: dict[tuple, list[dict]] = {}
    for group, first in zip(groups, firsts):
        kind = network_of(first["args"])
        if group["name"] == name or (kind not in kinds and settings_of(first, NETWORK_FLAGS) in twins):
            found.setdefault(kind, []).append(group)
    return found


def _baseline_of(group: dict, baselines: list[dict], upper: dict | None, results: Results) -> dict | None:
    """The baseline at the same noise share, or, without noise, the run on clean annotations; where a share is not known, the
    only baseline there is. Of several see `agreeing`."""
    share = group["noise_share"]
    with_share = [other for other in baselines if other["noise_share"] is not None]
    if share is not None and with_share:
        near = [other for other in with_share if abs(other["noise_share"] - share) < 0.005]
        return agreeing(group, near, results) if near else upper if share == 0 else None
    return baselines[0] if len(baselines) == 1 else None


def _by_seed(results: Results, group: dict, which: str, network: int, score: str) -> dict[int, float]:
    """Score of each seed that has one."""
    scores = {seed: results[folder][which][network].get(score) for seed, folder in group["runs"].items()}
    return {seed: value for seed, value in scores.items() if value is not None}


def _mean_auroc(results: Results, group: dict) -> float | None:
    values: list = [(results[folder].get("weights") or {}).get("auroc") for folder in group["runs"].values()]
    return None if None in values else statistics.fmean(values)


def _against(results: Results, which: str, score: str, own: dict[int, float], group: dict, lower: dict | None,
             upper: dict | None) -> dict:
    """Difference to the baseline and recovered gap, over the seeds that both have."""
    found: dict[str, float | None] = {"difference": None, "interval": None, "recovered": None, "pairs": None}
    if lower is None or group is lower:
        return found
    base = _by_seed(results, lower, which, 0, score)
    found["difference"], found["interval"], found["pairs"] = paired_difference(own, base)
    if upper is not None:
        best = _by_seed(results, upper, which, 0, score)
        common = own.keys() & base.keys() & best.keys()
        if common:
            means = (statistics.fmean(scores[seed] for seed in common) for scores in (own, base, best))
            found["recovered"] = recovered(*means)
    return found


# --- text -------------------------------------------------------------------------------------------------------


def percent(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """0.1234 -> 12.34; None -> -."""
    return "-" if value is None else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def spread(values: Sequence) -> str:
    """Mean and standard deviation over the seeds, in percent; `-` where one is missing."""
    if not values or None in values:
        return "-"
    mean, deviation = mean_and_spread(values)
    return with_spread({"mean": mean, "sd": deviation}, 1)


def difference(ours: dict, base: dict) -> str:
    """Mean paired difference of scores by seed, and half of its 95 % interval, in points."""
    mean, half, _ = paired_difference(ours, base)
    return percent(mean, 1, sign=True) + (f" ± {percent(half, 1)}" if half is not None else "")


def with_spread(score: dict, digits: int = 2) -> str:
    """{mean, sd} -> 12.34 ± 0.56, the standard deviation over the seeds."""
    return percent(score["mean"], digits) + (f" ± {percent(score['sd'], digits)}" if score["sd"] is not None else "")


def compared_in(rows: list[dict]) -> dict[str, str]:
    """Name -> title of the compared scores in the rows of `compare`."""
    return {name: score["title"] for name, score in rows[0]["scores"].items() if "difference" in score}


def decisive_score(rows: list[dict]) -> str:
    """Name of the one score that advice and gain.png go by: the last compared one in the rows of `compare`.

    Segmentation compares by mIoU and BF. BF stands last, and reacts to coarse masks more than mIoU does.
    """
    return list(compared_in(rows))[-1]


def spread_title(title: str, rows: list[dict], kind: str = "sd") -> str:
    """The title of a column, with what its ± is where a row of `compare` has one.

    Args:
        kind: `sd`, the standard deviation over the seeds, or `interval`, the 95 % interval of the mean difference.
    """
    shown = any(row["scores"][score].get(kind) is not None for row in rows for score in compared_in(rows))
    return title + {"sd": " ± sd", "interval": " ± 95 %"}[kind] * shown


def score_frame(rows: list[dict]) -> pd.DataFrame:
    """The rows of `compare` as a DataFrame of text, in percent; a column that is empty in all rows is left out."""
    compared = compared_in(rows)
    of_weights = "AUROC of the weights" if "AUROC" in [score["title"] for score in rows[0]["scores"].values()] else "AUROC"
    frame = pd.DataFrame({
        "run": [row["label"] for row in rows],
        "noise": [percent(row["noise_share"], 0) for row in rows],
        "seeds": [str(len(row["seeds"])) for row in rows],
        **{spread_title(score["title"], rows): [with_spread(row["scores"][name]) for row in rows]
           for name, score in rows[0]["scores"].items()},
        **{spread_title(f"Δ {title}", rows, "interval"): [difference_text(row, name) for row in rows]
           for name, title in compared.items()},
        f"gap recovered, {' / '.join(compared.values())}":
            [" / ".join(percent(row["scores"][name]["recovered"], 0) for name in compared) for row in rows],
        of_weights: ["-" if row["auroc"] is None else f"{row['auroc']:.3f}" for row in rows]})
    return frame.drop(columns=[column for column in frame if not any(set(cell) - set("- /") for cell in frame[column])])


def difference_text(row: dict, name: str) -> str:
    """The difference by one score of a row of `compare`: +1.23 ± 0.45, in points, or -; fewer pairs than seeds are told."""
    score = row["scores"][name]
    interval = "" if score["interval"] is None else f" ± {percent(score['interval'])}"
    text = f"{percent(score['difference'], sign=True)}{interval}"
    return text if score["pairs"] in (None, len(row["seeds"])) else f"{text} (n = {score['pairs']})"


def markdown(frame: pd.DataFrame) -> str:
    """A DataFrame of text as a Markdown table."""
    return markdown_table(frame.columns, frame.to_numpy())


def number_frame(rows: list[dict]) -> pd.DataFrame:
    """The rows of `compare` as a DataFrame of numbers, for a CSV: scores in 0..1, a column each."""
    def numbers(row: dict) -> dict:
        scores = {f"{name}_{key}": value for name, score in row["scores"].items() for key, value in score.items()
                  if key != "title"}
        return {**{key: row[key] for key in ("label", "noise_share", "auroc")}, "seeds": len(row["seeds"]), **scores}

    return pd.DataFrame(map(numbers, rows))
