"""Whether --fast keeps the scores: the same trainings with and without it, over seeds, and the time of both.

    python benchmarks/bench_fast.py --runs runs/bench_fast

Drawn portraits with coarse training masks, as the main job has them on its built-in sample. Both trainings of a seed begin with
the same network and see the same batches. Differences and times are paired by seed.
"""

from pathlib import Path

from benchmarks.measure import RESULTS, keep, python, table
from benchmarks.training import SCORES, add_training_flags, keep_settings, trained
from cli.command_line import command_line, nonnegative_int, positive_int, tool_parser
from cli.files import read_json
from cli.flags import add_class_flag
from reports.comparison import mean_and_spread, paired_difference

WAYS = {"default": [], "--fast": ["--fast"]}


def drawn(args, home):
    """CSVs of a drawn set with coarse training masks in `home`: (train, test).

    Raises:
        UserError: a set of other flags lies there.
    """
    keep_settings(home, {"count": args.count, "size": args.size}, "a set of another --count or --size")
    if not (home / "train_noisy.csv").exists():
        python("data/make_sample.py", "--out", home, "--count", args.count, "--size", *args.size)
        python("data/prepare_folder.py", home, "--out", home)
        python("utils/generate_noisy_label.py", "--csv", home / "train.csv", "--out", home / "train_noisy.csv", "--overwrite")
    return home / "train_noisy.csv", home / "test.csv"


def measured(args):
    """dict of way -> seed -> its scores, `precision` and `seconds` of training."""
    home = Path(args.runs).resolve()
    args.other += ["--width", args.width]
    csv, args.test_csv = drawn(args, home / "drawn")
    found = {way: {} for way in WAYS}
    for seed in args.seeds:
        for way, flags in WAYS.items():
            name = f"seed{seed}{way.replace('--', '_')}"
            scores = trained(args, home, name, csv, seed, *flags)
            result = read_json(home / name / "result.json")
            found[way][seed] = {**scores, "precision": result["args"]["precision"], "seconds": result["seconds"]}
    return found


def lines_of(found):
    """Lines of the table: each way's precision, mean scores, differences to the default, and time relative to it.

    The time is that of the training; its ratio is taken seed by seed, and their mean is shown.
    """
    def of(way, key):
        return {seed: each[key] for seed, each in found[way].items()}

    lines = []
    for way, seeds in found.items():
        shown = ["-" if way == "default" else with_interval(of(way, score), of("default", score)) for score in SCORES]
        means = [f"{100 * mean_and_spread(list(of(way, score).values()))[0]:.2f}" for score in SCORES]
        times, whole = of(way, "seconds"), of("default", "seconds")
        relative = mean_and_spread([times[seed] / whole[seed] for seed in times])[0]
        lines.append((way, next(iter(seeds.values()))["precision"], *means, *shown, f"{relative:.2f}"))
    return table(("trained", "precision", "mIoU", "BF", "Δ mIoU ± 95 %", "Δ BF ± 95 %", "s / default"), lines)


def with_interval(scores, base):
    """The mean difference in points, paired by seed, and half its interval; one seed has none."""
    mean, half, _ = paired_difference(scores, base)
    return f"{100 * mean:+.2f}" + ("" if half is None else f" ± {100 * half:.2f}")


def main():
    parser = tool_parser(__doc__, passes_on=True)
    parser.add_argument("--runs", required=True, help="folder of the trainings; finished ones are not repeated")
    parser.add_argument("--count", type=positive_int, default=300, help="portraits")
    parser.add_argument("--seeds", type=nonnegative_int, nargs="+", default=[0, 1, 2])
    add_training_flags(parser, [96, 96], 2.0, 14)
    parser.set_defaults(model="unet", encoder_weights="none")
    parser.add_argument("--out", default=str(RESULTS / "fast.json"), help="JSON of what was measured")
    parser.add_argument("--width", type=positive_int, default=16, help="first-level channels of the classic U-Net")
    add_class_flag(parser)
    args, args.other = parser.parse_known_args()
    found = measured(args)
    keep(args.out, {"found": found}, {f"{args.count} portraits, {len(args.seeds)} seeds": lines_of(found)})


if __name__ == "__main__":
    command_line(main)
