"""Accuracy of a run of Blind Knowledge Distillation on the test set, whose labels are right.

    python learning.py --dataset cifar10 --noise_type aggre --seed 42

Measured for the best epoch on noisy validation rows and for the last one; for teacher, student and both together: argmax of
p_T p_S. Leaves learning.json in the run's folder. --noise_type is `clean` unless it is given, as published.
"""

from pathlib import Path
from typing import Any, cast

import pandas as pd

from cli.command_line import command_line
from cli.files import check_outputs, write_json
from cli.lazy import torch
from data.classification import ClassDataset, check_class_files, read_class_rows
from data.dataset import as_it_is
from engine import checkpoint
from engine.classification import CLASSIFICATION, ClassScorer, load_classifier
from engine.devices import start_fabric
from engine.evaluation import evaluate
from engine.loaders import each_row_once, worker_count
from related.blindkd.flags import reading_parser, refuse_other_run, run_name, settle
from related.blindkd.noisy_set import refuse_changed
from related.blindkd.outputs import finished

BATCH = 256


def accuracies(fabric: Any, path: Path, rows: pd.DataFrame, workers: int) -> dict:
    """Accuracy on rows of the pair in a checkpoint and of its two networks.

    Returns:
        dict of `epoch`, from 1; `teacher`, `student` and `both`, in 0..1.
    """
    pair, config = load_classifier(str(path))
    dataset = ClassDataset(rows, config["size"], (config["mean"], config["std"]))
    loader: Any = torch.utils.data.DataLoader(cast(Any, dataset), BATCH, num_workers=workers, collate_fn=as_it_is,
                                              sampler=each_row_once(dataset, fabric))
    found = {"epoch": checkpoint.load(path)["epoch"] + (path.name == "best.ckpt")}  # last.ckpt names the next epoch
    for name, network in (("teacher", pair.teacher), ("student", pair.student), ("both", pair)):
        scorer = ClassScorer(config["num_classes"], fabric.device)
        scores = evaluate(fabric, fabric.setup_module(network), loader, scorer, CLASSIFICATION, f"{path.name}: {name}")
        found[name] = scores["accuracy"]
    return found


def main() -> None:
    parser = reading_parser(__doc__, noise_type="clean")
    args = parser.parse_args()
    settle(args)
    folder = Path(args.results, run_name(args))
    trained = finished(folder)["args"]
    refuse_other_run(args, trained)
    csv = trained["test_csv"]
    rows = read_class_rows(csv, trained["classes"])
    check_outputs([folder / "learning.json"], args.overwrite, [csv, *rows["image"]])
    refuse_changed(folder, csv, {"test": rows})
    check_class_files(csv, rows)
    fabric = start_fabric(args)
    best, last = (accuracies(fabric, folder / f"{name}.ckpt", rows, worker_count(args, fabric)) for name in ("best", "last"))
    if not fabric.is_global_zero:
        return
    if trained["val_ratio"]:
        print(f"Best test acc selected by val is {100 * best['both']:.2f}")
    else:
        print("--val_ratio 0: no rows validated, nothing was selected; the last epoch is what counts")
    print(f"Test acc of the last epoch is {100 * last['both']:.2f}")
    for title, found in {"selected by val": best, "last": last}.items() if trained["val_ratio"] else [("last", last)]:
        parts = ", ".join(f"{name} {100 * found[name]:.2f}" for name in ("teacher", "student", "both"))
        print(f"epoch {found['epoch']} ({title}): {parts}")
    write_json(folder / "learning.json", {"csv": csv, "images": len(rows), "val_ratio": trained["val_ratio"],
                                          "best": best if trained["val_ratio"] else None, "last": last})


if __name__ == "__main__":
    command_line(main)
