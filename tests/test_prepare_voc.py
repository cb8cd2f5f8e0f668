"""data/prepare_voc.py on small trees of the real layout."""

import numpy as np
from PIL import Image

from data.legend import read_legend
from data.pictures import read_mask
from tests.conftest import run_script
from tests.test_prepare import PICTURE, full, image, labels, prepare


def test_voc(tmp_path):
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for split, stems in (("train", ["2007_1", "2007_2", "2007_3"]), ("val", ["2008_1"])):
        (home / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            image(home / "JPEGImages" / f"{stem}.jpg")
            picture = Image.fromarray(np.where(PICTURE[:, :, 0] > 200, 255, 15).astype(np.uint8), "P")
            picture.putpalette(sum(([i, 255 - i, i // 2] for i in range(256)), []))
            (home / "SegmentationClass").mkdir(exist_ok=True)
            picture.save(home / "SegmentationClass" / f"{stem}.png")
    rows = prepare("prepare_voc", tmp_path / "voc", tmp_path / "out", num_classes=21)
    assert [len(part) for part in rows.values()] == [2, 1, 1]
    assert np.array_equal(read_mask(rows["test"]["mask"].iloc[0], 21), np.where(PICTURE[:, :, 0] > 200, 255, 15))
    assert read_legend(tmp_path / "out" / "classes.json", 21).names[15] == "person"


def test_voc_with_more_masks(tmp_path):
    """SegmentationClassAug trains, but for the images of val; the test masks stay those of SegmentationClass."""
    home = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    for split, stems in (("train", ["2007_1", "2007_2"]), ("val", ["2008_1"])):
        (home / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            labels(home / "SegmentationClass" / f"{stem}.png", full(3))
    for stem in ("2007_1", "2007_2", "2008_1", "2009_1", "2009_2"):
        image(home / "JPEGImages" / f"{stem}.jpg")
        labels(home / "SegmentationClassAug" / f"{stem}.png", full(15))
    rows = prepare("prepare_voc", tmp_path / "voc", tmp_path / "out", "--annotations", "aug", "--valid", "0.25", num_classes=21)
    assert [len(part) for part in rows.values()] == [3, 1, 1]
    stems = {path.rsplit("/", 1)[1] for split in ("train", "valid") for path in rows[split]["mask"]}
    assert stems == {"2007_1.png", "2007_2.png", "2009_1.png", "2009_2.png"}
    assert (read_mask(rows["train"]["mask"].iloc[0], 21) == 15).all()
    assert (read_mask(rows["test"]["mask"].iloc[0], 21) == 3).all()
    done = run_script("data/prepare_voc.py", tmp_path / "voc", "--out", tmp_path / "x", "--annotations", "aug", "--instances",
                      check=False)
    assert done.returncode == 2 and "SegmentationClassAug has no instances" in done.stderr
