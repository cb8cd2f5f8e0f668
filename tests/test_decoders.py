"""Which readers of pictures benchmarks/bench_decoders.py compares, and on which files."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.bench_decoders import OPENCV, PHOTOS, by_opencv, by_pillow, grey_levels, usable
from cli.files import UserError
from data.pictures import read_image, write_mask


@pytest.fixture
def masks(tmp_path):
    """A PNG of grey levels, and others that hold the same: as a palette, of one bit, and no PNG."""
    labels = np.random.default_rng(0).integers(0, 2, (8, 9)).astype(np.uint8)
    write_mask(tmp_path / "grey.png", labels)
    palette = Image.fromarray(labels, "L")
    palette.putpalette([9, 9, 9, 200, 0, 0])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(labels.astype(bool)).save(tmp_path / "bit.png")
    write_mask(tmp_path / "grey.tif", labels)
    return [str(tmp_path / name) for name in ("palette.png", "grey.png", "bit.png", "grey.tif")]


def test_masks_that_readers_turn_into_different_things_are_left_out(masks, capsys):
    assert grey_levels(masks) == [masks[1]]
    assert capsys.readouterr().err == "3 of 4 masks are no PNG of grey levels and are left out\n"
    assert set(usable({OPENCV: by_opencv, "Pillow": by_pillow}, grey_levels(masks))) == {OPENCV, "Pillow"}
    with pytest.raises(UserError, match="palette.png and the others: no mask is a PNG of grey levels"):
        grey_levels(masks[:1])
    with pytest.raises(UserError, match="palette.png: Pillow reads other values than OpenCV"):
        usable({OPENCV: by_opencv, "Pillow": by_pillow}, masks[:1])


@pytest.mark.parametrize("error", [ImportError("No module named 'x'"), RuntimeError("no codecs were built\nsee above"),
                                   ValueError()])
def test_a_reader_that_fails_is_left_out_by_name(masks, capsys, error):
    def failing(path):
        raise error

    assert list(usable({OPENCV: by_opencv, "odd": failing, "Pillow": by_pillow}, masks[1:2])) == [OPENCV, "Pillow"]
    expected = (str(error) or "ValueError").splitlines()[0]
    assert capsys.readouterr().err == f"odd: left out ({expected})\n"


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_text("text")
    for read in (by_opencv, lambda path: by_opencv(path)[:, :, ::-1]):
        with pytest.raises(UserError, match="a.png: OpenCV cannot read it"):
            usable({OPENCV: read}, [str(tmp_path / "a.png")])


@pytest.mark.filterwarnings("ignore:The image decoding")  # of torchvision, which recommends another package
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_that_lies_on_its_side_is_compared_as_it_lies(tmp_path, capsys, orientation):
    """Every reader gives the file's own pixels; turned by its EXIF, they are what data/ reads."""
    picture = np.zeros((24, 40, 3), np.uint8)
    picture[:8, :8], picture[16:, 24:], picture[:, :, 2] = (255, 80, 0), (0, 160, 90), np.arange(40) * 6
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / "a.jpg")
    Image.fromarray(picture).save(path, quality=100, subsampling=0, exif=exif)
    found = usable(PHOTOS, [path])
    assert {OPENCV, "Pillow", "torchvision"} <= set(found) and "reads other values" not in capsys.readouterr().err
    assert all(read(path).shape == (24, 40, 3) for read in found.values())
    with Image.open(path) as file:
        upright = np.array(ImageOps.exif_transpose(file))
    assert np.abs(read_image(path).astype(int) - upright).mean() < 3
    assert (read_image(path).shape == (40, 24, 3)) == (orientation > 4)
