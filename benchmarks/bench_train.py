"""Images/s of train_with_KDweight.py in fp32, bf16, channels last and compiled; and the share of the device's peak rate.

    python benchmarks/bench_train.py --batch-size 32 --out benchmarks/results/train_gpu.json        (on a GPU)
    python benchmarks/bench_train.py --width 16 --batch-size 4 --out benchmarks/results/train.json  (on a CPU)

Batches are in memory, so the loader costs nothing. The device's peak rate is that of multiplying two square bf16 matrices,
measured in the same run. PyTorch counts the operations of a step; a multiplication and an addition are two.
"""


from benchmarks.measure import RESULTS, in_turn, keep, ratio, seconds_of, table
from benchmarks.training import batch_of, epoch_seconds, flags_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.lazy import torch
from engine import devices, networks
from utils.losses import per_sample_loss

# name -> (--precision, channels last, --compile)
WAYS = {"fp32, NCHW": ("32-true", False, False), "fp32, channels last": ("32-true", True, False),
        "bf16-mixed, NCHW": ("bf16-mixed", False, False), "bf16-mixed, channels last": ("bf16-mixed", True, False),
        "bf16-mixed, channels last, compiled": ("bf16-mixed", True, True)}


def prepare(args, precision, channels_last, compiled):
    """A function: seconds of some steps of the engine's loop, with KD weights."""
    flags = flags_of("--epochs", 2, "--width", args.width, "--size", args.side, args.side, "--num-classes", args.classes,
                     "--model", args.model, "--encoder", args.encoder, "--devices", 1, "--precision", precision,
                     *["--compile"] * compiled)
    fabric = devices.start_fabric(flags)
    state = networks.build_state(flags, fabric)
    batches = [fabric.to_device(batch_of(args.batch_size, args.side, args.classes))] * args.steps
    if not channels_last:
        state.networks[0].to(memory_format=torch.contiguous_format)
        state.networks[0].register_forward_pre_hook(lambda network, inputs: tuple(each.contiguous() for each in inputs))

    def run():
        return epoch_seconds(flags, fabric, state, batches, "KD")

    run()  # warms up and compiles
    return run


def operations(args):
    """Floating-point operations of one step's forward and backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    flags = flags_of("--width", args.width, "--num-classes", args.classes, "--model", args.model, "--encoder", args.encoder)
    network, = networks.build_state(flags, devices.start_fabric(flags)).networks
    batch = batch_of(args.batch_size, args.side, args.classes)
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter:
        logits = network(batch["image"][:1].float().to(device))
        per_sample_loss(logits, batch["mask"][:1].long().to(device)).mean().backward()
    return counter.get_total_flops() * args.batch_size


def matmul_rate(side):
    """Operations per second of multiplying two bf16 matrices, the best of ten times."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in "ab")
    seconds = min(seconds_of(lambda: (a @ b).sum().item()) for _ in range(10))
    return 2 * side**3 / seconds


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "train.json"), help="JSON of the results")
    parser.add_argument("--model", default="unet")
    parser.add_argument("--encoder", default="resnet34")
    parser.add_argument("--width", type=positive_int, default=64, help="first-level channels of the classic U-Net")
    parser.add_argument("--side", type=positive_int, default=321, help="px")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=32)
    parser.add_argument("--classes", type=positive_int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="variants to measure")
    parser.add_argument("--steps", type=positive_int, default=4, help="training steps per round")
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--matrix", type=positive_int, default=4096, help="side of the matrices that measure the peak rate")
    args = parser.parse_args()
    seconds = in_turn({name: prepare(args, *WAYS[name]) for name in args.ways}, args.rounds)
    rate, work = matmul_rate(args.matrix), operations(args) * args.steps
    base = args.ways[0]
    lines = [[name, f"{1 / ratio(seconds, name, base):.2f}", f"{work / min(seconds[name]) / rate:.2f}"] for name in args.ways]
    content = {"seconds": seconds, "images a round": args.steps * args.batch_size, "operations a round": work,
               "operations/s of a bf16 matrix product": rate,
               "images/s": {name: args.steps * args.batch_size / min(each) for name, each in seconds.items()}}
    title = f"{args.model}, width {args.width}, {args.side}x{args.side}, batch {args.batch_size}, {args.classes} classes"
    keep(args.out, content, {f"Training with KD weights ({title})": table(
        ("way", "images/s, relative to the first", "share of the bf16 matrix rate"), lines)})


if __name__ == "__main__":
    command_line(main)
