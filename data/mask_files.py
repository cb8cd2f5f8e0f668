"""Mask file -> its values: what each sample format means, and which ones are refused since labels would be lost.

Legend: H, W are pixels, C classes; 2 = binary.
"""

import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from cli.files import UserError

LARGEST_PICTURE = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's limit; a small file can claim more and fill the memory
ORIENTATION = 0x0112  # EXIF tag
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")  # Pillow's modes with an alpha channel
GREY_SPREAD = 8  # a palette entry whose channels differ by no more is grey
COLOUR_SPREAD = 64  # a pixel of a binary mask whose channels differ by more is coloured


class Decoded(NamedTuple):
    """What a mask file holds.

    values: uint8 (H, W).
    are_labels: the values are labels as they stand (1 bit per pixel, palette indices), else grey levels.
    """

    values: np.ndarray
    are_labels: bool


def decode_mask(path: Path | str, num_classes: int) -> Decoded:
    """The single channel of a mask file, as `Decoded`.

    Raises:
        UserError: missing, not an image, or a format that does not hold one label per pixel.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # np.fromfile takes twice as long
            content = np.frombuffer(file.read(), np.uint8)
        values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if _is_grey_png(content) else None
        if values is not None and values.ndim == 2:
            return Decoded(values, False)
        with Image.open(io.BytesIO(content.data)) as picture:
            layout = str(picture.tile)  # holds the bits per sample only until the file is loaded
            _refuse_unfit(picture, layout, num_classes, picture.format == "WEBP" and _is_lossy_webp(content.tobytes()))
            return _decode(picture, layout, num_classes)
    except FileNotFoundError:
        raise UserError(f"{path}: no such mask") from None
    except UnfitError as error:
        raise UserError(f"{path}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's format plugins raises its own exceptions
        raise UserError(f"{path}: cannot be decoded as a mask ({error})") from None


class UnfitError(Exception):
    """The file is a readable picture in a format that cannot be a mask; the message names it and says what to do."""


def _is_grey_png(content: np.ndarray) -> bool:
    """Whether OpenCV, which is a quarter faster than Pillow, reads the file's values unchanged: a grey PNG, 8 bits a pixel, no
    larger than Pillow allows, without transparency or rotation."""
    head = content[:1024].tobytes()
    pixels = int.from_bytes(head[16:20], "big") * int.from_bytes(head[20:24], "big")
    return (head.startswith(b"\x89PNG\r\n\x1a\n") and head[24:26] == b"\x08\x00" and pixels <= LARGEST_PICTURE
            and b"tRNS" not in head and b"eXIf" not in head)


def _is_lossy_webp(content: bytes) -> bool:
    """Whether a WebP file holds a `VP8 ` chunk, not `VP8L`; a chunk is a name, a size and as many bytes, padded to two."""
    at = 12
    while at + 8 <= len(content):
        if content[at:at + 4] in (b"VP8 ", b"VP8L"):
            return content[at:at + 4] == b"VP8 "
        at += 8 + (int.from_bytes(content[at + 4:at + 8], "little") + 1) // 2 * 2
    return False


def _refuse_unfit(file: Image.Image, layout: str, num_classes: int, lossy_webp: bool) -> None:
    """Raise UnfitError for a format that leaves open which label a pixel has."""
    pictures = getattr(file, "n_frames", 1)
    if pictures > 1 and file.format != "MPO":
        raise UnfitError(f"holds {pictures} pictures; save the one that is the mask in a file of its own")
    turned = file.getexif().get(ORIENTATION, 1)
    if turned not in (0, 1):
        raise UnfitError(f"is turned by its EXIF orientation ({turned}); save it upright, without that tag")
    if num_classes > 2 and (file.format in ("JPEG", "MPO") or "jpeg" in str(file.info.get("compression")) or lossy_webp):
        kind = "lossy WebP" if lossy_webp else "JPEG"
        raise UnfitError(f"a {kind}, which changes class numbers; save masks of several classes as PNG")
    if ";16" in layout and not file.mode.startswith("I"):
        raise UnfitError(f"16 bits a sample in colour ({file.mode}); save it with 8 bits per pixel")


def _decode(file: Image.Image, layout: str, num_classes: int) -> Decoded:
    """`Decoded` of an open file; `layout` is its `tile` as text."""
    if file.mode == "1":
        return Decoded(np.array(file).astype(np.uint8), True)
    if file.mode == "P":
        return _decode_palette(file, num_classes)
    if file.mode in ALPHA or "transparency" in file.info:
        return Decoded(_without_alpha(file, num_classes), False)
    if file.mode == "L":
        return Decoded(_unscaled(np.array(file), layout if num_classes > 2 else ""), False)
    if file.mode.startswith(("I", "F")):
        values = np.array(file)
        if num_classes == 2 and set(np.unique(values).tolist()) <= {0, 65535}:  # black and white in 16 bits
            return Decoded(np.where(values > 0, np.uint8(255), np.uint8(0)), False)
        return Decoded(_whole_bytes(values), False)
    return Decoded(_grey(np.array(file.convert("RGB")), num_classes), False)


def _decode_palette(file: Image.Image, num_classes: int) -> Decoded:
    """The indices as labels; but for a binary mask with a palette of greys, the grey level of each index, since its foreground
    is white and may have any index."""
    indices = np.array(file)
    if num_classes > 2:
        return Decoded(indices, True)
    palette = np.array(file.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    if indices.max(initial=0) >= len(palette):  # an index without a colour: some tools write no full palette
        return Decoded(indices, False)
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=2)[:len(palette)])
    shown = palette[sorted({*range(min(2, len(palette))), *used.tolist()})].astype(int)  # those used, and the first two
    grey = len(shown) and np.ptp(shown, axis=1).max() <= GREY_SPREAD
    if not grey or (len(shown) > 1 and (shown == shown[0]).all()):
        return Decoded(indices, True)
    if "transparency" in file.info:
        return Decoded(_without_alpha(file, num_classes), False)
    table = np.zeros(256, np.uint8)
    table[:len(palette)] = palette.max(axis=1)
    return Decoded(table[indices], False)


def _without_alpha(file: Image.Image, num_classes: int) -> np.ndarray:
    """Grey levels of a picture with an alpha channel: those of its colours, if its transparent pixels are background there too;
    or the alpha channel, if the colour is the same everywhere, so that the alpha channel holds the shape (binary only)."""
    bands = np.array(file.convert("RGBA"))
    colours, alpha = bands[:, :, :3], bands[:, :, 3]
    if (alpha == 255).all():
        return _grey(colours, num_classes)
    if num_classes == 2 and alpha.min() < alpha.max() and (colours == colours[:1, :1]).all():
        return alpha
    grey = _grey(colours, num_classes)
    if (grey[alpha < 255] > (127 if num_classes == 2 else 0)).any():
        raise UnfitError("its colours and its alpha channel say different things; save it without transparency")
    return grey


def _unscaled(values: np.ndarray, layout: str) -> np.ndarray:
    """Grey levels; for a PNG of 2 or 4 bits a pixel, the class numbers in the file, which Pillow scales up to 0..255."""
    bits = next((bits for bits in (2, 4) if f"L;{bits}'" in layout), 8)
    return values // np.uint8(255 // (2**bits - 1))


def _whole_bytes(values: np.ndarray) -> np.ndarray:
    """Values of 16 or 32 bits or floats as uint8, if they are whole numbers in 0..255."""
    with np.errstate(invalid="ignore"):
        as_bytes = values.astype(np.uint8)
    if not (as_bytes == values).all():
        raise UnfitError(f"{values.dtype} values up to {values.max()}; save it with 8 bits per pixel, whole numbers in 0..255")
    return as_bytes


def _grey(bands: np.ndarray, num_classes: int) -> np.ndarray:
    """One channel (H, W) of RGB (H, W, 3), for masks that a program saved as RGB."""
    if (bands == bands[:, :, :1]).all():
        return np.ascontiguousarray(bands[:, :, 0])
    if num_classes > 2:
        raise UnfitError("a colour picture; masks hold one class number per pixel (palette PNGs are read too)")
    if np.ptp(bands, axis=2).max() > COLOUR_SPREAD:
        shape = bands.any(axis=2)
        if shape.all() or not (bands[shape] == bands[shape][0]).all():
            raise UnfitError("a colour picture, but a binary mask is black and white, or black and one colour; is it the "
                             "photograph?")
        return np.where(shape, np.uint8(255), np.uint8(0))
    return cv2.cvtColor(bands, cv2.COLOR_RGB2GRAY)
