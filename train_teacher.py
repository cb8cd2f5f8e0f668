"""Teachers whose pseudo-labels judge the annotations, out-of-fold: no teacher judges a mask it was fitted on.

The rows are split at random into K folds; teacher k trains on all folds but the k-th and then predicts the k-th. A teacher
that judges its own training masks has learnt their noise by heart, so it agrees with them.

    python train_teacher.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv --name teacher \\
        --model pointrend --encoder resnet34 --encoder-weights imagenet --folds 3 --rounds 2

In the first round every annotation has the weight 1, or with --weighted its `weight` in the CSV, which may come from teachers
of an earlier call. Later rounds use the same folds; an annotation's weight is its agreement, by --metric, with its
pseudo-label of the round before.

A leak: the teacher that judges fold k never trains on it, but in a second round its training weights come from first teachers
that trained on fold k (as CSV weights of an earlier call do). --nested closes this leak: for each two folds a first teacher
trains on the others and judges both, K (K - 1) / 2 trainings on K - 2 folds, and second teacher k takes its weights from those
that never saw fold k. On people the leak is smaller than the spread over seeds (docs/results/leak.md).

Outputs: one run per fold, runs/teacher/fold0 ..., the pseudo-labels of all rows in runs/teacher/pseudo, and
runs/teacher/teacher.json, with the training and the judged rows of each teacher; earlier rounds lie in round1/ ... With
--folds 1 one teacher trains on all of --train_csv and predicts --predict_csv (default: the same rows, which only suits a
teacher trained on other data).
"""

from cli.command_line import command_line, positive_int, refuse_given
from cli.files import UserError
from data.rows import read_rows
from engine import run_folder
from engine.flags import add_flip_flag, add_judge_flag, train_parser
from engine.folds import train_and_judge
from utils.agreement import METRICS
from utils.judge import check_weights


def main() -> None:
    parser = train_parser(__doc__)
    parser.add_argument("--folds", type=positive_int, default=2, help="teachers; each judges the rows it never saw")
    parser.add_argument("--rounds", type=positive_int, default=1, help="rounds; each takes its weights from the round before")
    parser.add_argument("--nested", action="store_true", help="with --rounds 2: no weight of a training comes from a teacher "
                                                              "that trained on the fold judged at the end")
    parser.add_argument("--metric", choices=METRICS, default="bf", help="metric of the weights between two rounds")
    parser.add_argument("--weighted", action="store_true", help="use the CSV's column `weight` in the first round")
    parser.add_argument("--predict_csv", "--predict-csv", metavar="CSV", help="with --folds 1: rows to predict")
    add_flip_flag(parser)
    add_judge_flag(parser)
    args = parser.parse_args()
    rows = read_rows(args.train_csv, needs_weights=args.weighted)
    if args.predict_csv and args.folds > 1:
        raise UserError("--predict_csv needs --folds 1; with more folds each teacher predicts its own fold of --train_csv")
    if args.rounds > 1 and args.folds == 1:
        raise UserError("--rounds needs --folds 2 or more; one teacher cannot weigh its own training masks")
    if args.rounds == 1:
        refuse_given(parser, args, {"metric"}, "is of the weights between two rounds; pass --rounds 2 or more, or leave it out")
    if args.nested and (args.rounds != 2 or args.folds < 3):
        raise UserError("--nested needs --rounds 2 and --folds 3 or more: two folds are left out, and another is learnt")
    if args.folds > rows["image"].nunique():
        raise UserError(f"--folds {args.folds}: more folds than images ({rows['image'].nunique()}) in {args.train_csv}")

    if args.weighted:
        check_weights(args)
    with run_folder.claimed(args) as home:
        run_folder.refuse_other_rows(args, home, {"train": rows})
        if args.resume and (home / "teacher.json").exists():
            print(f"{home}: finished already, nothing to do")
            return
        train_and_judge(args, home, rows, read_rows(args.predict_csv) if args.predict_csv else rows)


if __name__ == "__main__":
    command_line(main)
