"""Pull coarse masks to the edges of their images before training, by GrabCut or a dense CRF: what many do instead of weights.

    python benchmarks/refine_masks.py --csv runs/people/train_noisy.csv --method grabcut --out runs/people/refined.csv

The rows of --csv, in their order and with their columns, are written with refined masks; these stand in a folder beside --out.
Only the band of --band px on both sides of an outline may change: what lies deeper inside is sure, and so is what lies farther
outside. Lengths are px at 321 px, scaled to the longer side of a mask. Ignored pixels (255) stay ignored.

    grabcut    cv2.grabCut (Rother, Kolmogorov and Blake 2004). Of several classes each one is refined against the rest; a pixel
               that several or none of them claim keeps its label
    densecrf   the fully connected CRF of Krähenbühl and Koltun (2011) with the given labels as unary term; needs pydensecrf2,
               see benchmarks/requirements.txt

A JSON beside --out holds flags and seconds; with --truth, also the mIoU and BF of given and of refined masks against better
ones of the same images, by noise level (0 = untouched). The defaults were chosen on docs/results/people.md, with its truth.

CascadePSP (Cheng et al. 2020) is not measured: it fetches its weights when it first runs. After `pip install
segmentation-refinement` one mask is refined by `segmentation_refinement.Refiner(device="cpu").refine(image, mask, fast=False,
L=900)`, image in BGR, mask 0..255.
"""

import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import table
from cli.command_line import command_line, positive_float, positive_int, refuse_given, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_json, write_rows
from cli.flags import add_class_flag, add_score_flags
from cli.lazy import scipy_ndimage
from cli.machine import usable_cores
from data import IGNORE_INDEX
from data.pictures import read_checked_mask, read_image, write_mask
from data.rows import NAMED_COLUMNS, check_rows, check_shape, read_rows
from engine.run_folder import versions
from utils.add_noise import REFERENCE_SIZE, scaled_level
from utils.generate_noisy_label import noisy_mask_names
from utils.get_weight import truth_masks
from utils.scoring import score_pairs

PACKAGES = {"grabcut": ("opencv-python-headless",), "densecrf": ("pydensecrf2",)}
SMOOTHNESS = 2.4  # px at 321 px: deviation of place in the dense CRF's kernel without colours
COMPONENTS = 5  # of each colour mixture of GrabCut: a side with fewer pixels has none
Refine = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # (image (H, W, 3), labels (H, W), band in px) -> labels (H, W)


def grabcut_region(image: np.ndarray, region: np.ndarray, band: int, rounds: int) -> np.ndarray:
    """A region cut out of its image, bool (H, W); the region itself where one side has too few pixels for its colours.

    Args:
        image: uint8 (H, W, 3).
        region: bool (H, W).
        band: px on both sides of the outline that may change.
        rounds: of estimating colours and cutting.
    """
    if min(region.sum(), (~region).sum()) < COMPONENTS:
        return region
    inside, outside = (cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > band
                       for part in (region, ~region))  # Euclidean; the picture's frame is no outline
    states = np.where(region, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    states[inside], states[outside] = cv2.GC_FGD, cv2.GC_BGD
    cv2.setRNGSeed(0)  # of this thread: its k-means gives the same colours each time
    cv2.grabCut(image, states, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    found = (states == cv2.GC_FGD) | (states == cv2.GC_PR_FGD)
    return found if found.any() else region


def grabcut(image: np.ndarray, labels: np.ndarray, band: int, rounds: int = 3) -> np.ndarray:
    """`grabcut_region` of a label map, uint8 (H, W); see the head of this file for several classes."""
    classes = [c for c in np.unique(labels).tolist() if c != IGNORE_INDEX]
    if len(classes) < 2:
        return labels.copy()
    refined = filled(labels)
    if max(classes) == 1:
        refined[:] = grabcut_region(image, refined == 1, band, rounds)
    else:
        claims = np.stack([grabcut_region(image, refined == c, band, rounds) for c in classes])  # (classes, H, W)
        alone = claims.sum(0) == 1
        refined[alone] = np.array(classes, np.uint8)[claims.argmax(0)][alone]
    refined[labels == IGNORE_INDEX] = IGNORE_INDEX
    return refined


def dense_crf(image: np.ndarray, labels: np.ndarray, band: int, certainty: float, colour: float, reach: float,
              rounds: int) -> np.ndarray:
    """The likeliest labels of a dense CRF within the band, uint8 (H, W).

    Args:
        image: uint8 (H, W, 3).
        labels: uint8 (H, W); 255 says nothing.
        certainty: probability of each given label, 0.5..1.
        colour, reach: standard deviations of the appearance kernel: of colour, 0..255, and of place, px at 321 px.
        rounds: of mean-field inference.
    """
    from pydensecrf.densecrf import DenseCRF2D

    classes = np.array([c for c in np.unique(labels) if c != IGNORE_INDEX], np.uint8)
    if len(classes) < 2:
        return labels.copy()
    odds = np.where(labels == classes[:, None, None], certainty, (1 - certainty) / (len(classes) - 1))  # (classes, H, W)
    odds[:, labels == IGNORE_INDEX] = 1 / len(classes)
    field = DenseCRF2D(labels.shape[1], labels.shape[0], len(classes))
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(odds).reshape(len(classes), -1), np.float32))
    scale = max(labels.shape) / REFERENCE_SIZE
    field.addPairwiseGaussian(sxy=SMOOTHNESS * scale, compat=3)
    field.addPairwiseBilateral(sxy=reach * scale, srgb=colour, rgbim=np.ascontiguousarray(image), compat=10)
    chosen = classes[np.array(field.inference(rounds)).argmax(0).reshape(labels.shape)]
    whole = filled(labels)
    near = cv2.dilate(whole, disc(band)) != cv2.erode(whole, disc(band))  # within the band of any outline
    return np.where(near & (labels != IGNORE_INDEX), chosen, labels)


def disc(radius: int) -> np.ndarray:
    """Structuring element, uint8 (2 radius + 1, 2 radius + 1)."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def refined_mask(row: tuple[str, str], refine: Refine, band: int, num_classes: int) -> np.ndarray:
    """The refined label map, uint8 (H, W), of (image, mask), paths; an image of another size is resized to its mask."""
    labels, image = read_checked_mask(row[1], num_classes), read_image(row[0])
    check_shape(image.shape[:2], labels.shape, row[1])
    if image.shape[:2] != labels.shape:
        image = cv2.resize(image, labels.shape[::-1], interpolation=cv2.INTER_AREA)
    return refine(image, labels, scaled_level(band, labels.shape))


def filled(labels: np.ndarray) -> np.ndarray:
    """A new label map, uint8 (H, W), whose ignored pixels have the nearest label, so that their rim is no outline to be moved;
    not all may be ignored."""
    at = scipy_ndimage.distance_transform_edt(labels == IGNORE_INDEX, return_distances=False, return_indices=True)
    return labels[tuple(at)]


def agreement_by_level(levels: np.ndarray, masks: dict[str, list[str]], truth: list[str], args: Namespace) -> dict:
    """Mean mIoU and BF against better masks: dict of part of the rows -> `masks`, their number, and name -> dict of scores.

    Args:
        levels: int (rows,), of noise.
        masks: name -> paths, given and refined ones.
        truth: paths of the better ones.
    """
    scores = {name: {metric: score_pairs(paths, truth, args.num_classes, metric, args.theta, args.size)
                     for metric in ("miou", "bf")} for name, paths in masks.items()}
    parts = {"all": levels >= 0, "noisy": levels > 0, **{str(level): levels == level for level in np.unique(levels)}}
    return {part: {"masks": int(of.sum()), **{name: {metric: float(values[of].mean()) for metric, values in each.items()}
                                              for name, each in scores.items()}} for part, of in parts.items() if of.any()}


def parse() -> Namespace:
    """The flags."""
    parser = tool_parser(__doc__)
    parser.add_argument("--csv", required=True, help="rows with the masks to refine")
    parser.add_argument("--method", required=True, choices=("grabcut", "densecrf"))
    parser.add_argument("--out", required=True, help="CSV with the refined masks")
    parser.add_argument("--mask-dir", help="folder of the refined masks (default: beside --out, named after it)")
    parser.add_argument("--band", type=positive_int, default=18, help="px at 321 px beside an outline that may change")
    parser.add_argument("--rounds", type=positive_int, default=3, help="of cutting, or of mean-field inference")
    parser.add_argument("--certainty", type=positive_float, default=0.6, help="densecrf: probability of a given label")
    parser.add_argument("--colour", type=positive_float, default=8, help="densecrf: deviation of colour, 0..255")
    parser.add_argument("--reach", type=positive_float, default=32, help="densecrf: deviation of place, px at 321 px")
    parser.add_argument("--truth", metavar="CSV", help="the same images with better masks: score given and refined ones")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"), help="of --truth: score at this size, px")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_class_flag(parser)
    add_score_flags(parser)
    args = parser.parse_args()
    if args.method != "densecrf":
        refuse_given(parser, args, {"certainty", "colour", "reach"}, "is of --method densecrf; leave it out")
    if not 0.5 <= args.certainty < 1:
        raise UserError(f"--certainty {args.certainty}: a number in 0.5..1 (1 excluded) is needed")
    return args


def refiner(args: Namespace) -> Refine:
    """The method that --method names."""
    if args.method == "grabcut":
        return partial(grabcut, rounds=args.rounds)
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        raise UserError("--method densecrf needs pydensecrf2: pip install -r benchmarks/requirements.txt") from None
    return partial(dense_crf, certainty=args.certainty, colour=args.colour, reach=args.reach, rounds=args.rounds)


def refine_all(items: list[tuple[str, str]], places: list[Path], refine: Refine, args: Namespace) -> float:
    """Refine (image, mask) of each row, paths, and write the mask to its place; returns the seconds that it took."""
    began = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            work = pool.map(partial(refined_mask, refine=refine, band=args.band, num_classes=args.num_classes), items)
            for place, labels in zip(places, progress(work, args.method, len(items), "mask")):
                write_mask(place, labels, args.num_classes)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits for no mask that has not begun
            raise
    return time.perf_counter() - began


def main() -> None:
    args = parse()
    rows, refine = read_rows(args.csv), refiner(args)
    folder = Path(args.mask_dir) if args.mask_dir else Path(args.out).with_suffix("")
    targets = [str(folder / name) for name in noisy_mask_names(rows)]
    record = Path(args.out).with_suffix(".json")
    truth = truth_masks(args, rows) if args.truth else None
    check_outputs([*targets, args.out, record], args.overwrite,
                  [args.csv, args.truth, *(truth or []), *rows["image"], *rows["mask"]])
    check_rows(args.csv, rows, args.num_classes)
    with together() as written_at:
        places = [written_at(target) for target in targets]
        seconds = refine_all(list(zip(rows["image"], rows["mask"])), places, refine, args)
        content = {**vars(args), "rows": len(rows), "seconds": seconds, "versions": versions(PACKAGES[args.method])}
        if truth:
            levels = rows["iterations"].to_numpy() if "iterations" in rows else np.zeros(len(rows), int)
            masks = {"given": rows["mask"].tolist(), "refined": [str(place) for place in places]}
            content["agreement"] = agreement_by_level(levels, masks, truth, args)
        write_json(written_at(record), content)
        write_rows(written_at(args.out), rows.assign(mask=targets), *[each for each in NAMED_COLUMNS if each in rows])
    print(f"{args.out}: {len(rows)} masks refined by {args.method} in {seconds:.0f} s, in {folder}")
    print("\n".join(table(("masks", "number", "given, mIoU / BF", "refined, mIoU / BF"), [
        (name, part["masks"], *("{miou:.4f} / {bf:.4f}".format(**part[each]) for each in ("given", "refined")))
        for name, part in content.get("agreement", {}).items()])) if truth else "")


if __name__ == "__main__":
    command_line(main)
