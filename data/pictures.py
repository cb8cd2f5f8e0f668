"""Photographs and masks: reading, checking, writing and resizing them.

Legend: H, W are pixels; a *label map* is a uint8 array (H, W) of class numbers 0..C-1, with 255 = ignore.
"""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from cli.files import UserError, atomic_path
from data import IGNORE_INDEX
from data.mask_files import ALPHA, LARGEST_PICTURE, ORIENTATION, Decoded, decode_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
GREY_SHARE = 0.25  # largest share of grey pixels in a binary mask
TURNED = (5, 6, 7, 8)  # EXIF orientations of pictures that lie on their side
DARKEST = 1 << 14  # a 16-bit picture with no brighter value uses fewer bits: 12 or 14
IGNORED_COLOUR = (224, 224, 192)  # of index 255 in a palette, as PASCAL VOC has it
BACKGROUND, CLASSES, IGNORED = 1, 2, 4  # bits, see `kinds_of`
ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # how JPEG and PNG files begin and end


def read_image(path: Path | str) -> np.ndarray:
    """Decode a photograph to RGB: EXIF rotation is applied, 16-bit samples keep the upper 8 bits, alpha is dropped.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        UserError: the file is missing, cut short, too large, not an image, or its samples cannot be turned into 8 bits.
    """
    _refuse_missing(path)
    content = _read_bytes(path)
    _, kind = _facts_of(io.BytesIO(content.data), path)
    if kind == "16 bits":
        return _read_16_bits(content, path)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if kind == "plain" else None
    if image is None:  # not an image, or a format that builds of OpenCV read differently
        try:
            with Image.open(io.BytesIO(content.data)) as file:
                return _read_by_pillow(file, path)
        except UserError:
            raise
        except Exception as error:  # see `image_size`
            raise UserError(f"{path}: cannot be decoded as an image ({error}); replace the file or remove its row") from None
    return np.ascontiguousarray(image[:, :, ::-1])


def _read_bytes(path: Path | str) -> np.ndarray:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _read_16_bits(content: np.ndarray, path: Path | str) -> np.ndarray:
    image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is None or image.dtype != np.uint16:
        raise UserError(f"{path}: 16 bits a sample, which cannot be decoded; save it with 8 bits")
    if 0 < image.max() < DARKEST:
        raise UserError(f"{path}: 16 bits a sample, of which only the lower {int(image.max()).bit_length()} are used, so that "
                        "it would be read as dark; save it with 8 bits")
    return np.ascontiguousarray(np.right_shift(image[:, :, ::-1], 8).astype(np.uint8))


def _read_by_pillow(file: Image.Image, path: Path | str) -> np.ndarray:
    file.load()  # Pillow turns a TIFF here and removes its orientation
    if file.mode in ("I", "F") or file.mode.startswith("I;"):
        raise UserError(f"{path}: {'32-bit floats' if file.mode == 'F' else '32-bit or 16-bit integers'} (mode {file.mode}), "
                        "whose white is unknown; save it with 8 bits")
    file = ImageOps.exif_transpose(file)
    if file.mode in ALPHA or "transparency" in file.info:
        bands = np.array(file.convert("RGBA"))
        if np.ptp(bands[:, :, 3]) and not np.ptp(bands[:, :, :3], axis=(0, 1)).any():
            raise UserError(f"{path}: one colour everywhere, its picture lies in the alpha channel; save it without "
                            "transparency")
    return np.array(file.convert("RGB"))


def read_mask(path: Path | str, num_classes: int = 2) -> np.ndarray:
    """Decode a mask file to a label map.

    Binary (`num_classes` 2), by what the file holds:
        1 bit per pixel: 0, 1.
        grey levels, also as RGB or as a palette of greys: foreground is > 127. But a file that holds the value 1 and no others
            than 0, 1 and 255 is a label map (255 = ignore), since > 127 would lose its foreground.
        a palette with colours: its indices, 0, 1 and 255 = ignore; so `write_mask` marks ignored pixels where no 1 occurs.
        an alpha channel: the colours' grey levels, or the alpha channel where there is one colour only.
    Multi-class: values are class numbers, 255 = ignore; palette PNGs give their indices.

    Returns:
        uint8 array (H, W) of labels; values outside 0..C-1 are returned as they stand, see `read_checked_mask`.

    Raises:
        UserError: missing, not an image, or a format that holds no labels, see `data.mask_files`.
    """
    return _labels_of(decode_mask(path, num_classes), num_classes)


def _labels_of(decoded: Decoded, num_classes: int) -> np.ndarray:
    """Labels from what `decode_mask` gave, see `read_mask`."""
    values = decoded.values
    if num_classes > 2 or decoded.are_labels:
        return values
    if not _holds(values, 1, 254):
        return values & 1  # all values are 0 or 255: give 0 and 1
    return values if _is_label_map(values) else (values > 127).astype(np.uint8)


def _holds(values: np.ndarray, lowest: int, highest: int) -> bool:
    """Whether any value lies in lowest..highest."""
    return cv2.hasNonZero(cv2.inRange(values, lowest, highest))


def _is_label_map(values: np.ndarray) -> bool:
    return _holds(values, 1, 1) and not _holds(values, 2, 254)


def read_checked_mask(path: Path | str, num_classes: int = 2) -> np.ndarray:
    """`read_mask`, and a UserError if a value is neither a class nor 255."""
    return checked_labels(decode_mask(path, num_classes), path, num_classes)


def checked_labels(decoded: Decoded, path: Path | str, num_classes: int) -> np.ndarray:
    """`read_checked_mask` of a file that `decode_mask` has decoded; `path` is for the message."""
    labels, values = _labels_of(decoded, num_classes), decoded.values
    if (num_classes > 2 or decoded.are_labels) and _holds(labels, num_classes, IGNORE_INDEX - 1):
        strange = [value for value in np.unique(labels).tolist() if num_classes <= value < IGNORE_INDEX]
        allowed = f"0..{num_classes - 1} and {IGNORE_INDEX}; see --num-classes"
        raise UserError(f"mask {path} holds {strange[:5]}, allowed are {allowed}")
    if num_classes == 2 and not decoded.are_labels and _holds(values, 1, 254) and not _is_label_map(values):
        _refuse_grey(values, path)
    return labels


def kinds_of(labels: np.ndarray, num_classes: int) -> int:
    """What a label map holds: CLASSES alone if it has any class but 0, whatever else it has; else BACKGROUND | IGNORED, of
    which each is set if the map has class 0, or 255."""
    return CLASSES if _holds(labels, 1, num_classes - 1) else (
        BACKGROUND * _holds(labels, 0, 0) | IGNORED * _holds(labels, IGNORE_INDEX, IGNORE_INDEX))


def refuse_black_and_white(kinds: int, num_classes: int, source: object) -> None:
    """Raise UserError if many masks together hold 0 and 255 and nothing else, though there are more than two classes.

    One such file may be background and ignored pixels; if all are, they are binary masks whose foreground would be ignored.

    Args:
        kinds: `kinds_of` of all masks, combined by |.
        source: of the masks, for the message.
    """
    if num_classes > 2 and kinds == BACKGROUND | IGNORED:
        raise UserError(f"{source}: the masks hold 0 and 255 alone, no class number in 1..{num_classes - 1}; black and white "
                        "masks are binary: --num-classes 2")


def _refuse_grey(values: np.ndarray, path: Path | str) -> None:
    """Raise UserError for class numbers (all below 128) or a photograph; blurred edges may be grey."""
    if not _holds(values, 128, 255):
        raise UserError(f"mask {path} holds values up to {values.max()}, which are all background in a binary mask (> 127 is "
                        "foreground); are they class numbers? See --num-classes")
    grey = cv2.countNonZero(cv2.inRange(values, 64, 191)) / values.size
    if grey > GREY_SHARE:
        raise UserError(f"mask {path} is neither black nor white in {100 * grey:.0f} % of its pixels; is it the photograph?")


def write_mask(path: Path | str, labels: np.ndarray, num_classes: int = 2) -> None:
    """Write a label map so that `read_mask` gives it back, whatever labels occur in it.

    Class numbers are written unchanged. Binary: 0/255 if no pixel is ignored, else 0, 1 and 255. If no pixel is 1 then, it
    would look like 0/255, so it becomes a palette PNG (black, white, 255 in a colour), which `read_mask` reads by its indices.

    Raises:
        UserError: the suffix names no picture format, or one that changes values.
    """
    labels = labels.astype(np.uint8)
    if Path(path).suffix.lower() in (".jpg", ".jpeg", ".webp"):
        raise UserError(f"{path}: this format changes values; masks are written as .png")
    if num_classes == 2 and not _holds(labels, IGNORE_INDEX, IGNORE_INDEX):
        write_image(path, labels * 255)
    elif num_classes == 2 and not _holds(labels, 1, 1):
        _write_indices(path, labels)
    else:
        write_image(path, labels)


def _write_indices(path: Path | str, labels: np.ndarray) -> None:
    """Write a binary label map as a palette PNG."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"{path}: a binary mask with ignored pixels is written as .png")
    file, content = Image.fromarray(labels, "L"), io.BytesIO()
    palette = np.zeros((256, 3), np.uint8)
    palette[1], palette[IGNORE_INDEX] = 255, IGNORED_COLOUR
    file.putpalette(palette.ravel().tolist())
    file.save(content, "PNG")
    _write_bytes(path, content.getvalue())


def write_image(path: Path | str, image: np.ndarray) -> None:
    """Write an RGB picture (H, W, 3) or a grey one (H, W), uint8; the format follows the suffix."""
    if image.ndim == 3:
        image = image[:, :, ::-1]
    try:
        done, content = cv2.imencode(Path(path).suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"{path}: no picture format has this suffix; {', '.join(IMAGE_SUFFIXES)} are written")
    _write_bytes(path, content.tobytes())


def _write_bytes(path: Path | str, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # cv2.imwrite does not report a full disk


def image_size(path: Path | str) -> tuple[int, int]:
    """(H, W) in pixels, EXIF rotation applied, from the file's header alone.

    Raises:
        UserError: no such file, not an image, or one of more than LARGEST_PICTURE px.
    """
    _refuse_missing(path)
    return _facts_of(path, path)[0]


def _refuse_missing(path: Path | str) -> None:
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")


def _facts_of(source: Path | str | io.BytesIO, path: Path | str) -> tuple[tuple[int, int], str]:
    """Of a path or an open file: `image_size` and the kind of its samples, from its header; `path` is for the message.

    Kinds: `plain` (8 bits, JPEG or PNG), `16 bits`, `other`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as file:
                layout, turned = str(file.tile), file.getexif().get(ORIENTATION) in TURNED
                if turned and file.format == "TIFF":
                    file.load()  # which turns it
                    turned = False
                size = file.size if turned else file.size[::-1]
                if ";16" in layout and file.format in ("PNG", "TIFF"):
                    return size, "16 bits"
                plain = file.format in ("JPEG", "MPO", "PNG") and file.mode not in ALPHA and "transparency" not in file.info
                return size, "plain" if plain else "other"
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {LARGEST_PICTURE} px; cut it into smaller pictures") from None
    except PermissionError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except Exception as error:  # each of Pillow's format plugins raises its own exceptions
        raise UserError(f"{path}: not a readable image ({type(error).__name__})") from None


def check_image(path: Path | str) -> tuple[int, int]:
    """`image_size`, and a UserError if the file is cut short; a JPEG or PNG with a proper end is not decoded."""
    _refuse_missing(path)
    size, kind = _facts_of(path, path)
    if kind != "plain":  # only decoding shows whether its samples can be read
        read_image(path)
        return size
    with open(path, "rb") as file:
        beginning = file.read(2)
        file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        ending = file.read().rstrip(b"\0")  # some cameras append zeros
    if beginning not in ENDINGS or not ending.endswith(ENDINGS[beginning]):
        try:
            with Image.open(path) as file:
                file.load()
        except Exception as error:  # see `image_size`
            raise UserError(f"{path}: cut short or damaged ({str(error) or type(error).__name__})") from None
    return size


def resize_image(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize an RGB picture to (H, W): area-averaged when it shrinks (no aliasing), bilinear when it grows."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_labels(labels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize a label map to (H, W) by the nearest pixel centre; labels are never mixed.

    OpenCV's plain INTER_NEAREST takes the pixel at the corner: the mask would shift against its image by half a pixel.
    """
    if labels.shape[:2] == tuple(size):
        return labels
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
