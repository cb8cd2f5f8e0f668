"""CSVs, images, masks and weights that users really pass: each works, or is named and leaves nothing."""

import cv2
import numpy as np
import pytest
from PIL import Image

from engine import loop
from tests.album import (
    GREY,
    HALF,
    HEIGHT,
    RGB,
    WIDTH,
    bomb,
    exif,
    link_to_itself,
    listed,
    mask,
    pack,
    photo,
    pipe,
    rgba,
    save,
    weighted,
)
from tests.script_calls import TINY, check, named, run

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
    ("lossy WebP, for classes", lambda a: mask(a, HALF * np.uint8(3), fmt="WEBP"), "a lossy WebP, which changes", *CLASSES),
    ("lossy WebP after a long profile, for classes", lambda a: mask(a, HALF * np.uint8(3), fmt="WEBP", icc_profile=b"x" * 6000),
     "a lossy WebP, which changes", *CLASSES),
    ("lossless WebP, for classes", lambda a: mask(a, HALF * np.uint8(3), fmt="WEBP", lossless=True), None, *CLASSES),
    ("TIFF packed as JPEG, for classes", lambda a: mask(a, HALF * np.uint8(3), fmt="TIFF", compression="jpeg"),
     "a JPEG, which changes class numbers", *CLASSES),
    ("16 bits in colour", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), np.full((HEIGHT, WIDTH, 3), 3, np.uint16)),
     "16 bits a sample in colour", *CLASSES),
    ("16 bits, white alone", lambda a: cv2.imwrite(str(a.folder / "masks/1.png"), np.full((HEIGHT, WIDTH), 65_535, np.uint16)),
     None),
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
