"""Pseudo-labels: the label map that a trained network gives each picture, as PNGs at the picture's own size.

    python predict.py --checkpoint runs/NAME/best.ckpt --csv data/csv/train_noisy_60.csv --out-dir runs/NAME/pseudo

Files are named so that utils/get_weight.py pairs them with the rows of the same CSV: by the image's stem, with its folder
before it where two images share a stem. They appear together, when all are made.
"""

from pathlib import Path

from cli.command_line import command_line, positive_int, tool_parser
from cli.files import check_outputs
from data.rows import pseudo_label_names, read_rows
from engine.checkpoint import load_network
from engine.devices import start_fabric
from engine.flags import add_device_flags, add_flip_flag
from engine.loaders import worker_count
from engine.prediction import predict


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("--csv", required=True, help="rows whose images are predicted")
    parser.add_argument("--out-dir", required=True, help="folder of the PNGs")
    parser.add_argument("--network", type=int, default=0, choices=(0, 1), help="which network of a two-network run")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="replace PNGs of an earlier call")
    add_flip_flag(parser)
    add_device_flags(parser)
    args = parser.parse_args()

    rows = read_rows(args.csv)
    names = pseudo_label_names(rows)
    outputs = {Path(args.out_dir) / name for name in names}  # rows of one image share theirs
    check_outputs(outputs, args.overwrite, [args.csv, args.checkpoint, *rows["image"], *rows["mask"]])
    network, config = load_network(args.checkpoint, args.network)
    fabric = start_fabric(args)
    predict(fabric, network, config, rows, names, args.out_dir, args.batch_size, worker_count(args, fabric), args.flip)
    print(f"{len(set(names))} pseudo-labels in {args.out_dir}")


if __name__ == "__main__":
    command_line(main)
