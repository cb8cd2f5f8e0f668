"""Time of utils/get_weight.py, compared with only decoding the same files; and of its BF, compared with other implementations.

    python benchmarks/bench_weights.py --photos data/generated/people

A pair is a label map and a noisy copy: binary masks of 321x321 (from DIR/masks, or drawn people) and maps of 2048x1024 with 19
classes (smooth random regions). Peers: MONAI's compute_surface_dice (pip install -r
benchmarks/requirements.txt), distances of all pairs of boundary points (scipy's cdist, as exact scorers do it), and
max-pooling in a 5x5 window, pair by pair.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import ONE_THREAD, RESULTS, in_turn, keep, ratio, run_command, seconds_of, table
from benchmarks.pairs import draw_person, draw_regions, pair_files, write_pairs
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import write_rows
from data.pictures import read_checked_mask
from data.rows import pseudo_label_names, read_rows
from utils.agreement_cpu import agreement

THETA = 3.0


# --- whole commands ---------------------------------------------------------------------------------------------


def command_seconds(csv, pseudo, num_classes, rounds):
    """Seconds of decoding alone and of get_weight.py with 0, 1 and 2 workers: dict of name -> list."""
    weigh = ["utils/get_weight.py", "--csv", csv, "--pred-dir", pseudo, "--num-classes", num_classes, "--theta", THETA,
             "--out", csv.with_name("weights.csv"), "--overwrite"]
    decode = ["benchmarks/decode_only.py", csv, pseudo]
    commands = {"decode, OpenCV": decode, "decode, Pillow": [*decode, "--pillow"],
                **{f"--workers {n}": [*weigh, "--workers", n] for n in (0, 1, 2)}}
    actions = {name: lambda command=command: run_command(command, **ONE_THREAD)[0] for name, command in commands.items()}
    return in_turn({**actions, "two decoders at once": lambda: two_at_once(decode)}, rounds)


# --- other ways to the scores -----------------------------------------------------------------------------------


def outline(mask):
    return mask & cv2.dilate(1 - mask, np.ones((3, 3), np.uint8))


def by_cdist(a, b):
    """BF of the foreground by the distances of all pairs of boundary points."""
    from scipy.spatial.distance import cdist

    near = cdist(np.argwhere(outline(a)), np.argwhere(outline(b))) < THETA
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / max(precision + recall, 1e-12)


def by_window(a, b):
    """BF of the foreground by max-pooling on tensors: outlines by a 3x3 window, neighbours by a 5x5 one."""
    import torch
    from torch.nn.functional import max_pool2d

    a, b = (torch.from_numpy(labels)[None, None].float() for labels in (a, b))
    edge_a, edge_b = (max_pool2d(1 - mask, 3, 1, 1) - (1 - mask) for mask in (a, b))
    precision = (edge_a * max_pool2d(edge_b, 5, 1, 2)).sum() / edge_a.sum()
    recall = (edge_b * max_pool2d(edge_a, 5, 1, 2)).sum() / edge_b.sum()
    return (2 * precision * recall / (precision + recall).clamp(min=1e-12)).item()


def by_monai(a, b):
    """Surface Dice of the foreground; it counts distances up to the tolerance, and equal to it."""
    import torch
    from monai.metrics import compute_surface_dice

    a, b = (torch.from_numpy(np.stack([1 - labels, labels]))[None] for labels in (a, b))
    return compute_surface_dice(a, b, class_thresholds=[THETA - 1e-3], include_background=False).item()


def by_us(a, b):
    """BF of the foreground."""
    return agreement(a, b, 2, "bf", THETA)


def peer_seconds(csv, pseudo, pairs, rounds):
    """Seconds per pair of reading and scoring, and of scoring alone, one thread: dicts of name -> list; and the mean scores."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = pair_files(csv, pseudo, pairs)
    ways = {"OpenCV, ours": by_us, "5x5 window, max-pooling": by_window, "cdist": by_cdist}
    try:
        import monai  # noqa: F401

        ways["MONAI surface Dice"] = by_monai
    except ImportError:
        print("MONAI is not installed: left out (pip install -r benchmarks/requirements.txt)")

    def read(pair):
        return [(cv2.imread(path, cv2.IMREAD_UNCHANGED) > 127).astype(np.uint8) for path in pair]

    scores = {name: float(np.mean([way(*read(pair)) for pair in files])) for name, way in ways.items()}  # warm, too
    pairs_read = [read(pair) for pair in files]
    reading = {name: lambda way=way: seconds_of(lambda: [way(*read(pair)) for pair in files]) / pairs
               for name, way in ways.items()}
    alone = {name: lambda way=way: seconds_of(lambda: [way(*maps) for maps in pairs_read]) / pairs
             for name, way in ways.items()}
    return in_turn(reading, rounds), in_turn(alone, rounds), scores


# --- where the time goes ----------------------------------------------------------------------------------------


def stage_seconds(csv, pseudo, num_classes, pairs, rounds):
    """Seconds per pair of each stage of get_weight.py with --workers 1: dict of name -> list."""
    cv2.setNumThreads(1)
    files = pair_files(csv, pseudo, pairs)
    maps = [[read_checked_mask(path, num_classes) for path in pair] for pair in files]

    def rows():
        table = read_rows(csv)
        pseudo_label_names(table)
        write_rows(csv.with_name("copy.csv"), table.assign(weight=0.5), "weight")

    def each(read):  # one at a time, to keep memory small
        for pair in files:
            for path in pair:
                read(path)

    count = sum(1 for _ in csv.open()) - 1
    stages = {"decode": (lambda: each(lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED)), pairs),
              "decode and check": (lambda: each(lambda path: read_checked_mask(path, num_classes)), pairs),
              "score, maps in memory": (lambda: [agreement(*pair, num_classes, "bm", THETA) for pair in maps], pairs),
              "read, check and write the CSV": (rows, count)}
    return in_turn({name: lambda work=work, per=per: seconds_of(work) / per for name, (work, per) in stages.items()}, rounds)


def two_at_once(command):
    """Seconds of two equal processes side by side; shows how much of twice the speed two cores give."""
    with ThreadPoolExecutor(2) as both:
        return max(seconds for seconds, _ in both.map(lambda _: run_command(command, **ONE_THREAD), range(2)))


# --- memory and growth ------------------------------------------------------------------------------------------


def peak_memory(folder, counts):
    """Peak memory of get_weight.py in MiB by number of rows, one process."""
    peaks = {}
    for rows in counts:
        here = folder / str(rows)
        here.mkdir()
        csv, pseudo = write_pairs(here, draw_person, 50, rows, 2)
        seconds, peaks[rows] = run_command(["utils/get_weight.py", "--csv", csv, "--pred-dir", pseudo, "--out", here / "w.csv"],
                                           **ONE_THREAD)
        print(f"  {rows} rows: {peaks[rows]:.0f} MiB, {seconds:.1f} s", file=sys.stderr, flush=True)
    return peaks


def growth(sides, rounds):
    """Milliseconds of BF + mIoU of one pair in memory, by size and, at half the largest side, by classes."""
    cv2.setNumThreads(1)
    rng, by_size, by_classes, middle = np.random.default_rng(0), {}, {}, sides[-1] // 2
    for side in sides:
        for classes in (2, 19):
            pair = draw_regions(rng, side, side, classes, level=2)
            by_size[f"{side}x{side}, {classes} classes"] = _milliseconds(pair, classes, rounds)
    for classes in (2, 4, 8, 16, 32):
        by_classes[classes] = _milliseconds(draw_regions(rng, middle, middle, classes, level=2), classes, rounds)
    return by_size, by_classes


def _milliseconds(pair, classes, rounds):
    return 1000 * min(seconds_of(agreement, *pair, classes, "bm", THETA) for _ in range(3 * rounds))


# --- tables of all of it ----------------------------------------------------------------------------------------


def measure_commands(args, folder):
    """Time get_weight.py and its stages on both kinds of pairs.

    Returns:
        (what was measured, JSON-ready dict; dict of title -> table; the CSV and the pseudo-labels of the binary pairs)
    """
    sets = {"321x321, binary": (partial(draw_person, photos=args.photos), min(200, args.rows), args.rows, 2),
            "2048x1024, 19 classes": (draw_regions, 10, max(10, args.rows // 100), 19)}
    content, lines, profile, stages, drawn = {}, [], [], {}, []
    for number, (name, (draw, distinct, rows, classes)) in enumerate(sets.items()):
        print(name, file=sys.stderr)
        (folder / f"set{number}").mkdir()
        drawn.append(write_pairs(folder / f"set{number}", draw, distinct, rows, classes))
        content[name] = command_seconds(*drawn[-1], classes, args.rounds)
        lines.append([name, rows, *command_cells(content[name], rows)])
        stages = content[f"{name}, stages"] = stage_seconds(*drawn[-1], classes, min(200, rows), args.rounds)
        profile.append([name, *(f"{ratio(stages, stage, 'decode'):.2f}" for stage in stages)])
    titles = ("pairs", "rows", "decoding, a pair", *(f"--workers {n} / decoding" for n in (0, 1, 2)),
              "--workers 0 / decoding by Pillow", "--workers 1 / --workers 2", "two decoders / one")
    return content, {"get_weight.py, whole command": table(titles, lines),
                     "Where the time goes": table(("pairs, relative to decoding", *stages), profile)}, drawn[0]


def command_cells(seconds, rows):
    """Cells of a line of the table of whole commands; `seconds` as of `command_seconds`."""
    return (f"{1000 * min(seconds['decode, OpenCV']) / rows:.2f} ms",
            *(f"{ratio(seconds, f'--workers {n}', 'decode, OpenCV'):.2f}" for n in (0, 1, 2)),
            f"{ratio(seconds, '--workers 0', 'decode, Pillow'):.2f}",
            f"{ratio(seconds, '--workers 1', '--workers 2'):.2f}",
            f"{2 / ratio(seconds, 'two decoders at once', 'decode, OpenCV'):.2f}")


def measure_peers(args, csv, pseudo):
    """Time our BF and other ways to it on pairs that `write_pairs` left; (JSON-ready dict, dict of title -> table)."""
    seconds, alone, scores = peer_seconds(csv, pseudo, min(args.pairs, args.rows), args.rounds)
    lines = [(way, f"{100 * score:.2f}", *(f"{ratio(each, way, 'OpenCV, ours'):.1f}" for each in (seconds, alone)))
             for way, score in scores.items()]
    titles = ("way", "mean score", "reading and scoring", "scoring alone")
    return {"peers": seconds, "peers, scoring alone": alone, "peers' BF": scores}, {
        "BF of one pair, 321x321, relative to ours": table(titles, lines)}


def measure_growth(args, folder):
    """Memory by rows, and time by size and by classes; (JSON-ready dict, dict of title -> table)."""
    peaks = peak_memory(folder, [n for n in (1000, 10_000, 100_000) if n <= args.memory_rows])
    by_size, by_classes = growth(args.sides, args.rounds)
    return {"peak MiB by rows": peaks, "ms by size": by_size, "ms by classes": by_classes}, {
        "Peak memory of get_weight.py": table(("rows", "MiB"), [(rows, f"{mib:.0f}") for rows, mib in peaks.items()]),
        "Scoring a pair in memory": table(("size", "ms", "ns a pixel"), [
            (name, f"{ms:.2f}", f"{1e6 * ms / int(name.split('x')[0]) ** 2:.1f}") for name, ms in by_size.items()]),
        "Scoring a pair in memory, by classes": table(("classes", "ms"), [
            (classes, f"{ms:.1f}") for classes, ms in by_classes.items()])}


def parse():
    """The flags."""
    parser = tool_parser(__doc__)
    parser.add_argument("--out", default=str(RESULTS / "weights.json"), help="JSON of the results")
    parser.add_argument("--photos", metavar="DIR", help="take the binary masks from DIR/masks (paired with DIR/images)")
    parser.add_argument("--rows", type=positive_int, default=30_000,
                        help="rows of the CSV of 321x321 pairs; that of the larger maps has a hundredth of them")
    parser.add_argument("--memory-rows", type=positive_int, default=100_000,
                        help="rows of the largest CSV with which peak memory is measured")
    parser.add_argument("--pairs", type=positive_int, default=100, help="pairs that the peers score")
    parser.add_argument("--sides", type=positive_int, nargs="+", default=[128, 256, 512, 1024, 2048],
                        help="sides of the square maps that show how time grows with size, px")
    parser.add_argument("--rounds", type=positive_int, default=3, help="how often each time is measured")
    return parser.parse_args()


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, tables, binary_pairs = measure_commands(args, folder)
        for more, more_tables in (measure_peers(args, *binary_pairs), measure_growth(args, folder)):
            content.update(more)
            tables.update(more_tables)
    keep(args.out, content, tables, ("scipy", "monai") if "MONAI surface Dice" in content["peers"] else ("scipy",))


if __name__ == "__main__":
    command_line(main)
