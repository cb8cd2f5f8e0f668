"""How fast the loader is, compared with training: it decodes, resizes and normalises files, from the disk or with --cache.

    python benchmarks/bench_loader.py --photos data/generated/people --out benchmarks/results/loader.json

Images/s of the loader alone (decode, resize, batch, to the device, normalise) with 0, 1, 2 ... loader processes and cached;
images/s of training alone, on batches in memory; and images/s of the engine's whole epoch, as a share of training alone.
"""

import functools
import os
import tempfile
from pathlib import Path

from benchmarks.measure import RESULTS, in_turn, keep, ratio, seconds_of, table
from benchmarks.training import epoch_seconds, flags_of
from cli.command_line import command_line, positive_int, tool_parser
from data.make_sample import draw_set
from data.splits import pair_folder
from engine import devices, networks
from engine.loaders import build_loaders, on_device


def run_flags(args, *more):
    """The flags of a run."""
    return flags_of("--epochs", 10, "--size", *args.size, "--model", args.model, "--encoder", args.encoder,
                    "--width", args.width, "--optimizer", "adamw", "--lr", 1e-3, "--devices", 1, "--precision", args.precision,
                    "--batch-size", args.batch_size, *more)


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "loader.json"), help="JSON of the results")
    parser.add_argument("--photos", metavar="DIR", help="DIR/images and DIR/masks (default: drawn portraits of 480x360)")
    parser.add_argument("--limit", type=positive_int, default=160, help="photographs")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[321, 321], metavar=("H", "W"), help="px")
    parser.add_argument("--model", default="smp_unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--width", type=positive_int, default=64)
    parser.add_argument("-b", "--batch-size", type=positive_int, default=16)
    parser.add_argument("--precision", default="bf16-mixed", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.photos:
            draw_set(Path(folder), args.limit, (480, 360))
        content, tables = measure_loaders(args, pair_folder(args.photos or folder).iloc[:args.limit])
    keep(args.out, content, tables)


def measure_loaders(args, rows):
    """Seconds of an epoch of loading, of training, and of both, by loader; and their tables."""
    fabric = devices.start_fabric(run_flags(args))
    workers = [n for n in (0, 1, 2, 4, 8, 16) if n <= len(os.sched_getaffinity(0))]
    names = {**{f"{n} processes": run_flags(args, "--workers", n) for n in workers}, "cached": run_flags(args, "--cache")}
    loaders = {name: build_loaders(flags, {"train": rows}, fabric)["train"] for name, flags in names.items()}
    resident = [fabric.to_device(batch) for batch in loaders["cached"]]
    train = functools.partial(epoch_seconds, run_flags(args), fabric, networks.build_state(run_flags(args), fabric))
    train(resident)  # warm
    images = len(resident) * args.batch_size
    loading = in_turn({name: functools.partial(load_epoch, fabric, loader) for name, loader in loaders.items()}, args.rounds)
    training = in_turn({"resident": functools.partial(train, resident),
                        **{name: functools.partial(train, loader) for name, loader in loaders.items()}}, args.rounds)
    base = min(training["resident"])
    title = f"{args.model} {args.encoder}, {args.size[0]}x{args.size[1]}, batch {args.batch_size}, {args.precision}"
    lines = [[name, f"{base / min(loading[name]):.1f}", f"{1 / ratio(training, name, 'resident'):.3f}"] for name in loaders]
    content = {"images": images, "loading alone, s an epoch": loading, "training, s an epoch": training}
    return content, {f"Loader against training ({title})": table(
        ("loader", "loader alone / training alone, images/s", "whole epoch / on resident batches, images/s"), lines)}


def load_epoch(fabric, loader):
    """Seconds of one pass over a loader, its batches made ready on the device."""
    def run():
        for batch in loader:
            last = on_device(fabric, batch)["image"]
        return last.sum().item()  # waits for the device

    return seconds_of(run)


if __name__ == "__main__":
    command_line(main)
