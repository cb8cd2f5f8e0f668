"""Cost of a training step: plain, with the Teacher's weight, with KD weight (BF + mIoU of the student at every step).

    python benchmarks/bench_step.py --width 64 --batch-size 4 --out benchmarks/results/step.json

The loop is the engine's own, the weights are those of the three scripts, the network is the classic U-Net at 321x321, the
optimizer is Ranger. The methods take turns, step by step; peak memory is measured in a separate process per method; and a trace
of one step counts the operations that make the host wait for the device.
"""

import functools
import re

from benchmarks.measure import RESULTS, in_turn, keep, ratio, run_command, seconds_of, table
from benchmarks.training import batch_of, epoch_seconds, flags_of, weigh_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.lazy import torch
from engine import devices, loaders, networks

METHODS = ("plain", "Teacher", "KD")
# reading a value from the device makes the host wait; the first four can be counted on a CPU too
WAITS = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "cudaStreamSynchronize",
         "cudaDeviceSynchronize", "cudaMemcpyAsync: device to host")


def run_flags(args, classes):
    """The flags of a run."""
    return flags_of("--epochs", 2, "--num-classes", classes, "--width", args.width, "--size", args.side, args.side,
                    "--devices", 1, "--precision", args.precision)


def build_step(args, method, classes):
    """A function that makes one step of the engine's loop and gives its seconds."""
    flags = run_flags(args, classes)
    fabric = devices.start_fabric(flags)
    state, batch = networks.build_state(flags, fabric), batch_of(args.batch_size, args.side, classes)
    return functools.partial(epoch_seconds, flags, fabric, state, [batch], method)


def weigh_seconds(args, method, classes):
    """A function: seconds of making the weights alone."""
    flags = run_flags(args, classes)
    fabric = devices.start_fabric(flags)
    batch = loaders.on_device(fabric, batch_of(args.batch_size, args.side, classes))
    logits = torch.randn(args.batch_size, 1 if classes == 2 else classes, args.side, args.side, device=fabric.device)
    weigh = weigh_of(method, flags)

    def run():
        weights, = weigh([logits], batch, 1)
        return weights.sum().item()  # waits for the device

    return lambda: seconds_of(run)


def measured(args, classes):
    """Seconds of a step and of its weights, by method."""
    steps = {method: build_step(args, method, classes) for method in METHODS}
    for step in steps.values():
        step()  # warm
    seconds = in_turn(steps, args.rounds)
    seconds["KD weights alone"] = in_turn({"weigh": weigh_seconds(args, "KD", classes)}, args.rounds + 1)["weigh"][1:]
    waits = {method: count_waits(step) for method, step in steps.items()}
    return seconds, waits


def count_waits(step):
    """How often one step makes the host wait, by operation: dict of name -> int. The epoch's mean loss is not counted."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    with profile(activities=activities) as trace:
        step()
    counts = {event.key: event.count for event in trace.key_averages()}
    counts["cudaMemcpyAsync: device to host"] = sum(n for key, n in counts.items() if re.match("Memcpy DtoH", key))
    return {name: counts.get(name, 0) for name in WAITS}


def peak_mib(args, method, classes):
    """Peak memory of two steps, MiB: allocated on a GPU; on a CPU resident, in a separate process."""
    if torch.cuda.is_available():
        step = build_step(args, method, classes)
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return torch.cuda.max_memory_allocated() / 2**20
    command = ["benchmarks/bench_step.py", "--one", method, "--classes", classes, "--width", args.width, "--side", args.side,
               "--batch-size", args.batch_size, "--precision", args.precision]
    return run_command(command)[1]


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "step.json"), help="JSON of the results")
    parser.add_argument("--width", type=positive_int, default=64, help="first-level channels of the U-Net; the paper's has 64")
    parser.add_argument("--side", type=positive_int, default=321, help="px")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=4)
    parser.add_argument("--classes", type=positive_int, nargs="+", default=[2, 19])
    parser.add_argument("--precision", default="32-true", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--one", choices=METHODS, help="make two steps of one method and end (for its peak memory)")
    args = parser.parse_args()
    if args.one:
        step = build_step(args, args.one, args.classes[0])
        step()
        step()
        return
    content, lines, waits = {}, [], {}
    for classes in args.classes:
        seconds, waits = content[f"{classes} classes"], waits = measured(args, classes)
        peaks = {method: peak_mib(args, method, classes) for method in METHODS}
        content[f"{classes} classes, peak MiB"] = peaks
        for method in METHODS:
            lines.append([classes, method, f"{ratio(seconds, method, 'plain'):.3f}", f"{peaks[method] / peaks['plain']:.3f}"])
        lines.append([classes, "KD weights alone", f"{ratio(seconds, 'KD weights alone', 'plain'):.4f}", ""])
    title = f"U-Net, width {args.width}, {args.side}x{args.side}, batch {args.batch_size}, {args.precision}"
    tables = {f"One step ({title})": table(("classes", "method", "time / plain", "peak memory / plain"), lines),
              "Operations that make the host wait, in one step": table(
                  ("operation", *METHODS), [(name, *(waits[method][name] for method in METHODS)) for name in WAITS])}
    keep(args.out, content, tables)


if __name__ == "__main__":
    command_line(main)
