"""The judge of an audit: the one that the user names, or the training that makes one."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, write_rows
from data.pictures import image_size
from data.rows import read_rows
from engine import judges, run_folder
from engine.devices import start_fabric
from reports.command import note_stamp, stamp_path
from reports.experiment import training_flags
from reports.plan import Job, named_files, refuse_other_settings, refuse_other_stamp, run_plan
from reports.workers import LocalWorkers

AREA = 160 * 160  # px of the pictures that the judge is trained on
EPOCHS, MOST_EPOCHS, SAMPLES = 12, 60, 5000  # of the judge; between the two, so many that it sees SAMPLES pictures


def judge_of(args: argparse.Namespace, rows: pd.DataFrame) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """(class probabilities of each row, how far the judge's training trusted it), see `engine.judges`; 1 where none knows.

    Args:
        args: flags of audit.py.
        rows: `image`, `mask` and perhaps `annotator`.

    Raises:
        UserError: the judge that the flags name is none; or its training fails.
    """
    known = np.ones(len(rows))
    if args.pred_dir:
        return judges.by_masks(rows, args.pred_dir, args.pred_name, args.num_classes), known
    if args.checkpoint:
        if not Path(args.checkpoint).is_file():  # before PyTorch is loaded
            raise UserError(f"--checkpoint {args.checkpoint}: no such checkpoint")
        return judges.by_network(start_fabric(args), args.checkpoint, rows, args.num_classes, flip=args.flip), known
    if args.after:
        run, trained = Path(args.after), rows.drop(columns="annotator", errors="ignore")
    else:
        job = training_job(args, rows)
        refuse_other_judge(job)
        write_rows(args.out / "rows.csv", rows)
        run_plan([job], LocalWorkers(shown=True))
        run, trained = job.result.parent, read_rows(args.out / "rows.csv")
    return judges.by_own_run(run, trained, args.num_classes), judges.trust_of_run(run)


def refuse_other_judge(job: Job) -> None:
    """Raise UserError if the judge in --out was trained, or is being trained, with other flags or on other files.

    A training that begins is stamped beside its folder, so that a call with other flags is told what an audit's user can do.
    """
    folder = job.result.parent
    remedy = f"pass another --out, or remove {folder} to train the judge anew"
    refuse_other_settings([job], remedy)
    if not folder.exists():
        note_stamp(folder, job.stamp, job.settings)
    elif not job.result.exists():
        refuse_other_stamp(stamp_path(folder), job, remedy)


def training_job(args: argparse.Namespace, rows: pd.DataFrame) -> Job:
    """The training of the judge on `rows.csv`, which a second call with the same flags and files does not repeat."""
    csv = args.out / "rows.csv"
    size = args.size or fitting_size(image_size(rows["image"].iloc[0]))
    batch = min(8, len(rows))
    epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(SAMPLES / len(rows))))
    flags = training_flags(["--epochs", str(epochs), "--batch-size", str(batch), "--optimizer", "adamw", "--learning-rate",
                            "0.001", "--lr-step", str(max(1, epochs // 3)), "--cache", *args.other])
    machine = ["--accelerator", args.accelerator, "--devices", str(args.devices), "--precision", args.precision, "--strategy",
               args.strategy, *([] if args.workers is None else ["--workers", str(args.workers)])]
    command = ["train_with_own_weight.py", "--train_csv", str(csv), "--name", "judge", "--out-dir", str(args.out), "--size",
               *map(str, size), "--num-classes", str(args.num_classes), "--theta", str(args.theta), "--model", args.model,
               "--encoder", args.encoder, "--encoder-weights", args.encoder_weights, "--seed", str(args.seed), *flags,
               *machine, "--resume"]
    masks = {str(csv): run_folder.listing([*rows["image"], *rows["mask"]])}
    return Job(command, args.out / "judge" / "result.json", [], args.out / "judge.out", args.out,
               {**named_files(command, args.out), **masks})


def fitting_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) for training: about AREA px, the shape of a picture of this size (H, W), multiples of 32."""
    ratio = math.sqrt(size[0] / size[1])
    height, width = (max(64, 32 * round(math.sqrt(AREA) * part / 32)) for part in (ratio, 1 / ratio))
    return height, width
