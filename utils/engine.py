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

import math
import os
import sys
import time
from pathlib import Path

from data.files import UserError, progress, read_json, write_json
from data.lazy import LazyModule, torch
from data.rows import check_rows, pseudo_label_paths, read_rows
from utils import checkpoint, run_folder
from utils.agreement import hard_labels
from utils.loaders import build_loaders, on_device, seed_epoch
from utils.losses import batch_loss, main_logits
from utils.metrics import SplitScores, named_scores, over_processes, score_table
from utils.optimizers import build_optimizer

lightning_fabric = LazyModule("lightning_fabric")


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
    folder = Path(args.out_dir) / args.name
    run_folder.check(args, folder)
    if args.resume and (folder / "result.json").exists():
        print(f"{folder}: finished already, nothing to do")
        return read_json(folder / "result.json")
    splits = read_splits(args, needs_weights, pseudo_dir)  # what is wrong with the rows is found before PyTorch is even loaded
    if reweigh:
        splits["train"]["weight"] = reweigh(splits["train"]["weight"].to_numpy())
    fabric = start_fabric(args)
    fabric.barrier()  # every process has found the folder free before the first one writes to it
    state = build_state(args, fabric, networks)
    loaders = build_loaders(args, splits, fabric)
    if fabric.is_global_zero:
        run_folder.open_new(args, folder)
    fabric.barrier()
    if args.resume and (folder / "last.ckpt").exists():
        state.restore(checkpoint.load(folder / "last.ckpt"))
    fit(args, fabric, state, loaders, weigh, selects, folder)
    return finish(args, fabric, state, loaders, folder, run_folder.row_facts(splits))


# --- before the loop --------------------------------------------------------------------------------------------


def read_splits(args, needs_weights, pseudo_dir=None):
    """Checked rows of each split: dict of `train`, `valid`, `test` -> DataFrame."""
    splits = {}
    for split in ("train", "valid", "test"):
        csv = getattr(args, f"{split}_csv")
        if csv:
            splits[split] = read_rows(csv, needs_weights and split == "train")
    if pseudo_dir:
        splits["train"]["pseudo"] = pseudo_label_paths(splits["train"], pseudo_dir)
    for split, rows in splits.items():
        check_rows(getattr(args, f"{split}_csv"), rows, args.num_classes)
    return splits


def start_fabric(args):
    """Device, precision and processes, by Lightning Fabric."""
    torchrun = "LOCAL_WORLD_SIZE" in os.environ
    devices, nodes, strategy = args.devices, 1, args.strategy
    if torchrun:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if strategy == "auto":
        strategy = "ddp" if torchrun else "dp" if _visible_gpus(args) > 1 else "auto"
    if devices == "auto" and args.accelerator == "cpu":
        devices = 1
    try:
        fabric = lightning_fabric.Fabric(accelerator=args.accelerator, devices=devices, num_nodes=nodes, strategy=strategy,
                                         precision=args.precision)
        fabric.launch()
    except (RuntimeError, ValueError) as error:  # Lightning's misconfiguration errors are ValueErrors
        raise UserError(f"--accelerator {args.accelerator} --devices {args.devices}: {error}") from None
    return fabric


def _visible_gpus(args):
    if args.accelerator not in ("auto", "cuda", "gpu") or not torch.cuda.is_available():
        return 0
    if args.devices in ("auto", "-1"):
        return torch.cuda.device_count()
    return len(args.devices.strip(",").split(",")) if "," in args.devices else int(args.devices)


def build_networks(args, configs, suffixes=("",)):
    """The networks of a run, from --encoder-weights or --load."""
    networks = [checkpoint.build_from(config, getattr(args, "encoder_weights" + suffix)).to(memory_format=torch.channels_last)
                for config, suffix in zip(configs, suffixes)]  # that memory format is the faster one, on CPU and GPU
    if args.load:
        for index, network in enumerate(networks):
            checkpoint.start_from(network, args.load, index)
    if args.compile:
        for network in networks:
            network.compile()  # in place: its weights keep their names
    return networks


def build_state(args, fabric, suffixes=("",)):
    """The networks of a run, made from --seed, with their optimizers, set up to train."""
    fabric.seed_everything(args.seed, verbose=False)
    configs = [checkpoint.model_config(args, suffix) for suffix in suffixes]
    networks = build_networks(args, configs, suffixes)
    optimizers, schedulers = zip(*(build_optimizer(args, network.parameters()) for network in networks))
    networks, optimizers = zip(*(fabric.setup(n, o) for n, o in zip(networks, optimizers)))
    return checkpoint.TrainingState(configs, networks, optimizers, schedulers)


# --- the loop ---------------------------------------------------------------------------------------------------


def fit(args, fabric, state, loaders, weigh, selects, folder):
    """Train epoch by epoch; after each, validate, log and save."""
    log = run_folder.EpochLog(folder, state.epoch) if fabric.is_global_zero else None
    for epoch in range(state.epoch, args.epochs):
        began = time.perf_counter()
        learning_rate = state.optimizers[0].param_groups[0]["lr"]
        seed_epoch(args, loaders["train"], epoch, fabric.global_rank)
        means = train_one_epoch(args, fabric, state, loaders["train"], weigh, selects, epoch)
        if not all(map(math.isfinite, means["loss"])):
            raise UserError(f"epoch {epoch + 1}: the loss is {means['loss']}; lower --learning-rate "
                            f"({args.learning_rate}); {folder} keeps the epochs before")
        seconds = time.perf_counter() - began
        for scheduler in state.schedulers:
            scheduler.step()
        valid = evaluate_all(fabric, state, loaders.get("valid"), args)
        state.epoch = epoch + 1
        score = selection_score(valid[0]) if valid else float(epoch)
        improved = score > state.best_score
        if improved:
            state.best_score, state.best_epoch = score, epoch
        if log:
            if improved:
                checkpoint.save(folder / "best.ckpt", {"networks": state.weights(), "epoch": epoch, "valid": valid})
            images = len(loaders["train"]) * args.batch_size
            log.write({"epoch": epoch, "learning_rate": learning_rate, **means, "valid": valid,
                       "seconds": seconds, "images_per_second": images / seconds}, args.epochs, improved)
            checkpoint.save(folder / "last.ckpt", state.content())  # last: a resumed run drops log lines beyond it
        fabric.barrier()
    if log:
        log.close()


def train_one_epoch(args, fabric, state, loader, weigh, selects, epoch):
    """One pass over the training set.

    Returns:
        dict of `loss` and `weight`: their means over the epoch, one per network; and, of a method that selects,
        `empty`: batches of which it kept nothing.
    """
    for network in state.networks:
        network.train()
    sums = torch.zeros(2, len(state.networks), device=fabric.device)  # stays on the device until the epoch ends
    empty = [0] * len(state.networks)
    bar = progress(loader, f"epoch {epoch + 1}/{args.epochs}", unit="batch", shown=fabric.is_global_zero)
    for step, batch in enumerate(bar, 1):
        batch = on_device(fabric, batch)
        outputs = [network(batch["image"]) for network in state.networks]
        with torch.no_grad():
            weights = weigh([main_logits(output).detach() for output in outputs], batch, epoch)
        sums[1] += torch.stack([each.mean() for each in weights])
        if selects:
            weights, kept = averaged_over_kept(fabric, weights)
        for k, (network, optimizer) in enumerate(zip(state.networks, state.optimizers)):
            loss = batch_loss(outputs[k], batch["mask"], weights[k])
            optimizer.zero_grad()
            fabric.backward(loss)  # even if nothing is kept: DDP waits for it
            if selects and kept[k] == 0:
                empty[k] += 1  # momentum and weight decay would move the network even so
                continue
            if args.clip:
                fabric.clip_gradients(network, optimizer, clip_val=args.clip)
            optimizer.step()
            sums[0, k] += loss.detach()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{sums[0, 0].item() / step:.4f}", weight=f"{sums[1, 0].item() / step:.3f}")
    means = over_processes(fabric, sums / len(loader), "mean").tolist()
    return {"loss": means[0], "weight": means[1], **({"empty": empty} if selects else {})}


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


def evaluate_all(fabric, state, loader, args):
    """Scores of each network on a split; None without a loader."""
    if loader is None:
        return None
    return [evaluate(fabric, network, loader, args.num_classes, args.theta) for network in state.networks]


def evaluate(fabric, network, loader, num_classes, theta, title="validating"):
    """Scores of one network over a whole split, every sample counted once: see `SplitScores.compute`."""
    network.eval()
    # processes hold unequal numbers of batches, so DDP's collective calls must not run here
    forward = network.module if fabric.world_size > 1 else network
    scores = SplitScores(num_classes, theta, fabric.device)
    for batch in progress(loader, title, unit="batch", shown=fabric.is_global_zero):
        batch = on_device(fabric, batch)
        with torch.no_grad(), fabric.autocast():
            logits = forward(batch["image"])  # (B, C, H, W)
        scores.update(hard_labels(logits), batch["mask"])
    scores.reduce(fabric)
    return scores.compute()


def selection_score(scores):
    """What chooses the best epoch: the mean of mIoU and BF on the validation masks as they are, in 0..1."""
    return (scores["miou"] + scores["bf"]) / 2


# --- after the loop ---------------------------------------------------------------------------------------------


def finish(args, fabric, state, loaders, folder, facts):
    """Test the last epoch and the best one, and write result.json."""
    test_last = evaluate_all(fabric, state, loaders.get("test"), args)
    best = checkpoint.load(folder / "best.ckpt")
    state.load_weights(best["networks"])
    test = test_last if best["epoch"] == args.epochs - 1 else evaluate_all(fabric, state, loaders.get("test"), args)
    result = {"name": args.name, "script": Path(sys.argv[0]).name, "best_epoch": best["epoch"], "epochs": args.epochs,
              "valid": best["valid"], "test": test, "test_last": test_last, "seconds": run_folder.seconds_spent(folder),
              "parameters": [sum(p.numel() for p in network.parameters()) for network in state.networks],
              "rows": {split: len(loader.dataset) for split, loader in loaders.items()}, **facts,
              "args": vars(args), "machine": run_folder.machine(fabric)}
    if fabric.is_global_zero:
        write_json(folder / "result.json", result)
        if test:
            print(f"test:\n{score_table(named_scores(args.name, result, 'test'))}")
        print(f"results: {folder / 'result.json'}")
    fabric.barrier()
    return result
