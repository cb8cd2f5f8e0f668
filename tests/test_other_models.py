"""Masks of any model as the teacher, however their files are named; and images without masks to predict."""

import numpy as np
import pandas as pd
import pytest

from cli.files import UserError, read_json, write_rows
from data.pictures import write_image, write_mask
from data.rows import pseudo_label_paths, read_rows
from predict import listed_images
from tests.conftest import run_script

STEMS = ("photo1", "photo12", "b[1]")


@pytest.fixture
def album(tmp_path):
    """Folder of photos/, masks/ and train.csv; three images with one square each."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    rows = []
    for stem in STEMS:
        write_image(tmp_path / "photos" / f"{stem}.jpg", np.full((32, 32, 3), 90, np.uint8))
        write_mask(tmp_path / "masks" / f"{stem}.png", mask)
        rows.append((str(tmp_path / "photos" / f"{stem}.jpg"), str(tmp_path / "masks" / f"{stem}.png")))
    write_rows(tmp_path / "train.csv", pd.DataFrame(rows, columns=["image", "mask"]))
    return tmp_path


def put(folder, *names):
    for name in names:
        write_mask(folder / name, np.eye(32, dtype=np.uint8))


@pytest.mark.parametrize("pattern, names", [
    ("{stem}.png", ["photo1.png", "photo12.png", "b[1].png"]),
    ("{stem}_mask.png", ["photo1_mask.png", "photo12_mask.png", "b[1]_mask.png"]),
    ("{stem}_*.png", ["photo1_3.png", "photo12_x.png", "b[1]_.png"]),
    ("{stem}.*", ["photo1.bmp", "photo12.tif", "b[1].png"]),
    ("sam_{stem}.t?f", ["sam_photo1.tif", "sam_photo12.tif", "sam_b[1].tif"]),
    ("*_{stem}.png", ["x_photo1.png", "y_photo12.png", "z_b[1].png"]),
])
def test_each_image_finds_its_mask(album, pattern, names):
    put(album / "sam", *names)
    (album / "sam" / "photo1.txt").touch()
    rows, expected = read_rows(album / "train.csv"), [str(album / "sam" / name) for name in names]
    assert pseudo_label_paths(rows, str(album / "sam"), pattern=pattern) == expected
    assert pseudo_label_paths(rows, str(album / "sam" / pattern)) == expected
    assert pseudo_label_paths(rows, str(album / "sam"), slice(1, None), pattern) == expected[1:]


@pytest.mark.parametrize("pattern, message", [
    ("{stem}_mask.png", "3 of 3 pseudo-labels are missing, first {sam}/photo1_mask.png; files are looked for by the pattern"),
    ("{stem}_*.jpg", "3 of 3 pseudo-labels are missing, first {sam}/photo1_*.jpg"),
    ("{stem}.png", "1 of 3 pseudo-labels are missing, first {sam}/b[1].png; write them with predict.py"),
    ("{stem}*.png", "1 of 3 pseudo-labels are missing, first {sam}/b[1]*.png"),
    ("photo*.png", "--pred-name photo*.png: {stem} is needed in it"),
])
def test_a_missing_mask_is_named_with_the_pattern(album, pattern, message):
    put(album / "sam", "photo1.png", "photo12.png")
    with pytest.raises(UserError) as error:
        pseudo_label_paths(read_rows(album / "train.csv"), str(album / "sam"), pattern=pattern)
    assert message.replace("{sam}", str(album / "sam")) in str(error.value)


def test_two_masks_of_an_image_are_refused(album):
    put(album / "sam", "photo1.png", "photo12.png", "b[1].png")
    with pytest.raises(UserError, match=r"2 files match photo1\*.png, photo1.png and photo12.png among them"):
        pseudo_label_paths(read_rows(album / "train.csv"), str(album / "sam"), pattern="{stem}*.png")
    (album / "sam" / "photo1.png").unlink()  # then the pattern finds the mask of photo12 for both
    with pytest.raises(UserError, match=r"sam/photo12.png: matches the images .*photo1.jpg and .*photo12.jpg"):
        pseudo_label_paths(read_rows(album / "train.csv"), str(album / "sam"), pattern="{stem}*.png")
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        pseudo_label_paths(read_rows(album / "train.csv"), str(album / "nowhere"), pattern="{stem}*.png")


def test_weights_by_another_models_masks(album):
    put(album / "sam", *(f"{stem}_mask.png" for stem in STEMS))
    command = ["utils/get_weight.py", "--csv", album / "train.csv", "--pred-dir", album / "sam", "--out", album / "w.csv"]
    lost = run_script(*command, check=False)
    assert lost.returncode == 2 and "name those of another model with --pred-name" in lost.stderr
    assert not (album / "w.csv").exists()
    run_script(*command, "--pred-name", "{stem}_mask.png")
    assert read_json(album / "w.json")["pred_name"] == "{stem}_mask.png" and len(read_rows(album / "w.csv", True)) == 3


def test_images_are_listed_from_files_and_folders(album):
    for name in ("notes.txt", "._0.jpg"):  # the latter is left by a Mac
        (album / "photos" / name).touch()
    photos = [str(album / "photos" / f"{stem}.jpg") for stem in STEMS]
    assert listed_images([str(album / "photos")]) == sorted(photos)
    assert listed_images([photos[1], photos[0]]) == [photos[1], photos[0]]
    for path, message in (("nowhere", "no such file or folder"), (str(album / "train.csv"), "no images")):
        with pytest.raises(UserError, match=message):
            listed_images([path])


@pytest.mark.parametrize("flags", [[], ["--csv", "train.csv", "--images", "photos"]])
def test_one_of_csv_and_images_is_needed(album, flags):
    done = run_script("predict.py", "--checkpoint", "x.ckpt", "--out-dir", album / "out", *flags, check=False)
    assert done.returncode == 2 and "pass either --csv or --images" in done.stderr and not (album / "out").exists()
