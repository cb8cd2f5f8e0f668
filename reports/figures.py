"""Figures of reports. matplotlib is loaded with the first one."""

import json
from pathlib import Path

import numpy as np

from cli.files import atomic_path
from cli.lazy import LazyModule
from data.pictures import image_size, read_image, read_mask, resize_image, resize_labels
from data.rows import pseudo_label_paths
from reports.comparison import COMPARED, SCORES

plt = LazyModule("matplotlib.pyplot")
NAME_LENGTH = 26  # characters of a file name that fit under an example; of longer ones the end is shown


def save_figure(figure, path):
    """Write a figure, whole or not at all."""
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)


def plot_learning_curves(groups, path):
    """Validation mIoU and BF over the epochs, or the training loss where nothing was validated: a line per group, the mean
    over its seeds, and a band from worst to best.

    Args:
        groups: of `comparison.group_runs`; their folders hold the logs.
    """
    shares = len({group["noise_share"] for group in groups if group["name"] != "clean"}) > 1
    logs = {}  # label -> a log per seed
    for group in groups:
        label = group["label"] + (_percent_noisy(group["noise_share"]) if shares else "")
        lines = [(Path(run) / "log.jsonl").read_text(encoding="utf-8").splitlines() for run in group["runs"].values()]
        logs[label] = [[json.loads(line) for line in each] for each in lines]
    validated = all(entry["valid"] for log in logs.values() for seed in log for entry in seed)
    if validated:
        curves = {f"{SCORES[key]} on the validation annotations, %": lambda entry, key=key: 100 * entry["valid"][0][key]
                  for key in COMPARED}
    else:
        curves = {"training loss, weighted": lambda entry: entry["loss"][0], "mean weight": lambda entry: entry["weight"][0]}
    axes = _two_axes()
    for axis, (title, value) in zip(axes, curves.items()):
        for name, seeds in logs.items():
            length = min(map(len, seeds))
            values = np.array([[value(entry) for entry in seed[:length]] for seed in seeds])  # (seeds, epochs)
            _line_with_band(axis, range(1, length + 1), values.mean(0), values.min(0), values.max(0), name)
        axis.set(xlabel="epoch", ylabel=title)
    _finish(axes, path)


def plot_noise(rows, path):
    """mIoU and BF against the share of noisy masks, a line per method, with a band of one standard deviation over the seeds.

    Args:
        rows: of `comparison.compare`.

    Returns:
        whether there was something to draw: a method at two noise shares.
    """
    methods, clean = {}, [row for row in rows if row["name"] == "clean" and not row["network"]]
    for row in rows:
        if row["noise_share"] is not None and row["name"] != "clean":
            methods.setdefault((row["name"], row["network"]), []).append(row)
    methods = {name: sorted(each, key=lambda row: row["noise_share"]) for name, each in methods.items()
               if len({row["noise_share"] for row in each}) > 1}
    if not methods:
        return False
    axes = _two_axes()
    for axis, score in zip(axes, COMPARED):
        for (name, network), each in methods.items():
            mean, spread = (np.array([100 * (row[score][key] or 0) for row in each]) for key in ("mean", "sd"))
            shares = [100 * row["noise_share"] for row in each]
            label = name + (f", network {network + 1}" if network else "")
            _line_with_band(axis, shares, mean, mean - spread, mean + spread, label)
        for row in clean:
            axis.axhline(100 * row[score]["mean"], color="grey", linestyle=":", label="clean masks")
        axis.set(xlabel="noisy training masks, %", ylabel=f"{SCORES[score]} on the test set, %")
    _finish(axes, path)
    return True


def plot_gain(rows, path):
    """BF above the baseline against the AUROC of the training weights, a point per method and noise share.

    Args:
        rows: of `comparison.compare`.

    Returns:
        whether there was something to draw: at least three points, of weights whose AUROC is known.
    """
    points = [row for row in rows if None not in (row["auroc"], row["bf"].get("difference"))]
    if len(points) < 3:  # two show no relation
        return False
    figure, axis = plt.subplots(figsize=(6.5, 4.5))
    names = list(dict.fromkeys(row["name"] for row in points))
    shares = sorted({row["noise_share"] or 0 for row in points})
    for row in points:  # a colour per method, a marker per noise share
        known = row["bf"]["interval"] is not None and len(row["seeds"]) > 2  # of two seeds it is too wide to see anything
        axis.errorbar(row["auroc"], 100 * row["bf"]["difference"], capsize=3, markeredgecolor="black",
                      fmt="osD^vP*X"[shares.index(row["noise_share"] or 0) % 8],
                      color=plt.cm.tab20(names.index(row["name"]) % 20),
                      label=row["name"] + _percent_noisy(row["noise_share"] if len(shares) > 1 else None),
                      yerr=100 * row["bf"]["interval"] if known else None)
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="AUROC of the weights, untouched against noisy masks", ylabel="BF above the baseline, points")
    axis.grid(alpha=0.3)
    save_figure(figure, path)
    return True


def _two_axes():
    _, axes = plt.subplots(1, 2, figsize=(11, 4))
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for axis in axes:  # ten lines of each style, then the next style
        axis.set_prop_cycle(linestyle=np.repeat(["-", "--", ":", "-."], len(colours)), color=colours * 4)
    return axes


def _percent_noisy(share):
    return "" if share is None else f" {100 * share:.0f} %"


def _line_with_band(axis, x, middle, low, high, label):
    line, = axis.plot(x, middle, label=label, marker=".")
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15)


def _finish(axes, path):
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    save_figure(axes[0].figure, path)


def plot_weights(tables, summaries, path):
    """A histogram per weight CSV: numbers of annotations that are untouched and that are noisy, where it is known."""
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


def plot_examples(rows, pred_dir, legend, count, path):
    """The annotations with the lowest and the highest weights: image, annotation with its file name, pseudo-label (paper,
    Figure 3).

    Args:
        pred_dir: see `pseudo_label_paths`.
        count: annotations at each end, as many as there are rows for.
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
        known = "" if "iterations" not in rows else ("\nnoisy" if row["iterations"] else "\nuntouched")
        axes[0, column].set_title(f"w = {row['weight']:.2f}{known}", fontsize=9,
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
