"""Pseudo-labels: the label map that a trained network gives each picture, as PNGs at the picture's own size.

    python predict.py --checkpoint runs/NAME/best.ckpt --csv data/csv/train_noisy_60.csv --out-dir runs/NAME/pseudo

    python predict.py --checkpoint runs/NAME/best.ckpt --images photos more/one.jpg --out-dir labels

Files are named so that utils/get_weight.py pairs them with the rows of the same CSV: by the image's stem, with its folder
before it where two images share a stem. They appear together, when all of them are finished.

A classifier writes one file, DIR/predictions.csv: `image`, `label` (the likeliest class), `probability` (of that label), and
`probability_NAME` of each class. --csv is then one headed `image,label`, whose labels are not looked at.

A detector writes DIR/predictions.json, COCO's list of results (image_id, category_id, bbox, score, segmentation), at the size
of each picture, and DIR/overlays/, each picture with its instances of a score of --least or more. --csv is a COCO JSON, whose
annotations are not looked at; with --images, image_id is the picture's position, from 1.
"""

import argparse
from pathlib import Path

import pandas as pd

from cli.command_line import command_line, positive_int, share, tool_parser
from cli.files import UserError, atomic_path, check_outputs
from data.classification import check_class_files, is_class_csv, read_class_rows
from data.coco_text import is_coco
from data.instances import read_instances
from data.pictures import IMAGE_SUFFIXES, check_image, image_size
from data.rows import pseudo_label_names, read_rows
from engine.checkpoint import load_network
from engine.classification import is_classifier, load_classifier
from engine.detection import overlay_names, write_detections
from engine.devices import start_fabric
from engine.flags import add_device_flags, add_flip_flag
from engine.instances import add_image_dir_flag, is_detector, load_detector, refuse_data_parallel
from engine.loaders import worker_count
from engine.prediction import predict, predict_classes, prediction_text


def listed_images(paths: list[str]) -> list[str]:
    """Paths of all images that files and folders name, in their order; a folder's images sorted by name, no subfolders, no
    hidden files.

    Raises:
        UserError: a path is missing, a folder holds no image, or a file is none.
    """
    images: list[str] = []
    for path in map(Path, paths):
        found = sorted(each for each in path.iterdir() if not each.name.startswith(".")) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"--images {path}: no such file or folder")
        files = [str(file) for file in found if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
        if not files:
            raise UserError(f"--images {path}: no images ({', '.join(IMAGE_SUFFIXES)})")
        images += files
    for image in images:
        check_image(image)
    return images


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("--csv", help="rows whose images are predicted, or a COCO JSON")
    parser.add_argument("--images", nargs="+", metavar="PATH", help="instead of --csv: images, or folders of images")
    parser.add_argument("--out-dir", required=True, help="folder of the PNGs, of predictions.csv, or of predictions.json")
    parser.add_argument("--network", type=int, default=0, choices=(0, 1), help="which network of a two-network run")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier call")
    parser.add_argument("--least", type=share, default=0.5, help="of a detector: least score of an instance in overlays/")
    add_image_dir_flag(parser)
    add_flip_flag(parser)
    add_device_flags(parser)
    args = parser.parse_args()
    if bool(args.csv) == bool(args.images):
        raise UserError("pass either --csv or --images")

    if args.csv and is_coco(args.csv):
        predict_instances(args, read_instances(args.csv, args.image_dir))
        return
    if args.csv and is_class_csv(args.csv):
        predict_labels(args, read_class_rows(args.csv, None, needs_labels=False))
        return
    rows = read_rows(args.csv) if args.csv else pd.DataFrame({"image": listed_images(args.images), "mask": ""})
    if args.images and is_detector(args.checkpoint, args.network):
        sizes = [image_size(path) for path in rows["image"]]
        predict_instances(args, rows.assign(id=range(1, len(rows) + 1), height=[size[0] for size in sizes],
                                            width=[size[1] for size in sizes]))
    elif args.images and is_classifier(args.checkpoint, args.network):
        predict_labels(args, rows)
    else:
        predict_masks(args, rows)


def predict_masks(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Write the label map of each row's image."""
    names = pseudo_label_names(rows)
    outputs = {Path(args.out_dir) / name for name in names}  # rows of one image share theirs
    check_outputs(outputs, args.overwrite, [args.csv, args.checkpoint, *rows["image"], *filter(None, rows["mask"])])
    network, config = load_network(args.checkpoint, args.network)
    fabric = start_fabric(args)
    predict(fabric, network, config, rows, names, args.out_dir, args.batch_size, worker_count(args, fabric), args.flip)
    print(f"{len(set(names))} pseudo-labels in {args.out_dir}")


def predict_labels(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Write DIR/predictions.csv, a line per row."""
    out = Path(args.out_dir) / "predictions.csv"
    check_outputs([out], args.overwrite, [args.csv, args.checkpoint, *rows["image"]])
    network, config = load_classifier(args.checkpoint, args.network)
    check_class_files(args.csv or "--images", rows)
    fabric = start_fabric(args)
    chances = predict_classes(fabric, network, config, rows, args.batch_size, worker_count(args, fabric), args.flip)
    with atomic_path(out) as temporary:
        temporary.write_text(prediction_text(rows["image"].tolist(), chances, config["classes"]), encoding="utf-8")
    print(f"{len(rows)} predictions in {out}")


def predict_instances(args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Write DIR/predictions.json and DIR/overlays/."""
    if args.flip:
        raise UserError("--flip: instances of mirrored pictures cannot be averaged; leave it out")
    refuse_data_parallel(args)
    out, names = Path(args.out_dir), overlay_names(rows["image"].tolist())
    check_outputs([out / "predictions.json", *(out / "overlays" / name for name in names)], args.overwrite,
                  [args.csv, args.checkpoint, *rows["image"]])
    network, config = load_detector(args.checkpoint, args.network)
    fabric = start_fabric(args)
    count = write_detections(fabric, network, config, rows, out, names, args.batch_size, worker_count(args, fabric), args.least)
    print(f"{count} instances of {len(rows)} pictures in {out / 'predictions.json'}, drawn in {out / 'overlays'}")


if __name__ == "__main__":
    command_line(main)
