"""Pages show the committed results, whose log holds the commands that made them."""

import functools
import json
import re
import shlex

import pytest

from benchmarks import bench_fixed
from related.blindkd.table import text_of as blindkd_text
from related.lad.lad_text import text_of as lad_text
from related.nlis.nlis_table import text_of as nlis_text
from reports.across import across_text, rows_of
from reports.comparison import compare
from reports.report_files import report_text, unpacked
from tables import table_text
from tests.conftest import ROOT, run_script
from tests.pages import LOG, PAGES, README, commands_of
from utils.add_noise import level_table
from utils.ranking import spearman_interval

pytestmark = pytest.mark.prose

RESULTS = sorted(path for path in (ROOT / "docs" / "results").glob("*.json") if "noise" not in path.name)


def tables_in(content):
    """All tables that a committed JSON stands for, as text."""
    if "noise" in content:  # of class labels
        return [blindkd_text(content)]
    if "lad" in content:
        return [lad_text(content)]
    if "rois" in content:
        return [nlis_text(content)]
    if "tables" in content:  # of a benchmark
        return ["\n".join(lines) for lines in content["tables"].values()]
    return [table_text(content) if "table" in content else report_text(content)]


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_the_pages_show_the_committed_results(path):
    """people_table2.json stands in people.md, and so on."""
    content = json.loads(path.read_text())
    page = path.with_name(re.sub("_.*", "", path.stem) + ".md")  # detectors_people2.json: detectors.md
    for table in tables_in(content):
        assert table.strip() in page.read_text()
    assert f"({page.name})" in (ROOT / "docs" / "results" / "README.md").read_text()
    for result in content.get("runs", {}).values():  # no path of the machine that measured
        assert not any(str(value).startswith(("/", "~")) for value in {**content.get("args", {}), **result["args"]}.values())


def test_the_overview_is_what_its_command_prints():
    """It holds every committed table of several seeds in which the recommended option has runs."""
    command, = commands_of(LOG, "python report.py --json")
    words = shlex.split(command)
    files, names = words[words.index("--json") + 1:words.index("--rows")], words[words.index("--rows") + 1:]
    tables = {(path := ROOT / file).stem: rows_of(json.loads(path.read_text())) for file in files}
    assert across_text(tables, names) in LOG
    assert sorted(tables) == [path.stem for path in RESULTS if '/own3"' in path.read_text() and '/seed2/' in path.read_text()]


def test_the_recommended_option_never_ended_below_no_weights():
    """As the README says, of the masks as they are; without noise no weights are the training on clean masks. It counts the
    ties, and says why they are."""
    assert "with no seed, [did it end below one training without weights]" in README
    gains, reasons = {}, set()  # by own scores, so that a run of two tables counts once
    for path in RESULTS:
        runs = unpacked(json.loads(path.read_text())) if '/own3"' in path.read_text() else {}
        for run in (run for run in runs if run.endswith("/own3")):
            base = run.removesuffix("own3") + "noisy"
            if "/noise0/" in run:
                base, = (other for other in runs if other.endswith(f"/{run.split('/')[-2]}/clean"))
            own, plain = ([runs[each]["test_last"][0][score] for score in ("miou", "bf")] for each in (run, base))
            gains[tuple(own)] = [ours - theirs for ours, theirs in zip(own, plain)]
            if own == plain:
                reasons.add(runs[run]["weights"]["fallback"])
    assert min(map(min, gains.values())) == 0 and len(gains) > 40
    ties = sum(gain == [0, 0] for gain in gains.values())
    told = f"on {ties} of {len(gains)} runs it was equal, since no mask stood out and all weights were 1"
    assert told in " ".join(README.split())
    assert reasons == {"since the scores form one group: no mask stands out as coarse"}


def test_the_curve_of_corrected_masks_comes_from_its_figures():
    for path in RESULTS:
        content = json.loads(path.read_text())
        if "fixed" in content:
            assert list(content["tables"].values()) == [bench_fixed.lines_of(content["fixed"])], path.name


def test_the_intervals_of_the_faces_come_from_their_figures():
    content = json.loads((ROOT / "docs" / "results" / "audit_faces.json").read_text())
    page = " ".join((ROOT / "docs" / "results" / "audit.md").read_text().split())
    for name in ("own weights", "audit", "cleanlab num_pixel_issues"):
        found = content["scores"][name]["spearman"]
        low, high = spearman_interval(found, content["rows"])
        assert f"{found:.2f} ({low:.2f} to {high:.2f})" in page


def test_figures_in_the_readme_come_from_the_pages():
    section = README[README.index("## Results"):README.index("## The paper's commands")]
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "results").glob("*.md") if path.name != "README.md")
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    for row in rows:
        assert row in pages, row
    content = json.loads((ROOT / "docs" / "results" / "portraits_own.json").read_text())
    assert "three seeds" in section.splitlines()[0] and "(3 seeds)" in table_text(content)
    last = next(row["scores"] for row in compare(unpacked(content), "test_last", "noisy") if row["name"] == "own3")
    for score, title in (("miou", "mIoU"), ("bf", "BF")):
        assert f"+{100 * last[score]['difference']:.1f} ± {100 * last[score]['interval']:.1f} {title}" in section


def logged():
    """Entries of the log of results: (file of the JSON, list of its commands)."""
    entries = re.findall(r"\*\*\[.*?\.json\]\((.*?)\)\*\*.*?\n\n((?:    .*\n)+)", LOG)
    return [((ROOT / "docs" / "results" / file).resolve(), commands_of(lines, "")) for file, lines in entries]


def test_the_log_names_every_committed_result_and_its_command():
    entries = dict(logged())
    committed = [*(ROOT / "docs" / "results").glob("*.json"), *(ROOT / "benchmarks" / "results").glob("*.json")]
    assert set(entries) == set(committed)
    pages = "\n".join(path.read_text(encoding="utf-8") for path in PAGES if path != ROOT / "docs" / "results" / "README.md")
    for path, commands in entries.items():
        stated = json.loads(path.read_text()).get("command")
        for command in commands:
            assert command == stated if stated else command in pages, (path, command)
    for command in commands_of(LOG, "python data/prepare_"):
        assert command in pages, command


@pytest.mark.slow
def test_the_commands_of_the_log_know_their_flags(tmp_path):
    @functools.cache
    def help_of(script):
        return run_script(ROOT / script, "--help").stdout

    for command in commands_of(LOG, ""):
        program, script, *words = shlex.split(command)
        neighbours = {"blindkd": "related/blindkd/table.py", "nlis": "related/nlis/nlis_table.py",
                      "lad": "related/lad/lad_table.py"}
        if words[:1] and words[0] in neighbours:
            known = help_of(neighbours[words[0]]) + help_of("train_teacher.py") * ("--data" in words)
            assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z0-9_-]+", known)), command
        elif program == "bash":
            done = run_script(ROOT / "tables.py", *words, check=False, cwd=tmp_path)
            assert done.returncode == 2 and "neither a folder with train.csv" in done.stderr, done.stderr
        elif script.startswith("benchmarks/"):
            flags = {word for word in words if word.startswith("--")}
            known = help_of(script) + help_of("train_teacher.py")  # some hand theirs on
            assert flags <= set(re.findall(r"--[a-z0-9_-]+", known)), command
        else:
            done = run_script(ROOT / script, *words, check=False, cwd=tmp_path)
            assert done.returncode == 2 and any(word in done.stderr for word in words[:2]), done.stderr


@pytest.mark.parametrize("name", ["people", "camvid"])
def test_the_noise_tables_are_those_of_the_committed_scores(name):
    scores = json.loads((ROOT / "docs" / "results" / f"noise_{name}.json").read_text())
    assert level_table(scores["levels"]) in (ROOT / "docs" / "noise.md").read_text()
