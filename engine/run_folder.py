"""The folder of a run, OUT_DIR/NAME: its lock, its log, and the facts of rows and machine that its results depend on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
from argparse import Namespace
from collections.abc import Hashable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from cli.files import UserError, atomic_path, is_temporary, read_json, write_json
from cli.lazy import lightning_fabric, torch
from cli.machine import usable_cores
from data.file_memory import Facts, file_memory
from engine import lock
from engine.devices import choose_precision
from utils.ranking import summarise

# flags that may change between a run and its resumption without changing its result
FREE_FLAGS = {"resume", "overwrite", "workers", "cache", "accelerator", "devices", "strategy", "out_dir"}


@contextlib.contextmanager
def claimed(args: Namespace) -> Iterator[Path]:
    """Lock OUT_DIR/NAME for this process, before any input is read; yields its path.

    Raises:
        UserError: the name leaves --out-dir, another process works there, or the folder holds a run already.
    """
    folder = inside(args.out_dir, args.name)
    choose_precision(args, folder)  # its own, since its flags are compared; of a new run once PyTorch is loaded
    _refuse_taken(args, folder)
    with lock.folder_lock(folder):
        _refuse_taken(args, folder)  # again: a process that held the lock may have made a run meanwhile
        yield folder


def inside(parent: Path | str, name: str) -> Path:
    """The folder of a --name; UserError if it does not lie inside `parent`."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise UserError(f"--name {name}: must be a folder inside {parent}")
    return Path(parent) / name


def _refuse_taken(args: Namespace, folder: Path) -> None:
    started = (folder / "args.json").exists()
    if args.resume and started:
        _refuse_other_flags(args, folder)
    elif folder.exists() and not all(path.name == lock.FILE_NAME or is_temporary(path) or is_output(path)
                                     for path in folder.iterdir()):
        if not started:
            raise UserError(f"{folder} exists and is not a run; choose another --name")
        if not args.overwrite:
            raise UserError(f"{folder} exists; pass --resume to go on, --overwrite to replace it, or another --name")


def is_output(path: Path) -> bool:
    """Whether a file is a *.log, into which a shell redirects a command's output: it is there before the command begins."""
    return path.suffix == ".log" and path.is_file()


def _refuse_other_flags(args: Namespace, folder: Path) -> None:
    before = read_json(folder / "args.json")
    for flag, value in vars(args).items():
        if flag not in FREE_FLAGS and before.get(flag, value) != value:  # an older run may lack a newer flag
            raise UserError(f"{folder}: cannot resume with --{flag.replace('_', '-')} {value}, the run was started with "
                            f"{before[flag]}; pass --overwrite or another --name")


def open_run(args: Namespace, folder: Path, splits: dict[str, pd.DataFrame]) -> None:
    """Prepare a run's folder and write args.json; with --overwrite, remove the earlier run, but for *.log files.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.
    """
    if not (args.resume and (folder / "args.json").exists()):
        order = ("result.json", "teacher.json", "last.ckpt")  # first, so that no half-removed run looks whole
        for path in sorted(folder.iterdir(), key=lambda path: order.index(path.name) if path.name in order else len(order)):
            if path.name not in (lock.FILE_NAME, "args.json") and not is_output(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(folder / "args.json", {**vars(args), "command": " ".join(sys.argv), "rows": _counted(splits)})
    for path in folder.iterdir():
        if is_temporary(path):  # left by a process that was killed while it wrote
            path.unlink()


def refuse_other_rows(args: Namespace, folder: Path, splits: dict[str, pd.DataFrame]) -> None:
    """Raise UserError if the run that --resume continues was started with other rows or files.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.
    """
    if not (args.resume and (folder / "args.json").exists()):
        return
    rows = _counted(splits)
    before = read_json(folder / "args.json").get("rows", rows)  # missing in older runs
    for split, now in rows.items():
        if split in before and before[split] != now:
            raise UserError(f"{folder}: cannot resume, {getattr(args, f'{split}_csv')} holds other rows or files than when "
                            f"the run was started ({before[split]['count']} rows then, {now['count']} now); pass "
                            "--overwrite or another --name")


def _counted(splits: dict[str, pd.DataFrame]) -> dict[str, dict]:
    found = {split: {"count": len(rows), "digest": digest(rows)} for split, rows in splits.items()}
    file_memory().save()
    return found


def digest(rows: pd.DataFrame) -> str:
    """Hash of file names, image sizes, content of the other files, and all other columns."""
    paths = path_columns(rows)
    files = [[os.path.basename(row[paths[0]]), os.path.getsize(row[paths[0]]),
              *(fact for name in paths[1:] for fact in (os.path.basename(row[name]), file_digest(row[name])))]
             for row in rows.to_dict("records")] if paths else []
    return hashed([files, [rows[name].tolist() for name in rows if name not in paths]])


def path_columns(rows: pd.DataFrame) -> list[Hashable]:
    """Names of the columns that hold paths of files, in their order; the last one is that of the annotations."""
    return [name for name in rows if all(isinstance(value, str) and os.path.isfile(value) for value in rows[name])]


def file_digest(path: Path | str) -> str:
    """The first 16 hex digits of the SHA-256 of a file; its size is not enough, a redrawn mask may have the same.

    A file that was read before and has not changed is not read again, see `data.file_memory`.
    """
    def read() -> Facts:
        return int.from_bytes(hashlib.sha256(Path(path).read_bytes()).digest()[:8], "big", signed=True), 0, 0

    return file_memory().facts(path, "digest", read)[0].to_bytes(8, "big", signed=True).hex()


def listing(paths: Iterable[str]) -> str:
    """16 hex digits that change with the names or the sizes of files, or with when they were written."""
    return hashed([(path, os.path.getsize(path), os.stat(path).st_mtime_ns) for path in paths])


def hashed(content: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a JSON-ready content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def recorded(args: Namespace) -> dict[str, Any]:
    """The flags for result.json: all but those that only say how to treat an earlier run."""
    return {flag: value for flag, value in vars(args).items() if flag not in ("resume", "overwrite")}


def machine(fabric: lightning_fabric.Fabric) -> dict[str, Any]:
    """The device, the number of processes and the versions that results and timings depend on."""
    cpu = f"{usable_cores()} CPU cores ({cpu_name()})"
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else cpu
    packages = ("torch", "torchvision", "segmentation-models-pytorch", "lightning-fabric", "timm")
    return {"device": device, "processes": fabric.world_size, **versions(packages)}


def cpu_name() -> str:
    """The processor's name. Equal seeds give slightly different results on different processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row_facts(splits: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Facts of the rows for result.json, which tables of many runs show.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.

    Returns:
        dict of `noise_share`: of the training masks, None if the CSV has no `iterations`; `weights`: mean of the training
        weights and how well they find the noisy masks (`utils.ranking`), None without weights; `test_set`: a digest of
        the test rows' file names and their annotations' sizes in bytes (of rows without files, of the rows), None without a
        test set.
    """
    train, test, has_noise = splits["train"], splits.get("test"), "iterations" in splits["train"]
    facts: dict[str, Any] = {"noise_share": float((train["iterations"] > 0).mean()) if has_noise else None, "weights": None,
                             "test_set": None}
    if "weight" in train:
        facts["weights"] = found_by(train)
    if test is not None:
        files = test[path_columns(test)].to_numpy().tolist()
        names = [(*map(os.path.basename, paths), os.path.getsize(paths[-1])) for paths in files if paths]
        facts["test_set"] = hashed(names) if len(path_columns(test)) > 1 else digest(test)
    return facts


def found_by(rows: pd.DataFrame) -> dict[str, float | None]:
    """The mean weight of rows, and how well the weights find the noisy masks: dict of `mean`, `auroc`, `auprc`."""
    summary = summarise(rows)[0]
    return {"mean": float(rows["weight"].mean()), **{key: summary.get(key) for key in ("auroc", "auprc")}}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of installed packages: dict of name -> str."""
    return {"python": sys.version.split()[0], **{package: version(package) for package in packages}}


def seconds_spent(folder: Path) -> float:
    """Training time of all epochs in the log, in seconds, over all resumptions, without validation."""
    with open(folder / "log.jsonl", encoding="utf-8") as log:
        return sum(json.loads(line)["seconds"] for line in log)


@contextlib.contextmanager
def opened_log(folder: Path, first_epoch: int, writes: bool) -> Iterator[EpochLog | None]:
    """Open the EpochLog of a process that `writes`, None for the others; close it however the training ends."""
    log = EpochLog(folder, first_epoch) if writes else None
    try:
        yield log
    finally:
        if log:
            log.close()


class EpochLog:
    """log.jsonl, TensorBoard and a printed line per epoch."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        # an epoch that was logged but not saved is trained and logged again; its line may be incomplete
        kept = lines[:first_epoch]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.board = SummaryWriter(folder / "tensorboard", purge_step=first_epoch)

    def write(self, entry: dict[str, Any], epochs: int, improved: bool, shown: dict[str, str]) -> None:
        """Log one epoch.

        Args:
            entry: the line of log.jsonl.
            epochs: of the whole run.
            improved: whether it is the best epoch so far.
            shown: score name -> title, of the scores that are printed.
        """
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        text = f"epoch {entry['epoch'] + 1}/{epochs}"
        for k in range(len(entry["loss"])):
            for name, form in (("loss", ".4f"), ("weight", ".3f")):
                if name in entry:  # an objective other than weighted losses has no weights
                    self.board.add_scalar(f"train/{name}_{k + 1}", entry[name][k], entry["epoch"])
                    text += f"  {name} {entry[name][k]:{form}}"
            if entry["valid"]:
                scores = entry["valid"][k]
                for name, value in scores.items():
                    if isinstance(value, float):  # neither a count nor a list of classes
                        self.board.add_scalar(f"valid/{name}_{k + 1}", value, entry["epoch"])
                text += "".join(f"  {title} {100 * scores[name]:.2f}" for name, title in shown.items())
        if any(entry.get("empty", [])):
            text += f"  batches without an update: {', '.join(map(str, entry['empty']))}"
        print(f"{text}  {entry['images_per_second']:.1f} images/s{'  best' if improved else ''}", flush=True)

    def close(self) -> None:
        """End TensorBoard's thread. On a full disk, which the run has reported already, its last curves are lost."""
        with contextlib.suppress(OSError):
            self.board.close()
