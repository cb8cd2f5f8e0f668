"""Finished runs side by side: seeds averaged, differences to the baseline, and how much of the gap a method wins back.

A *group* is the runs that differ in nothing but their seed: one method at one noise share. Scores are in 0..1 here and in
percent in the tables.
"""

import statistics
from pathlib import Path

import pandas as pd

from cli.files import UserError, read_json
from cli.lazy import LazyModule
from engine.run_folder import FREE_FLAGS
from utils.metrics import markdown_table

stats = LazyModule("scipy.stats")

SCORES = {"miou": "mIoU", "bf": "BF", "dice": "Dice", "boundary_iou": "Boundary IoU"}
COMPARED = ("miou", "bf")  # with differences and recovered gap
EPOCHS = {"test": "best epoch by validation", "test_last": "last epoch"}

SEED_FLAGS = {"seed", "name", "train_csv", "valid_csv", "test_csv", "command", *FREE_FLAGS}  # the seeds of a method may differ
NETWORK_FLAGS = {f"{flag}{which}" for flag in ("model", "encoder", "encoder_weights") for which in ("", "_a", "_b")} | {"width"}
PATH_FLAGS = {"load", "pixels", "pred_dir"}  # each seed may have a file of its own: whether there is one is what counts
TEST_FLAGS = ("size", "theta", "num_classes")  # with other ones, scores are not comparable


def read_runs(folders):
    """dict of folder (str) -> content of its result.json.

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


def check_comparable(results):
    """Raise UserError unless all runs were tested on the same rows, at the same size and tolerance."""
    first_folder, first = next(iter(results.items()))
    for folder, result in results.items():
        if not result["test"]:
            raise UserError(f"{folder}: was run without --test_csv, there is nothing to tabulate")
        for flag in TEST_FLAGS:
            if result["args"][flag] != first["args"][flag]:
                raise UserError(f"{folder}: tested with --{flag.replace('_', '-')} {result['args'][flag]}, {first_folder} with "
                                f"{first['args'][flag]}; tabulate them apart")
        if not _same_test_set(result, first):
            raise UserError(f"{folder}: tested on {result['args']['test_csv']}, which holds other rows than "
                            f"{first['args']['test_csv']} of {first_folder}; tabulate them apart")


def _same_test_set(one, other):
    digests = [result.get("test_set") for result in (one, other)]
    if None in digests:  # a run may be older than the digest
        return one["args"]["test_csv"] == other["args"]["test_csv"]
    return digests[0] == digests[1]


# --- groups -----------------------------------------------------------------------------------------------------


def group_runs(results):
    """Groups of runs that differ in nothing but their seed; of equal flags and seeds, the name tells methods apart.

    Args:
        results: dict of folder -> content of result.json.

    Returns:
        list of dict: `label`, unique (the run's name, with the flags in which its namesakes differ), `name`, `noise_share`
        (0..1 or None), `runs` (dict of seed -> folder); in the order of the first run of each.

    Raises:
        UserError: two runs of a group have the same seed and name.
    """
    seeds_of = {}
    for result in results.values():
        seeds_of.setdefault(_identity(result), []).append(result["args"]["seed"])
    groups = {}
    for folder, result in results.items():
        identity, name, seed = _identity(result), Path(result["name"]).name, result["args"]["seed"]
        repeated = len(set(seeds_of[identity])) < len(seeds_of[identity])  # then something unseen differs: the name must tell
        group = groups.setdefault((identity, name if repeated else None),
                                  {"name": name, "runs": {}, "noise_share": result.get("noise_share")})
        if seed in group["runs"]:
            raise UserError(f"{folder} and {group['runs'][seed]} are the same method with the same seed; leave one out")
        group["runs"][seed] = folder
    groups = list(groups.values())
    for group in groups:
        namesakes = [other for other in groups if all(other[key] == group[key] for key in ("name", "noise_share"))]
        flags = [results[next(iter(other["runs"].values()))]["args"] for other in namesakes]
        group["label"] = ", ".join([group["name"], *_differing(flags, flags[namesakes.index(group)])])
    return groups


def _identity(result, left_out=frozenset()):
    """What makes two runs the same but for their seed: the script, its flags, the noise share, and the training CSV's name
    (its folder may differ, as each seed has masks of its own).

    Args:
        left_out: flags that do not count.
    """
    left_out = SEED_FLAGS | left_out
    flags = {flag: _comparable(flag, value, result) for flag, value in result["args"].items() if flag not in left_out}
    share = result.get("noise_share")
    return (result["script"], Path(result["args"]["train_csv"]).name, None if share is None else round(share, 2),
            repr(sorted(flags.items())))


def _comparable(flag, value, result):
    """The value of a flag in which two seeds of one method agree."""
    if flag == "forget_rate" and value is not None and value == result.get("noise_share"):
        return "share of noisy masks"  # the default: each CSV's own
    return bool(value) if flag in PATH_FLAGS else value


def network_of(args, number=0):
    """What stands for the architecture of a run's network: two networks of equal values may be compared.

    Args:
        args: flags of the run.
        number: of the network, 0 or 1.
    """
    suffix = f"_{'ab'[number]}" if "model_a" in args else ""
    model, encoder, weights = (args.get(flag + suffix) for flag in ("model", "encoder", "encoder_weights"))
    return (model, args.get("width")) if model == "unet" else (model, encoder, weights)


def _differing(namesakes, own):
    """The flags of `own` in which namesakes differ, as text."""
    flags = sorted({flag for each in namesakes for flag in each} - SEED_FLAGS)
    shown = [f"{flag.replace('_', '-')} {own.get(flag)}" for flag in flags
             if len({repr(each.get(flag)) for each in namesakes}) > 1]
    if len({Path(each["train_csv"]).name for each in namesakes}) > 1:
        shown.append(Path(own["train_csv"]).stem)
    return shown


# --- statistics -------------------------------------------------------------------------------------------------


def mean_and_spread(values):
    """(mean, standard deviation over seeds or None for one seed)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_difference(method, baseline):
    """How far a method is above the baseline, seed by seed.

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
    return statistics.fmean(differences), float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5, n


def recovered(method, baseline, clean, least=0.01):
    """The share of the gap that a method wins back: (method - baseline) / (clean - baseline), 1 = as good as clean masks.

    Args:
        method, baseline, clean: mean scores, 0..1.
        least: a gap below it, one point, is within what another seed changes: nothing to divide by.

    Returns:
        float; None where there is no gap.
    """
    return (method - baseline) / (clean - baseline) if clean - baseline >= least else None


def compare(results, which="test", baseline=None, clean="clean"):
    """Each group's scores, and where it stands between baseline and clean masks.

    Args:
        results: dict of folder -> content of result.json.
        which: `test` (best epoch by validation) or `test_last`.
        baseline: name of the baseline's runs; default: of the first one. It is taken at the same noise share.
        clean: name of the runs on clean masks; they serve every noise share.

    Each network is compared with its own kind: the baseline of another architecture is the run that differs from the named
    one in its network alone, and so is the run on clean masks; where there is none, nothing is compared.

    Returns:
        list of dict, JSON-ready, one per group and network: `label`, `name`, `network` (0-based), `noise_share`, `masks` (to
        train on, None where it is not known), `seeds`, `auroc` (mean, of the training weights), and per score {`mean`, `sd`},
        for mIoU and BF with `difference`, `interval` (half width, 95 %), `recovered`.
    """
    groups = group_runs(results)
    baselines, uppers = (_of_each_network(groups, results, name) for name in (baseline or groups[0]["name"], clean))
    rows = []
    for group in groups:
        first = results[next(iter(group["runs"].values()))]
        for network in range(len(first[which])):
            kind = network_of(first["args"], network)
            upper = next(iter(uppers.get(kind, [])), None)
            lower = _baseline_of(group, baselines.get(kind, []), upper)
            row = {"label": group["label"] + (f", network {network + 1}" if network else ""), "name": group["name"],
                   "network": network, "noise_share": group["noise_share"], "masks": first.get("rows", {}).get("train"),
                   "seeds": sorted(group["runs"]), "auroc": _mean_auroc(results, group)}
            for score in SCORES:
                own = _by_seed(results, group, which, network, score)
                row[score] = dict(zip(("mean", "sd"), mean_and_spread(list(own.values()))))
                if score in COMPARED:
                    row[score].update(_against(results, which, score, own, group, lower, upper))
            rows.append(row)
    return rows


def _of_each_network(groups, results, name):
    """The groups called `name`, and those that differ from one of them in their network alone.

    Returns:
        dict of `network_of` -> list of groups.
    """
    firsts = [results[next(iter(group["runs"].values()))] for group in groups]
    named = [first for group, first in zip(groups, firsts) if group["name"] == name]
    twins = {_identity(first, NETWORK_FLAGS) for first in named}
    kinds = {network_of(first["args"]) for first in named}
    found = {}
    for group, first in zip(groups, firsts):
        kind = network_of(first["args"])
        if group["name"] == name or (kind not in kinds and _identity(first, NETWORK_FLAGS) in twins):
            found.setdefault(kind, []).append(group)
    return found


def _baseline_of(group, baselines, upper):
    """The baseline at the same noise share, or, without noise, the run on clean masks; where a share is not known, the only
    baseline there is."""
    share = group["noise_share"]
    known = [other for other in baselines if other["noise_share"] is not None]
    if share is not None and known:
        near = [other for other in known if abs(other["noise_share"] - share) < 0.005]
        return near[0] if near else upper if share == 0 else None
    return baselines[0] if len(baselines) == 1 else None


def _by_seed(results, group, which, network, score):
    return {seed: results[folder][which][network][score] for seed, folder in group["runs"].items()}


def _mean_auroc(results, group):
    values = [(results[folder].get("weights") or {}).get("auroc") for folder in group["runs"].values()]
    return None if None in values else statistics.fmean(values)


def _against(results, which, score, own, group, lower, upper):
    """Difference to the baseline and recovered gap, over the seeds that both have."""
    found = {"difference": None, "interval": None, "recovered": None}
    if lower is None or group is lower:
        return found
    base = _by_seed(results, lower, which, 0, score)
    found["difference"], found["interval"], _ = paired_difference(own, base)
    if upper is not None:
        best = _by_seed(results, upper, which, 0, score)
        common = own.keys() & base.keys() & best.keys()
        if common:
            means = (statistics.fmean(scores[seed] for seed in common) for scores in (own, base, best))
            found["recovered"] = recovered(*means)
    return found


# --- text -------------------------------------------------------------------------------------------------------


def percent(value, digits=2, sign=False):
    """0.1234 -> 12.34; None -> -."""
    return "-" if value is None else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def with_spread(score, digits=2):
    """{mean, sd} -> 12.34 ± 0.56, the standard deviation over the seeds."""
    return percent(score["mean"], digits) + (f" ± {percent(score['sd'], digits)}" if score["sd"] is not None else "")


def spread_title(title, rows, kind="sd", scores=COMPARED):
    """The title of a column, with what its ± is, where a row of `compare` has one: `sd`, the standard deviation over the
    seeds, or `interval`, the 95 % interval of the mean difference."""
    shown = any(row[score].get(kind) is not None for row in rows for score in scores)
    return title + {"sd": " ± sd", "interval": " ± 95 %"}[kind] * shown


def score_frame(rows):
    """The rows of `compare` as a DataFrame of text, in percent: what is the same in all rows, or known of none, is left out."""
    frame = pd.DataFrame({
        "run": [row["label"] for row in rows],
        "noise": [percent(row["noise_share"], 0) for row in rows],
        "seeds": [str(len(row["seeds"])) for row in rows],
        **{spread_title(title, rows): [with_spread(row[score]) for row in rows] for score, title in SCORES.items()},
        **{spread_title(f"Δ {SCORES[score]}", rows, "interval"): [_difference(row[score]) for row in rows]
           for score in COMPARED},
        "gap recovered, mIoU / BF": [" / ".join(percent(row[score]["recovered"], 0) for score in COMPARED) for row in rows],
        "AUROC": ["-" if row["auroc"] is None else f"{row['auroc']:.3f}" for row in rows]})
    return frame.drop(columns=[column for column in frame if set(frame[column]) <= {"-", "- / -"}])


def _difference(score):
    text = percent(score["difference"], sign=True)
    return text if score["interval"] is None else f"{text} ± {percent(score['interval'])}"


def markdown(frame):
    """A DataFrame of text as a Markdown table."""
    return markdown_table(frame.columns, frame.to_numpy())


def number_frame(rows):
    """The rows of `compare` as a DataFrame of numbers, for a CSV: scores in 0..1, a column each."""
    def numbers(row):
        scores = {f"{score}_{key}": value for score in SCORES for key, value in row[score].items()}
        return {**{key: row[key] for key in ("label", "noise_share", "auroc")}, "seeds": len(row["seeds"]), **scores}

    return pd.DataFrame(map(numbers, rows))
