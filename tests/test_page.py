"""report.html as a newcomer meets it."""

import html
import re

import pytest

from reports.comparison import compare, markdown, score_frame
from reports.page import report_page
from reports.report_files import weight_table
from tests.run_results import run_of


def explained(page):
    """All words of the legend, in small letters."""
    return html.unescape(" ".join(re.findall("<dt>(.*?)</dt>", page))).lower()


def test_every_column_of_a_report_is_explained():
    runs = {f"{seed}/{name}": run_of(name, bf=bf + seed / 100, seed=seed, noise=noise, auroc=0.9)
            for seed in (0, 1) for name, bf, noise in (("noisy", 0.4, 0.6), ("kd", 0.5, 0.6), ("clean", 0.7, 0.0))}
    scores = list(score_frame(compare(runs)).columns)
    assert any("± 95 %" in column for column in scores) and "gap recovered, mIoU / BF" in scores  # all that a table can hold
    table = weight_table({"w": {"auroc": 0.9, "auprc": 0.8, "spearman": 0.7, "levels": {"0": {"mean": 0.9}}}})
    columns = [*scores, *(cell.strip() for cell in table.splitlines()[0].strip("| ").split("|"))]
    page = report_page("t", markdown(score_frame(compare(runs))) + "\n\n" + table, {})
    words = explained(page)
    for column in columns:
        for word in re.sub(r"mean at | sd| 95 %|seeds| \d+|[,/]", " ", column).split():
            assert word.lower() in words, f"{word} of the column {column}"
    assert "the column seeds" in page and "(sd)" in page and "95 % interval" in page


@pytest.mark.parametrize("text, shown", [
    ("take `kd`, not `a<b`.", "take <code>kd</code>, not <code>a&lt;b</code>."),
    ("one ` alone", "one ` alone"),
    ("`kd`", "<code>kd</code>")])
def test_names_between_backticks_are_code(text, shown):
    page = report_page("t", f"{text}\n\nend", {})
    assert f"<p>{shown}</p>" in page and page.startswith("<!DOCTYPE html>")
    assert f'<p class="lead">{shown}</p>' in report_page("t", "end", {}, lead=text)


def test_wide_tables_and_figures_scroll_by_themselves_on_a_phone(tmp_path):
    (tmp_path / "x.png").write_bytes(b"x")
    page = report_page("t", "| a |\n|---|\n| 1 |", {"learning_curves": tmp_path / "x.png"})
    assert '<meta name="viewport" content="width=device-width' in page
    wide = re.findall(r'<div class="scroll" tabindex="0"><(table|img)', page)
    assert wide == re.findall("<(table|img)", page) == ["table", "img"]
    assert 'alt="Learning curves: Scores on the validation annotations after each epoch' in page
    targets = re.findall('href="#(.*?)"', page)
    assert targets == ["figures", "words"] and all(f'id="{target}"' in page for target in targets)
    assert 'href="#figures"' not in report_page("t", "text", {})


def test_the_runs_of_the_main_job_are_explained_and_no_others():
    table = "| run |\n|---|\n| noisy, noise 60 |\n| kd_bm |\n| clean |"
    assert {"noisy", "kd_bm", "clean"} <= set(re.findall("<dt>(.*?)</dt>", report_page("t", table, {})))
    assert "<dt>pixels</dt>" not in report_page("t", table, {})
    assert "<dt>clean</dt>" not in report_page("t", "| run |\n|---|\n| clean |", {})
