"""The paper's tables and its Figure 3, on your own data: each row over several seeds, with controls, by one command.

    python tables.py table2 --data data/csv/people --seeds 0 1 2 --size 160 112 --epochs 12 --jobs 2

table1   half weight for coarse masks added to clean ones       table4   two students, two teachers
table2   weights by mIoU, BF and both, over shares of noise     table5   methods of two networks
table3   clean and coarse annotations                           figure3  the lowest and the highest weights
all      everything above                               alternatives  weightings beyond the paper
                                                        rivals   other remedies for coarse masks

--data is a folder with train.csv and test.csv, or the name of one in data/csv (see the data/prepare_*.py scripts). Noise is
added to the training masks; where train_truth.csv lies beside them (really coarse masks, and better ones of the same
pictures) they are taken as they are. Runs are kept in --out/NAME and shared by all tables: finished ones are skipped,
interrupted ones continue, and runs with other flags or files are refused: pass another --name. A table ends in
--out/NAME/TABLE: table.md, table.csv, table.json, report.html and figures (see report.py), laid out like the paper's (its
figures beside ours where the data set is the paper's, from prepare_supervisely.py or prepare_cityscapes.py), with what each row
costs in trainings of one network, those of its teachers and earlier passes included; then each row's difference to the baseline
of its own network and the share of the gap to clean masks that it recovers. Every row is the last epoch, since coarse
validation masks choose a bad one. Flags that are not listed go to every training (e.g. --precision bf16-mixed).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cli.command_line import command_line, given_names, nonnegative_int, positive_float, positive_int, share, tool_parser
from cli.files import UserError, counted
from cli.flags import add_class_flag, add_legend_flag, add_noise_flags
from data.csv_files import read_table
from data.legend import read_legend
from data.rows import read_rows
from data.splits import prepared_data_set
from engine import lock
from engine.run_folder import inside
from models import NAMES
from reports import comparison
from reports.across import share_title
from reports.experiment import (
    DRAWN,
    Cell,
    add_plan_judge_flag,
    drawn_coarsely,
    refuse_noise,
    splits_folder,
    training_flags,
    trainings,
)
from reports.figures import plot_examples
from reports.paper import published
from reports.plan import Job, refuse_other_settings, run_plan, with_needs
from reports.report_files import packed, read_weights, report_text, unpacked, weight_summaries, write_report
from reports.rivals import seconds_spent
from reports.rows import PAPERS, TABLES, Role
from reports.workers import add_worker_flags, workers_of
from utils.metrics import markdown_table

PAPERS_SHARES = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
Jobs = dict[tuple[str, float | str, int], Job]  # by row name, share of noisy masks, and seed


def shares_of(table: str, args: argparse.Namespace) -> list:
    """Shares of noisy masks that a table asks for; really coarse annotations are one share of their own."""
    if drawn_coarsely(args.splits):
        return [0, DRAWN] if table == "table3" else [DRAWN]
    return {"table1": [round(1 / 9, 3)], "table2": args.shares, "table3": [0, args.share]}.get(table, [args.share])


def jobs_of(table: str, args: argparse.Namespace) -> Jobs:
    """The jobs of a table's rows at its shares and seeds."""
    shares = shares_of(table, args)
    cells = [Cell(args, each, seed) for seed in args.seeds for each in shares]
    return {(row.name, cell.share, cell.seed): row.job(cell) for cell in cells for row in TABLES[table][1]
            if row.stands_at(cell.share, shares) and (not args.rows or row.name in args.rows)}


def layout(content: dict) -> str:
    """The table as the paper lays it out: mIoU / BF in percent, ours, and the paper's where it has them.

    Args:
        content: of the table.json that `make_table` writes.
    """
    rows = [row for row in comparison.compare(unpacked(content), "test_last", "noisy") if not row["network"]]
    row_of = {row.name: row for row in TABLES[content["table"]][1]}
    found = {(row["name"], asked_share(row, content["shares"])): row for row in rows}
    bounds = {row["name"]: row for row in rows if row_of[row["name"]].role is Role.UPPER_BOUND}  # they stand at any share
    spread, compared = comparison.spread_title("", rows), comparison.compared_in(rows)
    titles = [" / ".join(title + spread for title in compared.values()) + ", %"]
    lines = [[title] for _, title in content["rows"]]
    cost = content.get("cost")  # missing in older ones
    if cost:
        titles.append("cost, trainings")
        lines = [[title, str(cost[name])] for name, title in content["rows"]]
    for its_share in content["shares"]:
        ours, papers = [], []
        for name, _ in content["rows"]:
            own = bounds.get((its_share == 0 and row_of[name].upper) or name) or found.get((name, its_share))
            paper = published(content["table"], name, its_share, content.get("data_set"))
            ours.append(" / ".join(comparison.with_spread(own["scores"][score], 1) for score in compared) if own else "-")
            papers.append("{:.2f} / {:.2f}".format(*paper) if paper else "-")
        for title, cells in ((share_title(its_share, content), ours), ("paper", papers)):
            if set(cells) != {"-"}:
                titles.append(title)
                lines = [line + [cell] for line, cell in zip(lines, cells)]
    return markdown_table(titles, lines)


def asked_share(row: dict, shares: Sequence[float]) -> float | None:
    """The requested share that belongs to a row of `comparison.compare`; None if there is none.

    A share of the masks is rounded to whole masks: 0.3 of 11 is 3 of 11.
    """
    if row["noise_share"] is None:
        return None
    nearest = min(shares, key=lambda share: abs(share - row["noise_share"]))
    return nearest if abs(nearest - row["noise_share"]) <= 0.5 / (row["rows"] or 100) + 1e-9 else None


def table_text(content: dict) -> str:
    """All of a table as Markdown: the paper's layout, then each run against the baseline, then the weights."""
    seeds = counted(len({result["args"]["seed"] for result in unpacked(content).values()}), "seed")
    text = f"{TABLES[content['table']][0]} ({seeds})\n\n{layout(content)}\n\n{report_text(content)}"
    if "seconds" in content:
        spent = [(name, f"{seconds:.0f}") for name, seconds in content["seconds"].items()]
        text += "\n\n" + markdown_table(["run", "seconds of the first seed, with all that it needs"], spent)
    return text


def make_table(table: str, args: argparse.Namespace, jobs: Jobs) -> None:
    """Write the report of finished jobs, the weights being those of the first seed at the highest share."""
    runs, shown = [job.result.parent for job in jobs.values()], {name for name, _, _ in jobs}
    last = [job for (_, its_share, seed), job in jobs.items()
            if (its_share, seed) == (shares_of(table, args)[-1], args.seeds[0])]
    csvs = list(dict.fromkeys(need.result for job in last for need in job.needs if need.pseudo))
    results, legend, weights = comparison.read_runs(runs), read_legend(args.classes, args.num_classes), read_weights(csvs)
    content = {"table": table, "rows": [(row.name, row.title) for row in TABLES[table][1] if row.name in shown],
               "shares": [1 if each == DRAWN else each for each in shares_of(table, args)],
               "data_set": prepared_data_set(args.splits), "classes": legend.names, "baseline": "noisy", "clean": "clean",
               "cost": {name: trainings(job) for (name, _, _), job in jobs.items()}, **packed(results)}
    if table == "rivals":
        content["seconds"] = {job.result.parent.name: seconds_spent(job) for job in last}
    if weights:
        content["weights"] = weight_summaries(csvs, weights)
    text = table_text(content)
    write_report(args.home / table, TABLES[table][0], content, text, weights)
    print(f"\n{text}\ntables and pictures: {args.home / table}")


def make_figure3(args: argparse.Namespace, job: Job) -> None:
    """The annotations with the lowest and the highest weights, from a finished job of weights."""
    assert job.pseudo, "a job of weights has pseudo-labels"
    rows, path = read_rows(job.result, needs_weights=True), args.home / "figure3" / "examples.png"
    plot_examples(rows, job.pseudo, read_legend(args.classes, args.num_classes), 5, path)
    print(f"lowest and highest weights of {job.result}: {path}")


def refuse_unread(args: argparse.Namespace, given: set[str]) -> None:
    """Raise UserError if the user has set a flag that the table does not read, or names a row that it does not have."""
    shares = {"table1": set(), "table2": {"shares"}, "all": {"share", "shares"}}.get(args.table, {"share"})
    unread = (given & {"share", "shares"}) - shares | (given & {"rows"} if args.table == "figure3" else set())
    for flag in sorted(unread):
        raise UserError(f"--{flag}: {args.table} does not read it; leave it out")
    if args.table in TABLES:
        own = [row.name for row in TABLES[args.table][1]]
        for name in args.rows or []:
            if name not in own:
                raise UserError(f"--rows {name}: {args.table} has no such row; there are {', '.join(own)}")


def refuse_equal_shares(shares: Sequence[float], train: Path) -> None:
    """Raise UserError if two shares make the same share of the rows noisy, in percent, so that a table could not tell them."""
    rows = len(read_table(train, None))
    percents: dict[int, float] = {}
    for each in shares:
        other = percents.setdefault(round(100 * round(each * rows) / max(1, rows)), each)
        if other != each:
            raise UserError(f"--shares {other:g} {each:g}: are the same percentage of the {rows} rows of {train}; leave out "
                            "one of them")


def flags() -> argparse.ArgumentParser:
    """The parser."""
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("table", choices=(*TABLES, "figure3", "all"))
    parser.add_argument("--data", required=True, help="folder with train.csv and test.csv, or its name in data/csv")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2], help="of noise, folds and trainings")
    parser.add_argument("--shares", type=share, nargs="+", default=PAPERS_SHARES, help="of noisy masks, table 2")
    parser.add_argument("--share", type=share, default=0.6, help="of noisy masks, tables 3 to 5 and figure 3")
    parser.add_argument("--rows", nargs="+", help="only these rows, by their runs' names (noisy, bm_kd, sharp, clean, ...)")
    parser.add_argument("--finished", action="store_true", help="run nothing; make the tables from finished runs")
    add_worker_flags(parser, jobs=1)
    parser.add_argument("--out", default="runs/tables", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: the name of --data)")
    parser.add_argument("--teacher", default="pointrend", choices=NAMES, help="of all weights, unless a row names another")
    parser.add_argument("--folds", type=positive_int, default=3, help="of the teachers")
    parser.add_argument("--no-flip", dest="flip", action="store_false", help="teachers do not average over the mirror image")
    parser.add_argument("--encoder", default="mobilenet_v2", help="of all networks")
    parser.add_argument("--encoder-weights", default="imagenet", metavar="imagenet|none|FILE")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"), help="training size, px")
    parser.add_argument("--epochs", type=positive_int, default=12)
    parser.add_argument("--batch-size", type=positive_int, default=16)
    parser.add_argument("--lambda-warmup", type=nonnegative_int, default=2, help="epochs without the student's weight")
    parser.add_argument("--ramp-epochs", type=positive_int, default=4, help="of Co-teaching")
    parser.add_argument("--theta", type=positive_float, default=3.0, help="boundary tolerance of BF, px")
    add_plan_judge_flag(parser)
    add_class_flag(parser)
    add_legend_flag(parser)
    add_noise_flags(parser)
    return parser


def parse() -> argparse.Namespace:
    """The flags, checked; unknown ones go to every training."""
    parser = flags()
    args, other = parser.parse_known_args()
    given = given_names(parser, args)
    names = {row.name for _, rows in TABLES.values() for row in rows}
    for name in sorted({*(args.rows or [])} - names):
        raise UserError(f"--rows {name}: no such row; there are {', '.join(sorted(names))}")
    refuse_unread(args, given)
    args.splits, args.shares = splits_folder(args.data), sorted(args.shares)
    args.home = inside(args.out, args.name or args.splits.name)
    refuse_noise(args.splits, given & {"share", "shares", "noise"})
    args.classes = args.classes or next(args.splits.glob("classes.json"), None)
    args.training = training_flags(list(map(str, [
        "--epochs", args.epochs, "--batch-size", args.batch_size, "--lr-step", max(1, args.epochs // 3), "--optimizer", "adamw",
        "--learning-rate", 0.001, "--cache", *other])))
    if "shares" in given:
        refuse_equal_shares(args.shares, args.splits / "train.csv")
    return args


def main() -> None:
    args = parse()
    workers = workers_of(args)
    tables = {"all": PAPERS, "figure3": []}.get(args.table, [args.table])
    plans = {table: jobs_of(table, args) for table in tables}
    if args.finished:
        refuse_other_settings(with_needs([job for jobs in plans.values() for job in jobs.values()]))
        plans = {table: {key: job for key, job in jobs.items() if job.finished()} for table, jobs in plans.items()}
    cell = Cell(args, DRAWN if drawn_coarsely(args.splits) else args.share, args.seeds[0])
    examples = [cell.weights(args.teacher, "bm")] if args.table in ("all", "figure3") else []
    for table, jobs in plans.items():
        if not any(shares_of(table, args)):
            raise UserError(f"{table}: without noise there is no baseline to compare with; pass a share of noisy masks above 0")
        if not any(name == "noisy" for name, _, _ in jobs):
            raise UserError(f"{table}: the baseline, `noisy`, is not finished or not among --rows")
    if not args.finished:
        with lock.folder_lock(args.home):
            run_plan([*examples, *(job for jobs in plans.values() for job in jobs.values())], workers)
    for table, jobs in plans.items():
        make_table(table, args, jobs)
    for job in examples:
        make_figure3(args, job)


if __name__ == "__main__":
    command_line(main)
