"""audit.py as a user calls it: what it leaves, what it never touches, and what it refuses."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import audit
from cli.files import UserError, write_json, write_rows
from data.make_sample import draw_set
from data.pictures import read_mask, write_mask
from data.splits import pair_folder
from reports.audit_tables import ticked_rows
from tests.conftest import run_script
from utils.outlines import moved

COUNT = 9
MOVED = {"0001": 4.0, "0004": -4.0}  # px; 0007 loses its mask


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn portraits, three masks of them spoilt; true/ holds the true ones."""
    root = tmp_path_factory.mktemp("audited")
    draw_set(root, COUNT, (128, 128))
    for path in sorted((root / "masks").iterdir()):
        mask = read_mask(path)
        write_mask(root / "true" / path.name, mask)
        if path.stem in MOVED:
            write_mask(path, moved(mask == 1, -MOVED[path.stem]).astype(np.uint8))
        elif path.stem == "0007":
            write_mask(path, np.zeros_like(mask))
    return root


@pytest.fixture(scope="module")
def audited(folder, tmp_path_factory):
    """(folder of the results, what was printed); no file of the data set is changed."""
    out, before = tmp_path_factory.mktemp("results") / "audit", facts_of(folder)
    done = run_script("audit.py", folder, "--pred-dir", folder / "true", "--mend", "--export", "coco", 3, "--out", out)
    assert facts_of(folder) == before and len(before) > 2 * COUNT
    return out, done.stdout


def facts_of(folder):
    """Content and time of every file in a folder."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_the_worst_masks_stand_first_with_their_faults(folder, audited):
    out, said = audited
    table = pd.read_csv(out / "ranking.csv")
    assert table["score"].is_monotonic_increasing and len(table) == COUNT
    found = {re.search(r"(\d+)\.png", path)[1]: row for path, row in zip(table["mask"], table.itertuples())}
    assert set(list(found)[:3]) == {*MOVED, "0007"} and found["0007"].kind == "missing"
    assert [found[name].kind for name in MOVED] == ["loose", "tight"]
    assert [found[name].offset for name in MOVED] == pytest.approx(list(MOVED.values()), abs=1)
    assert (table["kind"][3:] == "fine").all() and table["boxes"][3:].isna().all() and (table["weight"].between(0, 1)).all()
    assert re.match(r"3 of 9 masks look wrong: 1 too loose \(by [34]\.\d px, the median\), 1 too tight", said)
    assert said.splitlines()[-1] == f"open this in a browser: {out / 'report.html'}"
    parts = pd.read_csv(out / "components.csv")
    assert set(parts["mask"]) == set(table["mask"]) and parts["box"].str.fullmatch(r"\d+ \d+ \d+ \d+").all()


def test_masks_are_mended_as_copies_and_only_where_they_are_moved(folder, audited):
    out, _ = audited
    rows, table = pd.read_csv(out / "mended.csv"), pd.read_csv(out / "ranking.csv")
    fixed = {path.stem for path in (out / "mended").iterdir()}
    assert fixed == set(MOVED) and sum("mended" in path for path in rows["filename"]) == 2
    for name in MOVED:
        true = read_mask(folder / "true" / f"{name}.png")
        wrong = [(read_mask(base / f"{name}.png") != true).sum() for base in (out / "mended", folder / "masks")]
        assert wrong[0] < 0.15 * wrong[1]
    reasons = dict(zip(table["mask"].str.extract(r"(\d+)\.png")[0], table["mend"]))
    assert "moved in by 4" in reasons["0001"] and "moved out by 4" in reasons["0004"] and pd.isna(reasons["0000"])


def test_the_page_is_one_file_that_asks_for_no_other(audited):
    page = (audited[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!#)', page)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert [row["image"] for row in data["rows"]] == pd.read_csv(audited[0] / "ranking.csv")["image"].tolist()
    pictures = json.loads(re.search(r'id="pictures0">(.*?)</script>', page)[1])
    assert len(pictures) == COUNT and all(each[2].startswith("data:image/webp;base64,") for each in pictures)


def test_the_annotators_are_named_and_compared(folder, tmp_path):
    rows = pair_folder(folder)
    write_rows(tmp_path / "rows.csv", rows.assign(Annotator=["</script>", "Zoë", "Zoë"] * 3), "Annotator")
    run_script("audit.py", "--csv", tmp_path / "rows.csv", "--pred-dir", folder / "true", "--out", tmp_path / "x")
    assert set(pd.read_csv(tmp_path / "x" / "ranking.csv")["annotator"]) == {"</script>", "Zoë"}
    page = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    assert "<h2>By annotator</h2>" in page and page.count("</script>") == page.count("<script")


def test_a_task_comes_back_as_a_csv_with_weights(folder, audited, tmp_path):
    task = audited[0] / "export_coco"
    assert "python audit.py --merge" in (task / "README.txt").read_text()
    done = run_script("audit.py", "--merge", task, "--out", tmp_path / "back")
    assert "9 rows; 3 masks came back, 0 of them changed" in done.stdout
    table = pd.read_csv(tmp_path / "back" / "merged.csv")
    assert (table["weight"] == 1).sum() >= 3 and list(table) == ["img", "filename", "weight"]


@pytest.mark.parametrize("words, message", [
    ([], "pass either a folder"), (["{folder}", "--csv", "x.csv"], "pass either a folder"),
    (["{folder}", "--pred-dir", "{folder}/true", "--epochs", "3"], "--epochs: no flag of this script"),
    (["{folder}", "--export", "paint", "3"], "--export paint 3: a tool (cvat"),
    (["{folder}", "--export", "cvat", "0"], "--export cvat 0"),
    (["{folder}", "--export", "coco", "none.csv"], "none.csv: no such CSV"),
    (["{folder}", "--export", "coco", "{folder}/true/fine.csv"], "no mask is ticked `fix`"),
    (["{folder}", "--export", "coco", "{folder}/true/rows.csv"], "no CSV of ticks"),
    (["{folder}", "--export", "coco", "{folder}/true/other.csv"], "x.jpg with x.png is none of the rows"),
    (["--merge", "{folder}"], "--merge goes with --out"),
    (["--merge", "{folder}", "--out", "{tmp}/x"], "has no audit_task.json"),
    (["--merge", "{folder}", "--out", "{tmp}/x", "--mend"], "--mend: without use here: --merge takes --out"),
    (["--merge", "{folder}", "--out", "{tmp}/x", "--num-classes", "2"], "--num-classes: without use here"),
    (["--merge", "{folder}", "--out", "{tmp}/x", "--epochs", "3"], "--epochs: no flag of this script"),
    (["{folder}", "--merge", "{folder}"], "the folder: without use here"),
    (["--pred-dir", "{folder}/true", "{folder}"], "the folder stands first, before all flags"),
    (["{folder}", "--pred-dir", "{folder}/true", "--theta", "3"], "--theta: without use here: --pred-dir needs no network"),
    (["{folder}", "--pred-dir", "{folder}/true", "--flip"], "--flip: without use here"),
    (["{folder}", "--after", "x", "--precision", "bf16-mixed"], "--precision: without use here: --after takes that run"),
    (["{folder}", "--checkpoint", "x", "--encoder", "y"], "--encoder: without use here"),
    (["{folder}", "--pred-name", "x"], "--pred-name: without use here: a judge that is trained"),
    (["{folder}", "--pred-dir", "x", "--export", "coco", "2", "--classes", "{folder}/true/two.json"], "'proposal: x'"),
    (["{folder}", "--pred-dir", "{folder}/images"], "pseudo-labels are missing"),
    (["{folder}", "--after", "{folder}"], "not the folder of a finished run"),
    (["{folder}", "--checkpoint", "{folder}/none.ckpt"], "no such checkpoint"),
    (["{folder}/images", "--pred-dir", "x"], "no such folder")])
def test_faults_are_told_in_one_line(folder, tmp_path, monkeypatch, words, message):
    write_json(folder / "true" / "two.json", {"names": ["x", "proposal: x"]})
    for name, text in (("fine", "image,mask,tick\nx.jpg,x.png,fine"), ("rows", "image,mask\nx.jpg,x.png"),
                       ("other", "image,mask,tick\nx.jpg,x.png,fix")):
        (folder / "true" / f"{name}.csv").write_text(text)
    out = [] if "--merge" in words else ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["audit.py", *[word.format(folder=folder, tmp=tmp_path) for word in words], *out])
    with pytest.raises(UserError, match=re.escape(message)) as fault:
        audit.main()
    assert "\n" not in str(fault.value) and not list(tmp_path.glob("out/*.*"))


def test_ticked_masks_are_exported_whatever_their_rank(folder, tmp_path, monkeypatch):
    """Those that were marked `fix` on the page, as it saves them, the worst one first."""
    ticks, marks = tmp_path / "ticks.csv", {"0002": "fix", "0004": "fix", "0007": "fine", "0001": ""}
    lines = [f"{folder / 'images' / name}.jpg,{folder / 'masks' / name}.png,0.5,{tick}" for name, tick in marks.items()]
    ticks.write_text("\n".join(["image,mask,score,tick", *lines]))
    words = ["audit.py", str(folder), "--pred-dir", str(folder / "true"), "--out", str(tmp_path / "x"), "--export", "coco",
             str(ticks)]
    monkeypatch.setattr(sys, "argv", words)
    audit.main()
    task = json.loads((tmp_path / "x" / "export_coco" / "audit_task.json").read_text())
    assert [Path(row["mask"]).stem for row in task["rows"]] == ["0004", "0002"]


@pytest.mark.parametrize("name", ["=1", "-a", "@x", "'plain", "plain", "'=1"])
def test_ticks_name_files_as_the_page_writes_them(tmp_path, name):
    """An apostrophe before what a spreadsheet would take for a formula, as `field` of audit.js has it."""
    rows = pd.DataFrame({"image": [f"{name}.jpg", "b.jpg"], "mask": [f"{name}.png", "b.png"]})
    written = [("'" if name[0] in "=+-@" else "") + f"{name}{suffix}" for suffix in (".jpg", ".png")]
    (tmp_path / "ticks.csv").write_text(f"image,mask,tick\n{','.join(written)},fix\nb.jpg,b.png,fine\n")
    assert ticked_rows(tmp_path / "ticks.csv", rows) == [0]


def test_results_are_not_overwritten_unasked(folder, audited, monkeypatch):
    words = ["audit.py", str(folder), "--pred-dir", str(folder / "true"), "--out", str(audited[0])]
    for more, message in (([], "exists; pass --overwrite"), (["--overwrite", "--export", "coco", "3"], "may hold corrections")):
        monkeypatch.setattr(sys, "argv", words + more)
        with pytest.raises(UserError, match=message):
            audit.main()


@pytest.mark.slow
def test_the_judge_is_trained_once_and_may_be_named(folder, tmp_path):
    """Own weights by default; the same call again trains nothing; its run and its network are judges too."""
    tiny = ["--model", "unet", "--width", 4, "--size", 32, 32, "--epochs", 3, "--encoder-weights", "none", "--accelerator",
            "cpu"]
    done = run_script("audit.py", folder, *tiny, "--out", tmp_path / "x")
    assert "+ python train_with_own_weight.py" in done.stdout and len(pd.read_csv(tmp_path / "x" / "ranking.csv")) == COUNT
    again = run_script("audit.py", folder, *tiny, "--out", tmp_path / "x", "--overwrite")
    assert "+ python" not in again.stdout
    before = facts_of(tmp_path / "x")
    other = run_script("audit.py", folder, *tiny, "--epochs", 4, "--out", tmp_path / "x", "--overwrite", check=False)
    assert other.returncode == 2 and f"pass another --out, or remove {tmp_path / 'x' / 'judge'}" in other.stderr
    assert facts_of(tmp_path / "x") == before
    first = pd.read_csv(tmp_path / "x" / "ranking.csv")
    run_script("audit.py", folder, "--after", tmp_path / "x" / "judge", "--out", tmp_path / "y")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "y" / "ranking.csv"), first)
    run_script("audit.py", folder, "--checkpoint", tmp_path / "x" / "judge" / "last.ckpt", "--accelerator", "cpu", "--out",
               tmp_path / "z")
    assert set(pd.read_csv(tmp_path / "z" / "ranking.csv")["mask"]) == set(first["mask"])


def test_two_masks_of_one_picture_do_not_meet(folder, tmp_path):
    """Two annotators drew one picture: each mask is mended, exported and read back as itself."""
    rows = pair_folder(folder).iloc[[1, 1, 2]].reset_index(drop=True)
    rows.loc[1, "mask"] = str(folder / "true" / "0001.png")
    write_rows(tmp_path / "rows.csv", rows)
    (tmp_path / "judge").mkdir()
    for name in ("0001", "0002"):
        write_mask(tmp_path / "judge" / f"{name}.png", read_mask(folder / "true" / f"{name}.png"))
    run_script("audit.py", "--csv", tmp_path / "rows.csv", "--pred-dir", tmp_path / "judge", "--out", tmp_path / "x", "--mend",
               "--export", "coco", 3)
    mended = pd.read_csv(tmp_path / "x" / "mended.csv")["filename"].tolist()
    assert ["mended" in path for path in mended] == [True, False, False]
    task = tmp_path / "x" / "export_coco"
    assert len(list((task / "images").iterdir())) == 3
    done = run_script("audit.py", "--merge", task, "--out", tmp_path / "back")
    assert "3 masks came back, 0 of them changed" in done.stdout
