"""Pictures and masks: what is read, written, resized and turned."""

import struct
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cli.files import UserError
from data.pictures import (
    check_image,
    image_size,
    read_checked_mask,
    read_image,
    read_mask,
    resize_labels,
    write_image,
    write_mask,
)
from data.rows import check_rows
from utils.scoring import score_pairs


def test_binary_masks_are_above_127_and_label_maps_keep_their_1(tmp_path):
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png").tolist() == [[0, 0, 1, 1]]
    Image.fromarray(np.array([[0, 1, 255]], np.uint8)).save(tmp_path / "labels.png")
    assert read_mask(tmp_path / "labels.png").tolist() == [[0, 1, 255]]
    palette = Image.fromarray(np.array([[0, 3, 255]], np.uint8), mode="P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.save(tmp_path / "palette.png")
    assert read_mask(tmp_path / "palette.png", 5).tolist() == [[0, 3, 255]]
    Image.fromarray(np.full((2, 2, 3), 255, np.uint8)).save(tmp_path / "rgb.png")
    assert read_mask(tmp_path / "rgb.png").tolist() == [[1, 1], [1, 1]]


def save(path, values, mode=None, palette=None, **options):
    picture = Image.fromarray(np.asarray(values), mode)
    if palette:
        picture.putpalette(palette)
    picture.save(path, **options)
    return path


HALVES, WHITE, BLACK, RED = np.array([[0, 1, 1]], np.uint8), [255] * 3, [0] * 3, [200, 0, 0]


@pytest.mark.parametrize("values, mode, palette, expected", [
    (HALVES, "P", WHITE + BLACK, [1, 0, 0]), (HALVES, "P", BLACK + WHITE, [0, 1, 1]), (HALVES, "P", WHITE + RED, [0, 1, 1]),
    (HALVES, "P", BLACK + RED, [0, 1, 1]), (HALVES, "P", BLACK + BLACK, [0, 1, 1]), (HALVES * 0, "P", WHITE, [1, 1, 1]),
    (HALVES * 255, "P", None, [0, 1, 1]), (HALVES * 255, "P", BLACK + RED * 255, [0, 255, 255]),
    (np.dstack([HALVES * 0] * 3 + [HALVES * 255]), None, None, [0, 1, 1]),
    (np.dstack([HALVES * 255] * 4), None, None, [0, 1, 1]),
    (np.dstack([HALVES * 200, HALVES * 0, HALVES * 0]), None, None, [0, 1, 1]),
    (HALVES > 0, None, None, [0, 1, 1])])
def test_binary_masks_are_read_by_what_they_show(tmp_path, values, mode, palette, expected):
    assert read_checked_mask(save(tmp_path / "m.png", values, mode, palette)).tolist() == [expected]


def test_class_numbers_of_few_bits_are_not_spread(tmp_path):
    for bits in (2, 4):
        row = bytes([0, 0b00_01_10_11 if bits == 2 else 0x12, 0x3f])[:bits // 2 + 1]
        (tmp_path / "m.png").write_bytes(png(4, 1, bits, row))
        assert read_mask(tmp_path / "m.png", 200).tolist() == [[0, 1, 2, 3] if bits == 2 else [1, 2, 3, 15]]


def png(width, height, bits, rows):
    """A grey PNG from its filtered rows."""
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("labels", [[[0, 255, 0]], [[255, 255, 255]], [[0, 0, 0]], [[1, 1, 1]], [[1, 255, 1]]])
def test_binary_masks_with_ignored_pixels_survive_writing(tmp_path, labels):
    write_mask(tmp_path / "m.png", np.array(labels, np.uint8))
    assert read_checked_mask(tmp_path / "m.png").tolist() == read_mask(tmp_path / "m.png").tolist() == labels
    write_mask(tmp_path / "again.png", read_mask(tmp_path / "m.png"))
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "m.png").read_bytes()


def test_masks_are_not_written_where_values_change(tmp_path):
    for name in ("m.jpg", "m.webp", "m.bmp"):
        with pytest.raises(UserError, match="written as .png"):
            write_mask(tmp_path / name, np.array([[0, 255]], np.uint8))
    assert not list(tmp_path.iterdir())


def test_black_and_white_masks_are_no_class_numbers(tmp_path):
    """In a CSV, and where weights are scored; one file with class 0 and ignored pixels alone is legal."""
    for number, labels in enumerate(([[0, 255]], [[0, 255]], [[0, 1]])):
        write_image(tmp_path / f"{number}.png", np.array(labels, np.uint8).repeat(4, 0).repeat(4, 1))
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    rows = pd.DataFrame({"image": paths, "mask": paths}, index=[2, 3, 4])
    check_rows("x.csv", rows, 3)
    assert score_pairs(paths, paths, 3, "miou", 2).tolist() == [1, 1, 1]
    for workers in (0, 1):
        with pytest.raises(UserError, match="0 and 255 alone, no class number in 1..2"):
            score_pairs(paths[:2], paths[:2], 3, "miou", 2, workers=workers)
    with pytest.raises(UserError, match="x.csv: the masks hold 0 and 255 alone"):
        check_rows("x.csv", rows[:2], 3)
    check_rows("x.csv", rows[:2], 2)


def test_a_pseudo_label_of_another_shape_is_not_scored(tmp_path):
    for name, shape in (("a", (20, 30)), ("b", (40, 61)), ("c", (30, 30))):
        write_mask(tmp_path / f"{name}.png", np.ones(shape, np.uint8))
    a, b, c = (str(tmp_path / f"{name}.png") for name in "abc")
    assert score_pairs([a], [b], 2, "bm", 2).tolist() == [1]
    with pytest.raises(UserError, match="c.png is 30 x 30 px, .*a.png 20 x 30: another shape"):
        score_pairs([a], [c], 2, "bm", 2)


@pytest.mark.parametrize("num_classes, labels", [(2, [[0, 1, 1]]), (2, [[0, 1, 255]]), (5, [[0, 4, 255]])])
def test_masks_survive_writing(tmp_path, num_classes, labels):
    write_mask(tmp_path / "m.png", np.array(labels, np.uint8), num_classes)
    assert read_mask(tmp_path / "m.png", num_classes).tolist() == labels


def test_labels_are_resized_by_the_nearest_centre_and_never_mixed():
    labels = np.array([[0, 0, 7, 7, 7, 3]], np.uint8)
    assert resize_labels(labels, (1, 2)).tolist() == [[0, 7]]  # centres at 1.5 - .5 and 4.5 - .5
    big = np.kron(np.array([[0, 5], [9, 2]], np.uint8), np.ones((37, 41), np.uint8))
    assert set(np.unique(resize_labels(big, (20, 33)))) == {0, 2, 5, 9}


def test_mask_and_image_stay_aligned_when_resized():
    """A disc's centre of mass, in image and mask, lies at the same place after resizing to an odd size."""
    image, mask = np.zeros((400, 264, 3), np.uint8), np.zeros((400, 264), np.uint8)
    cv2.circle(image, (90, 250), 60, (255, 255, 255), -1)
    cv2.circle(mask, (90, 250), 60, 1, -1)
    from data.pictures import resize_image

    small, labels = resize_image(image, (97, 113))[:, :, 0] / 255.0, resize_labels(mask, (97, 113))
    for weights in (small, labels):
        centre = np.array([np.average(axis, weights=weights) for axis in np.mgrid[:97, :113]])
        np.testing.assert_allclose((centre + 0.5) / (97, 113), (250.5 / 400, 90.5 / 264), atol=0.002)


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6  # rotated by 90 degrees
    picture.save(tmp_path / "r.jpg", exif=exif)
    assert read_image(tmp_path / "r.jpg").shape == (20, 10, 3)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied_once(tmp_path, suffix, orientation):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (10, 20, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"r.{suffix}", exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's numbers of transpositions
    upright = picture.transpose(Image.Transpose(turn[orientation])) if orientation > 1 else picture
    assert np.array_equal(read_image(tmp_path / f"r.{suffix}"), np.array(upright))
    assert image_size(tmp_path / f"r.{suffix}") == check_image(tmp_path / f"r.{suffix}") == upright.size[::-1]


def test_pictures_of_16_bits_keep_their_upper_8(tmp_path):
    values = np.random.default_rng(0).integers(0, 65_536, (6, 5, 3), dtype=np.uint16)
    for suffix in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"x.{suffix}"), values)
        assert np.array_equal(read_image(tmp_path / f"x.{suffix}"), values[:, :, ::-1] >> 8)
