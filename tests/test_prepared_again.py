"""A prepare script that is called again: the same data set is left alone, a corrected source is told."""

import json
import os

import numpy as np
import pytest

from cli.files import write_json
from data.pictures import read_mask
from data.rows import read_rows
from tests.conftest import run_script
from tests.test_prepare import full, image, labels, supervisely_tree


@pytest.fixture(params=["camvid", "supervisely"])
def prepared(request, tmp_path):
    """(words of the call, a source, function that corrects it, out)."""
    root, out = tmp_path / "source", tmp_path / "out"
    if request.param == "supervisely":
        supervisely_tree(root, [])
        source = root / "ds1" / "ann" / "1.png.json"
        corner = {"classTitle": "person", "points": {"exterior": [[0, 0], [9, 0], [9, 9], [0, 9]], "interior": []}}

        def correct():
            write_json(source, {**json.loads(source.read_text()), "objects": [corner]})
    else:
        for split in ("train", "val", "test"):
            image(root / split / "a.png")
            labels(root / f"{split}annot" / "a.png", full(8))
        source = root / "trainannot" / "a.png"

        def correct():
            labels(source, full(3))
    words = [f"data/prepare_{request.param}.py", root, "--out", out]
    run_script(*words)
    return words, source, correct, out


@pytest.mark.parametrize("stops", ["masks", "truth"])
def test_a_replacement_that_was_stopped_must_be_ended(prepared, stops):
    """Files of both calls lie in the folder then; a truth of an earlier call would be read beside the new masks."""
    words, source, correct, out = prepared
    kept = source.read_bytes()
    if stops == "masks":
        source.write_bytes(b"neither a picture nor an annotation")
    else:
        (out / "train_truth.csv").write_text("img,filename\n")
    done = run_script(*words, "--overwrite", check=False)
    assert done.returncode == 2 and ("train_truth.csv: is of an earlier call" in done.stderr) == (stops == "truth"), done.stderr
    source.write_bytes(kept)
    (out / "train_truth.csv").unlink(missing_ok=True)
    done = run_script(*words, check=False)
    assert done.returncode == 2 and "a call that replaced its files was stopped" in done.stderr
    run_script(*words, "--overwrite")
    run_script(*words)


def content(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def later(path):
    os.utime(path, ns=(os.stat(path).st_mtime_ns + 10**10,) * 2)


def test_a_copy_of_the_source_that_is_newer_changes_nothing(prepared):
    words, source, _, out = prepared
    before = content(out)
    later(source)
    run_script(*words)
    assert content(out) == before


def test_a_corrected_source_is_told_and_overwrite_takes_it(prepared):
    words, source, correct, out = prepared
    before = content(out)
    correct()
    later(source)
    done = run_script(*words, check=False)
    assert done.returncode == 2 and f"{source}: has changed since" in done.stderr and "pass --overwrite" in done.stderr
    assert content(out) == before
    run_script(*words, "--overwrite")
    masks = [mask for name in ("train", "valid", "test") for mask in read_rows(out / f"{name}.csv")["mask"]]
    assert sum(not np.array_equal(np.frombuffer(before[path], np.uint8), np.fromfile(path, np.uint8))
               for path in before if str(path) in masks) == 1
    classes = 2 if "supervisely" in words[0] else 11
    assert {int(read_mask(mask, classes)[0, 0]) for mask in masks} == ({0, 1} if classes == 2 else {3, 8})
