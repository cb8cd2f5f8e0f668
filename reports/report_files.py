"""The tables, pictures and pages of a set of runs; `report.py` and `tables.py` choose the runs.

The content of a table.json is a dict of `classes` (names), `baseline` and `clean` (names of runs, see `comparison.compare`),
`machine`, `args` and `runs` (see `packed`), `weights` (see `weight_summaries`), and `recommended` (name of runs, see
`verdict.verdict`), which may be missing. Those of `tables.py` have more, see there: `table`, `rows`, `shares`, `data_set`, and
`cost` (name of a row -> trainings of one network), missing in older ones.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, atomic_path, read_json, together, write_json
from data.legend import Legend
from data.rows import read_rows
from reports import comparison, figures
from reports.page import report_page
from reports.scores import Results, class_count, class_table, class_titles, compared_titles, titles_of
from reports.verdict import lowest_weights, teacher_text, verdict
from utils.metrics import markdown_table
from utils.ranking import summarise

PICTURES = ("noise", "gain", "learning_curves", "weights", "examples")
FILES = (*(f"{name}.png" for name in PICTURES), "table.md", "table.csv", "table.json", "report.html")


def result_tables(results: Results, legend: Legend | None = None, baseline: str | None = None, clean: str = "clean") -> str:
    """The test scores of all runs as Markdown: at the best epoch by validation, and at the last one.

    Args:
        results: dict of run -> content of result.json.
        legend: names of the classes, for the table by class.
        baseline, clean: see `comparison.compare`.

    Noisy validation annotations may choose an early epoch, so both are shown where they differ.
    """
    first, by_class, parts = next(iter(results.values())), class_titles(results), []
    tested = first["test"][0].get("images") or first.get("rows", {}).get("test")
    counted = f"{tested} test images, percent" if tested else "percent"
    for which in comparison.EPOCHS if any(each["test"] != each["test_last"] for each in results.values()) else ["test_last"]:
        title, rows = comparison.EPOCHS[which].capitalize(), comparison.compare(results, which, baseline, clean)
        parts.append(f"{title} ({counted}):\n\n{comparison.markdown(comparison.score_frame(rows))}\n")
        if by_class:
            names = (legend or Legend(class_count(first) or 0)).names
            parts.append(f"{title}, by class:\n\n{class_table(_by_label(results, which), by_class, names)}\n")
    return "\n".join(parts)


def _by_label(results: Results, which: str) -> dict[str, list[dict]]:
    """dict of group, with its noise share where others have the same label -> scores of its first network, a dict per seed."""
    groups = comparison.group_runs(results)
    labels = [group["label"] for group in groups]
    names = [label if labels.count(label) == 1 else f"{label}, noise {comparison.percent(group['noise_share'], 0)}"
             for label, group in zip(labels, groups)]
    return {name: [results[folder][which][0] for folder in group["runs"].values()] for name, group in zip(names, groups)}


def packed(results: Results) -> dict:
    """Results for a JSON: what all runs have in common in `args` and `machine` stands once."""
    every = [result["args"] for result in results.values()]
    shared = {flag: value for flag, value in every[0].items() if all(flag in each and each[flag] == value for each in every)}
    machines = [result.get("machine") for result in results.values()]
    one = machines[0] if all(each == machines[0] for each in machines) else None
    runs = {run: {**{key: value for key, value in result.items() if not (one and key == "machine")},
                  "args": {flag: value for flag, value in result["args"].items() if flag not in shared}}
            for run, result in results.items()}
    return {"machine": one, "args": shared, "runs": runs}


def unpacked(content: dict) -> Results:
    """The results of a table.json, as the runs wrote them."""
    return {run: {**result, "args": {**content.get("args", {}), **result["args"]}} for run, result in content["runs"].items()}


def read_weights(csvs: Sequence[Path | str], noisy_csv: Path | str | None = None) -> dict[str, pd.DataFrame]:
    """dict of CSV stem -> its rows with `weight` and, where the CSV or --noisy-csv knows them, `iterations`.

    Where two stems are equal, names start with as many folders as make them unique.

    Raises:
        UserError: a CSV is named twice; --noisy-csv has no `iterations`, or other rows than a weight CSV.
    """
    tables = dict(zip(names_of(csvs), (read_rows(csv, needs_weights=True) for csv in csvs)))
    if noisy_csv:
        levels = _by_files(read_rows(noisy_csv, needs_levels=True))["iterations"]
        for csv, rows in zip(csvs, tables.values()):
            rows["iterations"] = _levels_of(rows, levels, csv, noisy_csv)
    return tables


def names_of(files: Sequence[Path | str], flag: str = "--weights") -> list[str]:
    """A name for each of several files, told apart by folders, and by suffixes where all else is the same.

    Raises:
        UserError: a file is named twice with this flag.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    for whole in ([path.with_suffix("") for path in paths], paths):
        for depth in range(1, 1 + max((len(path.parts) for path in paths), default=0)):
            names = ["/".join(path.parts[-depth:]) for path in whole]
            if len(set(names)) == len(names):
                return names
    if files:
        raise UserError(f"{flag}: {next(file for file, path in zip(files, paths) if paths.count(path) > 1)} is named twice")
    return []


def _by_files(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with an index that does not depend on their order: image, mask, and how many earlier rows have both (int)."""
    files = pd.DataFrame({column: [os.path.realpath(path) for path in rows[column]] for column in ("image", "mask")})
    files["earlier"] = files.groupby(["image", "mask"]).cumcount()
    return rows.set_axis(pd.MultiIndex.from_frame(files))


def _levels_of(rows: pd.DataFrame, levels: pd.Series, csv: Path | str, noisy_csv: Path | str) -> np.ndarray:
    """Noise level of each row, int (rows,), from those of --noisy-csv (see `_by_files`)."""
    keys = _by_files(rows).index
    other = [key for one, others in ((keys, levels.index), (levels.index, keys)) for key in one.difference(others)]
    if other:
        raise UserError(f"--noisy-csv {noisy_csv}: holds other rows than {csv}; only one of them has image {other[0][0]} with "
                        f"mask {other[0][1]}, or has it so often; pass the CSV that was scored")
    return levels.loc[keys].to_numpy()


def weight_summaries(csvs: Sequence[Path | str], tables: dict[str, pd.DataFrame]) -> dict[str, dict]:
    """dict of a weight CSV's name in `tables` -> what is known of its weights.

    It holds what `ranking.summarise` gives, and what the JSON of utils/get_weight.py beside the CSV says, if there is one:
    Spearman's correlation with the truth, the teacher's mean agreement with the annotations, the tolerance theta, the mean
    weight, and why all weights are 1 (`fallback`).

    Args:
        csvs: of `read_weights`, which gave `tables`.
    """
    summaries = {name: summarise(rows)[0] for name, rows in tables.items()}
    for csv, summary in zip(csvs, summaries.values()):
        beside = Path(csv).with_suffix(".json")  # utils/get_weight.py knows the truth, the CSV does not
        if beside.exists():
            origin = read_json(beside)
            origin = origin if isinstance(origin, dict) else {}
            summary["spearman"] = origin.get("spearman")
            summary.update({key: origin[key] for key in ("agreement", "theta", "mean_weight", "fallback") if origin.get(key)})
    return summaries


def weight_table(summaries: dict[str, dict]) -> str:
    """A text table of `weight_summaries`: AUROC and AUPRC where noise levels are known, Spearman's correlation where the truth
    is, and the mean weight of each noise level."""
    levels = list(dict.fromkeys(level for summary in summaries.values() for level in summary["levels"]))
    titles = {"auroc": "AUROC", "auprc": "AUPRC", "spearman": "Spearman"}
    keys = [key for key in titles if any(summary.get(key) is not None for summary in summaries.values())]
    lines = []
    for name, summary in summaries.items():
        values = [summary.get(key) for key in keys]
        values += [summary["levels"].get(level, {}).get("mean") for level in levels]
        lines.append([name, *("-" if value is None else f"{value:.3f}" for value in values)])
    headings = ["weights", *(titles[key] for key in keys), *(f"mean at level {level}" for level in levels)]
    return markdown_table(headings, lines)


def report_text(content: dict, legend: Legend | None = None) -> str:
    """A table.json as Markdown: the teachers' agreement, the tables, and the sentence on the recommended option."""
    results = unpacked(content)
    text = result_tables(results, legend or Legend(len(content["classes"]), content["classes"]), content.get("baseline"),
                         content.get("clean", "clean"))
    weights, sentence = content.get("weights") or {}, sentence_of(content)
    titles = titles_of(next(iter(results.values())))
    return (teacher_text(weights, titles) + text + (f"\n{weight_table(weights)}\n" if weights else "")
            + (f"\n{sentence}\n" if sentence else ""))


def sentence_of(content: dict) -> str | None:
    """The sentence on the recommended option of a table.json; None where it names none, or runs are missing."""
    if not content.get("recommended"):
        return None
    return verdict(unpacked(content), content.get("weights") or {}, content["recommended"], content.get("baseline"),
                   content.get("clean") or "clean")


def write_report(out: Path, title: str, content: dict, text: str, weights: dict[str, pd.DataFrame] | None = None,
                 pred_dir: Path | str | None = None, legend: Legend | None = None, examples: int = 5) -> None:
    """Write all files of a report, see the head of report.py.

    Args:
        out: folder of the files.
        title: of the page.
        content: of table.json; the folders of its runs hold the logs for the learning curves.
        text: of table.md; the lowest weights are added to it.
        weights: dict of CSV stem -> rows; the last one gives the examples.
        pred_dir: pseudo-labels for the examples; without it there are none.
        legend: names and colours of the classes, for the examples.
        examples: annotations at each end of the weights.
    """
    results = unpacked(content)
    clean = content.get("clean", "clean")
    rows = comparison.compare(results, "test_last", content.get("baseline"), clean)
    lowest = lowest_weights(weights or {})
    text = f"{text}\n{lowest}" if lowest else text
    with together() as written_at:
        drawn = {name: written_at(out / f"{name}.png") for name in PICTURES}
        figures.plot_noise(rows, drawn["noise"], clean)
        figures.plot_gain(rows, drawn["gain"])
        figures.plot_learning_curves(comparison.group_runs(results), compared_titles(results), drawn["learning_curves"], clean)
        if weights:
            figures.plot_weights(weights, content["weights"], drawn["weights"])
            if pred_dir and legend:
                figures.plot_examples(list(weights.values())[-1], pred_dir, legend, examples, drawn["examples"])
        drawn = {name: path for name, path in drawn.items() if path.exists()}
        page = report_page(title, text, drawn, sentence_of(content))
        for name, written in (("table.md", text), ("report.html", page),
                              ("table.csv", comparison.number_frame(rows).to_csv(index=False))):
            with atomic_path(written_at(out / name)) as temporary:
                temporary.write_text(written, encoding="utf-8")
        write_json(written_at(out / "table.json"), content)
    for name in set(PICTURES) - set(drawn):  # of an earlier report
        (out / f"{name}.png").unlink(missing_ok=True)
