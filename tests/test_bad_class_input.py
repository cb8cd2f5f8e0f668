"""What users really pass for class labels: each works as they expect, or ends with a message that names it, exit code 2."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from cli.files import write_json
from tests.conftest import ROOT, environment
from tests.script_calls import check

TINY = ["--epochs", 1, "--batch-size", 2, "--accelerator", "cpu", "--name", "run"]
TRAIN = ["--train_csv", "train.csv", *TINY]
ALL = ["--valid_csv", "valid.csv", "--test_csv", "test.csv"]
HEADER = "image,label\n"


class Labelled:
    """Eight pictures of 8 x 8 px: 0..3 to train on, 4 and 5 to choose by, 6 and 7 for the test; and a CSV of masks."""

    def __init__(self, folder):
        self.folder = folder
        dice = np.random.default_rng(0)
        for number in range(8):
            cv2.imwrite(str(folder / f"{number}.png"), dice.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            cv2.imwrite(str(folder / f"mask{number}.png"), np.eye(8, dtype=np.uint8) * 255)
        for name, numbers in (("train", range(4)), ("valid", (4, 5)), ("test", (6, 7))):
            self.write("".join(f"{n}.png,{n % 2}\n" for n in numbers), f"{name}.csv")
        self.write("".join(f"{n}.png,mask{n}.png\n" for n in (6, 7)), "masks.csv", "img,filename\n")

    def write(self, rows, name="train.csv", header=HEADER):
        (self.folder / name).write_text(header + rows)

    def name(self, *names):
        write_json(self.folder / "classes.json", {"names": list(names)})


@pytest.fixture
def labelled(tmp_path):
    return Labelled(tmp_path)


ROWS = [
    ("no rows", lambda a: a.write(""), "train.csv: has a header but no rows"),
    ("no picture", lambda a: a.write("0.png,0\nx.png,1\n"), "row 3: image 'x.png': no such file"),
    ("an empty picture", lambda a: a.write("0.png,0\n,1\n"), "row 3: image '': no such file"),
    ("a name without classes.json", lambda a: a.write("0.png,cat\n1.png,1\n"),
     "row 2: label 'cat': a whole number is needed, or names of the classes in classes.json"),
    ("below zero", lambda a: a.write("0.png,-1\n1.png,1\n"), "row 2: label '-1': a whole number is needed"),
    ("a fraction", lambda a: a.write("0.png,0.5\n1.png,1\n"), "row 2: label '0.5': a whole number is needed"),
    ("no label", lambda a: a.write("0.png,\n1.png,1\n"), "row 2: label '': a whole number is needed"),
    ("one class", lambda a: a.write("0.png,1\n1.png,1\n"), "train.csv: all rows have the label 1"),
    ("only class 0", lambda a: a.write("0.png,0\n1.png,0\n"), "train.csv: all rows have the label 0"),
    ("one class of two that are named", lambda a: (a.name("cat", "dog"), a.write("0.png,dog\n1.png,dog\n")),
     "all rows have the label dog"),
    ("a name that is unknown", lambda a: (a.name("cat", "dog"), a.write("0.png,cat\n1.png,cow\n")),
     "row 3: label 'cow': none of the 2 classes (cat, dog)"),
    ("a number beyond the names", lambda a: (a.name("cat", "dog"), a.write("0.png,0\n1.png,2\n")),
     "row 3: label '2': none of the 2 classes (cat, dog)"),
    ("beyond --num-classes", lambda a: a.write("0.png,0\n1.png,3\n"), "row 3: label '3': none of the 3 classes (0, 1, 2)",
     "--num-classes", 3),
    ("a giant number", lambda a: a.write("0.png,0\n1.png,99999999\n"), "row 3: label 99999999 makes 100000000 classes"),
    ("a classes.json of other length", lambda a: a.name("cat", "dog"),
     "--num-classes 3: the classes.json beside train.csv names 2", "--num-classes", 3),
    ("a name twice", lambda a: a.name("cat", "cat"), "classes.json: 2 classes, 1 different ones"),
    ("one name", lambda a: a.name("cat"), "classes.json: 1 classes, 1 different ones; two or more are needed"),
    ("names that are no texts", lambda a: a.name(1, 2), "classes.json: `names` must be a list of texts"),
    ("a field too many", lambda a: a.write("0.png,0,1\n1.png,1,1\n"), "rows have more fields than the header"),
    ("two columns of weights", lambda a: a.write("0.png,0,1,1\n", header="image,label,weight,Weight\n"),
     "2 columns are named `weight`"),
    ("no CSV", lambda a: (a.folder / "train.csv").unlink(), "train.csv: no such CSV", "--shift", 1),
    ("a broken picture", lambda a: (a.folder / "1.png").write_text("x"), "row 3: 1.png: not a readable image"),
    ("a picture that is cut short", lambda a: (a.folder / "1.png").write_bytes((a.folder / "1.png").read_bytes()[:100]),
     "row 3: 1.png: not a readable image"),
    ("a test label that training lacks", lambda a: a.write("6.png,2\n7.png,1\n", "test.csv"),
     "test.csv: 1 fault; mend or remove these rows\n  row 2: label '2': none of the 2 classes (0, 1)"),
    ("a picture in two splits", lambda a: a.write("0.png,0\n7.png,1\n", "test.csv"),
     "test.csv: 1 of its 2 images are in train.csv too, first 0.png"),
    ("masks to choose by", lambda a: a.write("4.png,mask4.png\n", "valid.csv", "img,filename\n"),
     "valid.csv: not a CSV of class labels, which is headed `image,label`; found `img,filename`"),
    ("an odd normalisation", lambda a: write_json(a.folder / "normalisation.json", {"mean": [0.5], "std": [1, 1, 1]}),
     "normalisation.json: `mean` must be three numbers"),
    ("an empty normalisation", lambda a: write_json(a.folder / "normalisation.json", {}), "the key `mean` is missing"),
    ("names of another order elsewhere", lambda a: ((a.folder / "other").mkdir(), a.name("cat", "dog"),
                                                   write_json(a.folder / "other/classes.json", {"names": ["dog", "cat"]}),
                                                   a.write("6.png,cat\n", "other/test.csv")),
     "other/classes.json: names other classes, or in another order, than the run has (cat, dog)", "--test_csv",
     "other/test.csv"),
    ("a named test label that training lacks", lambda a: (a.name("cat", "dog", "cow"), a.write("6.png,cow\n", "test.csv")),
     None),
    ("names and numbers", lambda a: (a.name("cat", "dog"), a.write("0.png,cat\n1.png,1\n")), None),
    ("another header", lambda a: a.write("0.png,0,x\n1.png,1,x\n", header=" IMG,Label ,who\n"), None),
    ("more classes than labels", lambda a: None, None, "--num-classes", 7),
    ("a picture twice, with two labels", lambda a: a.write("0.png,0\n0.png,1\n"), None),
    ("pictures of one colour", lambda a: [cv2.imwrite(str(a.folder / f"{n}.png"), np.zeros((8, 8, 3), np.uint8))
                                         for n in range(8)], None),
    ("pictures of unequal sizes", lambda a: cv2.imwrite(str(a.folder / "1.png"), np.zeros((30, 20, 3), np.uint8)), None),
]


@pytest.mark.parametrize("spoil, message, flags", [pytest.param(spoil, message, flags, id=name)
                                                   for name, spoil, message, *flags in ROWS])
def test_rows(labelled, monkeypatch, capsys, spoil, message, flags):
    spoil(labelled)
    check(monkeypatch, capsys, labelled.folder, "train_without_weight.py", message, *TRAIN, *ALL, *flags)


@pytest.mark.parametrize("weights, message", [
    ([1, 2], "row 3: weight '2': weights lie in 0..1"), ([1, "x"], "row 3: weight 'x': not a finite number"),
    ([0, 0], "all weights are 0"), (None, "needs a column named `weight`, found image, label"), ([0.5, 1], None)])
def test_weights(labelled, monkeypatch, capsys, weights, message):
    if weights:
        labelled.write("".join(f"{n}.png,{n},{weight}\n" for n, weight in enumerate(weights)), header="image,label, WEIGHT\n")
    check(monkeypatch, capsys, labelled.folder, "train_with_Teacher_weight.py", message, *TRAIN)


@pytest.mark.parametrize("script, message, flags", [
    ("train_with_KDweight.py", "train.csv: holds class labels (headed `image,label`), masks are wanted here", []),
    ("train_teacher.py", "train.csv: holds class labels (headed `image,label`), masks are wanted here", []),
    ("train_without_weight.py", "--theta: goes with masks; train.csv holds class labels", ["--theta", 3]),
    ("train_without_weight.py", "--augment: goes with masks", ["--augment"]),
    ("train_without_weight.py", "--width: goes with masks", ["--width", 64]),
    ("train_with_Teacher_weight.py", "--pixels: goes with masks", ["--pixels", "."]),
    ("train_co_teaching.py", "--select-by: goes with masks", ["--select-by", "loss"]),
    ("train_decoupling.py", "--disagree-below: goes with masks", ["--disagree-below", 0.9]),
    ("train_without_weight.py", "--model unet: not a network for class labels (train.csv); choose from small_cnn",
     ["--model", "unet"]),
    ("train_co_teaching+.py", "--model-b deeplabv3plus: not a network for class labels", ["--model-b", "deeplabv3plus"]),
    ("train_without_weight.py", "--shift 8: as large as the pictures (8 x 8 px)", ["--shift", 8]),
    ("train_without_weight.py", "--shift: '-1' is not", ["--shift=-1"]),
    ("train_without_weight.py", "small_cnn has no encoder to load weights into", ["--encoder-weights", "x.pth"]),
    ("train_without_weight.py", "encoder 'abacus'", ["--model", "timm", "--encoder", "abacus"]),
    ("train_without_weight.py", "--batch-size 2 --size 2 2: too little for the network", ["--size", 2, 2]),
    ("train_without_weight.py", "valid.csv: holds class labels", ["--train_csv", "masks.csv", "--valid_csv", "valid.csv"]),
    ("train_without_weight.py", "--mirror: goes with class labels, a CSV headed `image,label`; masks.csv holds masks",
     ["--train_csv", "masks.csv", "--mirror"]),
    ("train_without_weight.py", "--shift: goes with class labels", ["--train_csv", "masks.csv", "--shift", 0]),
    ("train_without_weight.py", "--model timm: not a network for masks (masks.csv); choose from unet",
     ["--train_csv", "masks.csv", "--model", "timm"]),
    ("train_without_weight.py", None, ["--shift", 8, "--padding", "zero", "--size", 6, 9]),
    ("train_decoupling.py", None, []), ("train_co_teaching+.py", None, ["--model-b", "small_cnn", "--size", 4, 4])])
def test_flags(labelled, monkeypatch, capsys, script, message, flags):
    check(monkeypatch, capsys, labelled.folder, script, message, *TRAIN, *flags)


def test_a_classifier_is_asked_for_labels_alone(labelled, monkeypatch, capsys):
    folder = labelled.folder
    check(monkeypatch, capsys, folder, "train_without_weight.py", None, *TRAIN)
    check(monkeypatch, capsys, folder, "train_without_weight.py", None, *TRAIN, "--train_csv", "masks.csv", "--name", "masks",
          "--size", 16, 16, "--width", 4)
    labels, masks = (["--checkpoint", f"runs/{name}/best.ckpt"] for name in ("run", "masks"))
    machine, out = ["--accelerator", "cpu"], ["--out-dir", "out"]
    labelled.write("6.png,2\n", "beyond.csv")
    for script, message, *flags in [
            ("evaluate.py", "not a checkpoint of a segmentation network", *labels, "--csv", "masks.csv"),
            ("evaluate.py", "not a checkpoint of a network for class labels", *masks, "--csv", "test.csv"),
            ("evaluate.py", "--theta: goes with masks", *labels, "--csv", "test.csv", "--theta", 3),
            ("evaluate.py", "label '2': none of the 2 classes (0, 1)", *labels, "--csv", "beyond.csv"),
            ("evaluate.py", "test.csv is read here and would be lost", *labels, "--csv", "test.csv", "--json", "test.csv"),
            ("predict.py", "not a checkpoint of a network for class labels", *masks, "--csv", "test.csv", *out),
            ("predict.py", "not a checkpoint of a segmentation network", *labels, "--csv", "masks.csv", *out),
            ("predict.py", "there is no number 1", *labels, "--images", "0.png", "--network", 1, *out)]:
        check(monkeypatch, capsys, folder, script, message, *flags, *machine)
    check(monkeypatch, capsys, folder, "predict.py", None, *labels, "--csv", "beyond.csv", *out, *machine)
    check(monkeypatch, capsys, folder, "predict.py", "out/predictions.csv exists; pass --overwrite", *labels, *out, *machine,
          "--csv", "test.csv")
    labelled.name("cat", "dog")
    check(monkeypatch, capsys, folder, "evaluate.py", "classes.json: names other classes", *labels, *machine, "--csv",
          "test.csv")


def test_masks_know_nothing_of_the_flags_for_labels(labelled, monkeypatch, capsys):
    check(monkeypatch, capsys, labelled.folder, "train_without_weight.py", None, *TRAIN, "--train_csv", "masks.csv",
          "--size", 16, 16, "--width", 4)
    said = (labelled.folder / "runs/run/args.json").read_text()
    assert not any(f'"{flag}"' in said for flag in ("mirror", "shift", "padding", "classes", "mean"))


def test_rows_are_looked_at_before_pytorch_is_loaded(labelled):
    labelled.write("6.png,2\n7.png,1\n", "test.csv")
    flags = list(map(str, (ROOT / "train_co_teaching.py", *TRAIN, *ALL)))
    code = (f"import runpy, sys\nsys.argv = {flags}\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "finally: print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=labelled.folder, env={**environment(), "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout.split()[-1] == "False" and "label '2'" in done.stderr, done.stderr
