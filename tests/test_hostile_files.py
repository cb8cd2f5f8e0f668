"""Files made to do harm: arbitrary text and bytes, headers that claim giant sizes, paths out of the folder, code."""

import base64
import json
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cli.files import UserError, read_json, write_json
from data.legend import read_legend
from data.pictures import decode_mask, read_checked_mask, read_image, read_mask, write_image, write_mask
from data.prepare_supervisely import draw_annotation
from data.rows import check_rows, pseudo_label_names, read_header, read_rows
from reports.page import report_page
from tests.album import bomb
from tests.script_calls import run
from utils.add_noise import KINDS, add_noise
from utils.agreement import METRICS
from utils.agreement_cpu import agreement

FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# --- arbitrary content ------------------------------------------------------------------------------------------

FIELDS = st.one_of(st.sampled_from(["a.png", "b.png", "img", "weight", "iterations", "0.5", "nan", "-1", "1e999", "", '"',
                                    "../a.png", "\ufeff", "\x00", "~", "NA", "\u2028", "a\nb"]), st.text(max_size=12))
TABLES = st.lists(st.lists(FIELDS, max_size=5).map(",".join), max_size=6).map("\n".join)


@FUZZ
@given(text=st.one_of(TABLES, st.text(max_size=200)))
@example("img,filename,weight\na.png,b.png,0.5\n")
@example("img,filename,weight,weight\na.png,b.png,0.5,0.5\n")
@example("img,filename,iterations\na.png,b.png,1e400\n")
def test_no_csv_raises_anything_but_a_user_error(tmp_path, text):
    for name in ("a.png", "b.png"):
        if not (tmp_path / name).exists():
            write_image(tmp_path / name, np.zeros((2, 2), np.uint8))
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        rows = read_rows(tmp_path / "x.csv")
    except UserError as error:
        assert "x.csv" in str(error)
        return
    assert len(rows) and rows["image"].map(lambda path: path.endswith(".png")).all()
    if "weight" in rows:
        assert rows["weight"].between(0, 1).all()
    if "iterations" in rows:
        assert (rows["iterations"] >= 0).all()


@FUZZ
@given(content=st.binary(max_size=300))
def test_no_bytes_are_read_as_a_csv_by_accident(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    try:
        read_header(tmp_path / "x.csv")
    except UserError:
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Bytes of a PNG, a JPEG and a GIF."""
    folder, dice = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    found = {}
    for suffix in ("png", "jpg", "gif"):
        from PIL import Image

        path = folder / f"x.{suffix}"
        Image.fromarray(dice.integers(0, 255, (20, 30), dtype=np.uint8)).save(path)
        found[suffix] = path.read_bytes()
    return found


@FUZZ
@given(suffix=st.sampled_from(["png", "jpg", "gif"]), end=st.integers(0, 2000),
       edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8))
def test_no_damage_to_a_picture_raises_anything_but_a_user_error(tmp_path, pictures, suffix, edits, end):
    content = bytearray(pictures[suffix][:end])
    for position, value in edits:
        if content:
            content[position % len(content)] = value
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(bytes(content))
    for read in (read_image, read_mask, lambda path: read_checked_mask(path, 5)):
        try:
            read(path)
        except UserError as error:
            assert str(path) in str(error)
    try:
        check_rows("x.csv", pd.DataFrame({"image": [str(path)], "mask": [str(path)]}), 2)
    except UserError as error:
        assert "x.csv: 1 fault" in str(error)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LABELS = arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 2, 3, 127, 128, 254, 255]))


@FUZZ
@given(labels=LABELS, num_classes=st.sampled_from([2, 3, 4, 255]))
def test_label_maps_are_read_refused_and_written_without_surprise(tmp_path, labels, num_classes):
    path = tmp_path / "x.png"
    write_image(path, labels)
    try:
        found = read_checked_mask(path, num_classes)
    except UserError:
        assert num_classes == 2 or ((labels >= num_classes) & (labels < 255)).any()
        return
    assert ((found < num_classes) | (found == 255)).all()
    write_mask(path, found, num_classes)
    again = read_mask(path, num_classes)
    assert np.array_equal(again, found)
    if num_classes == 2:
        values, are_labels = decode_mask(path, 2)
        assert are_labels or (values == 1).any() or not (found == 255).any()  # with ignored pixels it never looks like 0/255


@FUZZ
@given(maps=SHAPES.flatmap(lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255]))] * 2)),
       metric=st.sampled_from(METRICS), theta=st.sampled_from([0.001, 0.5, 1, 3, 20]), kind=st.sampled_from(sorted(KINDS)),
       level=st.integers(0, 12), background=st.sampled_from([0, None]))
def test_label_maps_are_scored_and_made_coarse_without_surprise(maps, metric, theta, kind, level, background):
    score = agreement(*maps, 3, metric, theta)
    assert 0 <= score <= 1 and agreement(maps[0], maps[0], 3, metric, theta) == 1
    noisy = add_noise(maps[0], level, np.random.default_rng(0), kind, background)
    assert noisy.shape == maps[0].shape and noisy.dtype == np.uint8
    assert set(np.unique(noisy)) <= {*np.unique(maps[0]), 0 if background == 0 else maps[0][0, 0]}
    assert np.array_equal(noisy == 255, maps[0] == 255)


# --- giants -----------------------------------------------------------------------------------------------------


def annotation(folder, bitmap, size=(20, 30)):
    path = folder / "x.json"
    path.write_text(json.dumps({"size": dict(zip(("height", "width"), size)),
                                "objects": [{"classTitle": "person", "bitmap": bitmap}]}))
    return path


@pytest.mark.parametrize("claim, message", [
    ("zlib", "a bitmap of more than"), ("png", "too many pixels"), ("size", "a picture of 200000 x 200000 px"),
    ("picture", r"more than \d+ px; cut it"), ("mask", "cannot be decoded as a mask .*exceeds limit")])
def test_bombs_are_refused_before_they_fill_the_memory(tmp_path, claim, message):
    origin = {"origin": [0, 0]}
    tracemalloc.start()
    with pytest.raises(UserError, match=message):
        if claim == "zlib":  # 1 GiB of zeros in 1 MB
            packer = zlib.compressobj()
            data = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(1024)), packer.flush()])
            draw_annotation(annotation(tmp_path, {"data": base64.b64encode(data).decode(), **origin}), [], [])
        elif claim == "png":
            data = base64.b64encode(zlib.compress(bomb(20_000, 20_000))).decode()
            draw_annotation(annotation(tmp_path, {"data": data, **origin}), [], [])
        elif claim == "size":
            draw_annotation(annotation(tmp_path, None, (200_000, 200_000)), [], [])
        else:
            (tmp_path / "x.png").write_bytes(bomb(20_000, 20_000))
            (read_image if claim == "picture" else read_mask)(tmp_path / "x.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 << 20


# --- paths and text ---------------------------------------------------------------------------------------------


@FUZZ
@given(paths=st.lists(st.one_of(st.text(st.characters(exclude_characters="\x00"), min_size=1, max_size=20),
                                st.sampled_from(["../../etc/passwd", "/etc/passwd", "..", ".", "a/../..", "...png"])),
                      min_size=1, max_size=5))
def test_pseudo_labels_never_leave_their_folder(paths):
    for name in pseudo_label_names(pd.DataFrame({"image": paths})):
        assert "/" not in name and name not in ("", ".", "..")


PLACES = st.builds("{}/{}{}".format, st.sampled_from(["a", "b", "a__b", "a/b", "b__a", "a.jpg"]),
                   st.sampled_from(["1", "b__1", "a__b__1", "1.jpg", "1.png"]), st.sampled_from(["", ".jpg", ".png", ".tif"]))


@FUZZ
@given(paths=st.lists(PLACES, min_size=1, max_size=6))
def test_different_images_never_share_a_pseudo_label(paths):
    names = pseudo_label_names(pd.DataFrame({"image": paths}))
    assert len(set(names)) == len(set(zip(paths, names))) == len(set(paths))


@pytest.mark.parametrize("name", ["../../outside", "/outside", "a/b"])
@pytest.mark.parametrize("script, listed", [("prepare_oxford_pet.py", "oxford-iiit-pet/annotations/trainval.txt"),
                                            ("prepare_voc.py", "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt")])
def test_lists_of_a_data_set_cannot_name_files_elsewhere(tmp_path, monkeypatch, capsys, script, listed, name):
    path = tmp_path / "set" / listed
    for folder in ("images", "annotations/trimaps", "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "set" / "/".join(listed.split("/")[:2 if "VOC" in listed else 1]) / folder).mkdir(parents=True)
    for other in ("trainval", "test", "train", "val"):
        (path.parent / f"{other}.txt").write_text("fine\n")
    path.write_text(f"fine\n{name}\n")
    code, errors = run(monkeypatch, capsys, tmp_path, f"data/{script}", "set", "--out", "out")
    assert code == 2 and repr(name) in errors and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content, message", [
    ("[1, 2]", "key `names` is missing"), ('{"names": 5}', "list of texts"), ('{"names": [1, 2]}', "list of texts"),
    ('{"names": ["a", "b"], "colours": 5}', "must be a list"),
    ('{"names": ["a", "b"], "colours": [[1, 2, 3], "red"]}', "0..255 each"), ("[" * 100_000, "not a JSON file"),
    ('{"names": ["a", "b"], "colours": [[1, 2, 3], [1, 2, 900]]}', "0..255 each"), ("{", "not a JSON file")])
def test_legends_of_the_wrong_kind(tmp_path, content, message):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_legend(tmp_path / "classes.json", 2)


def test_results_of_the_wrong_kind(tmp_path, monkeypatch, capsys):
    write_json(tmp_path / "run" / "result.json", {"args": {}})
    code, errors = run(monkeypatch, capsys, tmp_path, "report.py", "run", "--out", "report")
    assert code == 2 and "run/result.json: the key `" in errors and not (tmp_path / "report").exists()
    code, errors = run(monkeypatch, capsys, tmp_path, "report.py", "--json", "run/result.json")
    assert code == 2 and "key `classes` is missing" in errors
    with pytest.raises(UserError, match="key `b` is missing"):
        read_json(tmp_path / "run" / "result.json", "args", "b")


def test_names_are_text_in_a_page():
    evil = "<script>alert(1)</script>"
    page = report_page(evil, f"| {evil} |\n|---|\n| {evil} |\n\n{evil}", {})
    assert "<script>" not in page and "&lt;script&gt;" in page
