"""What users really pass: each works as they expect, or ends with a message that names it, exit code 2, and leaves nothing."""

import runpy
import time

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.command_line import command_line  # noqa: F401  what ends the scripts
from tests.conftest import ROOT
from utils import checkpoint, engine

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
    ("no column", lambda a: None, "needs a third column named `weight`, found none"),
    ("a noise level", lambda a: a.write(a.rows(range(4), [0] * 4), header="img,filename,iterations\n"), "found `iterations`"),
    ("all zero", lambda a: weighted(a, 0, 0, 0, 0), "all weights are 0"),
    ("some zero", lambda a: weighted(a, 0, 0, 1, 0), None),
]


def named(cases):
    return [pytest.param(*case[1:3], case[3:], id=case[0]) for case in cases]


def check(monkeypatch, capsys, folder, script, message, *flags):
    """Run, and hold it to its promise; returns the error text."""
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
                                   ["--theta", 0.01]])
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
    real = engine.fit

    def fit(*arguments):
        (album.folder / "images/1.jpg").unlink()
        return real(*arguments)

    monkeypatch.setattr(engine, "fit", fit)
    flags = ["--train_csv", "train.csv", *TINY, "--workers", workers]
    code, errors = run(monkeypatch, capsys, album.folder, "train_without_weight.py", *flags)
    assert code == 2 and errors.strip().splitlines()[-1] == "train_without_weight.py: error: images/1.jpg: no such file", errors
