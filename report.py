"""Tables and pictures of any set of finished runs.

    python report.py runs/photos/noisy runs/photos/kd_bm runs/photos/own3 runs/photos/clean --out runs/photos/report \\
        --weights runs/photos/csv/train_noisy_weight_bmscore.csv --pred-dir runs/photos/teacher/pseudo --recommended own3

Runs that differ only in their seed share one line: mean and standard deviation. Differences (Δ) to the first run's
method, or to --baseline, are taken seed by seed, with a 95 % interval; the gap recovered is (method - baseline) /
(clean - baseline), where `clean` is the run of that name, or --clean. Runs of different test rows are not put into one table.
Each result.json names its scores, so runs of any task can be tabulated, but not of two tasks together.

writes to --out: table.md, table.csv and table.json (everything, in 0..1), learning_curves.png, noise.png (scores against the
share of noisy annotations), gain.png (the score won against the AUROC of the weights), and, from weight CSVs, weights.png (how
many annotations have which weight) and examples.png (the lowest and the highest weights; the paper's Figure 3); report.html
holds all of it in one file and explains the scores. The files of the 20 lowest weights stand in table.md. With
--recommended NAME a sentence says whether those runs beat the baseline, and which option to take; it goes by the last of the
compared scores (of segmentation, BF).

    python report.py --json docs/results/people_own.json      prints the tables of a table.json again
    python report.py --json A.json B.json --rows own3         prints one row of several tables: where the option wins, and where
                                                              it does not
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from cli.command_line import command_line, positive_int, refuse_given, tool_parser
from cli.files import UserError, check_outputs, read_json
from cli.flags import add_legend_flag
from data.legend import Legend, read_legend
from reports.across import across_text, rows_of
from reports.comparison import read_runs
from reports.report_files import FILES, names_of, packed, read_weights, report_text, weight_summaries, write_report
from reports.scores import class_count


def parse() -> argparse.Namespace:
    """The flags, once they go together."""
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="*", help="folders of finished runs; the first is tabulated first")
    parser.add_argument("--out", help="folder of the tables and pictures; its files are replaced")
    parser.add_argument("--baseline", metavar="NAME", help="runs that differences are taken to (default: the first run's name)")
    parser.add_argument("--clean", metavar="NAME", help="runs on clean annotations, the upper end of the gap (default: clean)")
    parser.add_argument("--recommended", metavar="NAME", help="runs of which a sentence says whether they beat the baseline")
    parser.add_argument("--weights", nargs="*", default=[], metavar="CSV", help="weight CSVs; the last one gives the examples")
    parser.add_argument("--noisy-csv", metavar="CSV", help="the same rows, in any order, with `iterations`, "
                                                           "where the weight CSVs have none")
    parser.add_argument("--pred-dir", help="pseudo-labels, for the examples")
    parser.add_argument("--examples", type=positive_int, default=5, help="annotations shown at each end")
    parser.add_argument("--json", nargs="+", metavar="FILE", help="print the tables of this table.json, and nothing else; of "
                                                                  "several, the runs that --rows names")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="runs to take from the tables of --json, into one table")
    add_legend_flag(parser)
    args = parser.parse_args()
    if args.json:
        if args.runs or args.out or args.weights:
            raise UserError("--json prints the tables of a file; it goes without runs, --out and --weights")
        unread = {"noisy_csv", "pred_dir", "examples", "classes"}
        refuse_given(parser, args, unread, "--json prints the tables of a file; leave it out")
        return args
    if args.rows:
        raise UserError("--rows goes with --json")
    if not args.runs or not args.out:
        raise UserError("pass the folders of finished runs and --out, or --json FILE")
    if not args.weights and (args.noisy_csv or args.pred_dir):
        raise UserError("--noisy-csv and --pred-dir go with --weights")
    return args


def main() -> None:
    args = parse()
    if args.json:
        (print_across if args.rows else print_tables)(args)
        return
    results, out = read_runs(args.runs), Path(args.out)
    check_names(args, results)
    legend = legend_of(args.classes, next(iter(results.values())))
    content = {"classes": legend.names, "baseline": args.baseline, "clean": args.clean or "clean",
               "recommended": args.recommended, **packed(results)}
    tables = read_weights(args.weights, args.noisy_csv)
    check_out(args, out, tables)
    if tables:
        content["weights"] = weight_summaries(args.weights, tables)
    text = report_text(content, legend)
    write_report(out, title_of(results), content, text, tables, args.pred_dir, legend, args.examples)
    print(text)
    print(f"tables and pictures: {out}")


def legend_of(path: str | None, result: dict) -> Legend:
    """Names and colours of the classes of a run; of no classes where the run does not know their number.

    Args:
        path: --classes.
        result: content of result.json.

    Raises:
        UserError: --classes is given but the run does not know the number of classes.
    """
    classes = class_count(result)
    if classes is None and path:
        raise UserError(f"--classes {path}: these runs have no scores of classes; leave the flag out")
    names = result["args"].get("classes")  # of class labels; a run on masks does not know the names
    return Legend(classes, names) if classes and names and not path else read_legend(path, classes or 0)


def title_of(results: dict[str, dict]) -> str:
    """The name of the folder that holds the runs, and the runs' names.

    Args:
        results: dict of folder -> content of result.json.
    """
    folder = Path(os.path.commonpath([Path(run).resolve().parent for run in results])).name
    names = list(dict.fromkeys(Path(result["name"]).name for result in results.values()))
    return f"{folder}: {', '.join(names[:6])}{' and others' * (len(names) > 6)}"


def check_names(args: argparse.Namespace, results: dict[str, dict]) -> None:
    """Raise UserError unless there are runs named --baseline, --clean and --recommended.

    Args:
        results: dict of folder -> content of result.json.
    """
    names = list(dict.fromkeys(Path(result["name"]).name for result in results.values()))
    for flag, name in (("--baseline", args.baseline), ("--clean", args.clean), ("--recommended", args.recommended)):
        if name is not None and name not in names:
            raise UserError(f"{flag} {name}: no run has this name; there are {', '.join(names)}")


def check_out(args: argparse.Namespace, out: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Raise UserError unless the report can be written: over an earlier report, never over anything else.

    Args:
        tables: dict of name -> rows of a weight CSV.
    """
    files = [out / name for name in FILES]
    read = [path for rows in tables.values() for column in ("image", "mask") for path in rows[column]]
    check_outputs(files, True, [*args.weights, args.noisy_csv, args.classes, *read])
    there = [path for path in files if path.exists()]
    if there and not (out / "table.json").exists():
        raise UserError(f"{there[0]} exists and is not of a report; choose another --out")
    if there:
        read_json(out / "table.json", "classes", "runs")


def print_tables(args: argparse.Namespace) -> None:
    """Print the tables of --json again; --baseline, --clean and --recommended replace its own names, where they are given."""
    if len(args.json) > 1:
        raise UserError("--json: of several files, name the runs to tabulate with --rows")
    content = read_json(args.json[0], "classes", "runs")
    with tables_of(args.json[0]):
        check_names(args, content["runs"])
        content.update({key: value for key in ("baseline", "clean", "recommended") if (value := getattr(args, key))})
        print(report_text(content))


def print_across(args: argparse.Namespace) -> None:
    """Print --rows of all tables of --json; a table goes by the name of its file, table.json by that of its folders."""
    if args.baseline or args.clean or args.recommended:
        raise UserError("--rows takes each table's own baseline and clean runs: it goes without --baseline, --clean and "
                        "--recommended")
    tables = {}
    for name, path in zip(names_of(args.json, "--json"), args.json):
        content = read_json(path, "classes", "runs")
        with tables_of(path):
            tables[name] = rows_of(content)
    print(across_text(tables, args.rows))


@contextmanager
def tables_of(file: str) -> Iterator[None]:
    """Turn whatever goes wrong while the tables of a file are made into a UserError that names it."""
    try:
        yield
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise UserError(f"{file}: not a table.json of a report ({type(error).__name__}: {error})") from None


if __name__ == "__main__":
    command_line(main)
