"""Figures of reports. matplotlib is loaded when the first one is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from cli.files import atomic_path
from cli.lazy import plt
from data.legend import Legend
from data.pictures import image_size, read_image, read_mask, resize_image, resize_labels
from data.rows import pseudo_label_paths
from reports.comparison import compared_in, decisive_score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME_LENGTH = 26  # characters of a file name that fit under an example; of longer ones the end is shown


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all, and close it."""
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)


def plot_learning_curves(groups: list[dict], titles: dict[str, str], path: Path, clean: str = "clean") -> None:
    """The compared scores on the validation rows over the epochs; where a run was not validated, the training loss, and the
    mean weight where all runs have one. A line per group is the mean over its seeds, with a band from the worst to the best.

    Args:
        groups: of `comparison.group_runs`; their folders hold the logs.
        titles: name -> title of the compared scores.
        path: of the PNG.
        clean: name of the runs on clean annotations.
    """
    shares = len({group["noise_share"] for group in groups if group["name"] != clean}) > 1
    logs = {}  # label -> a log per seed
    for group in groups:
        label = group["label"] + (_percent_noisy(group["noise_share"]) if shares else "")
        lines = [(Path(run) / "log.jsonl").read_text(encoding="utf-8").splitlines() for run in group["runs"].values()]
        if any(lines):  # a run that kept its network has no epoch
            logs[label] = [[json.loads(line) for line in each] for each in lines if each]
    curves = _curves([entry for log in logs.values() for seed in log for entry in seed], titles)
    axes = _axes(len(curves))
    for axis, (title, value) in zip(axes, curves.items()):
        for name, seeds in logs.items():
            length = min(map(len, seeds))
            values = np.array([[value(entry) for entry in seed[:length]] for seed in seeds], float)  # (seeds, epochs)
            _line_with_band(axis, range(1, length + 1), values.mean(0), values.min(0), values.max(0), name)
        axis.set(xlabel="epoch", ylabel=title)
    _finish(axes, path)


def _curves(entries: list[dict], titles: dict[str, str]) -> dict[str, Callable[[dict], float]]:
    """What can be drawn of lines of log.jsonl: title of the axis -> function of a line, of its first network."""
    def score(name: str) -> Callable[[dict], float]:
        return lambda entry: _percent_or_nan(entry["valid"][0].get(name))

    if all(entry.get("valid") for entry in entries):
        return {f"{title} on the validation annotations, %": score(name) for name, title in titles.items()}
    curves: dict[str, Callable[[dict], float]] = {"training loss": lambda entry: entry["loss"][0]}
    if all("weight" in entry for entry in entries):
        return {"training loss, weighted": curves["training loss"], "mean weight": lambda entry: entry["weight"][0]}
    return curves


def plot_noise(rows: list[dict], path: Path, clean: str = "clean") -> bool:
    """The compared scores against the share of noisy annotations: a line per method, with a band of one standard deviation
    over the seeds.

    Args:
        rows: of `comparison.compare`.
        path: of the PNG.
        clean: name of the runs on clean annotations.

    Returns:
        whether there was something to draw: a method at two noise shares.
    """
    upper = [row for row in rows if row["name"] == clean and not row["network"]]
    found: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        if row["noise_share"] is not None and row["name"] != clean:
            found.setdefault((row["name"], row["network"]), []).append(row)
    methods = {name: sorted(each, key=lambda row: row["noise_share"]) for name, each in found.items()
               if len({row["noise_share"] for row in each}) > 1}
    if not methods:
        return False
    compared = compared_in(rows)
    axes = _axes(len(compared))
    for axis, (score, title) in zip(axes, compared.items()):
        for (name, network), each in methods.items():
            mean = np.array([_percent_or_nan(row["scores"][score]["mean"]) for row in each])
            spread = np.array([100 * (row["scores"][score]["sd"] or 0) for row in each])
            shares = [100 * row["noise_share"] for row in each]
            label = name + (f", network {network + 1}" if network else "")
            _line_with_band(axis, shares, mean, mean - spread, mean + spread, label)
        for row in upper:
            axis.axhline(_percent_or_nan(row["scores"][score]["mean"]), color="grey", linestyle=":", label="clean annotations")
        axis.set(xlabel="noisy training annotations, %", ylabel=f"{title} on the test set, %")
    _finish(axes, path)
    return True


def plot_gain(rows: list[dict], path: Path) -> bool:
    """The decisive score above the baseline against the AUROC of the training weights: a point per method and noise share.

    Args:
        rows: of `comparison.compare`.
        path: of the PNG.

    Returns:
        whether there was something to draw: at least three points, of weights whose AUROC is known.
    """
    name = decisive_score(rows)
    points = [(row, row["scores"][name]) for row in rows if None not in (row["auroc"], row["scores"][name]["difference"])]
    if len(points) < 3:  # two show no relation
        return False
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    names = list(dict.fromkeys(row["name"] for row, _ in points))
    shares = sorted({row["noise_share"] or 0 for row, _ in points})
    for row, score in points:  # a colour per method, a marker per noise share
        has_bar = score["interval"] is not None and len(row["seeds"]) > 2  # the interval of two seeds is too wide to show
        axis.errorbar(row["auroc"], 100 * score["difference"], capsize=3, markeredgecolor="black",
                      fmt="osD^vP*X"[shares.index(row["noise_share"] or 0) % 8],
                      color=plt.get_cmap("tab20")(names.index(row["name"]) % 20),
                      label=row["name"] + _percent_noisy(row["noise_share"] if len(shares) > 1 else None),
                      yerr=100 * score["interval"] if has_bar else None)
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="AUROC of the weights, untouched against noisy annotations",
             ylabel=f"{points[0][1]['title']} above the baseline, points")
    axis.grid(alpha=0.3)
    save_figure(figure, path)
    return True


def _axes(count: int) -> Sequence[Axes]:
    """A row of empty axes. Ten lines have one style, the next ten another."""
    _, axes = plt.subplots(1, count, figsize=(5.5 * count, 4), squeeze=False)
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for axis in axes[0]:
        axis.set_prop_cycle(linestyle=np.repeat(["-", "--", ":", "-."], len(colours)), color=colours * 4)
    return axes[0]


def _percent_or_nan(value: float | None) -> float:
    """0.12 -> 12; None -> nan, which leaves a gap in a line."""
    return float("nan") if value is None else 100 * value


def _percent_noisy(share: float | None) -> str:
    return "" if share is None else f" {100 * share:.0f} %"


def _line_with_band(axis: Axes, x: Sequence[float], middle: np.ndarray, low: np.ndarray, high: np.ndarray, label: str) -> None:
    line, = axis.plot(x, middle, label=label, marker=".")
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15)


def _finish(axes: Sequence[Axes], path: Path) -> None:
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    save_figure(cast("Figure", axes[0].figure), path)


def plot_weights(tables: dict[str, pd.DataFrame], summaries: dict[str, dict], path: Path) -> None:
    """A histogram per weight CSV; untouched and noisy annotations apart where the CSV knows them.

    Args:
        tables: of `report_files.read_weights`.
        summaries: of `report_files.weight_summaries`.
        path: of the PNG.
    """
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.4), squeeze=False)
    bins = np.linspace(0, 1, 31)
    for axis, (name, rows) in zip(axes[0], tables.items()):
        title = name
        if "iterations" in rows:
            noisy = rows["iterations"] > 0
            axis.hist([rows["weight"][~noisy], rows["weight"][noisy]], bins, stacked=True,
                      label=[f"{kind}: {number} annotations" for kind, number in (("untouched", (~noisy).sum()),
                                                                                  ("noisy", noisy.sum()))],
                      color=["tab:blue", "tab:orange"])
            axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend above the bars
            axis.legend(fontsize=8, loc="upper center")
            if summaries[name]["auroc"] is not None:
                title += f"\nAUROC {summaries[name]['auroc']:.3f}"
        else:
            axis.hist(rows["weight"], bins)
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="weight", ylabel="number of annotations", xlim=(0, 1))
        axis.yaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def plot_examples(rows: pd.DataFrame, pred_dir: Path | str, legend: Legend, count: int, path: Path) -> None:
    """The annotations with the lowest and the highest weights: image, annotation with its file name, pseudo-label (paper,
    Figure 3).

    Args:
        rows: of a weight CSV, see `data.rows.read_rows`.
        pred_dir: see `pseudo_label_paths`.
        legend: names and colours of the classes.
        count: annotations at each end; fewer where there are not enough rows.
        path: of the PNG.
    """
    count = min(count, max(1, len(rows) // 2))
    order = np.argsort(rows["weight"].to_numpy(), kind="stable")
    chosen = np.concatenate([order[:count], order[-count:]])
    pseudo, num_classes = pseudo_label_paths(rows, pred_dir), len(legend.names)
    height, width = image_size(rows.iloc[chosen[0]]["image"])
    figure, axes = plt.subplots(3, 2 * count, figsize=(1.7 * 2 * count, 3 * 1.7 * height / width + 1.2), squeeze=False)
    for column, index in enumerate(chosen):
        row = rows.iloc[index]
        image = read_image(row["image"])
        image = resize_image(image, (240, max(1, round(240 * image.shape[1] / image.shape[0]))))
        axes[0, column].imshow(image)
        for line, mask in ((1, row["mask"]), (2, pseudo[index])):
            labels = resize_labels(read_mask(mask, num_classes), image.shape[:2])
            axes[line, column].imshow(legend.overlay(image, labels, strength=0.25 if num_classes == 2 else 0.6))
        name = Path(row["mask"]).name
        axes[1, column].set_xlabel(name if len(name) <= NAME_LENGTH else f"\u2026{name[1 - NAME_LENGTH:]}", fontsize=6)
        noise = "" if "iterations" not in rows else ("\nnoisy" if row["iterations"] else "\nuntouched")
        axes[0, column].set_title(f"w = {row['weight']:.2f}{noise}", fontsize=9,
                                  color="tab:red" if column < count else "tab:green")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for line, label in enumerate(("image", "annotation", "pseudo-label")):
        axes[line, 0].set_ylabel(label)
    figure.suptitle(f"{count} lowest weights (left) and {count} highest (right)", fontsize=10)
    if num_classes > 2:
        patches = [plt.Rectangle((0, 0), 1, 1, color=colour / 255, label=name)
                   for name, colour in zip(legend.names, legend.colours)]
        figure.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=min(len(patches), 10), fontsize=8)
    save_figure(figure, path)
