"""Pseudo-labels from a trained network."""

from pathlib import Path

from data.dataset import ImageDataset, as_it_is
from data.files import progress, write_mask
from data.lazy import torch
from data.transforms import normalised
from utils.agreement import hard_labels


def predict(fabric, network, config, rows, names, out_dir, batch_size=8, workers=0, flip=False):
    """Write the pseudo-label of each row to `out_dir`.

    Args:
        network, config: of `checkpoint.load_network`.
        rows: DataFrame with a column `image`.
        names: file name of each row's pseudo-label, see `pseudo_label_names`.
        flip: average the logits with those of the mirrored picture.

    The network sees the picture at its training size; its logits are brought back to the picture's own size before
    they become labels, so that outlines stay smooth.
    """
    network = fabric.to_device(network).eval()
    dataset = ImageDataset(rows["image"].tolist(), config["size"])
    loader = torch.utils.data.DataLoader(dataset, batch_size, num_workers=workers, collate_fn=as_it_is)
    for batch in progress(loader, "predicting", unit="batch"):
        with torch.no_grad(), fabric.autocast():
            images = normalised(fabric.to_device(batch["image"]))
            logits = network(images).float()  # (B, C, H, W)
            if flip:
                logits = (logits + network(images.flip(-1)).float().flip(-1)) / 2
        for one, index, size in zip(logits, batch["index"], batch["own_size"]):
            own = torch.nn.functional.interpolate(one[None], size, mode="bilinear", align_corners=False)
            write_mask(Path(out_dir) / names[index], hard_labels(own)[0].byte().cpu().numpy(), config["num_classes"])
