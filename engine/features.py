"""Features of the rows' images, computed once and kept in a file whose name is a hash of encoder, weights, size and images."""

import time
import zipfile
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cli.files import UserError, atomic_path, progress
from cli.lazy import torch
from cli.machine import free_memory, usable_cores
from data.pictures import read_image, resize_image
from engine.run_folder import file_digest, hashed

PIXELS = "pixels"  # in place of an encoder: the picture itself
DEFAULT_SIZE = (128, 128)  # px; 64 and 96 gave less out-of-fold accuracy on the given labels of CIFAR-10N (worst)
BATCH = 64  # pictures
BYTES_PER_PIXEL = 128  # of a batch in an encoder, whose first maps are the largest


def build_encoder(args: Namespace, rows: int) -> Any:
    """The frozen encoder, see `models.features`; None for pixels.

    Args:
        args: with `encoder`, `encoder_weights`, `maps`, and `size`, (H, W) in px.
        rows: of the largest split.

    Raises:
        UserError: there is no such encoder, its weights do not fit it, or there is too little memory.
    """
    area, free = args.size[0] * args.size[1], free_memory()
    need = 2 * 4 * rows * 3 * area if args.encoder == PIXELS else BATCH * area * BYTES_PER_PIXEL
    if need > free:
        raise UserError(f"--size {args.size[0]} {args.size[1]}: takes {need / 2**30:.0f} GiB of memory, {free / 2**30:.0f} are "
                        "free; lower --size")
    if args.encoder == PIXELS:
        return None
    from models.features import build_features

    try:
        return build_features(args.encoder, args.encoder_weights, args.maps)
    except ValueError as error:
        raise UserError(str(error)) from None


def features_of(args: Namespace, rows: pd.DataFrame, network: Any, device: Any, folder: Path) -> tuple[np.ndarray, float]:
    """Features of the rows' images, from the file in `folder` where they stand already.

    Args:
        args: see `build_encoder`.
        rows: DataFrame with a column `image`.
        network: of `build_encoder`.
        device: of the encoder.

    Returns:
        (float32 (N, D) in the order of the rows, seconds that it took to compute them).

    Raises:
        UserError: an image cannot be read, or a feature is not finite.
    """
    path = Path(folder) / f"features_{_made_by(args, rows)}.npz"
    if path.exists():
        try:
            with np.load(path) as content:
                return content["features"], float(content["seconds"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not readable ({error}); remove it, it is made anew") from None
    began = time.perf_counter()
    with ThreadPoolExecutor(usable_cores()) as pool:
        features = encoded(args, rows, network.to(device), device, pool) if network else pixels(rows, args.size, pool)
    seconds = time.perf_counter() - began
    if not np.isfinite(features).all():
        row = rows.index[~np.isfinite(features).all(1)][0]
        raise UserError(f"--encoder-weights {args.encoder_weights}: features of row {row} are not finite; "
                        "other weights are needed")
    with atomic_path(path) as temporary:
        np.savez(temporary, features=features, seconds=seconds)
    return features, seconds


def _made_by(args: Namespace, rows: pd.DataFrame) -> str:
    """16 hex digits that stand for encoder, weights, size and the content of all images, in their order."""
    weights = args.encoder_weights
    weights_key = file_digest(weights) if weights and Path(weights).is_file() else weights
    return hashed([args.encoder, weights_key, args.maps, list(args.size), [file_digest(path) for path in rows["image"]]])


def _resized(path: str, size: Sequence[int]) -> np.ndarray:
    return resize_image(read_image(path), size)


def pixels(rows: pd.DataFrame, size: Sequence[int], pool: ThreadPoolExecutor) -> np.ndarray:
    """The pictures at `size`, 0..1, float32 (N, 3 H W)."""
    found = np.empty((len(rows), 3 * size[0] * size[1]), np.float32)
    pictures = pool.map(lambda path: _resized(path, size), rows["image"])
    for row, picture in enumerate(progress(pictures, "pixels", len(rows), "image")):
        found[row] = picture.ravel() / np.float32(255)
    return found


def encoded(args: Namespace, rows: pd.DataFrame, network: Any, device: Any, pool: ThreadPoolExecutor) -> np.ndarray:
    """Features of the frozen encoder, float32 (N, D), see `models.features`."""
    paths, parts = rows["image"].tolist(), []
    for start in progress(range(0, len(paths), BATCH), f"features of {args.encoder}", unit="batch"):
        pictures = list(pool.map(lambda path: _resized(path, args.size), paths[start:start + BATCH]))
        batch = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            parts.append(network(batch).float().cpu().numpy())
    return np.concatenate(parts)
