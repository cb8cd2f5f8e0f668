"""Six photographs with masks in a folder, and what spoils them."""

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 16


class Album:
    """Six photographs with masks, four to train on and two for the test, in a folder that a case may spoil."""

    def __init__(self, folder):
        self.folder = folder
        dice = np.random.default_rng(0)
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        for number in range(6):
            small = dice.integers(0, 255, (6, 4, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"images/{number}.jpg"), cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
            self.save_mask(np.arange(HEIGHT)[:, None] * np.ones(WIDTH) > 4 + 3 * number, number)
        self.write(self.rows(range(4)))
        self.write(self.rows(range(4, 6)), "test.csv")

    def save_mask(self, labels, number=1, scale=255):
        cv2.imwrite(str(self.folder / f"masks/{number}.png"), np.asarray(labels).astype(np.uint8) * scale)

    def rows(self, numbers, weight=None):
        weights = [""] * 9 if weight is None else [f",{each}" for each in weight]
        return "".join(f"images/{n}.jpg,masks/{n}.png{weights[n]}\n" for n in numbers)

    def write(self, rows, name="train.csv", header="img,filename\n", encoding="utf-8"):
        (self.folder / name).write_bytes((header + rows).encode(encoding))

    def image(self, content=None, name="images/1.jpg", save=None, **options):
        """Replace a photograph by bytes, or by what Pillow saves (and name it in row 3 of the CSV)."""
        path = self.folder / name
        if save is None:
            path.write_bytes(content)
        else:
            save.save(path, **options)
        self.write(self.rows([0]) + f"{name},masks/1.png\n" + self.rows([2, 3]))

    def picture(self):
        return Image.open(self.folder / "images/1.jpg").convert("RGB")

    def half(self, name):
        path = self.folder / name
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def bomb(width, height):
    """A PNG of a few bytes that claims to be a grey picture of that size."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def weighted(album, *weights):
    album.write(album.rows(range(4), weights), header="img,filename,weight\n")


def save(album, name, picture, **options):
    """Save a picture (array or Pillow's) under a name in the album."""
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture)
    picture.save(album.folder / name, **options)


def mask(album, values, mode=None, name="masks/1.png", palette=None, fmt="PNG", **options):
    """Replace mask 1 by an array, as Pillow saves it (in the format `fmt`, whatever the suffix)."""
    picture = Image.fromarray(np.asarray(values), mode)
    if palette:
        picture.putpalette(palette)
    save(album, name, picture, format=fmt, **options)


def photo(album, values, suffix="png"):
    """Replace photograph 1 by an array, as OpenCV saves it."""
    album.image(b"", f"images/x.{suffix}")
    assert cv2.imwrite(str(album.folder / f"images/x.{suffix}"), values)


def listed(album, row, header="img,filename\n"):
    """Put one row between those of the album."""
    album.write(album.rows([0]) + row + album.rows([2, 3]), header=header)


def pipe(album, name):
    import os

    (album.folder / name).unlink(missing_ok=True)
    os.mkfifo(album.folder / name)


def pack(album):
    import gzip

    (album.folder / "train.csv").write_bytes(gzip.compress((album.folder / "train.csv").read_bytes()))


def link_to_itself(album, name):
    (album.folder / name).unlink(missing_ok=True)
    (album.folder / name).symlink_to(album.folder / name)


HALF = np.arange(HEIGHT)[:, None] * np.ones(WIDTH) > 11  # background above, foreground below
GREY = (HALF * 255).astype(np.uint8)
RGB = np.dstack([GREY] * 3)


def rgba(colours, alpha):
    return np.dstack([colours, alpha]).astype(np.uint8)


def exif(turned):
    options = Image.Exif()
    options[0x0112] = 6
    return {"exif": options} if turned else {}
