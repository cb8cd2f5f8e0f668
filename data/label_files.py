"""Files of label arrays that others made: .npz, and PyTorch's .pt, from which only plain int64 arrays are loaded."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from cli.files import UserError
from cli.lazy import torch


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """All arrays of a .npz; one that holds Python objects is refused.

    Raises:
        UserError: it cannot be read.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise UserError(f"{path}: holds a single array; pass a .npz")
        with found as file:
            return {key: file[key] for key in file.files}
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path}: not a .npz of plain arrays ({_first_line(error)})") from None


def read_label_file(path: Path | str) -> dict[str, np.ndarray]:
    """Label arrays by their names.

    Args:
        path: .npz, or .pt: a pickled dict of int64 arrays, read without running code of the file.

    Returns:
        dict of name -> int64 (N,).

    Raises:
        UserError: it is missing or damaged, or holds anything else.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".pt", ".pth", ".npz"):
        raise UserError(f"{path}: labels are read from .pt or .npz")
    arrays = read_arrays(path) if suffix == ".npz" else _read_pickled(path)
    for key, each in arrays.items():
        if each.dtype.kind not in "iu" or each.ndim != 1:
            raise UserError(f"{path}: {key} is {each.dtype} {each.shape}; whole numbers (N,) are needed")
    return {key: each.astype(np.int64) for key, each in arrays.items()}


def _read_pickled(path: Path | str) -> dict[str, np.ndarray]:
    try:
        with torch.serialization.safe_globals(_constructors()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # what is no pickle, or one of other things, fails in many ways
        raise UserError(f"{path}: not a dict of int64 arrays alone, so it is not opened ({_first_line(error)})") from None
    if not isinstance(content, dict) or not content or not all(
            isinstance(key, str) and type(each) is np.ndarray and each.dtype == np.int64 for key, each in content.items()):
        raise UserError(f"{path}: not a dict of int64 arrays alone")
    return content


def _constructors() -> list[Any]:
    """What a pickled int64 array is built of, under the module names of numpy 1 and 2."""
    rebuild = np.empty(0).__reduce__()[0]  # numpy's own, wherever it lies
    return [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")] + [
        np.ndarray, np.dtype, type(np.dtype(np.int64))]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
