"""The folder of a run, OUT_DIR/NAME: who may write to it, its log, and what its figures must be quoted with."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from cli.files import UserError, atomic_path, is_temporary, read_json, write_json
from cli.lazy import torch
from cli.machine import usable_cores
from engine import lock
from utils.ranking import summarise

# flags that may change between a run and its resumption without changing its result
FREE_FLAGS = {"resume", "overwrite", "workers", "cache", "accelerator", "devices", "strategy", "out_dir"}


@contextlib.contextmanager
def claimed(args):
    """Hold OUT_DIR/NAME for this process; yields its path.

    Raises:
        UserError: the name leaves --out-dir, another process is at work there, or a run is there already: before anything
            is read.
    """
    folder = inside(args.out_dir, args.name)
    _refuse_taken(args, folder)
    with lock.folder_lock(folder):
        _refuse_taken(args, folder)  # once more: the one that held it until now may have finished it
        yield folder


def inside(parent, name):
    """The folder of a --name; a UserError if it is none inside its parent."""
    if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
        raise UserError(f"--name {name}: must be a folder inside {parent}")
    return Path(parent) / name


def _refuse_taken(args, folder):
    started = (folder / "args.json").exists()
    if args.resume and started:
        _refuse_other_flags(args, folder)
    elif folder.exists() and not all(path.name == lock.FILE_NAME or is_temporary(path) or is_output(path)
                                     for path in folder.iterdir()):
        if not started:
            raise UserError(f"{folder} exists and is not a run; choose another --name")
        if not args.overwrite:
            raise UserError(f"{folder} exists; pass --resume to go on, --overwrite to replace it, or another --name")


def is_output(path):
    """Whether a file of a run's folder is what a shell writes a command's output to: it is there before the command begins."""
    return path.suffix == ".log" and path.is_file()


def _refuse_other_flags(args, folder):
    before = read_json(folder / "args.json")
    for flag, value in vars(args).items():
        if flag not in FREE_FLAGS and before.get(flag, value) != value:  # a run may be older than a flag
            raise UserError(f"{folder}: cannot resume with --{flag.replace('_', '-')} {value}, the run was started with "
                            f"{before[flag]}; pass --overwrite or another --name")


def open_run(args, folder, splits):
    """Make a run's folder ready and write args.json; with --overwrite, what was there goes, but for *.log files.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.
    """
    if not (args.resume and (folder / "args.json").exists()):
        order = ("result.json", "teacher.json", "last.ckpt")  # else, killed in between, the old run would seem to be there
        for path in sorted(folder.iterdir(), key=lambda path: order.index(path.name) if path.name in order else len(order)):
            if path.name not in (lock.FILE_NAME, "args.json") and not is_output(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(folder / "args.json", {**vars(args), "command": " ".join(sys.argv), "rows": _counted(splits)})
    for path in folder.iterdir():
        if is_temporary(path):  # a process was killed while it wrote
            path.unlink()


def refuse_other_rows(args, folder, splits):
    """Raise UserError if a run that is resumed, or is finished, was started with other rows or files.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.
    """
    if not (args.resume and (folder / "args.json").exists()):
        return
    rows = _counted(splits)
    before = read_json(folder / "args.json").get("rows", rows)  # a run may be older than this
    for split, now in rows.items():
        if split in before and before[split] != now:
            raise UserError(f"{folder}: cannot resume, {getattr(args, f'{split}_csv')} holds other rows or files than when "
                            f"the run was started ({before[split]['count']} rows then, {now['count']} now); pass "
                            "--overwrite or another --name")


def _counted(splits):
    return {split: {"count": len(rows), "digest": digest(rows)} for split, rows in splits.items()}


def digest(rows):
    """A short text that changes with the rows: names of their files, sizes of the first ones (images), content of the others
    (masks), and all other columns' values."""
    paths = path_columns(rows)
    files = [[os.path.basename(row[paths[0]]), os.path.getsize(row[paths[0]]),
              *(fact for name in paths[1:] for fact in (os.path.basename(row[name]), file_digest(row[name])))]
             for row in rows.to_dict("records")] if paths else []
    return hashed([files, [rows[name].tolist() for name in rows if name not in paths]])


def path_columns(rows):
    """Names of the columns that hold paths of files, in their order; the last one of a row is its annotation."""
    return [name for name in rows if all(isinstance(value, str) and os.path.isfile(value) for value in rows[name])]


def file_digest(path):
    """16 hex digits that stand for the content of a file: a mask that is drawn again may have as many bytes as before."""
    return _digest_of(str(path), os.stat(path).st_mtime_ns, os.path.getsize(path))


@functools.lru_cache(maxsize=1 << 18)
def _digest_of(path, changed, size):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def hashed(content):
    """16 hex digits that stand for a JSON-ready content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def recorded(args):
    """The flags that result.json tells: all but those that only say how to treat an earlier run."""
    return {flag: value for flag, value in vars(args).items() if flag not in ("resume", "overwrite")}


def machine(fabric):
    """What a figure must be quoted with."""
    cpu = f"{usable_cores()} CPU cores ({cpu_name()})"
    device = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else cpu
    packages = ("torch", "torchvision", "segmentation-models-pytorch", "lightning-fabric", "timm")
    return {"device": device, "processes": fabric.world_size, **versions(packages)}


def cpu_name():
    """The processor's name: even with one seed, results differ in the last bits, and then more, from one kind to another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def row_facts(splits):
    """What result.json says of the rows, for tables of many runs.

    Args:
        splits: dict of split -> DataFrame of `read_rows`.

    Returns:
        dict of `noise_share`: of the training masks, None where the CSV does not know it; `weights`: mean of the training
        weights and how well they find the noisy masks (`utils.ranking`), None without weights; `test_set`: a digest of
        the test rows' file names and their annotations' sizes in bytes (of rows without files, of the rows), None without a
        test set.
    """
    train, test, known = splits["train"], splits.get("test"), "iterations" in splits["train"]
    facts = {"noise_share": float((train["iterations"] > 0).mean()) if known else None, "weights": None, "test_set": None}
    if "weight" in train:
        summary = summarise(train)[0]
        facts["weights"] = {"mean": float(train["weight"].mean()), **{k: summary.get(k) for k in ("auroc", "auprc")}}
    if test is not None:
        files = test[path_columns(test)].to_numpy().tolist()
        names = [(*map(os.path.basename, paths), os.path.getsize(paths[-1])) for paths in files if paths]
        facts["test_set"] = hashed(names) if len(path_columns(test)) > 1 else digest(test)
    return facts


def versions(packages):
    """Versions of Python and of installed packages: dict of name -> str."""
    return {"python": sys.version.split()[0], **{package: version(package) for package in packages}}


def seconds_spent(folder):
    """Training time of all epochs in the log, however often the run was resumed; validation is not in it."""
    with open(folder / "log.jsonl", encoding="utf-8") as log:
        return sum(json.loads(line)["seconds"] for line in log)


@contextlib.contextmanager
def opened_log(folder, first_epoch, writes):
    """The EpochLog of a process that `writes`, for the others None; closed however the training ends."""
    log = EpochLog(folder, first_epoch) if writes else None
    try:
        yield log
    finally:
        if log:
            log.close()


class EpochLog:
    """log.jsonl, TensorBoard and a printed line per epoch."""

    def __init__(self, folder, first_epoch):
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        # an epoch that was logged but not saved will be trained, and logged, again; what follows may even be torn
        kept = lines[:first_epoch]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.board = SummaryWriter(folder / "tensorboard", purge_step=first_epoch)

    def write(self, entry, epochs, improved, shown):
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

    def close(self):
        """End TensorBoard's thread; on a full disk, which has been told of, its last curves are lost."""
        with contextlib.suppress(OSError):
            self.board.close()
