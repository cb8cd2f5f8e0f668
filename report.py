"""Tables and pictures of finished runs, any set of them.

    python report.py runs/photos/noisy runs/photos/teacher_bm runs/photos/kd_bm runs/photos/clean --out runs/photos/report \\
        --weights runs/photos/csv/train_noisy_weight_bmscore.csv --pred-dir runs/photos/teacher/pseudo

Runs that differ in nothing but their seed are one line: mean and standard deviation. Differences (Δ) to the first run's
method, or to --baseline, are taken seed by seed, with a 95 % interval; the gap recovered is (method - baseline) /
(clean - baseline), where `clean` is the run of that name, or --clean. Runs of different test rows are not put into one table.

writes to --out: table.md, table.csv and table.json (everything, in 0..1), learning_curves.png, noise.png (scores against the
share of noisy masks), gain.png (BF won against how well the weights find the noisy masks), and, from weight CSVs, weights.png
(how the weights spread) and examples.png (annotations with the lowest and the highest weights; the paper's Figure 3);
report.html holds all of it in one file.

    python report.py --json docs/results/people.json      prints the tables of a table.json again
"""

from pathlib import Path

from data.command_line import command_line, positive_int, tool_parser
from data.files import UserError, read_json
from data.legend import read_legend
from utils.comparison import read_runs
from utils.options import add_legend_flag
from utils.reporting import packed, read_weights, report_text, weight_summaries, write_report


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("runs", nargs="*", help="folders of finished runs; the first is tabulated first")
    parser.add_argument("--out", help="folder of the tables and pictures; its files are replaced")
    parser.add_argument("--baseline", metavar="NAME", help="runs that differences are taken to (default: the first run's name)")
    parser.add_argument("--clean", metavar="NAME", default="clean", help="runs on clean masks, the upper end of the gap")
    parser.add_argument("--weights", nargs="*", default=[], metavar="CSV", help="weight CSVs; the last one gives the examples")
    parser.add_argument("--noisy-csv", metavar="CSV", help="the same rows with `iterations`, where the weight CSVs have none")
    parser.add_argument("--pred-dir", help="pseudo-labels, for the examples")
    parser.add_argument("--examples", type=positive_int, default=5, help="annotations shown at each end")
    parser.add_argument("--json", metavar="FILE", help="print the tables of this table.json, and nothing else")
    add_legend_flag(parser)
    args = parser.parse_args()
    if args.json:
        print(report_text(read_json(args.json, "classes", "runs")))
        return
    if not args.runs or not args.out:
        raise UserError("pass the folders of finished runs and --out, or --json FILE")

    results, out = read_runs(args.runs), Path(args.out)
    legend = read_legend(args.classes, next(iter(results.values()))["args"]["num_classes"])
    content = {"classes": legend.names, "baseline": args.baseline, "clean": args.clean, **packed(results)}
    tables = read_weights(args.weights, args.noisy_csv)
    if tables:
        content["weights"] = weight_summaries(args.weights, tables)
    text = report_text(content, legend)
    write_report(out, f"Runs of {out.parent}", content, text, tables, args.pred_dir, legend, args.examples)
    print(text)
    print(f"tables and pictures: {out}")


if __name__ == "__main__":
    command_line(main)
