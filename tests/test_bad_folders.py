"""Folders that users pair: each works, or what is wrong with it is named and nothing is left."""

import pytest

from tests.album import GREY, link_to_itself, save
from tests.script_calls import check, named


def move(album, old, new):
    (album.folder / new).parent.mkdir(exist_ok=True)
    (album.folder / old).rename(album.folder / new)


def not_utf8(album):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (album.folder / kind / f"1.{suffix}").rename(album.folder / kind / f"\udcff.{suffix}")


FOLDERS = [
    ("no folder", lambda a: move(a, "masks", "other"), "masks: no such folder"),
    ("a file for a folder", lambda a: (move(a, "masks", "other"), (a.folder / "masks").write_text("")),
     "masks: no such folder"),
    ("nothing known", lambda a: [path.rename(path.with_suffix(".txt")) for path in [*(a.folder / "masks").iterdir()]],
     "masks: no .jpg, .jpeg, .png"),
    ("everything in a subfolder", lambda a: (move(a, "images", "deep"), move(a, "deep", "images/deep")), "its folders are not"),
    ("no stem in common",
     lambda a: [path.rename(path.with_stem(f"m{path.stem}")) for path in sorted((a.folder / "masks").iterdir())],
     "no image and mask share a stem"),
    ("two files of a stem", lambda a: save(a, "images/1.png", a.picture()), "share a stem"),
    ("a TIFF beside a JPEG", lambda a: save(a, "images/1.tif", a.picture()), "1.jpg and 1.tif share a stem"),
    ("no picture", lambda a: (a.folder / "images/1.jpg").write_text("no"), "images/1.jpg: not a readable image"),
    ("a picture that is a folder", lambda a: ((a.folder / "images/1.jpg").unlink(), (a.folder / "images/1.jpg").mkdir(),
                                              (a.folder / "masks/1.png").unlink()), None),
    ("a picture that links to itself", lambda a: link_to_itself(a, "images/1.jpg"), "images/1.jpg: no such file"),
    ("too few", lambda a: [(a.folder / f"images/{n}.jpg").unlink() for n in range(1, 6)], "cannot be split"),
    ("a name that is not UTF-8", not_utf8, "a file name that is not UTF-8"),
    ("a CSV of other rows", lambda a: ((a.folder / "out").mkdir(), (a.folder / "out/train.csv").write_text("x")),
     "exists with other rows"),
    ("a CSV that is no text", lambda a: ((a.folder / "out").mkdir(), (a.folder / "out/train.csv").write_bytes(b"\xff\xfe")),
     "exists with other rows"),
    ("a CSV that is a folder", lambda a: (a.folder / "out/train.csv").mkdir(parents=True), "out/train.csv: Is a directory"),
    ("a file for --out", lambda a: (a.folder / "out").write_text("x"), "out"),
    ("TIFF pairs", lambda a: (save(a, "images/9.tif", a.picture()), save(a, "masks/9.tiff", GREY)), None),
    ("hidden files", lambda a: ((a.folder / "images/._1.jpg").write_text("x"),
                                (a.folder / "masks/.DS_Store").write_text("")), None),
    ("names with commas and quotes", lambda a: (move(a, "images/1.jpg", 'images/a, "b".jpg'),
                                                move(a, "masks/1.png", 'masks/a, "b".png')), None),
    ("suffixes in capitals", lambda a: move(a, "images/1.jpg", "images/1.JPG"), None),
    ("a list of test rows with an unknown name", lambda a: (a.folder / "best.txt").write_text("1\nx y.jpg\n"),
     "--test-names best.txt: 'x y.jpg': no image of a pair has", "--test-names", "best.txt"),
    ("a list of test rows that is no text", lambda a: (a.folder / "best.txt").write_bytes(b"\xff\xfe"),
     "best.txt: not a text in UTF-8", "--test-names", "best.txt"),
    ("an empty list of test rows", lambda a: (a.folder / "best.txt").write_text("# none\n"), "best.txt: fits 0 of",
     "--test-names", "best.txt"),
    ("a list of test rows that is not there", lambda a: None, "images (as a pattern of stems; there is no such file)",
     "--test-names", "bets.txt"),
    ("no list of test rows", lambda a: None, "--test-names: is empty", "--test-names", ""),
    ("a pattern of all", lambda a: None, "--test-names *: fits", "--test-names", "*"),
]


@pytest.mark.parametrize("spoil, message, flags", named(FOLDERS))
def test_folders(album, monkeypatch, capsys, spoil, message, flags):
    spoil(album)
    check(monkeypatch, capsys, album.folder, "data/prepare_folder.py", message, ".", "--out", "out", *flags)


def test_what_a_folder_leaves_out_is_told(album, monkeypatch, capsys):
    move(album, "images/1.jpg", "images/more/1.jpg")
    (album.folder / "images/notes.txt").write_text("")
    errors = check(monkeypatch, capsys, album.folder, "data/prepare_folder.py", None, ".", "--out", "out")
    assert "images: 1 folders, which are not looked into, are left out, e.g. more" in errors
    assert "images: 1 files that are none of .jpg" in errors and "e.g. notes.txt" in errors
    assert "masks: 1 files have no image" in errors
