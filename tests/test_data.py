"""CSVs in every published form, faults told in one report, masks that are never blurred."""

import struct
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cli.files import UserError, atomic_path, write_rows
from data.dataset import SegmentationDataset
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
from data.rows import check_rows, pseudo_label_names, read_rows
from data.splits import pair_folder, split_rows
from data.transforms import normalised
from utils.scoring import score_pairs


@pytest.fixture
def pictures(tmp_path):
    """Five images and masks, sizes unlike each other: a/0.png ..., a/m0.png ..."""
    rng = np.random.default_rng(0)
    for i in range(5):
        write_image(tmp_path / "a" / f"{i}.png", rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
        write_mask(tmp_path / "a" / f"m{i}.png", rng.integers(0, 2, (20, 15), dtype=np.uint8))
    return tmp_path


def rows_of(folder, header, *lines):
    (folder / "rows.csv").write_text("\n".join([header, *lines]) + "\n")
    return read_rows(folder / "rows.csv")


@pytest.mark.parametrize("header, third, column", [
    ("img,filename,iterations", "7", "iterations"), ("img,filename,weight", "0.25", "weight"), (",0", None, None)])
def test_published_headers(pictures, header, third, column):
    lines = [f"a/{i}.png,a/m{i}.png" + (f",{third}" if third else "") for i in range(5)]
    rows = rows_of(pictures, header, *lines)
    assert rows["image"].tolist() == [str(pictures / f"a/{i}.png") for i in range(5)]  # relative to the CSV's folder
    assert list(rows.columns) == ["image", "mask"] + [column] * bool(column)
    if column:
        assert (rows[column] == float(third)).all()


def test_paths_relative_to_the_working_directory_come_first(pictures, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cwd")
    write_image(elsewhere / "a" / "0.png", np.zeros((4, 4, 3), np.uint8))
    monkeypatch.chdir(elsewhere)
    rows = rows_of(pictures, "img,filename", "a/0.png,a/m0.png")
    assert rows["image"][2] == "a/0.png" and rows["mask"][2] == str(pictures / "a/m0.png")


def test_iterations_are_never_taken_for_weights(pictures):
    rows_of(pictures, "img,filename,iterations", "a/0.png,a/m0.png,7")
    with pytest.raises(UserError, match="`weight`, found `iterations`"):
        read_rows(pictures / "rows.csv", needs_weights=True)


def test_all_faults_in_one_report_with_row_numbers(pictures):
    with pytest.raises(UserError) as caught:
        rows_of(pictures, "img,filename,weight", "a/0.png,a/m0.png,nan", "a/1.png,a/m1.png,1.5", "a/none.png,a/m2.png,0.5",
                "a/3.png,a/m3.png,0", "a/4.png,a/m4.png,x")
    message = str(caught.value)
    assert "4 faults" in message and "row 5" not in message  # a weight of exactly 0 is legal
    for part in ("row 2: weight 'nan'", "row 3: weight '1.5'", "row 4: image", "row 6: weight 'x'"):
        assert part in message


def test_ten_faults_are_shown(pictures):
    with pytest.raises(UserError, match="(?s)12 faults.*and 2 more") as caught:
        rows_of(pictures, "img,filename", *[f"a/0.png,no{i}.png" for i in range(12)])
    assert str(caught.value).count("row ") == 10


@pytest.mark.parametrize("text, message", [
    ("", "not a readable CSV"), ("img,filename\n", "no rows"), ("img\na.png\n", "two columns"),
    ("a/0.png,a/m0.png\na/1.png,a/m1.png\n", "not a header")])
def test_unusable_csvs(pictures, text, message):
    (pictures / "bad.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rows(pictures / "bad.csv")


def test_files_are_opened_before_training(pictures):
    (pictures / "a" / "1.png").write_text("not a picture")
    (pictures / "a" / "m2.png").write_bytes((pictures / "a" / "m2.png").read_bytes()[:60])
    Image.fromarray(np.full((5, 5), 4, np.uint8)).save(pictures / "a" / "m3.png")
    rows = rows_of(pictures, "img,filename", *[f"a/{i}.png,a/m{i}.png" for i in range(5)])
    with pytest.raises(UserError) as caught:
        check_rows("rows.csv", rows, num_classes=4)
    message = str(caught.value)
    assert "3 faults" in message
    assert "row 3" in message and "row 4" in message and "row 5: mask" in message and "holds [4]" in message


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


def test_file_names_that_are_no_text_are_refused_in_a_csv(tmp_path):
    with pytest.raises(UserError, match="not UTF-8"):
        write_rows(tmp_path / "x.csv", pd.DataFrame({"image": ["\udcff.jpg"], "mask": ["m.png"]}))
    assert not list(tmp_path.iterdir())


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


def test_dataset_items(pictures):
    rows = rows_of(pictures, "img,filename,weight", "a/0.png,a/m0.png,0.25", "a/1.png,a/m1.png,1")
    plain = SegmentationDataset(rows, (24, 18), 2).__getitems__([1, 0])
    assert plain["image"].shape == (2, 3, 24, 18) and plain["mask"].shape == (2, 24, 18)
    assert plain["image"].dtype == plain["mask"].dtype == torch.uint8 and set(plain["mask"].unique().tolist()) <= {0, 1}
    assert plain["image"].is_contiguous(memory_format=torch.channels_last)
    assert plain["weight"].tolist() == [1, 0.25] and plain["index"].tolist() == [1, 0]
    cached = SegmentationDataset(rows, (24, 18), 2, cache=True).__getitems__([1, 0])
    assert all(torch.equal(plain[key], cached[key]) for key in plain)
    # normalised as ImageNet's encoders want it: red (255, 0, 0)
    write_image(pictures / "a" / "0.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    red = normalised(SegmentationDataset(rows, (4, 4), 2).__getitems__([0])["image"])
    assert red.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(red[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]))


def test_augmentation_moves_image_and_mask_together(tmp_path):
    """Mask = where the picture is bright: still so after augmenting, up to the interpolated rim."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:40, 5:30] = 255
    write_image(tmp_path / "i.png", image)
    write_mask(tmp_path / "m.png", (image[:, :, 0] > 0).astype(np.uint8))
    rows = rows_of(tmp_path, "img,filename", "i.png,m.png", "i.png,m.png")
    dataset = SegmentationDataset(rows, (64, 64), 2, augment=True)
    one, other = dataset.__getitems__([0, 1])["image"]
    assert not torch.equal(one, other)  # each sample has random numbers of its own
    flipped = 0
    for dataset.epoch in range(12):
        batch = dataset.__getitems__([0])
        mask, bright = batch["mask"][0], batch["image"][0].float().mean(0)
        bright = bright > (bright.max() + bright[mask != 255].min()) / 2
        assert set(mask.unique().tolist()) <= {0, 1, 255}
        assert (bright == (mask == 1))[mask != 255].float().mean() > 0.97
        flipped += (mask == 1).nonzero()[:, 1].float().mean() > 32
    assert 0 < flipped < 12


def test_pseudo_label_names_tell_all_images_apart(pictures):
    assert pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "y/2.png"]})) == ["1.png", "2.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "y/1.png", "y/2.png", "x/1.jpg"]}))
    assert names == ["x__1.png", "y__1.png", "y__2.png", "x__1.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "x/1.png", "x/2.png", "./x/1.jpg"]}))
    assert names == ["1.jpg.png", "1.png.png", "2.png", "1.jpg.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "x/1.png", "x/1.jpg.jpg"]}))
    assert len(set(names)) == 3


def test_written_rows_are_read_again(pictures, monkeypatch, tmp_path_factory):
    rows = rows_of(pictures, "img,filename,weight", "a/0.png,a/m0.png,0.125", "a/1.png,a/m1.png,0.3333333333333333")
    write_rows(pictures / "deep" / "out.csv", rows, "weight")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    again = read_rows(pictures / "deep" / "out.csv")
    assert again.equals(rows)


def test_a_broken_write_leaves_nothing_and_keeps_the_old(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file.txt"]


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


def test_folder_is_paired_by_stem_and_split_without_overlap(pictures, tmp_path, capsys):
    for name in ("images/b.JPG", "images/a.png", "images/c.jpeg", "images/alone.png"):
        write_image(tmp_path / name, np.zeros((4, 4, 3), np.uint8))
    for name in ("a", "b", "c"):
        write_mask(tmp_path / "masks" / f"{name}.png", np.zeros((8, 8), np.uint8))
    rows = pair_folder(tmp_path)
    assert [p.rsplit("/", 1)[1] for p in rows["image"]] == ["a.png", "b.JPG", "c.jpeg"]
    assert "1 files have no mask" in capsys.readouterr().err
    rows = rows.loc[np.arange(60) % 3].reset_index(drop=True).assign(image=[f"{i}.png" for i in range(60)])
    parts, same, other = (split_rows(rows, 0.1, 0.2, seed) for seed in (1, 1, 2))
    assert [len(part) for part in parts.values()] == [42, 6, 12]
    assert len(set().union(*(part["image"] for part in parts.values()))) == 60
    assert all(parts[k].equals(same[k]) for k in parts) and not parts["test"].equals(other["test"])
    with pytest.raises(UserError, match="share a stem"):
        write_image(tmp_path / "images" / "a.jpg", np.zeros((4, 4, 3), np.uint8))
        pair_folder(tmp_path)
