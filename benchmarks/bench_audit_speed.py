"""How many masks an audit judges per second, beside cleanlab's scores of the same masks and probabilities.

    python benchmarks/bench_audit_speed.py --csv data/csv/people/train.csv

The judge is made from the masks themselves, so that nothing has to be trained: the region of each class at --size, blurred by
1.2 px, is its probability. Of every three annotations one is as it was, one moved to the side by 3 % of its height, one moved
down by as much. All methods get the same arrays, in turn, one thread each; CPU seconds count, without reading files. Ratios
are medians over the rounds.

    at the judge's size    all get masks and probabilities of --size
    at the masks' size     the audit resizes probabilities to --full, as audit.py does; cleanlab gets them resized

The goal is five times the speed of num_pixel_issues, cleanlab's score that looks for wrong pixels; softmin reads the
probability of each pixel once and looks at no outline.
"""

import time

import cv2
import numpy as np

from benchmarks.bench_audit import as_layers
from benchmarks.measure import RESULTS, in_turn, keep, ratio, table
from cli.command_line import class_or_none, command_line, positive_int, tool_parser
from cli.files import UserError, check_outputs
from cli.flags import add_class_flag
from data import IGNORE_INDEX
from data.pictures import read_checked_mask, resize_labels
from data.rows import read_rows
from engine.annotation_audit import in_own_pixels, scene_at
from engine.judges import resized
from utils.verdict import inspect

AUDIT = "audit"
FAULT = 0.03  # of the height: how far an annotation is grown or moved
BLUR = 1.2  # px at the judge's size


def inputs_of(paths, args):
    """(annotations at --full, uint8 (N, H, W); probabilities at --size, float32 (N, H', W') of binary masks, else
    (N, C, H', W'))."""
    masks, chances = [], []
    for turn, path in enumerate(paths):
        labels = resize_labels(read_checked_mask(path, args.num_classes), tuple(args.full))
        labels[labels == IGNORE_INDEX] = 0  # cleanlab has no ignored pixels
        layers = [cv2.resize((labels == c).astype(np.float32), args.size[::-1], interpolation=cv2.INTER_AREA)
                  for c in range(args.num_classes)]
        blurred = np.stack([cv2.GaussianBlur(layer, (0, 0), BLUR) for layer in layers])
        chances.append(blurred[1] if args.num_classes == 2 else blurred)
        fault = round(FAULT * args.full[0])
        masks.append((labels, np.roll(labels, fault, 1), np.roll(labels, fault, 0))[turn % 3])
    return np.stack(masks), np.stack(chances)


def audited(masks, chances, background):
    """CPU seconds of the audit of all masks."""
    began = time.process_time()
    for labels, chance in zip(masks, chances):
        scene, scale = scene_at(labels, chance, background, None)
        in_own_pixels(inspect(scene), scale)
    return time.process_time() - began


def scored(masks, probs, method):
    """CPU seconds of one of cleanlab's scores of all masks."""
    from cleanlab.segmentation.rank import get_label_quality_scores

    began = time.process_time()
    get_label_quality_scores(masks, probs, method=method, verbose=False, n_jobs=1)
    return time.process_time() - began


def measured(masks, chances, background, rounds):
    """dict of method -> list of CPU seconds, one per round; annotations and probabilities of any two sizes."""
    large = np.stack([resized(chance, masks.shape[1:]) for chance in chances])
    probs = as_layers(large)
    return in_turn({AUDIT: lambda: audited(masks, chances, background),
                    **{f"cleanlab {method}": lambda method=method: scored(masks, probs, method)
                       for method in ("softmin", "num_pixel_issues")}}, rounds)


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="rows with good masks")
    parser.add_argument("--background", type=class_or_none, default=0, metavar="CLASS|none")
    parser.add_argument("--limit", type=positive_int, default=120, help="masks")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 96], metavar=("H", "W"), help="of the judge, px")
    parser.add_argument("--full", type=positive_int, nargs=2, default=[400, 266], metavar=("H", "W"), help="of the masks, px")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", default=str(RESULTS / "audit_speed.json"), help="JSON of the results")
    add_class_flag(parser)
    args = parser.parse_args()
    check_outputs([args.out], True, [args.csv])
    try:
        import cleanlab  # noqa: F401
    except ImportError:
        raise UserError("cleanlab is not installed; call pip install -r benchmarks/requirements.txt") from None
    cv2.setNumThreads(1)
    masks, chances = inputs_of(read_rows(args.csv)["mask"].head(args.limit), args)
    small = np.stack([resize_labels(mask, tuple(args.size)) for mask in masks])
    found, tables = {}, {}
    for title, size, annotations in (("at the judge's size", args.size, small), ("at the masks' size", args.full, masks)):
        seconds = found[title] = measured(annotations, chances, args.background, args.rounds)
        lines = [(name, f"{len(masks) / np.median(each):.0f}", f"{ratio(seconds, name, AUDIT):.2f}")
                 for name, each in seconds.items()]
        heading = f"{len(masks)} masks, {title}, {size[0]} x {size[1]} px"
        tables[heading] = table(("score", "masks/s", "time over the audit's"), lines)
    keep(args.out, {"masks": len(masks), "seconds": found}, tables, ("cleanlab",))


if __name__ == "__main__":
    command_line(main)
