"""The built-in sample set: drawn portraits with exact masks, for trying the software without any photographs.

    python data/make_sample.py --out data/generated/sample --count 300

writes images/ and masks/ (0/255), paired by stem, as data/prepare_folder.py reads them. Figures with hair, ears, shoulders,
hats and raised hands stand before cluttered backgrounds that are a little out of focus, as in a portrait. A small network
learns them in a few epochs, so the masks decide how exact its outlines become. The same --seed gives the same files. No claim
about the method rests on this set.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cli.command_line import command_line, positive_int, seed_number, tool_parser
from cli.files import UserError, progress, together
from data.pictures import write_image, write_mask

APART = 110  # least distance in RGB of hair, hat and clothes to the mean colour behind them, so that a figure can be learnt
OVERSAMPLING = 2  # drawn larger, then averaged: soft edges in the picture, exact ones in the mask


def draw_set(folder: Path, count: int, size: Sequence[int], seed: int = 0) -> None:
    """Write `count` portraits of a size (H, W) to folder/images and folder/masks."""
    for number in progress(range(count), "drawing", unit="portrait"):
        image, mask = draw_portrait(np.random.default_rng([seed, number]), size)
        write_image(folder / "images" / f"{number:04d}.jpg", image)
        write_mask(folder / "masks" / f"{number:04d}.png", mask)


def draw_portrait(rng: np.random.Generator, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """One portrait.

    Args:
        rng: numpy Generator.
        size: (H, W), px.

    Returns:
        (image uint8 (H, W, 3) RGB, mask uint8 (H, W) of 0 and 1)
    """
    height, width = (OVERSAMPLING * side for side in size)
    canvas = draw_background(rng, height, width)
    parts = draw_figure(rng, canvas, height, width)
    canvas *= _texture(rng, height, width, 2, 0.25)[..., None] + 1  # uneven light over person and background
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.8, 1.6))
    image: np.ndarray = cv2.resize(canvas, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    image += rng.normal(0, rng.uniform(2, 6), image.shape)
    mask = cv2.resize(parts, (size[1], size[0]), interpolation=cv2.INTER_AREA) > 127
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Two colours blended by smooth noise, with boxes, discs, bars and other people's blobs in it; float32 (H, W, 3)."""
    blend = _texture(rng, height, width, rng.integers(2, 9), 0.5)[..., None] + 0.5
    canvas = (blend * _colour(rng) + (1 - blend) * _colour(rng)).astype(np.float32)
    for _ in range(rng.integers(5, 16)):
        colour = tuple(_colour(rng, skin=rng.random() < 0.25).tolist())
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(width // 16, width // 3), rng.integers(height // 16, height // 3)
        shape = rng.integers(4)
        if shape == 0:
            cv2.rectangle(canvas, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
        elif shape == 1:
            cv2.ellipse(canvas, (int(x), int(y)), (int(w // 2), int(h // 2)), rng.uniform(0, 180), 0, 360, colour, -1)
        elif shape == 2:
            end = (int(rng.integers(0, width)), int(rng.integers(0, height)))
            cv2.line(canvas, (int(x), int(y)), end, colour, int(rng.integers(2, width // 20)))
        else:
            cv2.fillPoly(canvas, [_blob(rng, (x, y), (w / 2, h / 2), 0.3)], colour)
    canvas = cv2.GaussianBlur(canvas, (0, 0), width * rng.uniform(0.008, 0.02))  # out of focus
    return canvas + 12 * _texture(rng, height, width, 40, 1.0)[..., None]


def draw_figure(rng: np.random.Generator, canvas: np.ndarray, height: int, width: int) -> np.ndarray:
    """Paint a person onto the canvas, back to front.

    Returns:
        uint8 (H, W), 255 where the person is.
    """
    person = np.zeros((height, width), np.uint8)
    behind = canvas.mean((0, 1))
    skin, cloth, hair = _colour(rng, skin=True), _colour(rng, apart=behind), _colour(rng, apart=behind)
    x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.32, 0.48)
    face = np.array([width * rng.uniform(0.1, 0.16), height * rng.uniform(0.13, 0.18)])

    def paint(outline: np.ndarray, colour: np.ndarray, roughness: float = 12.0) -> None:
        inside = np.zeros((height, width), np.uint8)
        cv2.fillPoly(inside, [outline], 255)
        person[inside > 0] = 255
        texture = _texture(rng, height, width, rng.integers(6, 30), roughness)
        canvas[inside > 0] = (colour + texture[..., None])[inside > 0]

    long_hair = rng.uniform(0.9, 2.6)
    paint(_blob(rng, (x, y + face[1] * (long_hair - 1.3) / 2), face * (1.35, 1.0 + long_hair / 3), 0.14), hair, 30)
    shoulder, slope = face[0] * rng.uniform(2.0, 3.0), face[1] * rng.uniform(0.3, 0.7)
    top = y + face[1] * rng.uniform(1.35, 1.6)
    tilt = rng.uniform(-0.1, 0.1) * shoulder
    paint(_torso(rng, (x, top), face, (shoulder, slope, tilt), height), cloth, 35)
    paint(_blob(rng, (x, y + face[1]), face * (0.55, 0.9), 0.02), skin * 0.85)  # the neck
    for side in (-1, 1):
        paint(_blob(rng, (x + side * face[0], y + face[1] * 0.1), face * (0.18, 0.25), 0.03), skin * 0.9)
    paint(_blob(rng, (x, y), face, 0.03), skin)
    paint(_blob(rng, (x, y - face[1] * 0.75), face * (1.08, rng.uniform(0.35, 0.6)), 0.12), hair, 30)
    if rng.random() < 0.25:
        paint(_blob(rng, (x, y - face[1] * 0.95), face * (rng.uniform(1.2, 1.7), 0.3), 0.03), _colour(rng, apart=behind))
    if rng.random() < 0.3:
        arm, hand = _arm(rng, (x, y), face, shoulder, height)
        paint(arm, cloth, 25)
        paint(_blob(rng, hand, face * 0.45, 0.2), skin)
    _draw_eyes_and_mouth(canvas, (x, y), face)
    return person


def _torso(rng: np.random.Generator, neck: tuple[float, float], face: np.ndarray, build: tuple[float, float, float],
           height: int) -> np.ndarray:
    """The outline of a body below the neck, int32 (8, 2). Build: width and slope of the shoulders, and their tilt, px."""
    (x, top), (shoulder, slope, tilt) = neck, build
    torso = [(x - face[0] * 0.6, top - slope / 2), (x - shoulder * 0.7, top + slope * 0.4 + tilt),
             (x - shoulder, top + 2.2 * slope + tilt), (x - shoulder * rng.uniform(0.9, 1.2), height + 9),
             (x + shoulder * rng.uniform(0.9, 1.2), height + 9), (x + shoulder, top + 2.2 * slope - tilt),
             (x + shoulder * 0.7, top + slope * 0.4 - tilt), (x + face[0] * 0.6, top - slope / 2)]
    return np.array(torso).round().astype(np.int32)


def _arm(rng: np.random.Generator, centre: tuple[float, float], face: np.ndarray, shoulder: float,
         height: int) -> tuple[np.ndarray, tuple[float, float]]:
    """A raised arm, left or right of a face at `centre`: its outline, int32 (4, 2), and where its hand is."""
    (x, y), side = centre, rng.choice([-1, 1])
    hand = (x + side * face[0] * rng.uniform(1.5, 2.2), y + face[1] * rng.uniform(0.2, 1.2))
    arm = [(x + side * shoulder * 0.8, height + 9), (x + side * shoulder * 1.3, height + 9),
           (hand[0] + 0.35 * face[0], hand[1]), (hand[0] - 0.35 * face[0], hand[1])]
    return np.array(arm).round().astype(np.int32), hand


def _draw_eyes_and_mouth(canvas: np.ndarray, centre: tuple[float, float], face: np.ndarray) -> None:
    x, y = centre
    for side in (-1, 1):
        eye = (int(x + side * face[0] * 0.4), int(y - face[1] * 0.1))
        cv2.ellipse(canvas, eye, (int(face[0] * 0.16), int(face[1] * 0.08)), 0, 0, 360, (40, 30, 30), -1)
    cv2.ellipse(canvas, (int(x), int(y + face[1] * 0.55)), (int(face[0] * 0.35), int(face[1] * 0.07)), 0, 0, 360,
                (150, 60, 60), -1)


def _texture(rng: np.random.Generator, height: int, width: int, cells: Any, strength: float) -> np.ndarray:
    """Smooth noise of about `cells` bumps across, in -strength..strength, float32 (H, W)."""
    grid = rng.uniform(-strength, strength, (int(cells) + 2, int(cells) + 2)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)


def _colour(rng: np.random.Generator, skin: bool = False, apart: np.ndarray | None = None) -> np.ndarray:
    """An RGB colour, float32 (3,), at least APART away from the colour `apart`, if any."""
    if skin:
        return (np.array([225, 172, 140]) * rng.uniform(0.4, 1.1) + rng.uniform(-12, 12, 3)).astype(np.float32)
    while True:
        colour = rng.uniform(15, 240, 3).astype(np.float32)
        if apart is None or np.linalg.norm(colour - apart) >= APART:
            return colour


def _blob(rng: np.random.Generator, centre: Any, radii: Any,
          roughness: float) -> np.ndarray:
    """A closed outline around an ellipse, waved by a few random harmonics; int32 (N, 2) for cv2.fillPoly."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    wave: Any = sum(rng.normal(0, roughness / k) * np.cos(k * angle + rng.uniform(0, 7)) for k in range(3, 12, 2))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radii * (1 + wave)[:, None] + centre
    return points.round().astype(np.int32)


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--out", required=True, help="folder that gets images/ and masks/")
    parser.add_argument("--count", type=positive_int, default=300, help="portraits")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[128, 128], metavar=("H", "W"), help="px")
    parser.add_argument("--seed", type=seed_number, default=0)
    args = parser.parse_args()
    out = Path(args.out)
    if out.exists():
        raise UserError(f"{out} exists; remove it first, or choose another --out")
    with together() as written_at:
        draw_set(written_at(out), args.count, args.size, args.seed)
    print(f"{args.count} portraits in {out}")


if __name__ == "__main__":
    command_line(main)
