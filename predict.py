"""Pseudo-labels: the label map that a trained network gives each picture, as PNGs at the picture's own size.

    python predict.py --checkpoint runs/NAME/best.ckpt --csv data/csv/train_noisy_60.csv --out-dir runs/NAME/pseudo

Files are named so that utils/get_weight.py pairs them with the rows of the same CSV: by the image's stem, with its folder
before it where two images share a stem.
"""

from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from data.dataset import ImageDataset, pseudo_label_names, read_rows
from data.files import command_line, progress, refuse_existing, write_mask
from utils.agreement import hard_labels
from utils.checkpoint import load_network
from utils.engine import start_fabric
from utils.options import add_device_flags, positive_int, tool_parser


@torch.no_grad()
def predict(fabric, network, config, rows, names, out_dir, batch_size=8, workers=0):
    """Write the pseudo-label of each row to `out_dir`.

    Args:
        network, config: of `checkpoint.load_network`.
        rows: DataFrame with a column `image`.
        names: file name of each row's pseudo-label, see `pseudo_label_names`.

    The network sees the picture at its training size; its logits are brought back to the picture's own size before
    they become labels, so that outlines stay smooth.
    """
    network = fabric.to_device(network).eval()
    loader = DataLoader(ImageDataset(rows["image"].tolist(), config["size"]), batch_size, num_workers=workers)
    for batch in progress(loader, "predicting", unit="batch"):
        with fabric.autocast():
            logits = network(fabric.to_device(batch["image"])).float()  # (B, C, H, W)
        for one, index, size in zip(logits, batch["index"].tolist(), batch["own_size"].tolist()):
            own = F.interpolate(one[None], size, mode="bilinear", align_corners=False)
            write_mask(Path(out_dir) / names[index], hard_labels(own)[0].byte().cpu().numpy(), config["num_classes"])


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("--csv", required=True, help="rows whose images are predicted")
    parser.add_argument("--out-dir", required=True, help="folder of the PNGs")
    parser.add_argument("--network", type=int, default=0, choices=(0, 1), help="which network of a two-network run")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="replace PNGs of an earlier call")
    add_device_flags(parser)
    args = parser.parse_args()

    rows = read_rows(args.csv)
    names = pseudo_label_names(rows)
    for name in names:
        refuse_existing(Path(args.out_dir) / name, args.overwrite)
    network, config = load_network(args.checkpoint, args.network)
    args.seed = 0
    predict(start_fabric(args), network, config, rows, names, args.out_dir, args.batch_size, args.workers)
    print(f"{len(set(names))} pseudo-labels in {args.out_dir}")


if __name__ == "__main__":
    command_line(main)
