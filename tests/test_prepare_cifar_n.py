"""Class CSVs from CIFAR-N: what is written, what is refused; a second call changes nothing."""

import hashlib
import json
import os
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from cli.files import UserError
from data import class_sets
from data.label_files import read_arrays, read_label_file
from data.pictures import read_image
from tests.class_sets import CIFAR, refused, splits_of, times
from tests.script_calls import run
from tests.tool_inputs import contents
from utils.transition import CIFAR10N_WORST

KINDS = {"aggre": "aggre_label", "worst": "worse_label", "rand1": "random_label1", "rand2": "random_label2",
         "rand3": "random_label3", "clean": "clean_label"}


def arrays(folder, count=30, tests=12, **changed):
    """Pictures of noise with labels that follow, as images.npz, and a label file, as labels.npz."""
    dice = np.random.default_rng(0)
    content = {"x_train": dice.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8), "y_train": np.arange(count) % 10,
               "x_test": dice.integers(0, 255, (tests, 32, 32, 3), dtype=np.uint8), "y_test": np.arange(tests) % 10, **changed}
    np.savez(folder / "images.npz", **{key: value for key, value in content.items() if value is not None})
    labels = {key: (np.arange(count) * step % 10).astype(np.int64)
              for step, key in enumerate(("worse_label", "clean_label", "aggre_label", "random_label1"), 0)}
    np.savez(folder / "labels.npz", **labels)
    return labels


FROM_ARRAYS = ("--arrays", "images.npz", "--out", "out")


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_cifar_n_from_arrays(tmp_path, monkeypatch, capsys, suffix):
    labels = arrays(tmp_path)
    torch.save({**labels, "other": labels["clean_label"]}, tmp_path / "labels.pt")
    code, errors = run(monkeypatch, capsys, tmp_path, CIFAR, *FROM_ARRAYS, "--labels", f"labels.{suffix}", "--limit", 20)
    assert code == 0 and ("e.g. other" in errors) == (suffix == "pt")
    pictures, names = np.load(tmp_path / "images.npz"), json.loads((tmp_path / "out/classes.json").read_text())["names"]
    parts = splits_of(tmp_path / "out", ("train_clean", "train_aggre", "train_worst", "train_rand1", "test"))
    for name, key in (("clean", "clean_label"), ("aggre", "aggre_label"), ("worst", "worse_label"), ("rand1", "random_label1")):
        assert parts[f"train_{name}"].label.map(names.index).tolist() == labels[key][:20].tolist()
        assert parts[f"train_{name}"].image.tolist() == parts["train_clean"].image.tolist()
    for number, path in enumerate(parts["test"].image):
        assert np.array_equal(read_image(tmp_path / path), pictures["x_test"][number])
    assert np.array_equal(read_image(tmp_path / parts["train_clean"].image[7]), pictures["x_train"][7])
    assert names[:2] == ["airplane", "automobile"] and len(parts["test"]) == 12
    assert json.loads((tmp_path / "out/normalisation.json").read_text())["std"] == [0.2023, 0.1994, 0.2010]
    assert sorted(path.name for path in (tmp_path / "out").glob("train_*")) == sorted(f"{n}.csv" for n in parts if n != "test")


def test_cifar_100_of_torchvision(tmp_path, monkeypatch, capsys):
    """torchvision's files, with check sums of their own."""
    home = tmp_path / "data/cifar-100-python"
    home.mkdir(parents=True)
    dice = np.random.default_rng(0)
    for name, count in (("train", 100), ("test", 100)):
        content = {"data": dice.integers(0, 255, (count, 3072), dtype=np.uint8), "fine_labels": list(range(count))}
        (home / name).write_bytes(pickle.dumps(content))
    (home / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class{n}" for n in range(100)]}))
    sums = {name: hashlib.md5((home / name).read_bytes()).hexdigest() for name in ("train", "test", "meta")}
    kind = torchvision.datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(kind, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    torch.save({"clean_label": np.arange(100), "noisy_label": np.arange(100)[::-1].copy()}, tmp_path / "labels.pt")
    call = ("data", "--dataset", "cifar100", "--labels", "labels.pt", "--out", "out")
    assert run(monkeypatch, capsys, tmp_path, CIFAR, *call) == (0, "")
    parts = splits_of(tmp_path / "out", ("train_clean", "train_noisy100", "test"))
    assert parts["train_noisy100"].label[0] == "class99" and parts["train_clean"].label[3] == "class3"
    stored = pickle.loads((home / "train").read_bytes())["data"][3].reshape(3, 32, 32).transpose(1, 2, 0)
    assert np.array_equal(read_image(tmp_path / parts["train_clean"].image[3]), stored)
    assert json.loads((tmp_path / "out/normalisation.json").read_text())["mean"] == [0.5071, 0.4867, 0.4408]
    (home / "train").write_bytes(b"other")
    refused(monkeypatch, capsys, tmp_path, CIFAR, "cifar-100-python: .*corrupted", *call)


class Command:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch broken_in",)


@pytest.mark.parametrize("content", [Command(), {"clean_label": Command()},
                                     {"clean_label": np.array([Command()], dtype=object)}, {"clean_label": np.zeros(30)},
                                     {}, [np.arange(30)],
                                     {"clean_label": torch.arange(30)}, {"clean_label": np.arange(30), "more": "text"},
                                     {"clean_label": np.arange(30, dtype=np.int32)}],
                         ids=["a command", "a command in a dict", "objects", "floats", "empty", "a list", "a tensor", "a text",
                              "int32"])
def test_a_label_file_of_anything_else_is_refused(tmp_path, monkeypatch, capsys, content):
    arrays(tmp_path)
    torch.save(content, tmp_path / "labels.pt")
    refused(monkeypatch, capsys, tmp_path, CIFAR, "labels.pt: not a dict of int64 arrays alone", *FROM_ARRAYS, "--labels",
            "labels.pt")
    assert not (tmp_path / "broken_in").exists()


def renamed(path, old, new):
    """Replace bytes in the members of a zip."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name).replace(old, new) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


def test_label_files_of_old_numpy_and_old_torch_are_read(tmp_path):
    """Pickles name numpy's module of their time: numpy.core before numpy 2; files of old PyTorch are no zips."""
    path = tmp_path / "labels.pt"
    for zipped in (True, False):
        torch.save({"clean_label": np.arange(5)}, path, _use_new_zipfile_serialization=zipped)
        assert read_label_file(path)["clean_label"].tolist() == [0, 1, 2, 3, 4]
        if np.__version__ < "2":
            continue
        if zipped:
            renamed(path, b"numpy._core.multiarray", b"numpy.core.multiarray")
        else:
            path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        assert read_label_file(path)["clean_label"].tolist() == [0, 1, 2, 3, 4]


def test_a_single_array_is_refused_in_a_line(tmp_path):
    np.save(tmp_path / "labels.npy", np.arange(5))
    (tmp_path / "labels.npy").rename(tmp_path / "labels.npz")
    with pytest.raises(UserError, match="labels.npz: holds a single array; pass a .npz"):
        read_arrays(tmp_path / "labels.npz")


def relabel(folder, **changed):
    labels = arrays(folder)
    np.savez(folder / "labels.npz", **{key: each for key, each in {**labels, **changed}.items() if each is not None})


LABELS = (*FROM_ARRAYS, "--labels", "labels.npz")
BAD_CIFAR = [
    ("another order", lambda f: relabel(f, clean_label=(np.arange(30) + 1) % 10), LABELS,
     "labels.npz: its clean_label differs .* at 30 of 30 pictures, first 0: the order is another one"),
    ("two changed places", lambda f: relabel(f, clean_label=np.r_[1, 0, np.arange(2, 30) % 10]), LABELS, "at 2 of 30"),
    ("no true labels", lambda f: relabel(f, clean_label=None), LABELS, "labels.npz: has no clean_label"),
    ("too few labels", lambda f: relabel(f, worse_label=np.arange(9)), LABELS, r"labels of worst are \(9,\), there are 30"),
    ("labels out of range", lambda f: relabel(f, worse_label=np.arange(30)), LABELS, "worst holds labels 0..29, classes"),
    ("labels that are no numbers", lambda f: relabel(f, worse_label=np.array(["a"] * 30)), LABELS, "worse_label is <U1"),
    ("no label file", lambda f: (f / "labels.npz").unlink(), LABELS, "labels.npz: No such file"),
    ("no .pt", None, (*FROM_ARRAYS, "--labels", "l.pt"), "l.pt: No such file"),
    ("a .pt of text", lambda f: (f / "l.pt").write_text("hello"), (*FROM_ARRAYS, "--labels", "l.pt"), "l.pt: not a dict"),
    ("an empty .pt", lambda f: (f / "l.pt").write_text(""), (*FROM_ARRAYS, "--labels", "l.pt"), "l.pt: not a dict"),
    ("a .npz of text", lambda f: (f / "labels.npz").write_text("hello"), LABELS, "labels.npz: not a .npz of plain arrays"),
    ("half a .npz", lambda f: (f / "images.npz").write_bytes((f / "images.npz").read_bytes()[:5000]), LABELS,
     "images.npz: not a .npz of plain arrays"),
    ("objects in a .npz", lambda f: relabel(f, worse_label=np.array([{}] * 30)), LABELS, "labels.npz: not a .npz of plain"),
    ("labels of no format", None, (*FROM_ARRAYS, "--labels", "l.txt"), "l.txt: labels are read from .pt or .npz"),
    ("no pictures to test", lambda f: arrays(f, x_test=None), FROM_ARRAYS, "images.npz: has no array x_test"),
    ("pictures of floats", lambda f: arrays(f, x_test=np.zeros((12, 32, 32, 3))), FROM_ARRAYS, "x_test is float64"),
    ("labels of other pictures", lambda f: arrays(f, y_test=np.zeros(3, int)), FROM_ARRAYS, r"y_test is int64 \(3,\)"),
    ("labels of CIFAR-100", lambda f: arrays(f, y_test=np.arange(12)), FROM_ARRAYS, "y_test holds labels 0..11"),
    ("no source", None, ("--out", "out"), "one of the two"),
    ("two sources", None, (".", *FROM_ARRAYS), "one of the two"),
    ("arrays to fetch", None, (*FROM_ARRAYS, "--download"), "--download: fetches into a folder"),
    ("an empty folder", None, (".", "--out", "out"), "cifar-10-batches-py: not found"),
]


@pytest.mark.parametrize("spoil, flags, message", [case[1:] for case in BAD_CIFAR], ids=[case[0] for case in BAD_CIFAR])
def test_bad_cifar(tmp_path, monkeypatch, capsys, spoil, flags, message):
    arrays(tmp_path)
    if spoil:
        spoil(tmp_path)
    refused(monkeypatch, capsys, tmp_path, CIFAR, message, *flags)


def test_what_other_flags_made_is_kept(tmp_path, monkeypatch, capsys):
    arrays(tmp_path)
    assert run(monkeypatch, capsys, tmp_path, CIFAR, *LABELS)[0] == 0
    before, then = contents(tmp_path), times(tmp_path)
    assert run(monkeypatch, capsys, tmp_path, CIFAR, *LABELS)[0] == 0
    assert contents(tmp_path) == before and times(tmp_path) == then
    refused(monkeypatch, capsys, tmp_path, CIFAR, "was made with other flags", *LABELS, "--limit", 3)


@pytest.mark.slow
def test_the_published_labels(real_datasets, tmp_path, monkeypatch, capsys):
    """The part of CIFAR-10N that lies beside the project: shares of wrong labels, and people's confusions.

    Of its pictures the last one is written: thousands of files take longer to write and to remove than all else here.
    """
    folder = real_datasets / "cifar10n"
    if not folder.is_dir():
        pytest.skip(f"no labels of people at {folder}")
    real = class_sets.write_class_set

    def with_the_last_picture(out, names, splits, overwrite, pictures, facts):
        assert len({path for path, _ in pictures}) == len(splits["train_clean"]) + len(splits["test"]) > 8000
        real(out, names, splits, overwrite, [each for each in pictures if each[0].name == "07999.png"], facts)

    monkeypatch.setattr(class_sets, "write_class_set", with_the_last_picture)
    flags = ("--arrays", folder / "images.npz", "--labels", folder / "labels.npz", "--out", "out")
    assert run(monkeypatch, capsys, tmp_path, CIFAR, *flags) == (0, "")
    parts = splits_of(tmp_path / "out", [f"train_{kind}" for kind in KINDS])
    clean = parts["train_clean"].label
    wrong = {kind: (parts[f"train_{kind}"].label != clean).mean() for kind in KINDS}
    labels = np.load(folder / "labels.npz")
    assert wrong == {kind: (labels[key] != labels["clean_label"]).mean() for kind, key in KINDS.items()}
    assert abs(wrong["aggre"] - 0.089) < 6e-4 and abs(wrong["worst"] - 0.400) < 6e-4  # 8.9 and 40.0 %, rounded
    names = json.loads((tmp_path / "out/classes.json").read_text())["names"]
    found = 100 * pd.crosstab(clean, parts["train_worst"].label, normalize="index").loc[names, names].to_numpy()
    assert np.abs(found - CIFAR10N_WORST).max() < 5  # about 800 pictures a class
    stored = np.load(folder / "images.npz")
    assert np.array_equal(read_image(tmp_path / parts["train_worst"].image[7999]), stored["x_train"][7999])
    assert names[stored["y_train"][7999]] == clean[7999]
