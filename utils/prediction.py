"""Pseudo-labels from a trained network."""

from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from data.dataset import ImageDataset
from data.files import progress, write_mask
from utils.agreement import hard_labels


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
