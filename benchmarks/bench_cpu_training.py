"""Where a training step on a CPU spends its time, and what makes it faster.

    python benchmarks/bench_cpu_training.py

The loop is the engine's own, with KD weights, on batches that are in memory. Each way to train lives in a process of its own
with one thread. The processes take turns, so that a busy machine is as busy for all of them, and processor seconds count. The
network is that of the main job: a U-Net with a MobileNetV2 encoder, 160 x 160 px.
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import time
from contextlib import suppress

from benchmarks.measure import RESULTS, keep, ratio, table
from benchmarks.step_parts import BATCH, LOSS, WEIGHTS, marked, parts_of
from benchmarks.training import batch_of, epoch_seconds, flags_of, weigh_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError
from cli.lazy import torch
from engine import devices, loop, networks, objective

DEFAULT = "default"
COMPILE = "--compile"
FORK = multiprocessing.get_context("fork")  # the libraries are imported once


# --- ways to train ----------------------------------------------------------------------------------------------
# Each makes the state of a training: `build()` gives the default's.


def as_it_is(build):
    """Change nothing."""
    return build()


def channels_first(build):
    """Networks and images in PyTorch's usual format, (B, C, H, W) in memory."""
    state = build()
    network, = state.networks
    network.to(memory_format=torch.contiguous_format)
    network.register_forward_pre_hook(lambda network, inputs: tuple(each.contiguous() for each in inputs))
    return state


def fused(build):
    """AdamW in one pass over each parameter."""
    state = build()
    for group in state.optimizers[0].param_groups:
        group["fused"] = True
    return state


def flushed(build):
    """Numbers below 1e-38 are 0."""
    torch.set_flush_denormal(True)
    return build()


def bf16_convolutions(build):
    """float32 tensors, multiplied as bf16 inside convolutions."""
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    return build()


def memory_given_back(build):
    """glibc as it is by default: memory of a large tensor goes back to the system, see `devices.keep_memory`.

    No later call brings that back: glibc stops fitting its threshold to the sizes that are freed at the first one.
    """
    networks.keep_memory = lambda: None
    return build()


WAYS = {  # name -> (flags, how the state is made)
    DEFAULT: ("", as_it_is),
    "channels first in memory": ("", channels_first),
    "memory given back": ("", memory_given_back),
    "denormals flushed": ("", flushed),
    "fused AdamW": ("", fused),
    "bf16 inside convolutions": ("", bf16_convolutions),
    "bf16-mixed": ("--precision bf16-mixed", as_it_is),
    "bf16-mixed, memory given back": ("--precision bf16-mixed", memory_given_back),
    "bf16-mixed, fused AdamW": ("--precision bf16-mixed", fused),
    "compiled": (COMPILE, as_it_is),
    "bf16-mixed, compiled": (f"--precision bf16-mixed {COMPILE}", as_it_is),
    "batch 16": ("--batch-size 16", as_it_is),
    "batch 32": ("--batch-size 32", as_it_is),
}


HALF = "bf16-mixed"  # its parts are shown beside the default's


def beside(way):
    """Name of the default's seconds in the rounds of a way."""
    return f"{DEFAULT}, beside {way}"


class Training:
    """A training of one way, ready for its next steps."""

    def __init__(self, args):
        words, make = WAYS[args.way]
        self.flags = flags_of("--epochs", 2, "--size", args.side, args.side, "--model", args.model, "--encoder", args.encoder,
                              "--width", args.width, "--accelerator", "cpu", "--devices", 1, "--optimizer", "adamw", "--lr",
                              0.001, "--batch-size", args.batch_size, *words.split())
        self.fabric = devices.start_fabric(self.flags)
        self.state = make(lambda: networks.build_state(self.flags, self.fabric))
        self.batch = batch_of(self.flags.batch_size, args.side, 2)

    def steps(self, count, weigh="KD"):
        """Processor seconds that an image takes in so many steps."""
        began = time.process_time()
        epoch_seconds(self.flags, self.fabric, self.state, [self.batch] * count, weigh)
        return (time.process_time() - began) / count / self.flags.batch_size

    def parts(self, count):
        """Shares of the parts of a step's time, see `step_parts.parts_of`."""
        loop.on_device = marked(loop.on_device, BATCH)
        objective.batch_loss = marked(objective.batch_loss, LOSS)
        weigh = marked(weigh_of("KD", self.flags), WEIGHTS)
        return parts_of(lambda: self.steps(count, weigh))


def serve(args, pipe, parents):
    """Be the process of one way: make as many steps as each message says, and answer what an image took, or a UserError.

    Args:
        parents: the other end of the pipe. It is closed here, so that this process ends when its parent closes it.
    """
    parents.close()
    training = None
    with suppress(EOFError):
        while True:
            count = pipe.recv()
            try:
                training = training or Training(args)
                answer = training.steps(count)
            except UserError as error:
                answer = error
            pipe.send(answer)


class Process:
    """A process that trains in one way, forked from this one; its `steps` are those of `Training`."""

    def __init__(self, args, way):
        self.way = way
        self.pipe, childs = FORK.Pipe()
        self.child = FORK.Process(target=serve, args=(of_way(args, way), childs, self.pipe), daemon=True)
        self.child.start()
        childs.close()  # else nobody would notice its end
        self.steps(args.warm_up)

    def steps(self, count):
        try:
            self.pipe.send(count)
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.child.join()
            raise UserError(f"{self.way}: its process has ended ({self.child.exitcode}), see above; leave it out by --ways"
                            ) from None
        if isinstance(answer, UserError):
            raise UserError(f"{self.way}: {answer}")
        return answer

    def close(self):
        self.pipe.close()
        self.child.join()


def of_way(args, way):
    """The flags of the process of a way."""
    return argparse.Namespace(**{**vars(args), "way": way})


def possible(ways):
    """The ways that this machine can go; those that it cannot are told on stderr."""
    compiler = cpp_compiler()
    for way in ways:
        if COMPILE in WAYS[way][0] and not compiler:
            print(f"{way}: left out (torch.compile needs a C++ compiler, and there is none)", file=sys.stderr)
    return [way for way in ways if compiler or COMPILE not in WAYS[way][0]]


def cpp_compiler():
    """Path of the C++ compiler that torch.compile would call; None without one."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def measured(args):
    """Seconds of an image by way: dict of name -> list, one value per round, and those of the default beside it."""
    seconds = {}
    base = Process(args, DEFAULT)
    for way in args.ways:
        process = Process(args, way)
        rounds = [(process.steps(args.steps), base.steps(args.steps)) for _ in range(args.rounds)]
        process.close()
        seconds[way], seconds[beside(way)] = map(list, zip(*rounds))
        print(f"  {way}: {1 / ratio(seconds, way, beside(way)):.2f}", file=sys.stderr, flush=True)
    base.close()
    return seconds


# --- tables -----------------------------------------------------------------------------------------------------


def shares(args):
    """Shares of a step's parts, by way: dict of name -> dict of part -> share, 0..1."""
    found = {}
    for way in (DEFAULT, HALF):
        training = Training(of_way(args, way))
        training.steps(args.warm_up)
        found[way] = training.parts(args.steps)
    return found


def parts_table(found, seconds):
    """A row for each part, with its share of a step of each way; the last row is the whole step, relative to the first way."""
    parts = sorted({part for each in found.values() for part in each}, key=lambda part: -found[DEFAULT].get(part, 0))
    lines = [[part, *(f"{100 * each[part]:.1f} %" if part in each else "-" for each in found.values())] for part in parts]
    times = ["1.00" if way == DEFAULT else f"{ratio(seconds, way, beside(way)):.2f}" for way in found]
    return table(("part of a step", *found), [*lines, ["all, relative to the default", *times]])


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "cpu_training.json"), help="JSON of the results")
    parser.add_argument("--model", default="smp_unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--width", type=positive_int, default=64, help="first-level channels of the classic U-Net")
    parser.add_argument("--side", type=positive_int, default=160, help="px")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS)[1:], help="ways to train")
    parser.add_argument("--steps", type=positive_int, default=5, help="training steps per turn")
    parser.add_argument("--warm-up", type=positive_int, default=3, help="steps before the first turn")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    args.ways = possible(list(dict.fromkeys([HALF, *args.ways])))
    torch.set_num_threads(1)
    seconds = measured(args)
    found = shares(args)
    title = f"{args.model}, {args.encoder}, {args.side}x{args.side}, batch {args.batch_size}, one thread"
    lines = [[way, f"{1 / ratio(seconds, way, beside(way)):.2f}"] for way in args.ways]
    keep(args.out, {"processor seconds an image": seconds, "shares": found}, {
        f"Parts of a step ({title})": parts_table(found, seconds),
        f"Ways to train ({title})": table(("way", "images/s, relative to the default"), lines)})


if __name__ == "__main__":
    command_line(main)
