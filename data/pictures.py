"""Photographs and masks: reading, checking, writing and resizing them.

Legend: H, W are pixels; a *label map* is a uint8 array (H, W) of class numbers 0..C-1, with 255 = ignore.
"""

import io
import os
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from data import IGNORE_INDEX
from data.files import UserError, atomic_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LARGEST_PICTURE = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's limit; a few kB can claim more, and would fill the memory
GREY_SHARE = 0.25  # of a binary mask's pixels; more is no mask
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # EXIF tag, and its values for pictures that lie on their side
ENDINGS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}  # how JPEG and PNG files begin and end


def read_image(path):
    """Decode a photograph to RGB, EXIF rotation applied.

    Returns:
        uint8 array (H, W, 3).

    Raises:
        UserError: the file is missing, cut short, too large or not an image.
    """
    _refuse_missing(path)
    content = np.fromfile(path, np.uint8)
    _size_of(io.BytesIO(content), path)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if image is None:  # a format that only some builds of OpenCV read, or no image
        try:
            with Image.open(path) as file:
                return np.array(ImageOps.exif_transpose(file).convert("RGB"))
        except Exception as error:  # see `image_size`
            raise UserError(f"{path}: cannot be decoded as an image ({error}); replace the file or remove its row") from None
    return np.ascontiguousarray(image[:, :, ::-1])


def read_mask(path, num_classes=2):
    """Decode a mask file to a label map.

    Binary (`num_classes` 2): a pixel is foreground where its value is > 127. A file that holds the value 1 and
    nothing but 0, 1 and 255 is taken as a label map instead (255 = ignore), since > 127 would lose it.
    Multi-class: values are class numbers, 255 = ignore; palette PNGs give their indices.

    Returns:
        uint8 array (H, W) of labels; values outside 0..C-1 are returned as they stand, see `read_checked_mask`.

    Raises:
        UserError: missing, not an image, or a colour picture where class numbers are needed.
    """
    return _labels_of(decode_mask(path, num_classes), num_classes)


def _labels_of(values, num_classes):
    """Labels from the values that `decode_mask` gave, see `read_mask`."""
    if num_classes > 2 or values.dtype == bool:
        return values.astype(np.uint8, copy=False)
    if not _holds(values, 1, 254):
        return values & 1  # nothing but 0 and 255
    return values.astype(np.uint8, copy=False) if _is_label_map(values) else (values > 127).astype(np.uint8)


def decode_mask(path, num_classes):
    """The single channel of a mask file, bool or uint8 (H, W), as it stands there.

    Raises:
        UserError: see `read_mask`.
    """
    try:
        content = np.fromfile(path, np.uint8)
        values = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if _is_grey_png(content) else None
        if values is not None and values.ndim == 2:
            return values
        with Image.open(io.BytesIO(content)) as file:
            return np.array(file if file.mode in ("L", "P", "1") else _single_channel(file, path, num_classes))
    except FileNotFoundError:
        raise UserError(f"{path}: no such mask") from None
    except (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded as a mask ({error})") from None


def _is_grey_png(content):
    """Whether OpenCV, a quarter faster than Pillow, reads the file's values as they are: a grey PNG, 8 bits a pixel, of a
    size that Pillow would not refuse."""
    head = content[:26].tobytes()
    pixels = int.from_bytes(head[16:20], "big") * int.from_bytes(head[20:24], "big")
    return head.startswith(b"\x89PNG\r\n\x1a\n") and head[24:] == b"\x08\x00" and pixels <= LARGEST_PICTURE


def _holds(values, lowest, highest):
    """Whether any value lies in lowest..highest."""
    return cv2.hasNonZero(cv2.inRange(values, lowest, highest))


def _is_label_map(values):
    return _holds(values, 1, 1) and not _holds(values, 2, 254)


def _single_channel(file, path, num_classes):
    """One channel of a mask that was saved as RGB, RGBA, LA or 16 bit."""
    if file.mode.startswith(("I", "F")):
        values = np.array(file)
        if values.max(initial=0) > 255 or values.min(initial=0) < 0:
            raise ValueError(f"values up to {values.max()}; save it with 8 bits per pixel")
        return Image.fromarray(values.astype(np.uint8))
    bands = np.array(file.convert("RGB"))
    if num_classes == 2 or (bands == bands[:, :, :1]).all():
        return file.convert("L")
    raise UserError(f"{path}: a colour picture; masks hold one class number per pixel (palette PNGs are read too)")


def read_checked_mask(path, num_classes=2):
    """`read_mask`, and a UserError if a value is neither a class nor 255."""
    return checked_labels(decode_mask(path, num_classes), path, num_classes)


def checked_labels(values, path, num_classes):
    """`read_checked_mask` of a file that `decode_mask` has decoded; `path` is for the message."""
    labels = _labels_of(values, num_classes)
    if num_classes > 2 and _holds(labels, num_classes, IGNORE_INDEX - 1):
        strange = [value for value in np.unique(labels).tolist() if num_classes <= value < IGNORE_INDEX]
        raise UserError(f"mask {path} holds {strange[:5]}, allowed are 0..{num_classes - 1} and {IGNORE_INDEX}; "
                        "see --num-classes")
    if num_classes == 2 and values.dtype != bool and _holds(values, 1, 254) and not _is_label_map(values):
        _refuse_grey(values, path)
    return labels


def _refuse_grey(values, path):
    """A binary mask has blurred edges at most: not class numbers, which are all below 127, and not a photograph."""
    if not _holds(values, 128, 255):
        raise UserError(f"mask {path} holds values up to {values.max()}, which are all background in a binary mask (> 127 is "
                        "foreground); are they class numbers? See --num-classes")
    grey = cv2.countNonZero(cv2.inRange(values, 64, 191)) / values.size
    if grey > GREY_SHARE:
        raise UserError(f"mask {path} is neither black nor white in {100 * grey:.0f} % of its pixels; is it the photograph?")


def write_mask(path, labels, num_classes=2):
    """Write a label map so that `read_mask` gives it back: 0/255 for binary, class numbers otherwise."""
    if num_classes == 2 and not (labels == IGNORE_INDEX).any():
        labels = labels * 255
    write_image(path, labels.astype(np.uint8))


def write_image(path, image):
    """Write an RGB picture (H, W, 3) or a grey one (H, W), uint8; the format follows the suffix."""
    if image.ndim == 3:
        image = image[:, :, ::-1]
    try:
        done, content = cv2.imencode(Path(path).suffix, image)
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"{path}: no picture format has this suffix; {', '.join(IMAGE_SUFFIXES)} are written")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)  # OpenCV's own writing does not say when the disk is full


def image_size(path):
    """(H, W) in pixels, EXIF rotation applied, from the file's header alone.

    Raises:
        UserError: no such file, not an image, or one of more than LARGEST_PICTURE px.
    """
    _refuse_missing(path)
    return _size_of(path, path)


def _refuse_missing(path):
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")


def _size_of(source, path):
    """`image_size` of a path or of an open file; `path` is for the message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as file:
                turned = file.getexif().get(ORIENTATION) in TURNED
                return file.size if turned else file.size[::-1]
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more than {LARGEST_PICTURE} px; cut it into smaller pictures") from None
    except Exception as error:  # PIL raises whatever its format plugins raise
        raise UserError(f"{path}: not a readable image ({type(error).__name__})") from None


def check_image(path):
    """`image_size`, and a UserError if the file is cut short; a whole JPEG or PNG need not be decoded for that."""
    size = image_size(path)
    with open(path, "rb") as file:
        beginning = file.read(2)
        file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        ending = file.read().rstrip(b"\0")  # some cameras fill up with zeros
    if beginning not in ENDINGS or not ending.endswith(ENDINGS[beginning]):
        try:
            with Image.open(path) as file:
                file.load()
        except Exception as error:  # see `image_size`
            raise UserError(f"{path}: cut short or damaged ({str(error) or type(error).__name__})") from None
    return size


def resize_image(image, size):
    """Resize an RGB picture to (H, W): area-averaged when it shrinks (no aliasing), bilinear when it grows."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def resize_labels(labels, size):
    """Resize a label map to (H, W) by the nearest pixel centre; labels are never mixed.

    OpenCV's plain INTER_NEAREST takes the pixel at the corner, which shifts the mask by up to half a pixel
    against its image.
    """
    if labels.shape[:2] == tuple(size):
        return labels
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
