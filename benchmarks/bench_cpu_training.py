"""Where a training step on a CPU spends its time, and what makes it faster.

    python benchmarks/bench_cpu_training.py

The loop is the engine's own, with KD weights, on batches that are in memory. Each way to train lives in a process of its own
with one thread. The processes take turns, so that a busy machine is as busy for all of them, and processor seconds count. The
network is that of the main job: a U-Net with a MobileNetV2 encoder, 160 x 160 px.
"""

import ctypes
import os
import subprocess
import sys
import time

from benchmarks.measure import ONE_THREAD, RESULTS, ROOT, keep, ratio, table
from benchmarks.step_parts import BATCH, LOSS, WEIGHTS, marked, parts_of
from benchmarks.training import batch_of, epoch_seconds, flags_of, weigh_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.lazy import torch
from engine import devices, loop, networks, objective

DEFAULT = "default"


# --- ways to train ----------------------------------------------------------------------------------------------


def as_it_is(state):
    """Change nothing."""


def channels_first(state):
    """Networks and images in PyTorch's usual format, (B, C, H, W) in memory."""
    network, = state.networks
    network.to(memory_format=torch.contiguous_format)
    network.register_forward_pre_hook(lambda network, inputs: tuple(each.contiguous() for each in inputs))


def fused(state):
    """AdamW in one pass over each parameter."""
    for group in state.optimizers[0].param_groups:
        group["fused"] = True


def flushed(state):
    """Numbers below 1e-38 are 0."""
    torch.set_flush_denormal(True)


def bf16_convolutions(state):
    """float32 tensors, multiplied as bf16 inside convolutions."""
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


def frozen_norm(state):
    """The encoder's batch norms use the statistics that they came with."""
    network, = state.networks
    for module in network.modules():
        module.train = lambda mode=True, module=module: module
    for module in network.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


def memory_kept(state):
    """Freed memory stays with the process."""
    libc = ctypes.CDLL(None)
    for option, value in ((-1, -1), (-3, 2**31 - 1), (-4, 0)):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
        libc.mallopt(option, value)


WAYS = {  # name -> (flags, what else is changed)
    DEFAULT: ("", as_it_is),
    "channels first in memory": ("", channels_first),
    "memory kept": ("", memory_kept),
    "denormals flushed": ("", flushed),
    "fused AdamW": ("", fused),
    "bf16 inside convolutions": ("", bf16_convolutions),
    "bf16-mixed": ("--precision bf16-mixed", as_it_is),
    "compiled": ("--compile", as_it_is),
    "bf16-mixed, compiled": ("--precision bf16-mixed --compile", as_it_is),
    "batch 16": ("--batch-size 16", as_it_is),
    "batch 32": ("--batch-size 32", as_it_is),
}


class Training:
    """A training of one way, ready for its next steps."""

    def __init__(self, args):
        words, change = WAYS[args.way]
        self.flags = flags_of("--epochs", 2, "--size", args.side, args.side, "--model", args.model, "--encoder", args.encoder,
                              "--width", args.width, "--accelerator", "cpu", "--devices", 1, "--optimizer", "adamw", "--lr",
                              0.001, "--batch-size", args.batch_size, *words.split())
        self.fabric = devices.start_fabric(self.flags)
        self.state = networks.build_state(self.flags, self.fabric)
        change(self.state)
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


def serve(args):
    """Be the process of one way: make as many steps as each line of the input says, and print what an image took."""
    training = Training(args)
    for line in sys.stdin:
        print(training.steps(int(line)), flush=True)


class Process:
    """A process that trains in one way; its `steps` are those of `Training`."""

    def __init__(self, way):
        words = [*sys.argv, "--way", way]
        self.child = subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, env={**os.environ, **ONE_THREAD})

    def steps(self, count):
        print(count, file=self.child.stdin, flush=True)
        return float(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def measured(args):
    """Seconds of an image by way: dict of name -> list, one value per round, and those of the default beside it."""
    seconds = {}
    base = Process(DEFAULT)
    base.steps(args.warm_up)
    for way in args.ways:
        process = Process(way)
        process.steps(args.warm_up)
        rounds = [(process.steps(args.steps), base.steps(args.steps)) for _ in range(args.rounds)]
        process.close()
        seconds[way], seconds[f"{DEFAULT}, beside {way}"] = map(list, zip(*rounds))
        print(f"  {way}: {1 / ratio(seconds, way, f'{DEFAULT}, beside {way}'):.2f}", file=sys.stderr, flush=True)
    base.close()
    return seconds


# --- tables -----------------------------------------------------------------------------------------------------


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
    parser.add_argument("--way", choices=WAYS, help="be the process of this way")
    args = parser.parse_args()
    if args.way:
        return serve(args)
    seconds = measured(args)
    return seconds


if __name__ == "__main__":
    command_line(main)
