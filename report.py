"""Tables and pictures of finished runs.

    python report.py runs/photos/noisy runs/photos/teacher_bm runs/photos/kd_bm --out runs/photos/report \\
        --weights runs/photos/csv/train_noisy_weight_bmscore.csv --noisy-csv runs/photos/csv/train_noisy.csv \\
        --pred-dir runs/photos/teacher/pseudo

Runs of one name in different folders are seeds of one method: their mean and standard deviation are tabulated. With more than
two classes there is a table of classes too, and the examples have a legend (--classes).

writes to --out: table.md and table.json (test scores of every run), learning_curves.png, and, from weight CSVs,
weights.png (how the weights of clean and of noisy annotations spread) and examples.png (the annotations with the lowest and
the highest weights; the paper's Figure 3). Runs of different test rows are not put into one table.
"""

import json
from pathlib import Path

import numpy as np

from data.command_line import command_line, positive_int, tool_parser
from data.files import (
    UserError,
    atomic_path,
    image_size,
    read_image,
    read_json,
    read_mask,
    resize_image,
    resize_labels,
    write_json,
)
from data.lazy import LazyModule
from data.legend import Legend, read_legend
from data.rows import pseudo_label_names, read_rows
from utils.get_weight import summarise
from utils.metrics import class_table, grouped_scores, score_table
from utils.options import add_legend_flag
from utils.run_folder import FREE_FLAGS

plt = LazyModule("matplotlib.pyplot")

# flags in which the seeds of one method may differ; the forget rate is by default each CSV's own share of noise
SEED_FLAGS = {"seed", "train_csv", "valid_csv", "forget_rate", *FREE_FLAGS}


def collect(runs):
    """dict of run -> result.json's content; runs go by the name of their folder, or by its path where names are equal.

    Raises:
        UserError: a run is unfinished, was tested on other rows, size or theta than the first, or shares its name with one
            that is not the same method.
    """
    results = {}
    short = len({Path(run).name for run in runs}) == len(runs)
    for run in runs:
        path = Path(run) / "result.json"
        if not path.is_file():
            raise UserError(f"{run}: no result.json; the run is not finished (resume it with --resume)")
        results[Path(run).name if short else str(run)] = read_json(path)
    first = next(iter(results.values()))["args"]
    for name, result in results.items():
        if not result["test"]:
            raise UserError(f"{name}: was run without --test_csv, there is nothing to tabulate")
        for flag in ("test_csv", "size", "theta", "num_classes"):
            if result["args"][flag] != first[flag]:
                raise UserError(f"{name}: tested with --{flag} {result['args'][flag]}, the first run with {first[flag]}; "
                                "tabulate them apart")
    seeds = {}
    for run, result in results.items():
        first = seeds.setdefault(result["name"], result)["args"]
        for flag in sorted((result["args"].keys() | first.keys()) - SEED_FLAGS):
            if result["args"].get(flag) != first.get(flag):
                raise UserError(f"{run}: shares its name with a run of another --{flag.replace('_', '-')}, so they are not "
                                "seeds of one method; tabulate them apart")
    return results


def result_tables(results, legend=None):
    """The test scores of all runs as text: at the best epoch by validation, and at the last one.

    Args:
        results: dict of run -> content of result.json.
        legend: names the classes where there are more than two.

    Both, since annotations that are coarse in validation too may choose an early epoch.
    """
    first = next(iter(results.values()))
    images, num_classes = first["test"][0]["images"], first["args"]["num_classes"]
    parts = []
    for which, title in (("test", "Best epoch by validation"), ("test_last", "Last epoch")):
        rows = grouped_scores(results, which)
        parts.append(f"{title} ({images} test images, percent):\n\n{score_table(rows)}\n")
        if num_classes > 2:
            parts.append(f"{title}, by class:\n\n{class_table(rows, (legend or Legend(num_classes)).names)}\n")
    return "\n".join(parts)


def save_figure(figure, path):
    """Write a figure, whole or not at all."""
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    plt.close(figure)


def plot_learning_curves(runs, path):
    """Validation mIoU and BF over the epochs: a line per run name, the mean over its seeds, and a band from worst to best."""
    curves = {}  # name -> list of (epochs, 2), a seed each
    for run in runs:
        lines = (Path(run) / "log.jsonl").read_text(encoding="utf-8").splitlines()
        scores = [entry["valid"][0] for entry in map(json.loads, lines) if entry["valid"]]
        if scores:
            curves.setdefault(Path(run).name, []).append([[100 * each[key] for key in ("miou", "bf")] for each in scores])
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for name, seeds in curves.items():
        length = min(map(len, seeds))
        values, epochs = np.array([each[:length] for each in seeds]), range(1, length + 1)  # (seeds, epochs, 2)
        for k, axis in enumerate(axes):
            line, = axis.plot(epochs, values[..., k].mean(0), label=name, marker=".")
            axis.fill_between(epochs, values[..., k].min(0), values[..., k].max(0), color=line.get_color(), alpha=0.15)
    for axis, title in zip(axes, ("mIoU", "BF")):
        axis.set(xlabel="epoch", ylabel=f"{title} on the validation annotations, %")
        axis.grid(alpha=0.3)
    axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    save_figure(figure, path)


def read_weights(csvs, noisy_csv=None):
    """dict of CSV stem -> its rows with `weight` and, where --noisy-csv knows them, `iterations`.

    Raises:
        UserError: --noisy-csv has no `iterations`, or other rows than a weight CSV.
    """
    levels = None
    if noisy_csv:
        known = read_rows(noisy_csv)
        if "iterations" not in known:
            raise UserError(f"--noisy-csv {noisy_csv}: has no column `iterations`")
        levels = known["iterations"].to_numpy()
    tables = {Path(csv).stem: read_rows(csv, needs_weights=True) for csv in csvs}
    for name, rows in tables.items():
        if levels is not None:
            if len(rows) != len(levels):
                raise UserError(f"--noisy-csv {noisy_csv}: holds {len(levels)} rows, {name} holds {len(rows)}")
            rows["iterations"] = levels
    return tables


def weight_table(summaries):
    """A text table of `get_weight.summarise` results: AUROC where noise levels are known, Spearman's correlation where the
    truth is, and the mean weight of each noise level."""
    levels = list(next(iter(summaries.values()))["levels"])
    known = [key for key in ("auroc", "spearman") if any(summary.get(key) is not None for summary in summaries.values())]
    titles = [{"auroc": "AUROC", "spearman": "Spearman"}[key] for key in known] + [f"mean at level {level}" for level in levels]
    lines = ["| weights | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name, summary in summaries.items():
        values = [summary.get(key) for key in known] + [summary["levels"][level]["mean"] for level in levels]
        lines.append(f"| {name} | " + " | ".join("-" if value is None else f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)


def plot_weights(tables, summaries, path):
    """A histogram per weight CSV: annotations that are untouched against those that are noisy, where it is known."""
    figure, axes = plt.subplots(1, len(tables), figsize=(4.2 * len(tables), 3.4), squeeze=False)
    bins = np.linspace(0, 1, 31)
    for axis, (name, rows) in zip(axes[0], tables.items()):
        title = name
        if "iterations" in rows:
            noisy = rows["iterations"] > 0
            axis.hist([rows["weight"][~noisy], rows["weight"][noisy]], bins, stacked=True, label=["untouched", "noisy"],
                      color=["tab:blue", "tab:orange"])
            axis.legend()
            if summaries[name]["auroc"] is not None:
                title += f"\nAUROC {summaries[name]['auroc']:.3f}"
        else:
            axis.hist(rows["weight"], bins)
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="weight", ylabel="annotations", xlim=(0, 1))
    save_figure(figure, path)


def plot_examples(rows, pred_dir, legend, count, path):
    """The annotations with the lowest and the highest weights: image, annotation, pseudo-label (paper, Figure 3)."""
    order = np.argsort(rows["weight"].to_numpy(), kind="stable")
    chosen = np.concatenate([order[:count], order[-count:]])
    names, num_classes = pseudo_label_names(rows), len(legend.names)
    height, width = image_size(rows.iloc[chosen[0]]["image"])
    figure, axes = plt.subplots(3, 2 * count, figsize=(1.7 * 2 * count, 3 * 1.7 * height / width + 1.2), squeeze=False)
    for column, index in enumerate(chosen):
        row = rows.iloc[index]
        image = read_image(row["image"])
        image = resize_image(image, (240, max(1, round(240 * image.shape[1] / image.shape[0]))))
        axes[0, column].imshow(image)
        for line, mask in ((1, row["mask"]), (2, Path(pred_dir) / names[index])):
            labels = resize_labels(read_mask(mask, num_classes), image.shape[:2])
            axes[line, column].imshow(legend.overlay(image, labels, strength=0.25 if num_classes == 2 else 0.6))
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


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="+", help="folders of finished runs; the first is tabulated first")
    parser.add_argument("--out", required=True, help="folder of the tables and pictures; its files are replaced")
    parser.add_argument("--weights", nargs="*", default=[], metavar="CSV", help="weight CSVs; the last one gives the examples")
    parser.add_argument("--noisy-csv", metavar="CSV", help="the same rows with `iterations`: tells noisy from untouched")
    parser.add_argument("--pred-dir", help="pseudo-labels, for the examples")
    parser.add_argument("--examples", type=positive_int, default=5, help="annotations shown at each end")
    add_legend_flag(parser)
    args = parser.parse_args()

    plt.switch_backend("agg")
    results, out = collect(args.runs), Path(args.out)
    legend = read_legend(args.classes, next(iter(results.values()))["args"]["num_classes"])
    text = result_tables(results, legend)
    content = {"classes": legend.names, "runs": results}
    plot_learning_curves(args.runs, out / "learning_curves.png")
    if args.weights:
        tables = read_weights(args.weights, args.noisy_csv)
        content["weights"] = summaries = {name: summarise(rows)[0] for name, rows in tables.items()}
        for csv, summary in zip(args.weights, summaries.values()):
            beside = Path(csv).with_suffix(".json")  # utils/get_weight.py knows the truth, the CSV does not
            if beside.exists():
                summary["spearman"] = read_json(beside).get("spearman")
        text += f"\n{weight_table(summaries)}\n"
        plot_weights(tables, summaries, out / "weights.png")
        if args.pred_dir:
            rows = list(tables.values())[-1]
            plot_examples(rows, args.pred_dir, legend, min(args.examples, max(1, len(rows) // 2)),
                          out / "examples.png")
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(out / "table.json", content)
    print(text)
    print(f"tables and pictures: {out}")


if __name__ == "__main__":
    command_line(main)
