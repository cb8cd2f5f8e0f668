"""An epoch with own weights against a plain one: the time of scoring each step, of the memory, and of judging all rows.

    python benchmarks/bench_own.py --out benchmarks/results/own.json

Both train on the same batches, which are in memory, so that reading files does not hide what own weights cost. A round of `own
weights` is what an epoch of train_with_own_weight.py does beyond its first ones: judge all rows, score each prediction, add it
to the averaged ones, and end the epoch. Drawn label maps of smooth regions have longer outlines than most photographs.
"""

from functools import partial
from types import SimpleNamespace

import train_with_own_weight
import train_without_weight
from benchmarks.measure import RESULTS, in_turn, keep, ratio, seconds_of, table
from benchmarks.training import batch_of, epoch_seconds, flags_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.lazy import torch
from engine import devices, networks
from engine.own_memory import OwnMemory
from engine.own_run import shape_of


def prepare(args, own_weights):
    """A function: seconds of an epoch, with own weights or without weights."""
    flags = flags_of("--epochs", 2, "--size", *args.size, "--num-classes", args.classes, "--model", args.model, "--encoder",
                     args.encoder, "--encoder-weights", "none", "--devices", 1, "--precision", args.precision)
    fabric = devices.start_fabric(flags)
    state = networks.build_state(flags, fabric)
    rows = args.steps * args.batch_size
    batches = [fabric.to_device({**batch_of(args.batch_size, args.size, args.classes),
                                 "index": torch.arange(first, first + args.batch_size)})
               for first in range(0, rows, args.batch_size)]
    memory = OwnMemory(rows, shape_of(flags), from_epoch=1, num_classes=args.classes)
    weigh = partial(train_with_own_weight.weigh, flags, SimpleNamespace(memory=memory, corrected=None))

    def epoch():
        if not own_weights:
            return epoch_seconds(flags, fabric, state, batches, train_without_weight.weigh)
        memory.current = None  # so that the rows are judged again, as in each epoch
        return epoch_seconds(flags, fabric, state, batches, weigh) + seconds_of(memory.after_epoch, fabric, state, None)

    epoch()  # warms up
    return epoch


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "own.json"), help="JSON of the results")
    parser.add_argument("--model", default="smp_unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 160], metavar=("H", "W"), help="px")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--classes", type=positive_int, default=2)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--steps", type=positive_int, default=30, help="training steps per round")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    seconds = in_turn({name: prepare(args, name == "own weights") for name in ("no weights", "own weights")}, args.rounds)
    lines = [[name, f"{ratio(seconds, name, 'no weights'):.3f}", f"{min(each) / args.steps * 1000:.0f}"]
             for name, each in seconds.items()]
    title = f"{args.model}, {args.encoder}, {args.size[0]}x{args.size[1]}, batch {args.batch_size}, {args.classes} classes"
    keep(args.out, {"seconds": seconds}, {f"An epoch with own weights ({title})": table(
        ("training", "time, relative to no weights", "ms a step"), lines)})


if __name__ == "__main__":
    command_line(main)
