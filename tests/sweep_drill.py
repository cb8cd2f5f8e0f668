"""Kill the workers, the scheduler and the call of a plan many times: what it leaves must equal a serial run.

    python -m tests.sweep_drill --csv train.csv --valid-csv valid.csv --test-csv test.csv --kills 10

Trains --runs networks one after the other, then by two workers of a Dask scheduler, one of which, or the scheduler, or the
process that called for the trainings is killed (SIGKILL) at random moments and started again. It prints a JSON of the kills;
exit code 1 if anything differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reports.plan import Job, run_plan
from reports.workers import DaskWorkers
from tests.conftest import ROOT
from tests.dask_cluster import DaskCluster
from tests.kill_drill import outcome


def plan(args):
    """See `trainings`."""
    return trainings(args.csv, args.valid_csv, args.test_csv, args.epochs, args.runs)


def trainings(csv, valid, test, epochs, count):
    """Jobs of that many trainings, in runs/run0, runs/run1, ...; their paths count from the working directory."""
    jobs = []
    for seed in range(count):
        runs, name = Path("runs"), f"run{seed}"
        command = ["train_without_weight.py", "--train_csv", csv, "--valid_csv", valid, "--test_csv", test, "--name", name,
                   "--out-dir", runs, "--size", 32, 32, "--width", 4, "--epochs", epochs, "--augment", "--cache",
                   "--accelerator", "cpu", "--seed", seed, "--resume"]
        jobs.append(Job(list(map(str, command)), runs / name / "result.json", [], runs / f"{name}.out", runs))
    return jobs


def strike(cluster, call, args, dice):
    """Kill one of the processes and start it again; its kind, and the call that goes on."""
    kind = dice.choice(["worker", "worker", "scheduler", "call"])
    if kind == "worker":
        cluster.replace(dice.randrange(len(cluster.workers)))
    elif kind == "call":
        call.kill()
    else:
        cluster.__exit__()
        cluster.file.unlink(missing_ok=True)
        call.wait()  # it has seen that the scheduler is gone
        cluster.__enter__()
    if call.poll() is None and kind == "worker":
        return kind, call
    call.wait()
    return kind, start_call(cluster, args)


def start_call(cluster, args):
    """The process that plans the trainings and waits for the workers."""
    command = [sys.executable, "-m", "tests.sweep_drill", *args.given, "--call", str(cluster.file)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)


def drill(args, home):
    """dict of the kills and of what differs."""
    dice, kinds = random.Random(args.seed), []
    for name in ("serial", "cluster"):
        (home / name).mkdir()
    os.chdir(home / "serial")
    began = time.monotonic()
    run_plan(plan(args))
    seconds = time.monotonic() - began
    os.chdir(home / "cluster")
    with DaskCluster(home / "dask", "gpu=1", "gpu=1") as cluster:
        call = start_call(cluster, args)
        while len(kinds) < args.kills and not all(job.finished() for job in plan(args)):
            time.sleep(dice.uniform(0, 2 * seconds / args.kills))
            kind, call = strike(cluster, call, args, dice)
            kinds.append(kind)
        code = call.wait()
        if code:  # a training whose workers were killed four times counts as failed: the repeated call goes on
            code = start_call(cluster, args).wait()
    names = [f"run{seed}" for seed in range(args.runs)]
    differ = [name for name in names if outcome(home / "serial" / "runs" / name) != outcome(home / "cluster" / "runs" / name)]
    return {"kills": {kind: kinds.count(kind) for kind in sorted(set(kinds))}, "seconds undisturbed": round(seconds, 1),
            "last exit code": code, "differs": differ}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--csv", "--valid-csv", "--test-csv"):
        parser.add_argument(flag, type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.given = [word for flag, value in vars(args).items() if flag != "call"
                  for word in ("--" + flag.replace("_", "-"), str(value))]
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    if args.call:
        run_plan(plan(args), DaskWorkers(args.call))
        return
    with tempfile.TemporaryDirectory() as home:
        found = drill(args, Path(home))
    print(json.dumps(found))
    sys.exit(bool(found["differs"] or found["last exit code"]))


if __name__ == "__main__":
    main()
