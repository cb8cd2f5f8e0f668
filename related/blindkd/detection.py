"""How well a run of Blind Knowledge Distillation found the wrong labels: precision, recall and F-score of its flags.

    python detection.py --dataset cifar10 --noise_type aggre --seed 42

Compares detection.npy with what train_clean.csv says: a label is wrong where it differs from the true one. The training and
learning.py never read the true labels. Leaves detection.json in the run's folder. It also holds three baselines: the score
alone as a ranking (AUROC), flagging all rows below the cut of the split, and flagging every row.
"""

from pathlib import Path

import numpy as np

from cli.command_line import command_line
from cli.files import UserError, check_outputs, read_json, write_json
from data.classification import read_class_rows
from related.blindkd.flags import reading_parser, refuse_other_run, run_name, settle
from related.blindkd.noisy_set import csv_beside, refuse_changed, split_rows, wrong_labels
from related.blindkd.outputs import FACTS, finished
from utils.ranking import auroc, precision_recall_f1


def load_array(folder: Path, name: str, rows: int) -> np.ndarray:
    """An array (M,) of a run; a UserError if it is missing, or of other rows."""
    path = folder / name
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the training command with --resume writes it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if values.shape != (rows,):
        raise UserError(f"{path}: has shape {values.shape}, the CSV {rows} rows; was it changed after the training?")
    return values


def main() -> None:
    parser = reading_parser(__doc__, noise_type="worst")
    args = parser.parse_args()
    settle(args)
    folder = Path(args.results, run_name(args))
    trained = finished(folder)["args"]
    refuse_other_run(args, trained)
    csv = Path(trained["train_csv"])
    clean = csv_beside(csv, "train_clean.csv")
    check_outputs([folder / "detection.json"], args.overwrite, [csv, clean])
    parts = split_rows(read_class_rows(csv, trained["classes"]), csv, trained["val_ratio"], trained["seed"])
    refuse_changed(folder, csv, dict(zip(("train", "valid"), parts)))
    wrong = wrong_labels(csv, clean, trained["classes"])
    flags, scores = (load_array(folder, f"{name}.npy", len(wrong)) for name in ("detection", "scores"))
    scores = scores.astype(float)  # as the split compares them with its cut
    judged = read_json(folder / FACTS, "epoch", "why", "detection")
    below = scores < (judged["detection"]["cut"] if judged["detection"] else 0)
    found = precision_recall_f1(flags, wrong)
    for title, name in (("precision", "precision"), ("recall", "recall"), ("The f-score", "f1")):
        reason = "" if found[name] is not None else f" (0/0: {flags.sum()} labels flagged, {wrong.sum()} wrong)"
        print(f"{title} is {found[name] or 0.0:.4f}{reason}")
    print(f"{flags.sum()} of {len(wrong)} labels flagged, {wrong.sum()} wrong; by the scores of epoch {judged['epoch'] + 1} "
          f"({judged['why']})")
    zero = {name: value or 0.0 for name, value in found.items()}
    write_json(folder / "detection.json", {
        **zero, "rows": len(wrong), "flagged": int(flags.sum()), "wrong": int(wrong.sum()), "epoch": judged["epoch"],
        "why": judged["why"], "auroc": auroc(scores, wrong), "below_cut": precision_recall_f1(below, wrong),
        "all": precision_recall_f1(np.ones_like(flags), wrong)})


if __name__ == "__main__":
    command_line(main)
