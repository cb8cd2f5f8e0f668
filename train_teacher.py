"""Teachers whose pseudo-labels judge the annotations, out-of-fold: no teacher judges a mask it was fitted on.

The rows are split at random into K folds; teacher k trains on all folds but the k-th and then predicts the k-th. A teacher
that is asked about its own training masks has learnt their noise by heart and finds them fine.

    python train_teacher.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv --name teacher \\
        --model pointrend --encoder resnet34 --encoder-weights imagenet --folds 3 --rounds 2

In the first round every annotation counts 1, or, with --weighted, its `weight` in the CSV, which an earlier call's teachers may
have given it. In a later one, with the same folds, each counts as much as it agrees, by --metric, with the pseudo-label that
the round before gave it.

Leaves one run per fold, runs/teacher/fold0 ..., the pseudo-labels of all rows in runs/teacher/pseudo, and
runs/teacher/teacher.json, which says who judged what and what each was trained on; earlier rounds stand in round1/ ... With
--folds 1 one teacher trains on all of --train_csv and predicts --predict_csv (default: the same rows, which only suits a
teacher trained on other data).
"""

from data.command_line import command_line, positive_int
from data.files import UserError, write_json
from data.rows import pseudo_label_names, read_rows
from utils import run_folder
from utils.agreement import METRICS
from utils.devices import start_fabric
from utils.folds import assign_folds, check_teachers, train_round
from utils.options import add_flip_flag, train_parser
from utils.scoring import score_rows


def main():
    parser = train_parser(__doc__)
    parser.add_argument("--folds", type=positive_int, default=2, help="teachers; each judges the rows it never saw")
    parser.add_argument("--rounds", type=positive_int, default=1, help="each weighs its annotations by the round before")
    parser.add_argument("--metric", choices=METRICS, default="bf", help="of the weights between two rounds")
    parser.add_argument("--weighted", action="store_true", help="the first round, too, weighs by the CSV's `weight`")
    parser.add_argument("--predict_csv", "--predict-csv", metavar="CSV", help="with --folds 1: rows to predict")
    add_flip_flag(parser)
    args = parser.parse_args()
    rows = read_rows(args.train_csv, needs_weights=args.weighted)
    if args.predict_csv and args.folds > 1:
        raise UserError("--predict_csv needs --folds 1; with more folds each teacher predicts its own fold of --train_csv")
    if args.rounds > 1 and args.folds == 1:
        raise UserError("--rounds needs --folds 2 or more; one teacher cannot weigh its own training masks")
    if args.folds > rows["image"].nunique():
        raise UserError(f"--folds {args.folds}: more folds than images ({rows['image'].nunique()}) in {args.train_csv}")

    with run_folder.claimed(args) as home:
        run_folder.refuse_other_rows(args, home, {"train": rows})
        if args.resume and (home / "teacher.json").exists():
            print(f"{home}: finished already, nothing to do")
            return
        train_and_judge(args, home, rows, read_rows(args.predict_csv) if args.predict_csv else rows)


def train_and_judge(args, home, rows, judged):
    """All rounds and folds, and teacher.json.

    Args:
        rows, judged: DataFrames of `read_rows`, to train on and to predict.
    """
    names = pseudo_label_names(judged)
    fold_of = assign_folds(judged["image"], args.folds, args.seed)
    fabric = start_fabric(args)
    check_teachers(args, fabric, rows, fold_of, judged)
    fabric.barrier()  # every process has found the folder free before the first one writes to it
    if fabric.is_global_zero:
        run_folder.open_run(args, home, {"train": rows})
    fabric.barrier()

    columns = ["image", "mask", *["weight"] * args.weighted]
    rows = rows[columns] if args.folds > 1 else None  # one teacher is trained on the CSV as it is
    rounds = []
    for number in range(1, args.rounds + 1):
        folder = home if number == args.rounds else home / f"round{number}"
        rounds.append(train_round(args, fabric, folder, rows, fold_of, judged, names))
        if number < args.rounds:
            rows = rows.assign(weight=score_rows(rows, folder / "pseudo", args.num_classes, args.metric, args.theta, args.size))
    if fabric.is_global_zero:
        write_json(home / "teacher.json", {"csv": args.predict_csv or args.train_csv, "out_of_fold": args.folds > 1,
                                           "model": args.model, "encoder": args.encoder, "folds": rounds[-1],
                                           "earlier_rounds": rounds[:-1]})
        print(f"{len(set(names))} pseudo-labels in {home / 'pseudo'}")
    fabric.barrier()


if __name__ == "__main__":
    command_line(main)
