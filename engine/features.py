"""Features of the rows' images, computed once and kept in a file that is named by what made them."""

import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError, atomic_path, progress
from cli.lazy import torch
from cli.machine import free_memory, usable_cores
from data.pictures import read_image, resize_image
from engine.run_folder import file_digest, hashed

PIXELS = "pixels"  # in place of an encoder: the picture itself
DEFAULT_SIZE = (96, 96)  # px, of an encoder's input
BATCH = 64  # pictures


def features_of(args, rows: pd.DataFrame, device, folder: Path) -> tuple[np.ndarray, float]:
    """Features of the rows' images, from the file in `folder` where they stand already.

    Args:
        args: with `encoder`, `encoder_weights`, `maps`, and `size`, (H, W) in px.
        rows: DataFrame with a column `image`.
        device: of the encoder.

    Returns:
        (float32 (N, D) in the order of the rows, seconds that it took to compute them).

    Raises:
        UserError: an image or the weights cannot be read, or a feature is not finite.
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
        features = pixels(rows, args.size, pool) if args.encoder == PIXELS else encoded(args, rows, device, pool)
    seconds = time.perf_counter() - began
    if not np.isfinite(features).all():
        row = rows.index[~np.isfinite(features).all(1)][0]
        raise UserError(f"--encoder-weights {args.encoder_weights}: features of row {row} are not finite; "
                        "other weights are needed")
    with atomic_path(path) as temporary:
        np.savez(temporary, features=features, seconds=seconds)
    return features, seconds


def _made_by(args, rows):
    """16 hex digits that stand for encoder, weights, size and the content of all images, in their order."""
    weights = args.encoder_weights
    known = file_digest(weights) if weights and Path(weights).is_file() else weights
    return hashed([args.encoder, known, args.maps, list(args.size), [file_digest(path) for path in rows["image"]]])


def _resized(path, size):
    return resize_image(read_image(path), size)


def check_memory(rows: int, width: int, size: Sequence[int]) -> None:
    """Raise UserError if features (rows, width) and a standardised copy do not fit the free memory."""
    need, free = 2 * 4 * rows * width, free_memory()
    if need > free:
        raise UserError(f"--size {size[0]} {size[1]}: {rows} rows of {width} features take {need / 2**30:.0f} GiB of memory, "
                        f"{free / 2**30:.0f} are free; lower --size, or take an encoder")


def pixels(rows: pd.DataFrame, size: Sequence[int], pool: ThreadPoolExecutor) -> np.ndarray:
    """The pictures at `size`, 0..1, float32 (N, 3 H W)."""
    check_memory(len(rows), 3 * size[0] * size[1], size)
    found = np.empty((len(rows), 3 * size[0] * size[1]), np.float32)
    pictures = pool.map(lambda path: _resized(path, size), rows["image"])
    for row, picture in enumerate(progress(pictures, "pixels", len(rows), "image")):
        found[row] = picture.ravel() / np.float32(255)
    return found


def encoded(args, rows: pd.DataFrame, device, pool: ThreadPoolExecutor) -> np.ndarray:
    """Features of the frozen encoder, float32 (N, D), see `models.features`."""
    from models.features import build_features

    try:
        network = build_features(args.encoder, args.encoder_weights, args.maps).to(device)
    except ValueError as error:
        raise UserError(str(error)) from None
    paths, parts = rows["image"].tolist(), []
    for start in progress(range(0, len(paths), BATCH), f"features of {args.encoder}", unit="batch"):
        pictures = list(pool.map(lambda path: _resized(path, args.size), paths[start:start + BATCH]))
        batch = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            parts.append(network(batch).float().cpu().numpy())
    return np.concatenate(parts)
