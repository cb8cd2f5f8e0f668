"""What is known of checked files: who is asked again, and what a damaged memory does."""

import os
import shutil

import numpy as np
import pytest

from cli.files import UserError
from data import file_memory, rows, samples
from data.dataset import SegmentationDataset
from data.file_memory import FileMemory
from data.pictures import check_image, read_checked_mask, write_image, write_mask
from data.rows import check_rows
from engine import run_folder, task
from tests.small_runs import arguments


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Of a file of facts that this test's runs share, as if files written a moment ago were old."""
    monkeypatch.setenv(file_memory.VARIABLE, str(tmp_path / "cache" / "files"))
    monkeypatch.setattr(file_memory, "RECENT", 0)
    monkeypatch.setattr(file_memory, "_memories", {})
    return tmp_path / "cache" / "files"


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are checked, in their order."""
    names = []

    def noted(check):
        def checked(path, *others):
            names.append(os.path.basename(path))
            return check(path, *others)

        return checked

    monkeypatch.setattr(samples, "check_image", noted(check_image))
    monkeypatch.setattr(samples, "read_checked_mask", noted(read_checked_mask))
    return names


@pytest.fixture
def pairs(tmp_path):
    """Rows of three pictures, 8 x 6 px, and their masks."""
    dice = np.random.default_rng(0)
    lines = ["img,filename"]
    for number in range(3):
        write_image(tmp_path / f"i{number}.png", dice.integers(0, 255, (8, 6, 3), np.uint8))
        write_mask(tmp_path / f"m{number}.png", (dice.random((8, 6)) < 0.5).astype(np.uint8))
        lines.append(f"i{number}.png,m{number}.png")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return rows.read_rows(tmp_path / "rows.csv")


def another_run(monkeypatch):
    """What this process knows is lost, the file of facts stays."""
    monkeypatch.setattr(file_memory, "_memories", {})


def check(pairs, opened, num_classes=2):
    """Check the rows; names of the files that were opened for it, sorted."""
    opened.clear()
    check_rows("rows.csv", pairs, num_classes)
    return sorted(opened)


def padded(path, size):
    """Zeros behind a PNG, up to `size` bytes."""
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))


ALL = ["i0.png", "i1.png", "i2.png", "m0.png", "m1.png", "m2.png"]


def test_a_file_is_opened_once_by_all_runs_and_again_when_it_changes(path, pairs, opened, monkeypatch, tmp_path):
    padded(tmp_path / "m1.png", 500)
    assert check(pairs, opened) == ALL and path.exists()
    for _ in range(2):
        assert check(pairs, opened) == []
        another_run(monkeypatch)
    before = (tmp_path / "m1.png").stat()
    labels = read_checked_mask(tmp_path / "m1.png")
    write_mask(tmp_path / "m1.png", 1 - labels)
    padded(tmp_path / "m1.png", 500)
    os.utime(tmp_path / "m1.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` does
    now = (tmp_path / "m1.png").stat()
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert check(pairs, opened) == ["m1.png"]
    assert check(pairs, opened) == []
    with pytest.raises(UserError, match="black and white"):  # by other rules for masks, the same for images
        check(pairs, opened, num_classes=3)
    assert sorted(opened) == ["m0.png", "m1.png", "m2.png"]


def test_faults_are_never_remembered(path, pairs, opened, monkeypatch, tmp_path):
    (tmp_path / "m2.png").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(UserError, match="1 fault; mend or remove these rows\n  row 4: .*m2.png"):
            check(pairs, opened)
        another_run(monkeypatch)
    assert opened == ["m2.png"]  # the others were good before, too


def test_masks_of_black_and_white_are_refused_from_memory_too(path, pairs, opened, monkeypatch):
    for mask in pairs["mask"]:
        write_mask(mask, np.full((8, 6), 255, np.uint8) * (np.arange(6) < 3).astype(np.uint8), 3)
    for expected in (ALL, []):
        opened.clear()
        with pytest.raises(UserError, match="black and white masks are binary"):
            check_rows("rows.csv", pairs, 3)
        assert sorted(opened) == expected
        another_run(monkeypatch)


def test_a_file_that_changed_a_moment_ago_is_not_trusted(path, pairs, opened, monkeypatch):
    monkeypatch.setattr(file_memory, "RECENT", 3600)
    assert check(pairs, opened) == check(pairs, opened) == ALL and not path.exists()


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:-1], lambda content: content[:40], lambda content: b"x" + content[1:],
    lambda content: content[:-4] + b"\1\2\3\4", lambda content: content.replace(b", 1\n", b", 0\n")])
def test_a_damaged_memory_is_no_memory(path, pairs, opened, monkeypatch, damage):
    check(pairs, opened)
    path.write_bytes(damage(path.read_bytes()))
    another_run(monkeypatch)
    assert check(pairs, opened) == ALL
    another_run(monkeypatch)
    assert check(pairs, opened) == []


def test_a_memory_that_cannot_be_written_stops_nothing(pairs, opened, monkeypatch, tmp_path):
    monkeypatch.setattr(file_memory, "RECENT", 0)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "files", tmp_path, ""):  # below a file; a folder; switched off
        monkeypatch.setenv(file_memory.VARIABLE, str(place))
        another_run(monkeypatch)
        assert check(pairs, opened) == ALL


def test_runs_add_to_what_others_wrote_and_the_oldest_facts_go(path, monkeypatch, tmp_path):
    files = [tmp_path / f"{number}" for number in range(5)]
    for file in files:
        file.write_text("x")
    one, other = FileMemory(path), FileMemory(path)
    for memory, mine in ((one, files[:2]), (other, files[2:4])):
        for file in mine:
            memory.facts(file, "number", lambda file=file: (int(file.name), -1, 2**40))
    one.save()
    other.save()
    known = FileMemory(path)
    assert [known.facts(file, "number", lambda: (9, 9, 9)) for file in files] == [
        (0, -1, 2**40), (1, -1, 2**40), (2, -1, 2**40), (3, -1, 2**40), (9, 9, 9)]
    monkeypatch.setattr(file_memory, "MOST", 2)
    last = FileMemory(path)
    assert last.facts(files[0], "number", lambda: (9, 9, 9))[0] == 0  # used again, so it is not among the oldest
    last.facts(files[4], "number", lambda: (4, 0, 0))
    last.save()
    left = FileMemory(path)
    assert [left.facts(file, "number", lambda: (9, 9, 9))[0] for file in files] == [0, 9, 9, 9, 4]


def test_digests_are_those_of_the_content(path, monkeypatch, tmp_path):
    for content in (b"a", b"b", b"\xff" * 100):  # the digest of "a" begins with 0xca, a negative number of 64 bits
        (tmp_path / "file").write_bytes(content)
        fresh = run_folder.file_digest(tmp_path / "file")
        another_run(monkeypatch)
        assert fresh == run_folder.file_digest(tmp_path / "file") == run_folder.hashlib.sha256(content).hexdigest()[:16]


def test_the_cache_is_filled_while_files_are_checked(csvs, tmp_path, monkeypatch):
    """Decoded once, to what the dataset itself would read; without --cache nothing is kept."""
    flags = arguments(csvs, tmp_path)
    splits = task.read_splits(flags, True)
    read = task.check_files(flags, splits)
    assert read.keys() == splits.keys()
    for split, table in splits.items():
        expected = SegmentationDataset(table, flags.size, 2, cache=True).cached
        monkeypatch.setattr(SegmentationDataset, "_load", None)  # no file is read any more
        found = task.SEGMENTATION.dataset(table, flags, False, read[split]).cached
        monkeypatch.undo()
        assert all(map(np.array_equal, found, expected)) and found[0].any()
    flags.cache = False
    assert task.check_files(flags, splits) == {}


def test_a_moved_file_is_looked_at_where_it_lies_now(path, pairs, opened, tmp_path):
    check(pairs, opened)
    shutil.move(tmp_path / "i0.png", tmp_path / "old.png")
    shutil.copy2(tmp_path / "i1.png", tmp_path / "i0.png")
    assert check(pairs, opened) == ["i0.png"]
