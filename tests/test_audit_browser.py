"""The audit's page in a real browser: order, search, filters, keys, ticks that survive a reload, download; needs no network.

Needs playwright and a Chromium (Debian: apt install chromium); without them these tests are skipped, aloud.
"""

import csv
import io
import shutil

import numpy as np
import pytest

from data.make_sample import draw_portrait
from reports.audit_page import KINDS, audit_page, picture_of

pytestmark = pytest.mark.slow
COUNT = 60
WIDTHS = (1400, 800)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the audit's page is NOT TESTED in a browser")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            found = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error:
            pytest.skip("no Chromium was found: the audit's page is NOT TESTED in a browser")
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """report.html of COUNT masks whose scores rise from 0 by 0.01, with kinds, classes and annotators in turn."""
    image, labels = draw_portrait(np.random.default_rng(0), (96, 64))
    seen = np.roll(labels, 5, 1)
    kinds = list(KINDS)
    rows = [{"image": f"photos/{k % 7}/Ж {k:02d}.jpg", "mask": f"{'=' * (k == 3)}masks/{k:02d}.png", "score": k / 100,
             "kind": kinds[k % 7], "offset": [None, 3.5, -8.0][k % 3], "class": ["car", "road"][k % 2],
             "doubt": (k * 37 % 100) / 100, "annotator": ["Ana", 'B "b", c'][k % 2], "verdict": f"verdict {k}",
             "parts": [f"part {k}"], "shape": [64, 96]}
            for k in range(COUNT)]
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(path, rows, picture_of(image, labels, seen, labels != seen, [1], 120))
    return path


def write_page(path, rows, picture):
    tables = [{"title": "By class", "heading": ["class", "masks"], "lines": [["car", "30"], ["road", "30"]]}]
    path.write_text("".join(audit_page(rows, (picture for _ in rows), "Audit of x", "lead", "2 px", tables)), encoding="utf-8")


@pytest.fixture(params=WIDTHS)
def page(browser, page_file, request):
    """The page, offline, in a window of 1400 or 800 px; no request but for itself, and no error."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True, accept_downloads=True)
    opened, asked, faults = context.new_page(), [], []
    opened.on("request", lambda each: asked.append(each.url) if not each.url.startswith(("data:", "blob:")) else None)
    opened.on("pageerror", lambda each: faults.append(str(each)))
    opened.on("console", lambda each: faults.append(each.text) if each.type == "error" else None)
    opened.goto(page_file.as_uri())
    opened.wait_for_selector(".row svg")
    yield opened
    assert not faults and set(asked) == {page_file.as_uri()}
    context.close()


def verdicts(page):
    return page.locator(".verdict").all_inner_texts()


def ticks_of(page):
    """The downloaded CSV, as a list of dicts."""
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "ticks.csv"
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(io.StringIO(file.read())))


def test_the_worst_come_first_and_the_rest_when_one_scrolls(page):
    first = verdicts(page)
    assert first[:3] == ["verdict 0", "verdict 1", "verdict 2"] and len(first) < COUNT
    for _ in range(40):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(30)
    assert verdicts(page) == [f"verdict {k}" for k in range(COUNT)]
    assert page.locator(".picture svg").count() < COUNT  # those far away are taken out again
    page.locator(".row").last.scroll_into_view_if_needed()
    page.wait_for_selector(f"#row{COUNT - 1} svg path.annotation[d^=M]")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing to scroll sideways


def test_order_search_and_filters(page):
    page.select_option("#sort", "best")
    assert verdicts(page)[:2] == ["verdict 59", "verdict 58"]
    page.select_option("#sort", "offset")
    assert verdicts(page)[:2] == ["verdict 2", "verdict 5"]  # 8 px, though tight; of equal ones the worst score first
    page.select_option("#sort", "doubt")
    assert verdicts(page)[0] == "verdict 27"  # 27 * 37 = 999
    page.select_option("#sort", "name")
    assert verdicts(page)[:2] == ["verdict 0", "verdict 7"]
    page.select_option("#sort", "worst")
    page.fill("#search", "ж 1")
    assert verdicts(page) == [f"verdict {k}" for k in range(10, 20)]
    page.select_option("#class", "road")
    assert verdicts(page) == [f"verdict {k}" for k in range(11, 20, 2)]
    page.click("[data-kind=swapped]")
    assert verdicts(page) == ["verdict 19"]
    page.click("[data-kind=missing]")
    assert verdicts(page) == ["verdict 17", "verdict 19"]
    page.select_option("#annotator", "Ana")
    assert verdicts(page) == [] and page.locator(".none").inner_text() == "No mask fits these filters."
    for field in ("#search", "#class", "#annotator"):
        (page.fill if field == "#search" else page.select_option)(field, "")
    page.click("[data-kind=swapped]"), page.click("[data-kind=missing]")
    page.fill("#most", "0.05")
    assert verdicts(page) == [f"verdict {k}" for k in range(6)] and "6 of 60 shown" in page.inner_text("#count")


def test_keys_tick_and_ticks_survive_a_reload_and_are_downloaded(page):
    for key in "jjfjofk":  # row 1: to fix; row 2: fine, then to fix; back to row 1
        page.keyboard.press(key)
    page.keyboard.press("f")  # row 1: taken back
    page.keyboard.press("o")
    assert page.locator(".row.here .verdict").inner_text() == "verdict 1"
    page.reload()
    page.wait_for_selector(".row svg")
    assert page.locator(".row.fine").get_attribute("id") == "row1" and page.locator(".row.fix").get_attribute("id") == "row2"
    assert "1 to fix · 1 fine" in page.inner_text("#count")
    page.select_option("#tick", "fix")
    assert verdicts(page) == ["verdict 2"]
    lines = ticks_of(page)
    assert len(lines) == COUNT and [line["tick"] for line in lines[:4]] == ["", "fine", "fix", ""]
    assert lines[1]["annotator"] == 'B "b", c' and lines[2]["offset"] == "-8" and lines[0]["offset"] == ""
    assert lines[10]["image"] == "photos/3/Ж 10.jpg" and lines[3]["mask"] == "'=masks/03.png"  # no formula


def test_ticks_stay_when_the_same_masks_are_judged_anew(browser, tmp_path):
    """Two rows share a mask's name; then all scores and the order change, and at last a mask is gone."""
    image, labels = draw_portrait(np.random.default_rng(0), (96, 64))
    picture = picture_of(image, labels, labels, labels != labels, [1], 120)
    rows = [{"image": name, "mask": "m.png", "score": score, "kind": "fine", "offset": None, "class": "car", "doubt": 0.1,
             "annotator": None, "verdict": f"verdict {name}", "parts": [], "shape": [64, 96]}
            for name, score in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    opened = browser.new_context().new_page()

    def seen(rows):
        write_page(tmp_path / "report.html", rows, picture)
        opened.goto((tmp_path / "report.html").as_uri())
        opened.wait_for_selector(".row svg")
        return [opened.locator(f".row.{state} .verdict").all_inner_texts() for state in ("fix", "fine")]

    assert seen(rows) == [[], []]
    for key in "jfjo":
        opened.keyboard.press(key)
    judged_anew = [{**row, "score": 0.9 - row["score"]} for row in reversed(rows)]
    assert seen(judged_anew) == [["verdict a"], ["verdict b"]]
    assert seen(rows[:2]) == [[], []]  # another data set


def test_a_picture_is_enlarged_and_its_layers_are_switched(page):
    page.keyboard.press("j")
    page.keyboard.press("e")
    assert page.locator("#big svg").is_visible() and "verdict 0" in page.inner_text("#caption")
    page.keyboard.press("j")
    page.keyboard.press("f")
    assert "verdict 1 · ticked: fix" in page.inner_text("#caption")
    for key, layer in (("1", "annotation"), ("2", "proposal"), ("3", "doubt")):
        shown = page.locator(f"#big path.{layer}")
        assert shown.is_visible()
        page.keyboard.press(key)
        assert not shown.is_visible()
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    assert not page.locator("#big svg").is_visible()
    page.fill("#search", "jfo")  # letters in a field are no keys
    assert page.locator(".row.fix").count() == 0 and "1 to fix" in page.inner_text("#count")


def test_the_outlines_lie_on_the_picture():
    """A square of 10 px in a picture of 40 x 20 that is drawn at 80 px: in quarters of a drawn pixel."""
    labels = np.zeros((20, 40), np.uint8)
    labels[5:15, 10:20] = 1
    width, height, _, own, other, doubt = picture_of(np.zeros((20, 40, 3), np.uint8), labels, np.zeros_like(labels), labels > 0,
                                                     [1], 80)
    assert (width, height, other) == (320, 160, "") and own == doubt
    start, *moves = own.replace("M", "").replace("z", "").replace("l", " ").split()
    points = np.cumsum(np.array([start, *moves], int).reshape(-1, 2), 0)
    assert points.min(0).tolist() == pytest.approx([80, 40], abs=3)
    assert points.max(0).tolist() == pytest.approx([160, 120], abs=3)
