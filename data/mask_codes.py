"""How annotation tools write a binary mask: CVAT's and Label Studio's run lengths, COCO's by faster-coco-eval, labelme's PNG.

The codes have the same name and are not the same: CVAT counts rows inside a box, COCO counts columns of the whole picture,
Label Studio packs the bits of an RGBA picture. Legend: a region is bool (H, W).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cli.lazy import coco_masks

WORD, SIZES = 8, (3, 4, 8, 16)  # Label Studio: bits of a value; bits that the length of a run may have
OPAQUE = 128  # alpha of a pixel that counts as painted: a brush may blur its edge


def run_lengths(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lengths, values) of the runs of equal values in an array (N,), N > 0."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return np.diff(np.append(starts, len(values))), values[starts]


def to_cvat(region: np.ndarray) -> list[int]:
    """Lengths of runs, row by row, outside and inside in turn; the first is outside and may be 0."""
    lengths, values = run_lengths(region.ravel())
    return ([0] if values[0] else []) + lengths.tolist()


def from_cvat(lengths: Sequence[int], height: int, width: int) -> np.ndarray:
    """The region of `to_cvat`, bool (height, width); ValueError if the lengths do not fill it."""
    inside = np.arange(len(lengths)) % 2 == 1
    region = np.repeat(inside, lengths)
    if len(region) != height * width:
        raise ValueError(f"its runs have {len(region)} px, {height} x {width} are needed")
    return region.reshape(height, width)


def to_coco(region: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths: `size` [H, W] and `counts`, a text."""
    code = coco_masks.encode(np.asfortranarray(region, np.uint8))
    counts = code["counts"]
    return {"size": list(map(int, code["size"])), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def from_coco(code: dict[str, Any]) -> np.ndarray:
    """The region of COCO's run lengths, compressed (a text) or not (a list of numbers)."""
    height, width = code["size"]
    if isinstance(code["counts"], list):
        code = coco_masks.frPyObjects(code, height, width)
    return coco_masks.decode({**code, "size": [height, width]}) > 0


def to_png(region: np.ndarray) -> str:
    """A PNG of 0 and 255, base64, as labelme has it."""
    done, content = cv2.imencode(".png", region.astype(np.uint8) * 255)
    assert done
    return base64.b64encode(content.tobytes()).decode("ascii")


def from_png(text: str) -> np.ndarray:
    """The region of `to_png`, or of a PNG of 1 bit; ValueError if it is no picture."""
    content = np.frombuffer(base64.b64decode(text), np.uint8)
    values = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if len(content) else None
    if values is None:
        raise ValueError("its mask is not a PNG")
    return values > 0


def to_label_studio(region: np.ndarray) -> list[int]:
    """Label Studio's run lengths of an RGBA picture that is 255 inside and 0 outside: a list of bytes.

    The head holds the number of values (32 bits), WORD - 1 (5 bits) and SIZES - 1 (4 bits each). A run is 1 bit (1 = one value,
    repeated), 2 bits (which of SIZES), its length - 1 and its value.
    """
    lengths, values = run_lengths(region.ravel())
    bits = [f"{4 * region.size:032b}", f"{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    longest = 1 << SIZES[-1]
    for length, value in zip((4 * lengths).tolist(), values.tolist()):
        while length:
            part = min(length, longest)
            number = next(k for k, size in enumerate(SIZES) if part <= 1 << size)
            bits.append(f"1{number:02b}{part - 1:0{SIZES[number]}b}{255 if value else 0:0{WORD}b}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_label_studio(code: Sequence[int], height: int, width: int) -> np.ndarray:
    """The region of Label Studio's run lengths, by the alpha of each pixel; ValueError if they are of another size."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count:place], 2)

    total = read(32)
    if total != 4 * height * width:
        raise ValueError(f"its runs have {total // 4} px, {height} x {width} are needed")
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values, done = np.zeros(total, np.uint8), 0
    while done < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        if repeated:
            values[done:done + length] = read(word)
        else:
            values[done:done + length] = [read(word) for _ in range(length)]
        done += length
    return values.reshape(height, width, 4)[:, :, 3] >= OPAQUE
