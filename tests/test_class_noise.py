"""Wrong class labels: rates and matrices against other routes, what never changes in the CSV, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from cli.files import UserError
from data.class_text import ClassText, class_numbers
from data.classification import read_class_names, read_class_rows
from tests.conftest import ROOT
from tests.script_calls import run
from tests.tool_inputs import contents
from utils.transition import (
    CIFAR10N_WORST,
    asymmetric,
    checked_matrix,
    cifar10n,
    draw_labels,
    symmetric,
    wrong_share,
)

TOOL = "utils/class_noise.py"
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LARGE = np.random.default_rng(9).integers(0, 10, 200_000)


def fit(matrix, given, labels=LARGE):
    """Least p of the chi-square tests of each true class; what has no probability must not occur."""
    least = 1.0
    for true in range(len(matrix)):
        counts = np.bincount(given[labels == true], minlength=len(matrix))
        possible = matrix[true] > 0
        assert not counts[~possible].any()
        if possible.sum() > 1:
            least = min(least, stats.chisquare(counts[possible], counts.sum() * matrix[true][possible]).pvalue)
    return least


@pytest.mark.parametrize("matrix", [symmetric(10, 0.4), symmetric(10, 1.0), symmetric(10, 0.5, original_sampling=True),
                                    asymmetric(10, 0.4, {9: 1, 2: 0, 3: [5, 6, 7]}),
                                    *map(cifar10n, ("worst", "rand1", "aggre"))],
                         ids=["symmetric", "all wrong", "original", "asymmetric", "worst", "rand1", "aggre"])
def test_labels_follow_the_matrix(matrix):
    assert fit(matrix, draw_labels(LARGE, matrix, seed=1)) > 1e-3


def test_another_matrix_is_told_apart():
    assert fit(symmetric(10, 0.4), draw_labels(LARGE, symmetric(10, 0.42))) < 1e-3
    columns_first = cifar10n("worst").T / cifar10n("worst").sum(axis=0)[:, None]
    assert fit(cifar10n("worst"), draw_labels(LARGE, columns_first)) < 1e-3


def test_the_true_class_is_excluded_and_the_last_one_reached():
    given = draw_labels(LARGE, symmetric(10, 1.0))
    assert (given != LARGE).all() and (given[LARGE != 9] == 9).any() and set(given[LARGE == 9]) == set(range(9))


def test_original_sampling_has_the_published_shares():
    """K 8, r .4: the true class .657, the last .6, others .057, the last as a target 0."""
    matrix = symmetric(8, 0.4, original_sampling=True)
    assert np.round([matrix[0, 0], matrix[7, 7], matrix[0, 1], matrix[7, 0]], 3).tolist() == [0.657, 0.6, 0.057, 0.057]
    assert not matrix[:7, 7].any() and np.allclose(matrix.sum(axis=1), 1)
    assert np.isclose(1 - matrix[0, 0], 0.4 * 6 / 7)
    with_rule = symmetric(8, 0.4)
    assert with_rule[0, 0] == 0.6 and np.isclose(with_rule[0, 7], 0.4 / 7)


def test_asymmetric_by_hand():
    matrix = [[0.7, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.15, 0.15, 0.7]]
    assert asymmetric(4, 0.3, {0: 1, 3: [1, 2]}).tolist() == matrix
    for targets in ({0: 0}, {0: 4}, {4: 0}, {0: []}, {0: [1, 1]}, {-1: 0}):
        with pytest.raises(ValueError, match="is no change"):
            asymmetric(4, 0.3, targets)


def test_cifar10n_by_hand():
    """The first row of `worst` sums to 100.1; the diagonal to 597.9 of about 1,000 %."""
    worst = cifar10n("worst")
    assert np.isclose(worst[0, 8], 8.5 / 100.1) and np.isclose(CIFAR10N_WORST.trace(), 597.9)
    assert abs(wrong_share(worst) - 0.4021) < 5e-4
    for kind, wrong in (("rand1", 0.1723), ("aggre", 0.0901)):
        matrix = cifar10n(kind)
        assert np.isclose(np.diag(matrix).mean(), 1 - wrong) and np.allclose(matrix.sum(axis=1), 1)
        assert np.allclose((matrix / worst)[~np.eye(10, dtype=bool)], wrong / wrong_share(worst))


def test_matrices_are_checked():
    assert np.allclose(checked_matrix([[66.7, 33.4], [0, 100]]), [[66.7 / 100.1, 33.4 / 100.1], [0, 1]])
    for matrix, message in (([[0.5, 0.5]], "1 x 2"), ([[1]], "1 x 1"), ([[0.5, 0.4], [0, 1]], "row 0 .* sums to 0.9"),
                            ([[1, 0], [-0.1, 1.1]], "row 1"), ([[1, 0], [np.nan, 1]], "row 1"), ([[1, 0], [0, 100]], "row"),
                            (np.eye(3), "of 3 classes, there are 2")):
        with pytest.raises(ValueError, match=message):
            checked_matrix(matrix, 2)


def test_a_seed_reproduces_and_labels_may_be_boxes():
    matrix = symmetric(10, 0.4)
    assert np.array_equal(draw_labels(LARGE, matrix, 5), draw_labels(LARGE, matrix, np.random.default_rng(5)))
    assert not np.array_equal(draw_labels(LARGE, matrix, 5), draw_labels(LARGE, matrix, 6))
    assert draw_labels(np.array([], int), matrix).shape == (0,)
    assert draw_labels(np.array([0, 9], np.uint8), np.eye(10)).tolist() == [0, 9]
    for labels in ([10], [-1]):
        with pytest.raises(ValueError, match="10 classes"):
            draw_labels(np.array(labels), matrix)


# --- the tool ---------------------------------------------------------------------------------------------------


def desk(folder, text=None, names=NAMES):
    """A folder with a class CSV of 600 rows and classes.json."""
    if names:
        (folder / "classes.json").write_text(json.dumps({"names": names}))
    rows = "".join(f"{n}.png,{NAMES[n % 10]},{n}.50\n" for n in range(600))
    (folder / "train.csv").write_bytes((text or "image,label,note\n" + rows).encode())
    return folder


def noise(monkeypatch, capsys, folder, *flags, csv="train.csv", out="noisy.csv"):
    return run(monkeypatch, capsys, folder, TOOL, "--csv", csv, "--out", out, *flags)


def test_the_tool_changes_labels_alone(tmp_path, monkeypatch, capsys):
    folder = desk(tmp_path)
    assert noise(monkeypatch, capsys, folder, "--noise", "worst", "--seed", 3) == (0, "")
    before, after = (pd.read_csv(folder / name, dtype=str) for name in ("train.csv", "noisy.csv"))
    wrong = before.index[before.label != after.label]
    flips = pd.read_csv(folder / "noisy_flips.csv")
    assert flips.row.tolist() == (wrong + 2).tolist() and 150 < len(wrong) < 330
    assert flips.true.tolist() == before.label[wrong].tolist() and flips.given.tolist() == after.label[wrong].tolist()
    lines = (folder / "noisy.csv").read_text().splitlines(keepends=True)
    old = (folder / "train.csv").read_text().splitlines(keepends=True)
    assert [re.sub(",[a-z]+,", ",,", line) for line in lines[1:]] == [re.sub(",[a-z]+,", ",,", line) for line in old[1:]]
    assert lines[0] == old[0]
    record = json.loads((folder / "noisy_noise.json").read_text())
    true, given = before.label.map(NAMES.index), after.label.map(NAMES.index)
    assert given.tolist() == draw_labels(true.to_numpy(), cifar10n("worst"), 3).tolist()
    assert record["counts"] == pd.crosstab(true, given).reindex(columns=range(10), fill_value=0).to_numpy().tolist()
    assert record["rate_got"] == len(wrong) / 600 and record["noise"] == "worst" and record["rate_asked"] is None
    assert np.allclose(record["matrix"], cifar10n("worst"))


ODD = '\ufeffImg ,Label, note\r\n"a, ""b"".png", cat ,"x\r\ny"\r\n\r\nb.png,"dog",\r\nc.png,3,"1,2"\nd.png,"a ""k"", b",z'


def test_odd_text_stays_as_it_is(tmp_path, monkeypatch, capsys):
    """A byte order mark, quotes, commas and lines in fields, two kinds of line ends, blank lines, names beside numbers."""
    names = ["cat", "dog", 'a "k", b', "x"]
    folder = desk(tmp_path, ODD, names)
    assert ClassText(folder / "train.csv").labels == ["cat", "dog", "3", 'a "k", b']
    (folder / "m.json").write_text(json.dumps(np.eye(4).tolist()))
    assert noise(monkeypatch, capsys, folder, "--noise", "matrix", "--matrix", "m.json") == (0, "")
    assert (folder / "noisy.csv").read_bytes() == ODD.encode()
    (folder / "m.json").write_text(json.dumps({"matrix": np.roll(np.eye(4), 1, axis=1).tolist()}))
    assert noise(monkeypatch, capsys, folder, "--noise", "matrix", "--matrix", "m.json", "--overwrite") == (0, "")
    turned = (ODD.replace(" cat ,", " dog ,").replace('"dog",\r', '"a ""k"", b",\r').replace("c.png,3,", "c.png,0,")
              .replace('d.png,"a ""k"", b"', 'd.png,"x"'))
    assert (folder / "noisy.csv").read_bytes() == turned.encode()


def test_labels_may_be_numbers_and_the_side_file_is_never_read(tmp_path, monkeypatch, capsys):
    folder = desk(tmp_path, "image,label\n" + "".join(f"{n}.png,{n % 5}\n" for n in range(500)), None)
    call = ("--noise", "symmetric", "--rate", 0.4, "--num-classes", 6)
    assert noise(monkeypatch, capsys, folder, *call)[0] == 0
    first = (folder / "noisy.csv").read_bytes()
    assert ",5\n" in first.decode()
    (folder / "noisy_flips.csv").write_text("scrambled\x00")
    assert noise(monkeypatch, capsys, folder, *call, csv="noisy.csv", out="twice.csv")[0] == 0
    twice = (folder / "twice.csv").read_bytes()
    (folder / "noisy_flips.csv").unlink()
    assert noise(monkeypatch, capsys, folder, *call, csv="noisy.csv", out="again.csv")[0] == 0
    assert (folder / "again.csv").read_bytes() == twice
    rooms = [path for room in ("cli", "data", "models", "utils", "engine", "reports") for path in (ROOT / room).glob("*.py")]
    assert [path.name for path in [*rooms, *ROOT.glob("*.py")] if "_flips" in path.read_text()] == ["class_noise.py"]


def test_maps(tmp_path, monkeypatch, capsys):
    folder = desk(tmp_path)
    assert noise(monkeypatch, capsys, folder, "--noise", "asymmetric", "--rate", 1)[0] == 0
    pairs = set(zip(pd.read_csv(folder / "train.csv").label, pd.read_csv(folder / "noisy.csv").label))
    assert {pair for pair in pairs if pair[0] != pair[1]} == {
        ("truck", "automobile"), ("bird", "airplane"), ("deer", "horse"), ("cat", "dog"), ("dog", "cat")} and len(pairs) == 10
    (folder / "map.json").write_text('{"frog": ["cat", 8], "0": 1}')
    assert noise(monkeypatch, capsys, folder, "--noise", "asymmetric", "--rate", 1, "--map", "map.json", "--overwrite")[0] == 0
    pairs = set(zip(pd.read_csv(folder / "train.csv").label, pd.read_csv(folder / "noisy.csv").label))
    assert {pair for pair in pairs if pair[0] != pair[1]} == {("frog", "cat"), ("frog", "ship"), ("airplane", "automobile")}


@pytest.mark.parametrize("suffix", ["csv", "json", "npy"])
def test_matrix_files(tmp_path, monkeypatch, capsys, suffix):
    folder = desk(tmp_path)
    turned = np.roll(np.eye(10), 1, axis=1)
    if suffix == "npy":
        np.save(folder / "m.npy", turned)
    else:
        (folder / f"m.{suffix}").write_text("\n".join(",".join(map(str, row)) for row in 100 * turned) if suffix == "csv"
                                            else json.dumps(turned.tolist()))
    assert noise(monkeypatch, capsys, folder, "--noise", "matrix", "--matrix", f"m.{suffix}")[0] == 0
    before, after = (pd.read_csv(folder / name).label.map(NAMES.index) for name in ("train.csv", "noisy.csv"))
    assert ((before + 1) % 10 == after).all()


def write(folder, name, text):
    (folder / name).write_text(text)


SYMMETRIC = ("--noise", "symmetric", "--rate", 0.4)
MATRIX = ("--noise", "matrix", "--matrix", "m.json")
REFUSED = [
    ("no rate", None, ("--noise", "symmetric"), "needs --rate"),
    ("a rate that has no use", None, ("--noise", "worst", "--rate", 0.4), "--rate: belongs to --noise symmetric and"),
    ("a rate out of range", None, ("--noise", "symmetric", "--rate", 1.4), "--rate: '1.4' is not a number in 0..1"),
    ("a rate that is none", None, ("--noise", "symmetric", "--rate", "nan"), "--rate: 'nan' is not"),
    ("another kind's sampling", None, ("--noise", "worst", "--original-sampling"), "--original-sampling: belongs"),
    ("no matrix", None, ("--noise", "matrix"), "needs --matrix"),
    ("no such matrix", None, MATRIX, "m.json: no such file"),
    ("a matrix of text", lambda f: write(f, "m.json", '[["a", 1], [0, 1]]'), MATRIX, "m.json: not a matrix of numbers"),
    ("a ragged matrix", lambda f: write(f, "m.json", "[[1, 0], [1]]"), MATRIX, "m.json: not a matrix of numbers"),
    ("a matrix too small", lambda f: write(f, "m.json", "[[1, 0], [0, 1]]"), MATRIX, "of 2 classes, there are 10"),
    ("rows of no sum", lambda f: write(f, "m.json", json.dumps((np.eye(10) * 0.9).tolist())), MATRIX, "row 0 .* sums to 0.9"),
    ("a pickle as a matrix", lambda f: np.save(f / "m.npy", np.array([{}])), ("--noise", "matrix", "--matrix", "m.npy"),
     "m.npy: not a matrix"),
    ("a matrix of no format", lambda f: write(f, "m.txt", "1"), ("--noise", "matrix", "--matrix", "m.txt"),
     ".csv, .json or .npy"),
    ("no map", lambda f: desk(f, "image,label\na,0\nb,1\n", ["x", "y"]), ("--noise", "asymmetric", "--rate", 1),
     "pass --map FILE"),
    ("a map to nowhere", lambda f: write(f, "map.json", '{"cat": "fox"}'),
     ("--noise", "asymmetric", "--rate", 1, "--map", "map.json"), "map.json: 1 labels are not classes"),
    ("a map to itself", lambda f: write(f, "map.json", '{"cat": 3}'),
     ("--noise", "asymmetric", "--rate", 1, "--map", "map.json"), "map.json: 3 -> .* no change"),
    ("ten classes are needed", lambda f: desk(f, "image,label\na,0\nb,1\n", ["x", "y"]), ("--noise", "worst"),
     "is of 10 classes"),
    ("one class", lambda f: desk(f, "image,label\na,0\n", ["x"]), SYMMETRIC, "1 classes, 1 different ones"),
    ("an unknown label", lambda f: desk(f, "image,label\na,cat\nb,fox\n"), SYMMETRIC, "1 labels are not .* first row 3: 'fox'"),
    ("a number too large", lambda f: desk(f, "image,label\na,0\nb,10\n"), SYMMETRIC, "first row 3: '10'"),
    ("names without classes.json", lambda f: (desk(f, "image,label\na,cat\n"), (f / "classes.json").unlink()), SYMMETRIC,
     "put a classes.json beside"),
    ("masks", lambda f: desk(f, "img,filename\na,b\n"), SYMMETRIC, "headed image,label"),
    ("a row without a label", lambda f: desk(f, "image,label\na,cat\nb\n"), SYMMETRIC, "row 3 has no label"),
    ("an open quote", lambda f: desk(f, 'image,label\n"a,cat\nb,dog\n'), SYMMETRIC, "not a readable CSV"),
    ("no rows", lambda f: desk(f, "image,label\n"), SYMMETRIC, "and rows below it"),
    ("a name twice", lambda f: desk(f, None, ["a", "a"]), SYMMETRIC, "2 classes, 1 different ones"),
    ("a position beside a name that is a number", lambda f: desk(f, "image,label\na,0\nb,7\n", ["7", "cat"]), SYMMETRIC,
     "first row 2: '0'"),
    ("a giant number", lambda f: (desk(f, "image,label\na,0\nb,99999999\n"), (f / "classes.json").unlink()), SYMMETRIC,
     "makes 100000000 classes"),
    ("names that are none", lambda f: write(f, "classes.json", '{"names": 3}'), SYMMETRIC, "must be a list of texts"),
    ("over the input", None, (*SYMMETRIC, "--out", "train.csv", "--overwrite"), "train.csv is read here"),
    ("over a file", lambda f: write(f, "noisy_flips.csv", "kept"), SYMMETRIC, "noisy_flips.csv exists"),
]


@pytest.mark.parametrize("spoil, flags, message", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_bad_input_ends_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, spoil, flags, message):
    folder = desk(tmp_path)
    if spoil:
        spoil(folder)
    before = contents(folder)
    code, errors = noise(monkeypatch, capsys, folder, *flags)
    assert code == 2 and re.search(message, errors.replace("\n", " ")) and "Traceback" not in errors, errors
    assert errors.startswith("usage") or errors.count("\n") == 1, errors
    assert contents(folder) == before


def test_positions_are_no_labels_where_a_name_is_a_number(tmp_path):
    """Names 7 and cat: 7 is the first class, and 0 and 1 are none, for the noise as for the training."""
    (tmp_path / "classes.json").write_text('{"names": ["7", "cat"]}')
    csv = tmp_path / "train.csv"
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    names = read_class_names(csv)
    csv.write_text("image,label\na.png,7\nb.png,cat\n")
    assert class_numbers(csv, ClassText(csv).labels, names)[0].tolist() == [0, 1]
    assert read_class_rows(csv, names)["label"].tolist() == [0, 1]
    csv.write_text("image,label\na.png,0\nb.png,1\n")
    for read in (lambda: class_numbers(csv, ClassText(csv).labels, names), lambda: read_class_rows(csv, names)):
        with pytest.raises(UserError, match="'0'"):
            read()


@pytest.mark.parametrize("names, labels", [(["7", "cat"], ["07", "cat", "7", "007"]), (["1", "0"], ["01", "1", "0", "00"])])
def test_training_reads_back_every_label_where_names_are_numbers(tmp_path, monkeypatch, capsys, names, labels):
    """However a number is spelled, the turned label is the other class for training too."""
    folder = desk(tmp_path, "image,label\n" + "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels)), names)
    for n in range(len(labels)):
        Image.new("RGB", (4, 4)).save(folder / f"{n}.png")
    (folder / "m.json").write_text(json.dumps([[0, 1], [1, 0]]))
    assert noise(monkeypatch, capsys, folder, "--noise", "matrix", "--matrix", "m.json") == (0, "")
    before, after = (read_class_rows(folder / name, names)["label"].to_numpy() for name in ("train.csv", "noisy.csv"))
    assert (after == 1 - before).all() and len(pd.read_csv(folder / "noisy_flips.csv")) == len(labels)
    (folder / "train.csv").write_text("image,label\n0.png,dog\n")
    code, errors = noise(monkeypatch, capsys, folder, "--noise", "matrix", "--matrix", "m.json", "--overwrite")
    assert code == 2 and "1 labels are not classes that classes.json names, first row 2: 'dog'" in errors
