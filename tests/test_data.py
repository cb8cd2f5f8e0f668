"""CSVs and what is made of their rows: checks, items, augmentation, names, splits."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cli.files import UserError, atomic_path, write_rows
from data import rows as rows_module
from data.dataset import SegmentationDataset
from data.pictures import (
    write_image,
    write_mask,
)
from data.rows import check_rows, pseudo_label_names, read_rows
from data.splits import pair_folder, split_rows
from data.transforms import normalised


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


def test_file_names_that_are_no_text_are_refused_in_a_csv(tmp_path):
    with pytest.raises(UserError, match="not UTF-8"):
        write_rows(tmp_path / "x.csv", pd.DataFrame({"image": ["\udcff.jpg"], "mask": ["m.png"]}))
    assert not list(tmp_path.iterdir())


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


def test_pseudo_label_names_tell_all_images_apart(pictures, monkeypatch):
    assert pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "y/2.png"]})) == ["1.png", "2.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "y/1.png", "y/2.png", "x/1.jpg"]}))
    assert names == ["x__1.png", "y__1.png", "y__2.png", "x__1.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "x/1.png", "x/2.png", "./x/1.jpg"]}))
    assert names == ["1.jpg.png", "1.png.png", "2.png", "1.jpg.png"]
    names = pseudo_label_names(pd.DataFrame({"image": ["x/1.jpg", "x/1.png", "x/1.jpg.jpg"]}))
    assert len(set(names)) == 3
    two = pd.DataFrame({"image": ["a/IMG_1.jpg", "b/img_1.jpg"]})
    for any_case, expected in ((False, ["IMG_1.png", "img_1.png"]), (True, ["a__IMG_1.png", "b__img_1.png"])):
        monkeypatch.setattr(rows_module, "ANY_CASE", any_case)  # a Mac's disk takes them for one file
        assert pseudo_label_names(two) == expected


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
