"""Flags of trainings that take a second, and what is read from their folders."""

import hashlib
import json
import time

from engine.flags import train_parser

WEIGHTED = "train_noisy_60_PointRend_weight_bmscore.csv"


def arguments(csvs, folder, *extra, train=WEIGHTED):
    """Flags of a tiny run on CPU, with the methods' own flags at their defaults."""
    parser = train_parser("")
    for flag, default in (("--metric", "bm"), ("--lambda-warmup", 10), ("--lambda-max", 0.5), ("--min-weight", 0.0)):
        parser.add_argument(flag, default=default, type=type(default))
    return parser.parse_args([
        "--train_csv", str(csvs / train), "--valid_csv", str(csvs / "valid_noisy_60.csv"),
        "--test_csv", str(csvs / "test.csv"), "--name", "run", "--out-dir", str(folder), "--accelerator", "cpu",
        "--size", "48", "32", "--width", "4", "--epochs", "2", "--batch-size", "5", "--cache", *extra])


def epochs_of(folder):
    """log.jsonl without what depends on the clock."""
    entries = map(json.loads, (folder / "run" / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")} for entry in entries]


def weigh(logits, batch, epoch):
    return [batch["weight"]]


def digests(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("last.ckpt", "best.ckpt")}


def wait_for(there, process, seconds=90):
    """Wait until `there()` is true, while a process runs: one of subprocess, or one that `processes.start_script` gave."""
    until = time.monotonic() + seconds
    while not there():
        if hasattr(process, "is_alive"):
            assert process.is_alive(), process.exitcode
        else:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
