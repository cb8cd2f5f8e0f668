"""Inputs that users really pass: each works, or ends with a message that names it, exit code 2 and no files left."""

import runpy
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cli.command_line import command_line  # noqa: F401  what ends the scripts
from engine import checkpoint, loop
from tests.conftest import ROOT

HEIGHT, WIDTH = 24, 16
TINY = ["--epochs", 1, "--batch-size", 2, "--size", 16, 16, "--width", 4, "--accelerator", "cpu", "--name", "run"]


def run(monkeypatch, capsys, folder, script, *flags):
    """(exit code, stderr) of a script, run in this process and in `folder`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", [script, *map(str, flags)])
    capsys.readouterr()
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, capsys.readouterr().err


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


@pytest.fixture
def album(tmp_path):
    return Album(tmp_path)


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


# --- files: (name, what spoils the album, words of the message or None = it works, further flags) ------------------------

CSV_FILES = [
    ("no CSV", lambda a: (a.folder / "train.csv").unlink(), "train.csv: no such CSV"),
    ("a folder", lambda a: ((a.folder / "train.csv").unlink(), (a.folder / "train.csv").mkdir()),
     "train.csv: not a readable CSV"),
    ("nothing in it", lambda a: a.write("", header=""), "train.csv: not a readable CSV"),
    ("no rows", lambda a: a.write(""), "train.csv: has a header but no rows"),
    ("no header", lambda a: a.write(a.rows(range(4)), header=""), "first line is a row, not a header"),
    ("one column", lambda a: a.write("images/0.jpg\n", header="img\n"), "needs two columns"),
    ("semicolons", lambda a: a.write(a.rows(range(4)).replace(",", ";"), header="img;filename\n"),
     "needs two columns at least, image path and mask path; found ['img;filename']"),
    ("columns swapped", lambda a: a.write("".join(f"masks/{n}.png,images/{n}.jpg\n" for n in range(4))),
     "is it the photograph"),
    ("one field too many", lambda a: a.write(a.rows([0]) + "images/1.jpg,masks/1.png,3,4\n"), "train.csv: not a readable CSV"),
    ("a field too many in each row", lambda a: a.write(a.rows(range(4), [1] * 4)), "train.csv: not a readable CSV"),
    ("a field missing", lambda a: a.write(a.rows([0]) + "images/1.jpg\n"), "row 3: mask '': no such file"),
    ("an empty path", lambda a: a.write(a.rows([0]) + ",masks/1.png\n"), "row 3: image '': no such file"),
    ("a path that is not there", lambda a: a.write(a.rows([0, 7])), "row 3: image 'images/7.jpg': no such file"),
    ("a quote that does not end", lambda a: a.write(a.rows([0]) + '"images/1.jpg,masks/1.png\n'), "train.csv: "),
    ("no text", lambda a: (a.folder / "train.csv").write_bytes(bytes(range(256))), "train.csv: "),
    ("Latin-1", lambda a: a.write(a.rows([0]) + "images/\u00e9.jpg,masks/1.png\n", encoding="latin-1"),
     "train.csv: not a readable CSV"),
    ("UTF-16", lambda a: a.write(a.rows(range(4)), encoding="utf-16"), "train.csv: "),
    ("test rows among the training rows", lambda a: a.write(a.rows([3, 4]), "test.csv"),
     "test.csv: 1 of its 2 images are in train.csv too"),
    ("an empty test CSV", lambda a: a.write("", "test.csv"), "test.csv: has a header but no rows"),
    ("packed", pack, "train.csv: not a readable CSV"),
    ("a pipe", lambda a: pipe(a, "train.csv"), "train.csv: not a readable CSV (not a regular file)"),
    ("a link to itself", lambda a: link_to_itself(a, "train.csv"), "train.csv: no such CSV"),
    ("a NUL byte in a path", lambda a: listed(a, "images/\0.jpg,masks/1.png\n"), "row 3: image"),
    ("a path of 5,000 letters", lambda a: listed(a, "a" * 5000 + ",masks/1.png\n"), "row 3: image"),
    ("an image that is a pipe", lambda a: pipe(a, "images/1.jpg"), "row 3: image 'images/1.jpg': no such file"),
    ("an image that links to itself", lambda a: link_to_itself(a, "images/1.jpg"), "row 3: image 'images/1.jpg': no such file"),
    ("a mask that is a folder", lambda a: listed(a, "images/1.jpg,masks\n"), "row 3: mask 'masks': no such file"),
    ("a URL as path", lambda a: listed(a, "http://localhost/1.jpg,masks/1.png\n"), "row 3: image 'http://localhost/1.jpg'"),
    ("a home that is not spelled out", lambda a: listed(a, "~/1.jpg,masks/1.png\n"), "row 3: image '~/1.jpg': no such file"),
    ("no header, TIFF", lambda a: a.write("images/0.tif,masks/0.png\n", header="images/1.tif,masks/1.png\n"),
     "first line is a row, not a header"),
    ("tabs", lambda a: a.write(a.rows(range(4)).replace(",", "\t"), header="img\tfilename\n"), "needs two columns"),
    ("quoted fields", lambda a: listed(a, '"images/1.jpg","masks/1.png"\n'), None),
    ("columns of one's own", lambda a: a.write(a.rows(range(4), ["x", "%s", "\u0665", ""]), header="img,filename,note\n"),
     None),
    ("header names twice", lambda a: a.write(a.rows(range(4)), header="img,img\n"), None),
    ("columns named as weights", lambda a: a.write(a.rows(range(4)), header="weight,iterations\n"), None),
    ("a percent sign in a path", lambda a: ((a.folder / "images/1.jpg").rename(a.folder / "images/100%s%20.jpg"),
                                            listed(a, "images/100%s%20.jpg,masks/1.png\n")), None),
    ("a byte order mark", lambda a: a.write(a.rows(range(4)), encoding="utf-8-sig"), None),
    ("lines of Windows", lambda a: a.write(a.rows(range(4)).replace("\n", "\r\n")), None),
    ("blank lines", lambda a: a.write("\n" + a.rows(range(4)).replace("\n", "\n\n")), None),
    ("spaces around paths", lambda a: a.write(a.rows(range(4)).replace(",", " , ")), None),
    ("a row twice", lambda a: a.write(a.rows([0, 1, 1, 2])), None),
    ("commas, spaces and letters in paths",
     lambda a: ((a.folder / "images/1.jpg").rename(a.folder / "images/a, b \u00fc \u5c71.jpg"),
                a.write(a.rows([0]) + '"images/a, b \u00fc \u5c71.jpg",masks/1.png\n' + a.rows([2, 3]))), None),
]

IMAGES = [
    ("a JPEG cut short", lambda a: (a.image(save=a.picture().resize((160, 240))), a.half("images/1.jpg")),
     "row 3: images/1.jpg: cut short or damaged"),
    ("a PNG cut short", lambda a: (a.image(save=a.picture().resize((160, 240)), name="images/x.png"), a.half("images/x.png")),
     "row 3: images/x.png: "),
    ("zero bytes", lambda a: a.image(b""), "row 3: images/1.jpg: not a readable image"),
    ("text", lambda a: a.image(b"no picture at all\n" * 9, "images/x.png"), "row 3: images/x.png: not a readable image"),
    ("a folder", lambda a: ((a.folder / "images/x.jpg").mkdir(), a.write("images/x.jpg,masks/1.png\n")),
     "row 2: image 'images/x.jpg': no such file"),
    ("a bomb", lambda a: a.image(bomb(20_000, 20_000), "images/x.png"), "row 3: images/x.png: more than"),
    ("floats", lambda a: (a.image(b"", "images/x.tif"), save(a, "images/x.tif", np.full((HEIGHT, WIDTH), 0.5, np.float32))),
     "images/x.tif: 32-bit floats"),
    ("32 bits", lambda a: (a.image(b"", "images/x.tif"), save(a, "images/x.tif", np.full((24, 16), 70_000, np.int32))),
     "images/x.tif: 32-bit or 16-bit integers"),
    ("float RGB", lambda a: photo(a, np.full((HEIGHT, WIDTH, 3), 0.5, np.float32), "tiff"), "images/x.tiff: not a readable"),
    ("12 bits in 16, grey", lambda a: photo(a, np.full((HEIGHT, WIDTH), 4000, np.uint16)), "only the lower 12 are used"),
    ("12 bits in 16, RGB", lambda a: photo(a, np.full((HEIGHT, WIDTH, 3), 4000, np.uint16)), "only the lower 12 are used"),
    ("12 bits in 16, TIFF", lambda a: photo(a, np.full((24, 16, 3), 4000, np.uint16), "tif"), "only the lower 12 are used"),
    ("alpha alone", lambda a: a.image(save=Image.fromarray(rgba(0 * RGB, GREY)), name="images/x.png"),
     "lies in the alpha channel"),
    ("grey and alpha alone", lambda a: a.image(save=Image.fromarray(np.dstack([0 * GREY, GREY]), "LA"), name="images/x.png"),
     "lies in the alpha channel"),
    ("0 x 0 px", lambda a: a.image(bomb(0, 0), "images/x.png"), "row 3: images/x.png: "),
    ("an SVG", lambda a: a.image(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "images/x.svg"), "images/x.svg: not a readable"),
    ("a TIFF cut short", lambda a: (a.image(save=a.picture().resize((160, 240)), name="images/x.tif"), a.half("images/x.tif")),
     "row 3: images/x.tif: "),
    ("a BMP cut short", lambda a: (a.image(save=a.picture(), name="images/x.bmp"), a.half("images/x.bmp")), "images/x.bmp: "),
    ("a TIFF turned by EXIF, as its mask", lambda a: a.image(save=a.picture().transpose(Image.ROTATE_90), name="images/x.tif",
                                                              **exif(True)), None),
    ("a TIFF turned by EXIF, its mask not", lambda a: a.image(save=a.picture(), name="images/x.tif", **exif(True)),
     "is one of them turned"),
    ("TIFF", lambda a: a.image(save=a.picture(), name="images/x.tif"), None),
    ("TIFF of several pages", lambda a: a.image(save=a.picture(), name="images/x.tif", save_all=True,
                                                append_images=[a.picture()]), None),
    ("BMP", lambda a: a.image(save=a.picture(), name="images/x.bmp"), None),
    ("WebP", lambda a: a.image(save=a.picture(), name="images/x.webp"), None),
    ("1 bit", lambda a: a.image(save=a.picture().convert("1"), name="images/x.png"), None),
    ("grey with alpha", lambda a: a.image(save=a.picture().convert("LA"), name="images/x.png"), None),
    ("progressive", lambda a: a.image(save=a.picture(), progressive=True), None),
    ("a PNG named .jpg", lambda a: a.image(save=a.picture(), format="PNG"), None),
    ("bytes behind the end", lambda a: a.image((a.folder / "images/1.jpg").read_bytes() + b"x" * 99), None),
    ("turned by EXIF, its mask not", lambda a: a.image(save=a.picture(), **exif(True)), "is one of them turned"),
    ("turned by EXIF, as its mask", lambda a: a.image(save=a.picture().transpose(Image.ROTATE_90), **exif(True)), None),
    ("16 bits", lambda a: (a.image(b"", "images/x.png"), cv2.imwrite(str(a.folder / "images/x.png"),
                                                                   np.full((HEIGHT, WIDTH, 3), 40_000, np.uint16))), None),
    ("CMYK", lambda a: a.image(save=a.picture().convert("CMYK")), None),
    ("a palette", lambda a: a.image(save=a.picture().convert("P"), name="images/x.png"), None),
    ("an alpha channel", lambda a: a.image(save=a.picture().convert("RGBA"), name="images/x.png"), None),
    ("grey", lambda a: a.image(save=a.picture().convert("L")), None),
    ("animated", lambda a: a.image(save=a.picture(), name="images/x.gif", save_all=True, append_images=[a.picture()]), None),
    ("1 x 1", lambda a: (a.image(save=a.picture().resize((1, 1))), a.save_mask([[1]])), None),
    ("20,000 px wide", lambda a: (a.image(save=a.picture().resize((20_000, 30))), a.save_mask(np.ones((3, 2000)))), None),
]

CLASSES = ["--num-classes", 4]
MASKS = [
    ("cut short", lambda a: a.half("masks/1.png"), "row 3: masks/1.png: cannot be decoded as a mask"),
    ("text", lambda a: (a.folder / "masks/1.png").write_text("mask"), "row 3: masks/1.png: cannot be decoded as a mask"),
    ("a bomb", lambda a: (a.folder / "masks/1.png").write_bytes(bomb(20_000, 20_000)), "row 3: masks/1.png: cannot be decoded"),
    ("of another shape", lambda a: a.save_mask(np.ones((WIDTH, HEIGHT))), "row 3: mask masks/1.png is 16 x 24 px"),
    ("class numbers, taken for binary", lambda a: a.save_mask(np.full((HEIGHT, WIDTH), 3), scale=1),
     "are they class numbers? See --num-classes"),
    ("outside the classes", lambda a: a.save_mask(np.full((HEIGHT, WIDTH), 4), scale=1),
     "holds [4], allowed are 0..3", *CLASSES),
    ("colours for classes", lambda a: Image.fromarray(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
     .save(a.folder / "masks/1.png"), "row 3: masks/1.png: a colour picture", *CLASSES),
    ("black and white in all files, for classes", lambda a: [a.save_mask(HALF, n) for n in range(4)],
     "0 and 255 alone, no class number in 1..3", *CLASSES),
    ("JPEG, for classes", lambda a: mask(a, HALF * np.uint8(3), fmt="JPEG"), "a JPEG, which changes class numbers", *CLASSES),
    ("16 bits in colour", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), np.full((HEIGHT, WIDTH, 3), 3, np.uint16)),
     "16 bits a sample in colour", *CLASSES),
    ("16 bits, black and white", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), HALF.astype(np.uint16) * 65_535), None),
    ("fractions", lambda a: mask(a, HALF.astype(np.float32) / 2, fmt="TIFF"), "float32 values up to 0.5"),
    ("NaN", lambda a: mask(a, np.full((HEIGHT, WIDTH), np.nan, np.float32), fmt="TIFF"), "float32 values up to nan"),
    ("negative", lambda a: mask(a, -HALF.astype(np.int32), fmt="TIFF"), "int32 values", *CLASSES),
    ("alpha and classes", lambda a: mask(a, rgba(0 * RGB + 3, GREY)), "its colours and its alpha channel", *CLASSES),
    ("alpha against colour", lambda a: mask(a, rgba(RGB, 255 - GREY)), "its colours and its alpha channel"),
    ("transparent grey", lambda a: mask(a, GREY, transparency=255), "its colours and its alpha channel"),
    ("turned by EXIF", lambda a: mask(a, GREY, **exif(True)), "turned by its EXIF orientation (6)"),
    ("a TIFF turned by EXIF", lambda a: mask(a, GREY, fmt="TIFF", **exif(True)), "turned by its EXIF orientation (6)"),
    ("several pages", lambda a: mask(a, GREY, fmt="TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
     "holds 2 pictures"),
    ("a colour on white", lambda a: mask(a, np.where(RGB > 0, np.uint8([200, 0, 0]), np.uint8(255))), "a colour picture"),
    ("two colours and black", lambda a: mask(a, np.dstack([GREY, np.roll(GREY, 3), 0 * GREY])), "a colour picture"),
    ("palette indices of classes, binary", lambda a: mask(a, HALF * np.uint8(15), "P", palette=[0, 0, 0] + [200, 9, 9] * 20),
     "holds [15]"),
    ("0 x 0 px", lambda a: (a.folder / "masks/1.png").write_bytes(bomb(0, 0)), "masks/1.png: cannot be decoded as a mask"),
    ("background and ignored, for classes", lambda a: a.save_mask(HALF), None, *CLASSES),
    ("floats that are whole", lambda a: mask(a, HALF.astype(np.float32), fmt="TIFF"), None),
    ("one colour on black", lambda a: mask(a, np.where(RGB > 0, np.uint8([200, 0, 0]), np.uint8(0))), None),
    ("a palette, white first", lambda a: mask(a, 1 - HALF.astype(np.uint8), "P", palette=[255] * 3 + [0] * 3), None),
    ("a palette of colours, with ignored", lambda a: mask(a, HALF * np.uint8(255), "P", palette=[0, 0, 0] + [200, 9, 9] * 255),
     None),
    ("JPEG", lambda a: mask(a, GREY, fmt="JPEG"), None),
    ("TIFF", lambda a: mask(a, GREY, fmt="TIFF"), None),
    ("BMP", lambda a: mask(a, GREY, fmt="BMP"), None),
    ("GIF", lambda a: mask(a, GREY, fmt="GIF"), None),
    ("alpha alone", lambda a: mask(a, rgba(RGB * 0, GREY)), None),
    ("alpha as colour", lambda a: mask(a, rgba(RGB, GREY)), None),
    ("16 bits, beyond 8", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), np.full((HEIGHT, WIDTH), 300, np.uint16)),
     "values up to 300", *CLASSES),
    ("16 bits", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), np.full((HEIGHT, WIDTH), 3, np.uint16)), None, *CLASSES),
    ("all ignored", lambda a: a.save_mask(np.full((HEIGHT, WIDTH), 255), scale=1), None, *CLASSES),
    ("all foreground", lambda a: a.save_mask(np.ones((HEIGHT, WIDTH))), None),
    ("empty", lambda a: a.save_mask(np.zeros((HEIGHT, WIDTH))), None),
    ("RGB", lambda a: Image.open(a.folder / "masks/1.png").convert("RGB").save(a.folder / "masks/1.png"), None),
    ("1 bit", lambda a: Image.open(a.folder / "masks/1.png").convert("1").save(a.folder / "masks/1.png"), None),
    ("blurred", lambda a: Image.open(a.folder / "masks/1.png").resize((99, 150)).save(a.folder / "masks/1.png"), None),
]

WEIGHTS = [
    ("NaN", lambda a: weighted(a, 1, "nan", 1, 1), "row 3: weight 'nan': not a finite number"),
    ("infinite", lambda a: weighted(a, 1, 1, "inf", 1), "row 4: weight 'inf': not a finite number"),
    ("negative", lambda a: weighted(a, 1, -0.1, 1, 1), "row 3: weight '-0.1': weights lie in 0..1"),
    ("above 1", lambda a: weighted(a, 1, 1.5, 1, 1), "row 3: weight '1.5': weights lie in 0..1"),
    ("words", lambda a: weighted(a, 1, "good", 1, 1), "row 3: weight 'good': not a finite number"),
    ("missing", lambda a: weighted(a, 1, "", 1, 1), "row 3: weight '': not a finite number"),
    ("1e400", lambda a: weighted(a, 1, "1e400", 1, 1), "row 3: weight '1e400': not a finite number"),
    ("a percentage", lambda a: weighted(a, 1, "50%", 1, 1), "row 3: weight '50%': not a finite number"),
    ("Arabic digits", lambda a: weighted(a, 1, "\u0661", 1, 1), "row 3: weight '\u0661': not a finite number"),
    ("a decimal comma", lambda a: weighted(a, 1, '"0,5"', 1, 1), "row 3: weight '0,5': not a finite number"),
    ("hexadecimal", lambda a: weighted(a, 1, "0x1", 1, 1), "row 3: weight '0x1': not a finite number"),
    ("a truth value", lambda a: weighted(a, 1, "True", 1, 1), "row 3: weight 'True': not a finite number"),
    ("-inf", lambda a: weighted(a, 1, "-inf", 1, 1), "row 3: weight '-inf': not a finite number"),
    ("two columns", lambda a: a.write(a.rows(range(4), ["1,0"] * 4), header="img,filename,weight,weight\n"),
     "2 columns are named `weight`"),
    ("two columns, one in capitals", lambda a: a.write(a.rows(range(4), ["1,0"] * 4), header="img,filename,weight,WEIGHT\n"),
     "2 columns are named `weight`"),
    ("two columns, spaces", lambda a: a.write(a.rows(range(4), ["1,0"] * 4), header="img,filename, Weight ,weight \n"),
     "2 columns are named `weight`"),
    ("the first column's name", lambda a: a.write(a.rows(range(4)), header="weight,filename\n"), "found none"),
    ("half a noise level", lambda a: a.write(a.rows(range(4), ["1,0.5"] * 4), header="img,filename,weight,iterations\n"),
     "iterations '0.5': a whole number >= 0"),
    ("in capitals", lambda a: a.write(a.rows(range(4), [1] * 4), header="img,filename,Weight\n"), None),
    ("spaces around the name", lambda a: a.write(a.rows(range(4), [1] * 4), header="img, filename, weight \n"), None),
    ("spaces around values", lambda a: weighted(a, 1, " 0.5 ", 1, 1), None),
    ("1e-320", lambda a: weighted(a, 1, "1e-320", 1, 1), None),
    ("no column", lambda a: None, "needs a third column named `weight`, found none"),
    ("a noise level", lambda a: a.write(a.rows(range(4), [0] * 4), header="img,filename,iterations\n"), "found `iterations`"),
    ("all zero", lambda a: weighted(a, 0, 0, 0, 0), "all weights are 0"),
    ("some zero", lambda a: weighted(a, 0, 0, 1, 0), None),
]


def named(cases):
    return [pytest.param(*case[1:3], case[3:], id=case[0]) for case in cases]


def check(monkeypatch, capsys, folder, script, message, *flags):
    """Run a case and check what it promises; returns the error text."""
    before, began = {path for path in folder.rglob("*")}, time.monotonic()
    code, errors = run(monkeypatch, capsys, folder, script, *flags)
    assert "Traceback" not in errors
    if message is None:
        assert code == 0, errors
    else:
        assert code == 2 and message in errors, errors
        assert time.monotonic() - began < 20
        assert len([line for line in errors.splitlines() if "error" in line]) == 1, errors
        assert {path for path in folder.rglob("*")} == before, "a refused command left something"
    return errors


@pytest.mark.parametrize("spoil, message, flags", named(CSV_FILES))
def test_csv_files(album, monkeypatch, capsys, spoil, message, flags):
    spoil(album)
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", "--test_csv",
          "test.csv", *TINY, *flags)


@pytest.mark.parametrize("spoil, message, flags", named(IMAGES))
def test_images(album, monkeypatch, capsys, spoil, message, flags):
    spoil(album)
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, *flags)


@pytest.mark.parametrize("spoil, message, flags", named(MASKS))
def test_masks(album, monkeypatch, capsys, spoil, message, flags):
    if flags:
        for number in range(6):
            album.save_mask(np.ones((HEIGHT, WIDTH)), number, scale=2)
    spoil(album)
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, *flags)


@pytest.mark.parametrize("spoil, message, flags", named(WEIGHTS))
def test_weights(album, monkeypatch, capsys, spoil, message, flags):
    spoil(album)
    check(monkeypatch, capsys, album.folder, "train_with_Teacher_weight.py", message, "--train_csv", "train.csv", *TINY)


# --- flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message, flags", [
    ("--epochs: '0' is not a whole number > 0", ["--epochs", 0]),
    ("--epochs: '1.5' is not", ["--epochs", 1.5]),
    ("--epochs: '1e3' is not", ["--epochs", "1e3"]),
    ("--epochs: '' is not", ["--epochs", ""]),
    ("--learning-rate/--lr: '1e400' is not", ["--learning-rate", "1e400"]),
    ("--size: '100000' is not a length in 1..32767 px", ["--size", 100_000, 100_000]),
    ("--size 32767 32767, --batch-size 1000000: the pictures of one batch",
     ["--size", 32_767, 32_767, "--batch-size", 1_000_000]),
    ("--theta: 'inf' is not", ["--theta", "inf"]),
    ("--theta: '1e-400' is not", ["--theta", "1e-400"]),
    ("--num-classes: '256' is not", ["--num-classes", 256]),
    ("http://localhost/x.csv: no such CSV", ["--train_csv", "http://localhost/x.csv"]),
    ("s3://x/x.csv: no such CSV", ["--train_csv", "s3://x/x.csv"]),
    ("--batch-size: '-1' is not", ["--batch-size=-1"]),
    ("--learning-rate/--lr: 'nan' is not a number > 0", ["--learning-rate", "nan"]),
    ("--size: '0' is not", ["--size", 0, 0]),
    ("--num-classes: '1' is not", ["--num-classes", 1]),
    ("--model: invalid choice", ["--model", "segment-anything"]),
    ("--theta: '0' is not", ["--theta", 0]),
    ("--seed: '-1' is not a whole number", ["--seed=-1"]),
    ("--clip: 'nan' is not", ["--clip", "nan"]),
    ("--name ../away: must be a folder inside runs", ["--name", "../away"]),
    ("--name /away: must be a folder inside runs", ["--name", "/away"]),
    ("not allowed with argument", ["--resume", "--overwrite"]),
    ("unrecognized arguments: --learning-speed", ["--learning-speed", 1]),
    ("--accelerator abacus", ["--accelerator", "abacus"]),
    ("encoder 'abacus'", ["--model", "smp_unet", "--encoder", "abacus"]),
    ("--encoder-weights nowhere.pth: no such file", ["--model", "smp_unet", "--encoder-weights", "nowhere.pth"]),
    ("nowhere.ckpt: no such checkpoint", ["--load", "nowhere.ckpt"]),
    ("--batch-size 1 --size 32 32: too little for the network (Expected more than 1 value per channel",
     ["--model", "deeplabv3plus", "--encoder", "mobilenet_v2", "--size", 32, 32, "--batch-size", 1]),
    ("--batch-size 2 --size 1 7: too little for the network (", ["--size", 1, 7]),
])
def test_flags(album, monkeypatch, capsys, message, flags):
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, *flags)


@pytest.mark.parametrize("flags", [["--batch-size", 64], ["--batch-size", 1, "--size", 32, 32], ["--size", 17, 33],
                                   ["--theta", 0.01], ["--theta", "1e-320"], ["--theta", "1e300"],
                                   ["--epochs", "\u0661"], ["--size", "\uff11\uff16", 16]])
def test_odd_flags_that_work(album, monkeypatch, capsys, flags):
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", None, "--train_csv", "train.csv",
          "--test_csv", "test.csv", *TINY, *flags)


# --- checkpoints ------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return open, ("ran", "w")


def save_other(folder, **changes):
    config = {"name": "unet", "encoder": "resnet34", "num_classes": 2, "width": 4, "size": [16, 16], "theta": 3.0, **changes}
    network = checkpoint.build_from(config)
    checkpoint.save(folder / "x.ckpt", {"networks": [{"config": config, "state": network.state_dict()}]})


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "x.ckpt").write_text("weights"), "x.ckpt: not a checkpoint of this software or damaged"),
    (lambda f: torch.save({"format": "nlkd-1", "networks": Evil()}, f / "x.ckpt"), "x.ckpt: not a checkpoint"),
    (lambda f: torch.save({"weights": torch.zeros(3)}, f / "x.ckpt"), "x.ckpt: not a checkpoint of this software (format"),
    (lambda f: save_other(f, num_classes=5), "--load x.ckpt: holds unet with 5 classes"),
    (lambda f: save_other(f, width=8), "--load x.ckpt: holds unet"),
    (lambda f: checkpoint.save(f / "x.ckpt", {"networks": 3}), "x.ckpt: not a checkpoint of this software"),
], ids=["text", "code", "other tensors", "other classes", "other width", "other content"])
def test_checkpoints(album, monkeypatch, capsys, spoil, message):
    spoil(album.folder)
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, "--load",
          "x.ckpt")
    assert not (album.folder / "ran").exists()


def test_encoder_weights_that_would_run_code(album, monkeypatch, capsys):
    torch.save({"conv1.weight": Evil()}, album.folder / "x.pth")
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", "--encoder-weights x.pth: not a readable weights file",
          "--train_csv", "train.csv", *TINY, "--model", "smp_unet", "--encoder-weights", "x.pth")
    assert not (album.folder / "ran").exists()


def test_a_damaged_last_checkpoint_is_named(album, monkeypatch, capsys):
    flags = ["--train_csv", "train.csv", *TINY]
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", None, *flags)
    (album.folder / "runs/run/result.json").unlink()
    album.half("runs/run/last.ckpt")
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", "runs/run/last.ckpt: not a checkpoint", *flags,
          "--resume")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_goes_after_the_check_is_named_by_whichever_process_misses_it(album, monkeypatch, capsys, workers):
    real = loop.fit

    def fit(*arguments):
        (album.folder / "images/1.jpg").unlink()
        return real(*arguments)

    monkeypatch.setattr(loop, "fit", fit)
    flags = ["--train_csv", "train.csv", *TINY, "--workers", workers]
    code, errors = run(monkeypatch, capsys, album.folder, "train_without_weight.py", *flags)
    assert code == 2 and errors.strip().splitlines()[-1] == "train_without_weight.py: error: images/1.jpg: no such file", errors


# --- folders that the prepare scripts read -----------------------------------------------------------------------------


def move(album, old, new):
    (album.folder / new).parent.mkdir(exist_ok=True)
    (album.folder / old).rename(album.folder / new)


def not_utf8(album):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (album.folder / kind / f"1.{suffix}").rename(album.folder / kind / f"\udcff.{suffix}")


FOLDERS = [
    ("no folder", lambda a: move(a, "masks", "other"), "masks: no such folder"),
    ("a file for a folder", lambda a: (move(a, "masks", "other"), (a.folder / "masks").write_text("")),
     "masks: no such folder"),
    ("nothing known", lambda a: [path.rename(path.with_suffix(".txt")) for path in [*(a.folder / "masks").iterdir()]],
     "masks: no .jpg, .jpeg, .png"),
    ("everything in a subfolder", lambda a: (move(a, "images", "deep"), move(a, "deep", "images/deep")), "its folders are not"),
    ("no stem in common",
     lambda a: [path.rename(path.with_stem(f"m{path.stem}")) for path in sorted((a.folder / "masks").iterdir())],
     "no image and mask share a stem"),
    ("two files of a stem", lambda a: save(a, "images/1.png", a.picture()), "share a stem"),
    ("a TIFF beside a JPEG", lambda a: save(a, "images/1.tif", a.picture()), "1.jpg and 1.tif share a stem"),
    ("no picture", lambda a: (a.folder / "images/1.jpg").write_text("no"), "images/1.jpg: not a readable image"),
    ("a picture that is a folder", lambda a: ((a.folder / "images/1.jpg").unlink(), (a.folder / "images/1.jpg").mkdir(),
                                              (a.folder / "masks/1.png").unlink()), None),
    ("a picture that links to itself", lambda a: link_to_itself(a, "images/1.jpg"), "images/1.jpg: no such file"),
    ("too few", lambda a: [(a.folder / f"images/{n}.jpg").unlink() for n in range(1, 6)], "cannot be split"),
    ("a name that is not UTF-8", not_utf8, "a file name that is not UTF-8"),
    ("a CSV of other rows", lambda a: ((a.folder / "out").mkdir(), (a.folder / "out/train.csv").write_text("x")),
     "exists with other rows"),
    ("a CSV that is no text", lambda a: ((a.folder / "out").mkdir(), (a.folder / "out/train.csv").write_bytes(b"\xff\xfe")),
     "exists with other rows"),
    ("a CSV that is a folder", lambda a: (a.folder / "out/train.csv").mkdir(parents=True), "out/train.csv: Is a directory"),
    ("a file for --out", lambda a: (a.folder / "out").write_text("x"), "out"),
    ("TIFF pairs", lambda a: (save(a, "images/9.tif", a.picture()), save(a, "masks/9.tiff", GREY)), None),
    ("hidden files", lambda a: ((a.folder / "images/._1.jpg").write_text("x"),
                                (a.folder / "masks/.DS_Store").write_text("")), None),
    ("names with commas and quotes", lambda a: (move(a, "images/1.jpg", 'images/a, "b".jpg'),
                                                move(a, "masks/1.png", 'masks/a, "b".png')), None),
    ("suffixes in capitals", lambda a: move(a, "images/1.jpg", "images/1.JPG"), None),
]


@pytest.mark.parametrize("spoil, message, flags", named(FOLDERS))
def test_folders(album, monkeypatch, capsys, spoil, message, flags):
    spoil(album)
    check(monkeypatch, capsys, album.folder, "data/prepare_folder.py", message, ".", "--out", "out", *flags)


def test_what_a_folder_leaves_out_is_told(album, monkeypatch, capsys):
    move(album, "images/1.jpg", "images/more/1.jpg")
    (album.folder / "images/notes.txt").write_text("")
    errors = check(monkeypatch, capsys, album.folder, "data/prepare_folder.py", None, ".", "--out", "out")
    assert "images: 1 folders, which are not looked into, are left out, e.g. more" in errors
    assert "images: 1 files that are none of .jpg" in errors and "e.g. notes.txt" in errors
    assert "masks: 1 files have no image" in errors


# --- what the system refuses ------------------------------------------------------------------------------------------


def ended(monkeypatch, capsys, error):
    """(exit code, stderr) of a command whose main raises the error."""
    def main():
        raise error

    monkeypatch.setattr("sys.argv", ["tool.py"])
    with pytest.raises(SystemExit) as end:
        command_line(main)
    return end.value.code, capsys.readouterr().err


def array_memory_error():
    """NumPy's own error for an array of 8 PiB, whose class has another address in NumPy 1 than in NumPy 2."""
    try:
        return np.empty(2**50)
    except MemoryError as error:
        return error


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), cv2.error("Failed to allocate 40000 bytes"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), OSError(12, "no"),
    array_memory_error()], ids=lambda error: f"{type(error).__name__} {error}"[:30])
def test_memory_that_is_not_there(monkeypatch, capsys, error):
    code, errors = ended(monkeypatch, capsys, error)
    assert code == 2 and errors == "tool.py: error: out of memory; lower --batch-size or --size, or leave out --cache\n"


def test_other_errors_are_not_taken_for_memory(monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="shapes"):
        command_line(lambda: (_ for _ in ()).throw(RuntimeError("shapes differ")))


@pytest.mark.parametrize("error, words", [
    (OSError(28, "No space left on device"), "No space left on device (the system names no file)"),
    (PermissionError(13, "Permission denied", "x.csv"), "x.csv: Permission denied"),
    (OSError(18, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device link")])
def test_what_the_system_refuses_is_named(monkeypatch, capsys, error, words):
    assert ended(monkeypatch, capsys, error) == (2, f"tool.py: error: {words}\n")


PRINTS = "from cli.command_line import command_line; command_line(lambda: {what})"


@pytest.mark.parametrize("what", ["print('\u00b1 \udcff')", "print('line\\n' * 100_000)"], ids=["ascii", "a reader that goes"])
def test_terminals(what):
    import os
    import subprocess
    import sys

    command = [sys.executable, "-c", PRINTS.format(root=str(ROOT), what=what.encode("unicode_escape").decode()
                                                   .replace("\\\\", "\\"))]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    if "line" in what:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141
    else:
        assert process.communicate() == (b"\\xb1 \\udcff\n", b"") and process.returncode == 0
