"""Runs that differ in nothing but their seed form a *group*: one method at one share of noisy annotations.

A result.json may be older than a flag. A flag that it lacks counts as if it stood at its default: that of engine/flags.py, or,
for a flag that is defined elsewhere, off (None or False). So runs of one setting form one group, whichever version made them.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from cli.files import UserError
from engine import flags as flag_groups
from engine.run_folder import FREE_FLAGS
from reports.scores import Results

SEED_FLAGS = {"seed", "name", "train_csv", "test_csv", "command", "teacher_digest",  # the seeds of a method may
              *FREE_FLAGS}  # differ in these
NETWORK_FLAGS = {f"{flag}{which}" for flag in ("model", "encoder", "encoder_weights") for which in ("", "_a", "_b")} | {"width"}
PATH_FLAGS = {"load", "pixels", "pred_dir", "after", "teacher", "valid_csv"}  # each seed may have its own: its presence counts


def group_runs(results: Results) -> list[dict]:
    """Groups of runs that differ only in their seed. Runs of equal flags and equal seeds are told apart by their names.

    Args:
        results: dict of folder -> content of result.json.

    Returns:
        list of dict: `label`, unique (the run's name, with the flags in which its namesakes differ), `name`, `noise_share`
        (0..1 or None), `runs` (dict of seed -> folder); in the order of the first run of each.

    Raises:
        UserError: two runs of a group have the same seed and name.
    """
    seeds_of: dict[tuple, list[int]] = {}
    for result in results.values():
        seeds_of.setdefault(settings_of(result), []).append(result["args"]["seed"])
    found: dict[tuple, dict] = {}
    for folder, result in results.items():
        identity, name, seed = settings_of(result), Path(result["name"]).name, result["args"]["seed"]
        repeated = len(set(seeds_of[identity])) < len(seeds_of[identity])  # then something unseen differs: the name must tell
        group = found.setdefault((identity, name if repeated else None),
                                 {"name": name, "runs": {}, "noise_share": result.get("noise_share")})
        if seed in group["runs"]:
            raise UserError(f"{folder} and {group['runs'][seed]} are the same method with the same seed; leave one out")
        group["runs"][seed] = folder
    groups = list(found.values())
    for group in groups:
        namesakes = [other for other in groups if all(other[key] == group[key] for key in ("name", "noise_share"))]
        flags = [results[next(iter(other["runs"].values()))]["args"] for other in namesakes]
        group["label"] = ", ".join([group["name"], *_differing(flags, flags[namesakes.index(group)])])
    return groups


def agreeing(group: dict, others: list[dict], results: Results) -> dict | None:
    """The one of `others`, groups of one name, that a group is compared with: that agrees with it in every flag in which they
    differ among themselves; the first if they differ in none. None where none or several agree."""
    own, *flags = (results[next(iter(each["runs"].values()))]["args"] for each in (group, *others))
    unlike = {flag for each in flags for flag in each if flag not in SEED_FLAGS and _differ(flag, flags)}
    found = [other for other, each in zip(others, flags) if not any(_differ(flag, [own, each]) for flag in unlike)]
    return found[0] if found and (len(found) == 1 or not unlike) else None


def settings_of(result: dict, left_out: Iterable[str] = ()) -> tuple:
    """What two seeds of one method have in common: the script, its flags, the noise share, and the file name of the training
    CSV (each seed may have a folder of its own).

    Args:
        left_out: flags that do not count.
    """
    left_out = SEED_FLAGS.union(left_out)
    flags = {flag: _comparable(flag, value, result) for flag, value in result["args"].items()
             if flag not in left_out and not _is_default(flag, value)}
    share = result.get("noise_share")
    return (result["script"], Path(result["args"]["train_csv"]).name, None if share is None else round(share, 2),
            repr(sorted(flags.items())))


@cache
def _defaults() -> dict[str, Any]:
    """Default of each flag of engine/flags.py."""
    parser = flag_groups.train_parser("")
    for add in (flag_groups.add_weight_flags, flag_groups.add_selection_flags, flag_groups.add_disagreement_flag,
                flag_groups.add_flip_flag):
        add(parser)
    return vars(parser.parse_args(["--train_csv", "", "--name", ""]))


def _is_default(flag: str, value: Any) -> bool:
    """Whether a run without the flag would be the same."""
    return value == _defaults()[flag] if flag in _defaults() else value is None or value is False


def _value_of(flag: str, args: dict) -> Any:
    """The value of a flag; its default where a run is older than the flag."""
    return args.get(flag, _defaults().get(flag))


def _differ(flag: str, runs: list[dict]) -> bool:
    """Whether runs, given by their flags, differ in this one; of PATH_FLAGS in whether they have it."""
    values = [bool(value) if flag in PATH_FLAGS else value for value in (_value_of(flag, args) for args in runs)]
    return len({None if _is_default(flag, value) else repr(value) for value in values}) > 1


def _comparable(flag: str, value: Any, result: dict) -> Any:
    """The value of a flag in which two seeds of one method agree."""
    if flag == "forget_rate" and value is not None and value == result.get("noise_share"):
        return "share of noisy masks"  # the default: each CSV's own
    return bool(value) if flag in PATH_FLAGS else value


def network_of(args: dict, number: int = 0) -> tuple:
    """The architecture of a run's network; networks of equal architecture may be compared.

    Args:
        args: flags of the run.
        number: of the network, 0 or 1.
    """
    suffix = f"_{'ab'[number]}" if "model_a" in args else ""
    model, encoder, weights = (args.get(flag + suffix) for flag in ("model", "encoder", "encoder_weights"))
    return (model, args.get("width")) if model == "unet" else (model, encoder, weights)


def _differing(namesakes: list[dict], own: dict) -> list[str]:
    """The flags of `own` in which groups of one name differ, as text."""
    flags = sorted({flag for each in namesakes for flag in each} - SEED_FLAGS)
    shown = [f"{'with' if _value_of(flag, own) else 'without'} {flag.replace('_', '-')}" if flag in PATH_FLAGS else
             f"{flag.replace('_', '-')} {_value_of(flag, own)}" for flag in flags if _differ(flag, namesakes)]
    if len({Path(each["train_csv"]).name for each in namesakes}) > 1:
        shown.append(Path(own["train_csv"]).stem)
    return shown
