"""The published files of a run, made of its checkpoints: teacher.pth.tar, student.pth.tar, detection.npy; and more."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cli.files import UserError, read_json, together, write_json
from cli.lazy import torch
from engine import checkpoint
from related.blindkd.memory import WRONG

NETWORKS = ("teacher", "student")
FACTS = "blindkd.json"


def write_outputs(folder: Path) -> None:
    """Write what a finished run leaves beside its checkpoints, all of it or nothing; the same content each time.

    `teacher.pth.tar`, `student.pth.tar`: dict of `state_dict` and `epoch` (from 0) of the best epoch. `detection.npy`: bool
    (M,), whether each label is judged wrong, in the order of the training CSV, validation rows included; `scores.npy`: float32
    (M,), the agreement it is judged by. `blindkd.json`: the confidence of each epoch, the tipping point and the two splits.
    """
    best, memory = checkpoint.load(folder / "best.ckpt"), checkpoint.load(folder / "last.ckpt")["memory"]
    state, judged = best["networks"][0]["state"], json.loads(memory["judged"])
    counts = {name: None if memory[key] is None else torch.bincount(memory[key], minlength=WRONG + 1)[1:].tolist()
              for name, key in (("training", "groups"), ("detection", "detected"))}
    with together() as written_at:
        for name in NETWORKS:
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            _write(written_at(folder / f"{name}.pth.tar"), torch.save, {"state_dict": own, "epoch": best["epoch"]})
        for name, values in (("detection", memory["detected"] == WRONG), ("scores", memory["whole"][judged["epoch"]])):
            _write(written_at(folder / f"{name}.npy"), lambda array, file: np.save(file, array), values.numpy())
        write_json(written_at(folder / FACTS), {**judged, "groups": counts, "confidence": memory["confidence"].tolist()})


def _write(path: Path, save: Callable, content: Any) -> None:
    """Write by a library that takes an open file."""
    buffer = io.BytesIO()
    save(content, buffer)
    path.write_bytes(buffer.getvalue())


def finished(folder: Path) -> dict:
    """The result.json of a run.

    Raises:
        UserError: the run is missing or still goes on.
    """
    if not (folder / "args.json").exists():
        raise UserError(f"{folder}: no run of blind_knowledge_dist_training.py; train first with the same --dataset, "
                        "--noise_type and --seed, from the same working directory")
    if not (folder / "result.json").exists() or not (folder / FACTS).exists():
        raise UserError(f"{folder}: its training has not finished; the training command with --resume goes on")
    return read_json(folder / "result.json", "best_epoch", "epochs", "args")
