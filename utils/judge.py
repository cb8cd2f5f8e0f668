"""Whether to trust weights: how well their teacher (the *judge*) agrees with the annotations.

utils/get_weight.py writes a JSON beside each CSV of weights, the *origin* of the weights: `metric`, `theta`, `size`,
`num_classes`, `sharpen`, `known`, `parts` (of a mix), `agreement` (means of miou, bf and bm over the rows, before sharpening),
`mean_weight`, `effective_share`, `fallback`. A published CSV has no JSON; its name shows the metric.

A judge is *weak* below a mean bm of 0.2. The figure was chosen on 60 masks of CamVid (96 x 128 px, 60 % noisy), teachers of 3,
8 and 16 epochs: their bm is 0.06, 0.16 and 0.22. Students with their sharpened weights lost 6.3, lost 3.6 and gained 0.9
points of mIoU against students without weights. NLKD's own weights did no harm
there, so they are used with a warning. Elsewhere a judge
of 0.16 ruined a training on 23 classes; good ones have 0.29 (all of CamVid, at the strict tolerance of sharpened weights) and
0.6 (people, portraits, faces at the test's), noisy masks included.
"""

import argparse
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, read_json
from cli.machine import usable_cores
from data import IGNORE_INDEX
from data.classification import is_class_csv, read_class_names, read_class_rows
from data.pictures import read_mask
from data.rows import read_rows
from utils.agreement import METRICS
from utils.weighting import sharpened

WEAK_AGREEMENT = 0.2  # mean bm
FEW = 0.1  # effective share; sharpened weights of good judges have 0.29 and more where 60 % of the masks are noisy
ORIGIN = ("metric", "theta", "size", "num_classes", "sharpen", "known", "agreement")


def effective_share(weights: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2), in 0..1: the share of the rows (n,) that would teach as much if all others weighed 0 (Kish)."""
    return float(weights.sum()**2 / (len(weights) * (weights**2).sum())) if weights.any() else 0.0


def weight_facts(weights: np.ndarray, agreement: dict[str, float] | None) -> tuple[dict, str]:
    """Facts about the weights (rows,) for the JSON, and a line of text.

    Args:
        agreement: dict of metric -> mean, of judge and annotations; None where there was no judge.
    """
    facts = {"agreement": agreement, "mean_weight": float(weights.mean()), "effective_share": effective_share(weights)}
    text = f"mean weight {facts['mean_weight']:.3f}, effective share of the rows {facts['effective_share']:.3f}"
    if agreement:
        text = "judge and annotations agree by mIoU {miou:.3f}, BF {bf:.3f}, bm {bm:.3f}; {}".format(text, **agreement)
    return facts, text


def weakness(agreement: dict[str, float] | None, weights: np.ndarray | None = None) -> str | None:
    """The reason, as text, not to trust a judge or its weights (rows,); None if there is none."""
    if agreement and agreement["bm"] < WEAK_AGREEMENT:
        return (f"its judge is weak: on average it agrees with the annotations by bm {agreement['bm']:.3f}, below "
                f"{WEAK_AGREEMENT}")
    if weights is not None and weights.any() and effective_share(weights) < FEW:
        return (f"a few rows have all the weight: the effective share of the rows, (sum w)^2 / (n sum w^2), is "
                f"{effective_share(weights):.3f}, below {FEW}")
    return None


def outlined(masks: Sequence[str], num_classes: int) -> np.ndarray:
    """Which mask files have pixels of two classes at least, 255 apart; bool (rows,). The others have no outline to agree on."""
    def look(path: str) -> bool:
        labels = read_mask(path, num_classes)
        found = labels[labels != IGNORE_INDEX]
        return bool(found.size) and bool(found.min() < found.max())

    with ThreadPoolExecutor(usable_cores()) as pool:
        return np.array(list(pool.map(look, masks)), bool)


def sharp_rows(args: argparse.Namespace, rows: pd.DataFrame, facts: dict, fitted: np.ndarray) -> pd.DataFrame:
    """The rows with sharpened scores as weights; all weigh 1 where the judge is too weak for that.

    `facts` gets the reason, text or None, as "fallback".

    Args:
        facts: has the judge's mean `agreement`.
        fitted: bool (rows,), see `sharpened`; of `outlined`.
    """
    weights = sharpened(rows["weight"].to_numpy(), fitted)
    reason = None if args.weak_judge == "use" else weakness(facts["agreement"], weights)
    facts["fallback"] = f"since {reason}" if reason else None
    if reason:
        print(f"{args.out}: --sharpen: all weights are 1, since {reason}; it would hardly tell good masks from coarse ones: "
              "train the teachers longer or on more rows, or pass --weak-judge use")
        return rows.assign(weight=1.0)
    if (weights == 1).all():
        print(f"{args.out}: --sharpen: all weights are 1, since the scores form one group: no mask stands out as coarse")
    return rows.assign(weight=weights)


def read_origin(csv: Path | str) -> dict:
    """The content of the JSON that utils/get_weight.py left beside a CSV; empty where there is none.

    Raises:
        UserError: the file there is not JSON.
    """
    path = Path(csv).with_suffix(".json")
    content = read_json(path) if path.exists() and path != Path(csv) else {}
    ours = isinstance(content, dict) and {"metric", "theta", "size"} <= set(content)
    return content if ours and (not content.get("mix") or "parts" in content) else {}  # an older version's mix has no `parts`


def name_metric(csv: Path | str) -> str | None:
    """The metric in a CSV's name (`..._bmscore.csv`); None if the name holds no metric, or two."""
    found = set(re.findall(r"(?:^|_)(miou|bf|bm)(?:score)?(?=_|$)", Path(csv).stem))
    return found.pop() if len(found) == 1 else None


def mean_agreement(agreements: Sequence[dict[str, float] | None],
                   counts: Sequence[int] | None = None) -> dict[str, float] | None:
    """The mean of several agreements, weighted by their numbers of rows `counts`; None if one is unknown."""
    found = [each for each in agreements if each]
    if len(found) < len(agreements):
        return None
    return {metric: float(np.average([each[metric] for each in found], weights=counts)) for metric in METRICS}


def mixed_origin(csvs: Sequence[Path | str]) -> dict:
    """The origin of the mean of several CSVs' weights: what they have in common, and the mean agreement."""
    parts: list[dict] = []
    for csv in csvs:
        origin = read_origin(csv)
        parts += origin.get("parts") or [{"metric": name_metric(csv), **{key: origin[key] for key in ORIGIN if key in origin},
                                          "csv": str(csv)}]

    def common(key: str) -> Any:
        return parts[0].get(key) if all(part.get(key) == parts[0].get(key) for part in parts) else None

    agreement = mean_agreement([part.get("agreement") for part in parts])
    return {"parts": parts, **{key: common(key) for key in ("metric", "theta", "size", "num_classes", "known")},
            "sharpen": any(part.get("sharpen") for part in parts), "agreement": agreement}


def check_weights(args: argparse.Namespace, sharp_only: bool = False) -> None:
    """Warn of faulty weights of --train_csv, or refuse them.

    Raises:
        UserError: the judge is weak, or a few rows have all the weight, and the weights decide between rows (sharpened ones, or
            with --pixels between pixels); --weak-judge use lets them pass.
    """
    origin = read_origin(args.train_csv)
    if origin.get("fallback"):
        print(f"{args.train_csv}: all weights are 1, {origin['fallback']}")
        return
    if origin.get("known") is not None:
        return
    weights = np.maximum(read_weights(args.train_csv), getattr(args, "min_weight", 0))
    few, weak = weakness(None, weights), weakness(origin.get("agreement"))
    fault = few or weak
    if not fault or getattr(args, "mean_weights", False):
        return
    if args.weak_judge == "use" or not (origin.get("sharpen") or getattr(args, "pixels", None)):
        print(f"{args.train_csv}: {fault}; training without weights may do better")
        return
    raise UserError(f"{args.train_csv}: {fault}; train the teachers longer or on more rows, train without weights, or pass "
                    "--weak-judge use")


def read_weights(csv: Path | str) -> np.ndarray:
    """The weights of a CSV of masks or of class labels, float (rows,); a UserError if it has none."""
    if is_class_csv(csv):
        return read_class_rows(csv, read_class_names(csv), needs_weights=True)["weight"].to_numpy()
    return read_rows(csv, needs_weights=True)["weight"].to_numpy()


def loss_scale(args: argparse.Namespace) -> float:
    """Factor of all weights, 1 / their mean over the training rows with --keep-loss-size, else 1."""
    if not args.keep_loss_size:
        return 1.0
    return 1 / max(float(np.maximum(read_weights(args.train_csv), args.min_weight).mean()), 1e-6)


def check_mixable(args: argparse.Namespace, origin: dict) -> None:
    """Raise UserError if eq. 6 cannot mix the CSV's weights with the student's score; say where their sizes differ.

    Args:
        origin: see `read_origin`; may be empty.
    """
    csv, metrics = args.train_csv, sorted({part["metric"] for part in origin.get("parts", []) if part.get("metric")})
    told = origin.get("known") is not None or any(part.get("known") is not None for part in origin.get("parts", []))
    what = ("holds sharpened weights, probabilities" if origin.get("sharpen") else
            "holds weights by --known, which no metric scored" if told else
            f"mixes weights by {' and '.join(metrics)}" if len(metrics) > 1 else None)
    if what:
        raise UserError(f"{csv}: {what}; the student is scored by one metric, and eq. 6 mixes like with like: use "
                        "train_with_Teacher_weight.py, or score it again with utils/get_weight.py --metric")
    for flag in ("theta", "num_classes"):
        then, now = origin.get(flag), getattr(args, flag, None)
        if then is not None and now is not None and not math.isclose(then, now, rel_tol=1e-4):
            name = flag.replace("_", "-")
            raise UserError(f"{csv}: its teacher was scored with --{name} {then:g}, this run has {now:g}; pass --{name} "
                            f"{then:g}, or score the CSV again")
    if "size" in origin and (origin["size"] is None or list(origin["size"]) != list(args.size)):
        there = "each annotation's own size" if origin["size"] is None else "{} x {} px".format(*origin["size"])
        print(f"{csv}: its teacher was scored at {there}, the student at {args.size[0]} x {args.size[1]} px, where the same "
              "outline differs by another number of pixels; see get_weight's --size")
