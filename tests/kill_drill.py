"""Kill and resume a training many times: its results must equal those of an undisturbed one.

    python tests/kill_drill.py train_without_weight.py --csv train.csv --valid-csv valid.csv --test-csv test.csv --kills 25

trains once undisturbed and once with SIGKILL (or --signals KILL INT TERM, in turn) at random moments, every second time while a
file is being written. Then it compares the checkpoints byte by byte, and result.json and log.jsonl without their times. It
prints a JSON of the kills; exit code 1 if anything differs. Each attempt is a fork of a process that has loaded PyTorch
already, so that the signals hit the training and not the imports.

    python tests/kill_drill.py SCRIPT --run results/NAME --kills 25 FLAGS OF THE SCRIPT ...

does so with any command, as it stands, and the folder of its run.
"""

import argparse
import hashlib
import json
import os
import random
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch.utils.tensorboard  # noqa: F401  loaded here, once, for all attempts

import engine.loop  # noqa: F401
import models.ocrnet  # noqa: F401
import models.pointrend  # noqa: F401
import models.smp  # noqa: F401
import related.blindkd.memory  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
TIMES = ("seconds", "images_per_second")


def start(command, folder):
    """Fork, and run a script in `folder`; returns the process number once the script begins."""
    ready, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        os.read(ready, 1)
        os.close(ready)
        return child
    code = 1
    try:
        os.chdir(folder)
        torch.set_num_threads(1)
        with open("output.txt", "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.argv = list(map(str, command))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job, as the drill may be, ignores it
        os.write(tell, b"x")
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def half_written(run, child):
    """Whether a process is writing a checkpoint, or was when it died."""
    try:
        return any(name.startswith(".") and name.endswith(f".{child}.ckpt") for name in os.listdir(run))
    except FileNotFoundError:
        return False


def strike(child, number, delay, run, while_writing):
    """Send a signal after `delay` seconds, or, `while_writing`, when the run next writes a checkpoint after that.

    Returns:
        (exit code or minus the signal, whether a half-written file was there); None if the training ended before.
    """
    until = time.monotonic() + delay
    while time.monotonic() < until or while_writing:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), None
        if time.monotonic() >= until and half_written(run, child):
            break
    os.kill(child, number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, half_written(run, child)


def outcome(run):
    """What must be equal: bytes of the checkpoints, and result and log without their times."""
    result = json.loads((run / "result.json").read_text())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for entry in (result, *log):
        for key in TIMES:
            entry.pop(key, None)
    binary = ["last.ckpt", "best.ckpt", *sorted(path.name for path in run.iterdir() if path.suffix in (".npy", ".tar"))]
    digests = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in binary}
    return {**digests, "result": result, "log": log, "files": sorted(path.name for path in run.iterdir())}


def drill(command, home, kills, signals, seed, place="runs/drill"):
    """Train undisturbed and disturbed; return a dict of the kills and the differences.

    Args:
        place: folder of the command's run, below its working directory.
    """
    dice = random.Random(seed)
    whole, broken = home / "whole", home / "broken"
    for folder in (whole, broken):
        folder.mkdir(parents=True)
    began = time.monotonic()
    os.waitpid(start(command, whole), 0)
    seconds = time.monotonic() - began
    run, struck, writing, codes, ended = broken / place, 0, 0, {}, None
    while struck < kills and ended is None:
        number = signals[struck % len(signals)]
        child = start([*command, "--resume"], broken)
        code, amid = strike(child, number, dice.uniform(0, 1.2 * seconds / kills), run, struck % 2 == 1)
        if amid is None:
            ended = code
        else:
            struck, writing = struck + 1, writing + amid
            codes[code] = codes.get(code, 0) + 1
    if ended is None:
        ended = os.waitstatus_to_exitcode(os.waitpid(start([*command, "--resume"], broken), 0)[1])
    for folder in (whole, broken):
        if not (folder / place / "result.json").exists():
            sys.exit(f"{folder} never finished:\n{(folder / 'output.txt').read_text()[-2000:]}")
    one, other = outcome(whole / place), outcome(run)
    return {"kills": struck, "of them amid a checkpoint": writing, "exit codes": codes, "last exit code": ended,
            "epochs": len(one["log"]), "seconds undisturbed": round(seconds, 1),
            "differs": [key for key in one if one[key] != other[key]]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script")
    parser.add_argument("--run", help="folder of the run of a command that is given as it stands")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--valid-csv", type=Path)
    parser.add_argument("--test-csv", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--signals", nargs="+", choices=("KILL", "INT", "TERM"), default=["KILL"])
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args, other = parser.parse_known_args()
    command = [args.script]
    if not args.run:
        command += ["--train_csv", args.csv.resolve(), "--test_csv", args.test_csv.resolve(), "--valid_csv",
                    args.valid_csv.resolve(), "--name", "drill", "--epochs", args.epochs, "--batch-size", 4, "--size", 32, 32,
                    "--width", 4, "--cache", "--augment", "--accelerator", "cpu"]
    command += other
    with tempfile.TemporaryDirectory() as home:
        found = drill(command, Path(home), args.kills, [getattr(signal, f"SIG{name}") for name in args.signals], args.seed,
                      args.run or "runs/drill")
        print(json.dumps(found))
        if found["differs"] or found["kills"] < args.kills or found["last exit code"]:
            print((Path(home) / "broken" / "output.txt").read_text()[-2000:], file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
