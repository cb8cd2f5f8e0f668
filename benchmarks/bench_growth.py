"""How the cost of a training step and of an evaluation grows with the image's size and with the number of classes.

    python benchmarks/bench_growth.py --out benchmarks/results/growth.json --figure docs/figures/cost.png

Times are relative to the smallest size and to two classes. The figure also shows benchmarks/results/weights.json, if it exists;
--draw draws it again and measures nothing.
"""


from benchmarks.measure import RESULTS, in_turn, keep, seconds_of, table
from benchmarks.training import batch_of, epoch_seconds, flags_of
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import read_json
from cli.lazy import plt
from engine import devices, evaluation, networks
from engine.task import SegmentationScorer
from reports.figures import save_figure


def prepare(args, side, classes):
    """Functions: seconds of one KD step, and of evaluating one batch."""
    flags = flags_of("--epochs", 2, "--size", side, side, "--num-classes", classes, "--devices", 1, "--optimizer", "adamw",
                     "--model", args.model, "--encoder", args.encoder, "--width", args.width)
    fabric = devices.start_fabric(flags)
    state = networks.build_state(flags, fabric)
    batch = [batch_of(args.batch_size, side, classes)]

    def step():
        return epoch_seconds(flags, fabric, state, batch, "KD")

    def evaluate():
        scorer = SegmentationScorer(classes, 3.0, fabric.device)
        return seconds_of(evaluation.evaluate, fabric, state.networks[0], batch, scorer)

    step()
    evaluate()
    return step, evaluate


def draw(content, path):
    """Time against pixels and against classes, logarithmic; straight lines of slope 1 are linear growth."""
    plt.switch_backend("agg")
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for kind in ("KD step", "evaluation"):
        for axis, by in zip(axes, ("by side", "by classes")):
            points = content[kind][by]
            x = [int(key) ** 2 if by == "by side" else int(key) for key in points]
            axis.plot(x, [1000 * seconds for seconds in points.values()], "o-", label=f"{kind}, 4 images")
    weights = RESULTS / "weights.json"
    if weights.exists():
        measured = read_json(weights)
        for classes in (2, 19):
            sizes = {int(key.split("x")[0]): ms for key, ms in measured["ms by size"].items() if f" {classes} classes" in key}
            axes[0].plot([side**2 for side in sizes], sizes.values(), "s--", label=f"weight of a pair, {classes} classes")
        by_classes = measured["ms by classes"]
        axes[1].plot([int(key) for key in by_classes], by_classes.values(), "s--", label="weight of a pair, 1024x1024")
    for axis, title in zip(axes, ("pixels of an image", "classes")):
        axis.set(xscale="log", yscale="log", xlabel=title, ylabel="ms")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.3), ncol=2)
    axes[1].set_xticks([2, 4, 8, 16, 32], [2, 4, 8, 16, 32], minor=False)
    axes[1].minorticks_off()
    save_figure(figure, path)


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "growth.json"), help="JSON of the results")
    parser.add_argument("--figure", metavar="PNG", help="draw the figure to this file")
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw the figure of --out again")
    parser.add_argument("--model", default="smp_unet")
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--width", type=positive_int, default=64)
    parser.add_argument("-b", "--batch-size", type=positive_int, default=4)
    parser.add_argument("--sides", type=positive_int, nargs="+", default=[80, 160, 320, 640], help="px")
    parser.add_argument("--classes", type=positive_int, nargs="+", default=[2, 4, 8, 19])
    parser.add_argument("--rounds", type=positive_int, default=3)
    args = parser.parse_args()
    if args.draw:
        draw(read_json(args.out), args.figure)
        return
    middle = args.sides[len(args.sides) // 2 - 1]
    points = {("by side", side): (side, args.classes[0]) for side in args.sides}
    points.update({("by classes", classes): (middle, classes) for classes in args.classes})
    content = {"KD step": {"by side": {}, "by classes": {}}, "evaluation": {"by side": {}, "by classes": {}}}
    for (by, key), (side, classes) in points.items():
        step, evaluate = prepare(args, side, classes)
        seconds = in_turn({"KD step": step, "evaluation": evaluate}, args.rounds)
        for kind, each in seconds.items():
            content[kind][by][str(key)] = min(each)
    tables = {}
    title = f"{args.model} {args.encoder}, batch {args.batch_size}, fp32"
    for by, name in (("by side", f"Image side, px ({title}, {args.classes[0]} classes)"),
                     ("by classes", f"Classes ({title}, {middle}x{middle})")):
        keys = list(content["KD step"][by])
        tables[name] = table(("", *keys), [
            (kind, *(f"{content[kind][by][key] / content[kind][by][keys[0]]:.2f}" for key in keys)) for kind in content])
    if args.figure:
        draw(content, args.figure)
    keep(args.out, content, tables)


if __name__ == "__main__":
    command_line(main)
