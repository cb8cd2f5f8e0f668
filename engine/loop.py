"""The only loop: run -> fit -> train_one_epoch, evaluate_all. The problem is an `engine.task.Task`, by default segmentation.

Every method is `loss_k = mean_i w_k[i] * l(net_k(x_i), y_i)` for each network k; a script passes the function that makes
the weights:

    weigh(logits, batch, epoch) -> [w of network 1, w of network 2, ...]

    logits  list of tensors (B, C, H, W), one per network, the frozen ones last, without gradient
    batch   dict: image (B, 3, H, W), mask (B, H, W), weight (B,), index (B,), see `SegmentationDataset`;
            class labels: logits (B, C), batch `label` (B,)
    epoch   int, 0-based
    w       float tensors (B,); or (B, H, W), how much each pixel counts in its sample's loss

A method that selects samples (w = 0 or 1, `selects=True`) has its loss averaged over the samples it keeps; a batch of
which it keeps none makes no update and is counted in the log. A method of another form passes an objective instead of
`weigh`, see engine/objective.py.

`after_epoch` is called when an epoch is validated, before it is logged and saved; `state.epoch` is still that epoch. The dict
that it gives goes into the epoch's line of the log. It keeps what it records in `memory`. It checks `stop` only before it
changes anything, since it runs again after a stop.

A memory is an object with `state_dict`, of tensors and plain values, and `load_state_dict`. It is saved with the run and
restored on --resume, within an epoch as well. Only the first process saves its own, so a memory that differs between processes
must be gathered (`utils.metrics.over_processes`). What its `facts(training rows) -> dict`, if it has one, gives at the end goes
into result.json. If its `keeps` names the folder of another run, this one trains no epoch and keeps that one's networks.

A run leaves in OUT_DIR/NAME: args.json, log.jsonl (a line per epoch), last.ckpt, best.ckpt, result.json, and TensorBoard
curves.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import progress, read_json, write_json
from cli.lazy import lightning_fabric, torch
from engine import checkpoint, run_folder
from engine.devices import start_fabric
from engine.evaluation import evaluate_all
from engine.loaders import build_loaders, on_device, seed_epoch
from engine.networks import build_state
from engine.objective import WeightedLoss
from engine.optimizers import changes_by_step
from engine.stopping import LossWatch, StopRequest
from engine.task import SEGMENTATION, Task
from utils.metrics import named_scores, over_processes, score_table


def run(args: Namespace, weigh: Callable | None = None, needs_weights: bool = False, networks: Sequence[str] = ("",),
        selects: bool = False, reweigh: Callable[[np.ndarray], np.ndarray] | None = None, pseudo_dir: Path | str | None = None,
        task: Task = SEGMENTATION, objective: Callable | None = None, memory: Any = None,
        frozen: Sequence[torch.nn.Module] | Callable[[Namespace], Sequence] = (),
        after_epoch: Callable[..., dict] | None = None) -> dict[str, Any]:
    """Train, choose the best epoch, test it, and leave the run's files.

    Args:
        args: flags of `train_parser`, or of the groups in engine/flags.py and the task's own.
        weigh: see the head of this module.
        needs_weights: the training CSV must have a `weight` column.
        networks: suffix of each network's flags; default: one network, from --model, --encoder, --encoder-weights.
        selects: `weigh` gives selections, see the head of this module.
        reweigh: changes the weights of the training rows, all at once, before `weigh` sees them: float (rows,) -> (rows,).
        pseudo_dir: folder of the training rows' pseudo-labels; `weigh` finds them as batch["pseudo"], uint8 (B, H, W).
        task: the problem: data, networks, losses, scores.
        objective: in place of `weigh`, see engine/objective.py.
        memory: what the method remembers from step to step, see the head of this module.
        frozen: networks that only give outputs, or a function of `args` that makes them; not trained, not scored, not saved.
            It may have `facts`, as a memory has.
        after_epoch: function (fabric, state, stop) -> dict, see the head of this module.

    Returns:
        the content of result.json.

    Raises:
        UserError: a fault that the user can mend, reported before training begins where that is possible.
    """
    with run_folder.claimed(args) as folder:
        asked = {"needs_weights": needs_weights, "pseudo_dir": pseudo_dir}
        splits = task.rows(args, **{name: value for name, value in asked.items() if value})
        if reweigh:
            splits["train"]["weight"] = reweigh(splits["train"]["weight"].to_numpy())
        run_folder.refuse_other_rows(args, folder, splits)
        if args.resume and (folder / "result.json").exists():
            print(f"{folder}: finished already, nothing to do")
            return read_json(folder / "result.json")
        samples = task.check(args, splits)  # a faulty file is reported before PyTorch is loaded
        return train_and_test(args, folder, splits, samples, weigh, networks, selects, task, objective, memory, frozen,
                              after_epoch)


def train_and_test(args: Namespace, folder: Path, splits: dict[str, pd.DataFrame], samples: dict[str, Any] | None, weigh: Any,
                   networks: Sequence[str], selects: bool, task: Task, objective: Callable | None, memory: Any,
                   frozen: Sequence[torch.nn.Module] | Callable[[Namespace], Sequence],
                   after_epoch: Callable[..., dict] | None) -> dict[str, Any]:
    """The part of `run` that needs a device: build, train, test; the content of result.json."""
    fabric = start_fabric(args)
    fabric.barrier()  # every process has found the folder free before the first one writes to it
    state = build_state(args, fabric, networks, len(splits["train"]), task, frozen, memory)
    loaders = build_loaders(args, splits, fabric, task, samples)
    objective = objective or WeightedLoss(fabric, task, weigh, selects)
    if fabric.is_global_zero:
        run_folder.open_run(args, folder, splits)
    fabric.barrier()
    if args.resume and (folder / "last.ckpt").exists():
        state.restore(checkpoint.load(folder / "last.ckpt"))
    with StopRequest(fabric.world_size == 1) as stop:  # several processes would hang, waiting for one another
        if kept := getattr(memory, "keeps", None):
            keep(fabric, state, folder, kept)
        else:
            fit(args, fabric, state, loaders, task, objective, folder, stop, after_epoch)
        facts = run_folder.row_facts(splits)
        for part in (memory, frozen):
            facts |= part.facts(splits["train"]) if hasattr(part, "facts") else {}
        return finish(args, fabric, state, loaders, task, folder, facts, stop)


# --- the loop ---------------------------------------------------------------------------------------------------


def fit(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState, loaders: dict[str, Any], task: Task,
        objective: Callable, folder: Path, stop: StopRequest, after_epoch: Callable[..., dict] | None = None) -> None:
    """Train epoch by epoch; after each, validate, log and save. On Ctrl-C or SIGTERM finish the step and save the state; a
    second Ctrl-C saves nothing."""
    with run_folder.opened_log(folder, state.epoch, fabric.is_global_zero) as log:
        for epoch in range(state.epoch, args.epochs):
            began = time.perf_counter() - state.begin_epoch(fabric.device)
            learning_rate = state.begun["learning_rate"]
            seed_epoch(args, loaders["train"], epoch, fabric.global_rank, state.begun)
            watch = LossWatch(loaders["train"].dataset, epoch, learning_rate, args, folder)
            try:
                means = train_one_epoch(args, fabric, state, loaders["train"], task, objective, watch, stop)
                seconds = time.perf_counter() - began
                valid = evaluate_all(args, fabric, state, loaders.get("valid"), task, stop)
                resumed = time.perf_counter()
                more = after_epoch(fabric, state, stop) if after_epoch else {}
                seconds += time.perf_counter() - resumed  # a method's own work after an epoch is a part of its cost
            except KeyboardInterrupt as request:
                if not stop.active or stop.at_once:
                    raise
                watch.look()  # raises if a loss is not finite, so that last.ckpt keeps the last good state
                state.leave_epoch(time.perf_counter() - began)
                checkpoint.save(folder / "last.ckpt", state.content())
                raise type(request)(f"{folder}: stopped in epoch {epoch + 1} after {state.begun['step']} of "
                                    f"{len(loaders['train'])} steps, saved; the same command with --resume goes on") from None
            loader = loaders["train"]
            images = min(len(loader) * loader.batch_size * fabric.world_size, len(loader.dataset))  # a last part may be dropped
            entry = {"epoch": epoch, "learning_rate": learning_rate, **means, "valid": valid, "seconds": seconds,
                     "images_per_second": images / seconds, **more}
            end_epoch(args, fabric, state, entry, task, folder, log)


def keep(fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState, folder: Path, kept: Path) -> None:
    """Leave the files of a run that trains no epoch: the networks of the finished run in the folder `kept`, from whose last
    epoch it starts, and a log without lines."""
    with run_folder.opened_log(folder, 0, fabric.is_global_zero):
        if fabric.is_global_zero:
            checkpoint.save(folder / "best.ckpt", checkpoint.load(kept / "best.ckpt"))
            checkpoint.save(folder / "last.ckpt", state.content())
    fabric.barrier()


def end_epoch(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState, entry: dict[str, Any],
              task: Task, folder: Path, log: run_folder.EpochLog | None) -> None:
    """Log a finished epoch and save the state, as best.ckpt too if its score is the best so far.

    Args:
        entry: the epoch's line of log.jsonl.
        log: None on processes that do not write.
    """
    if not changes_by_step(args):
        for scheduler in state.schedulers:
            scheduler.step()
    epoch, valid = entry["epoch"], entry["valid"]
    state.epoch, state.begun = epoch + 1, None
    score = task.selection_score(valid[0]) if valid else float(epoch)
    improved = score > state.best_score or state.best_epoch < 0
    if improved:
        state.best_score, state.best_epoch = score, epoch
    if log:
        if improved:
            checkpoint.save(folder / "best.ckpt", {"networks": state.weights(), "epoch": epoch, "valid": valid})
        log.write(entry, args.epochs, improved, {name: task.title(name) for name in task.compared})
        checkpoint.save(folder / "last.ckpt", state.content())  # last: a resumed run drops log lines beyond it
    fabric.barrier()


def train_one_epoch(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState,
                    loader: Collection[dict], task: Task, objective: Callable, watch: LossWatch,
                    stop: StopRequest) -> dict[str, Any]:
    """Train for one epoch, or for the rest of an interrupted one (`state.begun`).

    Returns:
        dict of `loss` and, of a `WeightedLoss`, `weight`: their means over the epoch, one per network; and, of a method
        that selects, `empty`: number of batches without a selected sample, per network.

    Raises:
        UserError: a loss is not finite.
        KeyboardInterrupt: between two steps, see `StopRequest`.
    """
    for network in state.networks:
        network.train()
    begun, epoch, weighs = state.begun, state.epoch, isinstance(objective, WeightedLoss)
    bar = progress(loader, f"epoch {epoch + 1}/{args.epochs}", unit="batch", shown=fabric.is_global_zero)
    for step, batch in enumerate(bar, begun["step"] + 1):
        losses = train_step(args, fabric, state, on_device(fabric, batch, task), task, objective)
        begun["step"] = step
        watch.add(step, losses, batch["index"])
        if step % 20 == 0:
            loss, weight = (begun["sums"][:, 0] / step).tolist()
            bar.set_postfix({"loss": f"{loss:.4f}", **({"weight": f"{weight:.3f}"} if weighs else {})})
        stop.check()
    watch.look()
    with_loss = [max(1, len(loader) - empty) for empty in begun["empty"]]  # batches: an empty one has no loss
    counts = begun["sums"].new_tensor([with_loss, [len(loader)] * len(with_loss)])
    means = over_processes(fabric, begun["sums"] / counts, "mean").tolist()
    return {"loss": means[0], **({"weight": means[1]} if weighs else {}),
            **({"empty": begun["empty"]} if isinstance(objective, WeightedLoss) and objective.selects else {})}


def train_step(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState, batch: dict, task: Task,
               objective: Callable) -> list[torch.Tensor]:
    """Update every network on a batch, and the sums in `state.begun`.

    Returns:
        list of losses, tensors (), one per network.
    """
    outputs = [task.forward(network, batch) for network in state.networks]
    with torch.no_grad(), fabric.autocast():
        outputs += [task.forward(network, batch) for network in state.frozen]
    losses, kept = objective(outputs, batch, state.epoch), None
    if isinstance(objective, WeightedLoss):
        state.begun["sums"][1] += objective.means
        kept = objective.kept
    for k, (network, optimizer, loss) in enumerate(zip(state.networks, state.optimizers, losses, strict=True)):
        optimizer.zero_grad()
        fabric.backward(loss)  # even without a selected sample: DDP waits for every process
        if kept is not None and kept[k] == 0:
            state.begun["empty"][k] += 1  # a step would still apply momentum and weight decay
            continue
        if args.clip:
            fabric.clip_gradients(network, optimizer, clip_val=args.clip)
        optimizer.step()
        state.begun["sums"][0, k] += loss.detach()
    if changes_by_step(args):
        for scheduler in state.schedulers:
            scheduler.step()
    return [loss.detach() for loss in losses]


# --- after the loop ---------------------------------------------------------------------------------------------


def finish(args: Namespace, fabric: lightning_fabric.Fabric, state: checkpoint.TrainingState, loaders: dict[str, Any],
           task: Task, folder: Path, facts: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Test the last epoch and the best one, and write result.json; returns its content."""
    try:
        test_last = evaluate_all(args, fabric, state, loaders.get("test"), task, stop)
        best = checkpoint.load(folder / "best.ckpt")
        state.load_weights(best["networks"])
        if best["epoch"] == args.epochs - 1 and not facts.get("kept_network"):  # that run may have had other --epochs
            test = test_last
        else:
            test = evaluate_all(args, fabric, state, loaders.get("test"), task, stop)
    except KeyboardInterrupt as request:
        raise type(request)(f"{folder}: stopped while testing; the same command with --resume tests again") from None
    result = {"name": args.name, "script": Path(sys.argv[0]).name, "best_epoch": best["epoch"], "epochs": args.epochs,
              "compared": list(task.compared), "titles": task.columns(),
              "valid": best["valid"], "test": test, "test_last": test_last, "seconds": run_folder.seconds_spent(folder),
              "parameters": [sum(p.numel() for p in network.parameters()) for network in state.networks],
              "rows": {split: len(loader.dataset) for split, loader in loaders.items()}, **facts,
              "args": run_folder.recorded(args), "machine": run_folder.machine(fabric)}
    if fabric.is_global_zero:
        write_json(folder / "result.json", result)
        if test:
            print(f"test:\n{score_table(named_scores(args.name, result, 'test'), task.columns())}")
        print(f"results: {folder / 'result.json'}")
    fabric.barrier()
    return result
