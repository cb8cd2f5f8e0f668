"""The only loop: run -> fit -> train_one_epoch, evaluate.

Every method is `loss_k = mean_i w_k[i] * l(net_k(x_i), y_i)` for each network k; a script passes the function that makes
the weights:

    weigh(logits, batch, epoch) -> [w of network 1, w of network 2, ...]

    logits  list of tensors (B, C, H, W), one per network, without gradient
    batch   dict: image (B, 3, H, W), mask (B, H, W), weight (B,), index (B,), see `SegmentationDataset`
    epoch   int, 0-based
    w       float tensors (B,); or (B, H, W), how much each pixel counts in its sample's loss

A method that selects samples (w = 0 or 1, `selects=True`) has its loss averaged over the samples it keeps; a batch of
which it keeps none makes no update and is counted in the log.

A run leaves in OUT_DIR/NAME: args.json, log.jsonl (a line per epoch), last.ckpt, best.ckpt, result.json, and TensorBoard
curves.
"""

import sys
import time
from pathlib import Path

from cli.files import UserError, progress, read_json, write_json
from cli.lazy import torch
from data.rows import check_apart, check_batch, check_rows, pseudo_label_paths, read_rows
from engine import checkpoint, run_folder
from engine.building import build_state
from engine.devices import start_fabric
from engine.loaders import build_loaders, on_device, seed_epoch
from engine.stopping import LossWatch, StopRequest
from utils.agreement import hard_labels
from utils.losses import batch_loss, main_logits
from utils.metrics import SplitScores, named_scores, over_processes, score_table


def run(args, weigh, needs_weights=False, networks=("",), selects=False, reweigh=None, pseudo_dir=None):
    """Train with `weigh`, choose the best epoch, test it, and leave the run's files.

    Args:
        args: flags of `train_parser`.
        weigh: see the head of this module.
        needs_weights: the training CSV must have a `weight` column.
        networks: suffix of each network's flags; default: one network, from --model, --encoder, --encoder-weights.
        selects: `weigh` gives selections, see the head of this module.
        reweigh: changes the weights of the training rows, all at once, before `weigh` sees them: float (rows,) -> (rows,).
        pseudo_dir: folder of the training rows' pseudo-labels; `weigh` finds them as batch["pseudo"], uint8 (B, H, W).

    Returns:
        the content of result.json.

    Raises:
        UserError: anything the user can mend, found before training begins where that is possible.
    """
    with run_folder.claimed(args) as folder:
        splits = read_splits(args, needs_weights, pseudo_dir)
        if reweigh:
            splits["train"]["weight"] = reweigh(splits["train"]["weight"].to_numpy())
        run_folder.refuse_other_rows(args, folder, splits)
        if args.resume and (folder / "result.json").exists():
            print(f"{folder}: finished already, nothing to do")
            return read_json(folder / "result.json")
        check_files(args, splits)  # what is wrong with a file is found before PyTorch is loaded
        fabric = start_fabric(args)
        fabric.barrier()  # every process has found the folder free before the first one writes to it
        state = build_state(args, fabric, networks, len(splits["train"]))
        loaders = build_loaders(args, splits, fabric)
        if fabric.is_global_zero:
            run_folder.open_run(args, folder, splits)
        fabric.barrier()
        if args.resume and (folder / "last.ckpt").exists():
            state.restore(checkpoint.load(folder / "last.ckpt"))
        with StopRequest(fabric.world_size == 1) as stop:  # several processes would wait for the one that stops: they just die
            fit(args, fabric, state, loaders, weigh, selects, folder, stop)
            return finish(args, fabric, state, loaders, folder, run_folder.row_facts(splits), stop)


# --- before the loop --------------------------------------------------------------------------------------------


def read_splits(args, needs_weights, pseudo_dir=None):
    """Rows of each split, their files not yet opened: dict of `train`, `valid`, `test` -> DataFrame."""
    splits = {}
    for split in ("train", "valid", "test"):
        csv = getattr(args, f"{split}_csv")
        if csv:
            splits[split] = read_rows(csv, needs_weights and split == "train")
    check_apart([(getattr(args, f"{split}_csv"), rows) for split, rows in splits.items()])
    if needs_weights and not splits["train"]["weight"].any():
        raise UserError(f"{args.train_csv}: all weights are 0, there is nothing to learn from; see utils/get_weight.py")
    check_batch(args.size, args.batch_size, splits["train"])
    if pseudo_dir:
        splits["train"]["pseudo"] = pseudo_label_paths(splits["train"], pseudo_dir)
    return splits


def check_files(args, splits):
    """`check_rows` of each split of `read_splits`."""
    for split, rows in splits.items():
        check_rows(getattr(args, f"{split}_csv"), rows, args.num_classes)


# --- the loop ---------------------------------------------------------------------------------------------------


def fit(args, fabric, state, loaders, weigh, selects, folder, stop):
    """Train epoch by epoch; after each, validate, log and save. Ctrl-C and SIGTERM end a step and save amid the epoch."""
    with run_folder.opened_log(folder, state.epoch, fabric.is_global_zero) as log:
        for epoch in range(state.epoch, args.epochs):
            learning_rate = state.optimizers[0].param_groups[0]["lr"]
            began = time.perf_counter() - state.begin_epoch(fabric.device)
            seed_epoch(args, loaders["train"], epoch, fabric.global_rank, state.begun)
            watch = LossWatch(loaders["train"].dataset, epoch, learning_rate, args, folder)
            try:
                means = train_one_epoch(args, fabric, state, loaders["train"], weigh, selects, watch, stop)
                seconds = time.perf_counter() - began
                valid = evaluate_all(fabric, state, loaders.get("valid"), args, stop)
            except KeyboardInterrupt as request:
                if not stop.active:
                    raise
                watch.look()  # what is not finite is not saved over what was
                state.leave_epoch(time.perf_counter() - began)
                checkpoint.save(folder / "last.ckpt", state.content())
                raise type(request)(f"{folder}: stopped in epoch {epoch + 1} after {state.begun['step']} of "
                                    f"{len(loaders['train'])} steps, saved; the same command with --resume goes on") from None
            loader = loaders["train"]
            images = min(len(loader) * loader.batch_size * fabric.world_size, len(loader.dataset))  # a last part is left out
            entry = {"epoch": epoch, "learning_rate": learning_rate, **means, "valid": valid, "seconds": seconds,
                     "images_per_second": images / seconds}
            end_epoch(fabric, state, entry, folder, log, args.epochs)


def end_epoch(fabric, state, entry, folder, log, epochs):
    """Count an epoch as done: log it, save it, and keep it as the best if it is."""
    for scheduler in state.schedulers:
        scheduler.step()
    epoch, valid = entry["epoch"], entry["valid"]
    state.epoch, state.begun = epoch + 1, None
    score = selection_score(valid[0]) if valid else float(epoch)
    improved = score > state.best_score
    if improved:
        state.best_score, state.best_epoch = score, epoch
    if log:
        if improved:
            checkpoint.save(folder / "best.ckpt", {"networks": state.weights(), "epoch": epoch, "valid": valid})
        log.write(entry, epochs, improved)
        checkpoint.save(folder / "last.ckpt", state.content())  # last: a resumed run drops log lines beyond it
    fabric.barrier()


def train_one_epoch(args, fabric, state, loader, weigh, selects, watch, stop):
    """One pass over the training set, or over what `state.begun` has left of it.

    Returns:
        dict of `loss` and `weight`: their means over the epoch, one per network; and, of a method that selects,
        `empty`: batches of which it kept nothing.

    Raises:
        UserError: a loss is not finite.
        KeyboardInterrupt: between two steps, see `StopRequest`.
    """
    for network in state.networks:
        network.train()
    begun, epoch = state.begun, state.epoch
    bar = progress(loader, f"epoch {epoch + 1}/{args.epochs}", unit="batch", shown=fabric.is_global_zero)
    for step, batch in enumerate(bar, begun["step"] + 1):
        losses = train_step(args, fabric, state, on_device(fabric, batch), weigh, selects)
        begun["step"] = step
        watch.add(step, losses, batch["index"])
        if step % 20 == 0:
            loss, weight = (begun["sums"][:, 0] / step).tolist()
            bar.set_postfix(loss=f"{loss:.4f}", weight=f"{weight:.3f}")
        stop.check()
    watch.look()
    means = over_processes(fabric, begun["sums"] / len(loader), "mean").tolist()
    return {"loss": means[0], "weight": means[1], **({"empty": begun["empty"]} if selects else {})}


def train_step(args, fabric, state, batch, weigh, selects):
    """Update every network on a batch, and `state.begun`.

    Returns:
        list of losses, tensors (), one per network.
    """
    outputs = [network(batch["image"]) for network in state.networks]
    with torch.no_grad():
        weights = weigh([main_logits(output).detach() for output in outputs], batch, state.epoch)
    state.begun["sums"][1] += torch.stack([each.mean() for each in weights])
    if selects:
        weights, kept = averaged_over_kept(fabric, weights)
    losses = []
    for k, (network, optimizer) in enumerate(zip(state.networks, state.optimizers)):
        loss = batch_loss(outputs[k], batch["mask"], weights[k])
        losses.append(loss.detach())
        optimizer.zero_grad()
        fabric.backward(loss)  # even if nothing is kept: DDP waits for it
        if selects and kept[k] == 0:
            state.begun["empty"][k] += 1  # momentum and weight decay would move the network even so
            continue
        if args.clip:
            fabric.clip_gradients(network, optimizer, clip_val=args.clip)
        optimizer.step()
        state.begun["sums"][0, k] += losses[k]
    return losses


def averaged_over_kept(fabric, selections):
    """Make eq. 7's division by the batch size one by the number of samples kept, over all processes.

    Args:
        selections: (B,) of 0 and 1 per network.

    Returns:
        (the same, scaled; samples kept, one number per network)
    """
    kept = over_processes(fabric, torch.stack([each.sum() for each in selections]), "sum")
    scaled = [each * (len(each) * fabric.world_size / total.clamp(min=1)) for each, total in zip(selections, kept)]
    return scaled, kept


def evaluate_all(fabric, state, loader, args, stop):
    """Scores of each network on a split; None without a loader."""
    if loader is None:
        return None
    return [evaluate(fabric, network, loader, args.num_classes, args.theta, stop=stop) for network in state.networks]


def evaluate(fabric, network, loader, num_classes, theta, title="validating", stop=None):
    """Scores of one network over a whole split, every sample counted once: see `SplitScores.compute`.

    Args:
        stop: StopRequest that is asked after each batch.
    """
    network.eval()
    # processes hold unequal numbers of batches, so DDP's collective calls must not run here
    forward = network.module if fabric.world_size > 1 else network
    scores = SplitScores(num_classes, theta, fabric.device)
    for batch in progress(loader, title, unit="batch", shown=fabric.is_global_zero):
        batch = on_device(fabric, batch)
        with torch.no_grad(), fabric.autocast():
            logits = forward(batch["image"])  # (B, C, H, W)
        scores.update(hard_labels(logits), batch["mask"])
        if stop:
            stop.check()
    scores.reduce(fabric)
    return scores.compute()


def selection_score(scores):
    """What chooses the best epoch: the mean of mIoU and BF on the validation masks as they are, in 0..1."""
    return (scores["miou"] + scores["bf"]) / 2


# --- after the loop ---------------------------------------------------------------------------------------------


def finish(args, fabric, state, loaders, folder, facts, stop):
    """Test the last epoch and the best one, and write result.json."""
    try:
        test_last = evaluate_all(fabric, state, loaders.get("test"), args, stop)
        best = checkpoint.load(folder / "best.ckpt")
        state.load_weights(best["networks"])
        test = test_last if best["epoch"] == args.epochs - 1 else evaluate_all(fabric, state, loaders.get("test"), args, stop)
    except KeyboardInterrupt as request:
        raise type(request)(f"{folder}: stopped while testing; the same command with --resume tests again") from None
    result = {"name": args.name, "script": Path(sys.argv[0]).name, "best_epoch": best["epoch"], "epochs": args.epochs,
              "valid": best["valid"], "test": test, "test_last": test_last, "seconds": run_folder.seconds_spent(folder),
              "parameters": [sum(p.numel() for p in network.parameters()) for network in state.networks],
              "rows": {split: len(loader.dataset) for split, loader in loaders.items()}, **facts,
              "args": run_folder.recorded(args), "machine": run_folder.machine(fabric)}
    if fabric.is_global_zero:
        write_json(folder / "result.json", result)
        if test:
            print(f"test:\n{score_table(named_scores(args.name, result, 'test'))}")
        print(f"results: {folder / 'result.json'}")
    fabric.barrier()
    return result
