"""The commands of the README and of docs/ run, links lead somewhere, and figures are those of the committed results."""

import argparse
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

from data.pictures import read_image, resize_image, write_image
from data.splits import pair_folder
from related.blindkd.table import text_of as blindkd_text
from reports.comparison import compare
from reports.report_files import report_text, unpacked
from tables import table_text
from tests.conftest import ROOT, bash_commands, run_script
from tests.test_bad_input import CSV_FILES, FOLDERS, IMAGES, MASKS, WEIGHTS
from utils.add_noise import level_table

pytestmark = pytest.mark.prose


def page(name):
    """Text of a Markdown page."""
    return (ROOT / name).read_text(encoding="utf-8")


def commands_of(text, start):
    """Commands of the indented code blocks of a page that start with `start`, without their comments."""
    lines = [line[4:].split("   #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith(start)]


README, GUIDE, REFERENCE, LOG = map(page, ("README.md", "docs/guide.md", "docs/reference.md", "docs/results/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md",
         *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = "--model unet --width 4 --size 48 32 --epochs 2 --batch-size 4 --encoder-weights none --accelerator cpu"
EXTRA = {"train_teacher.py": SMALL, "train_without_weight.py": SMALL, "train_with_KDweight.py": SMALL,
         "train_with_Teacher_weight.py": SMALL, "train_with_own_weight.py": SMALL,
         "predict.py": "--accelerator cpu", "evaluate.py": "--accelerator cpu", "audit.py": SMALL}


def test_the_readme_is_short():
    assert README.count("\n") <= 130


@pytest.mark.slow
def test_own_data_commands_run_in_order(photos, tmp_path):
    """Each command as it stands, plus flags that make it small."""
    rows = pair_folder(photos).iloc[:16]
    for row in rows.itertuples():
        picture = read_image(row.image)
        name = row.image.rsplit("/", 1)[1]
        write_image(tmp_path / "my_photos" / "images" / name, resize_image(picture, (90, 60)))  # unlike its mask's size
        (tmp_path / "my_photos" / "masks").mkdir(exist_ok=True)
        (tmp_path / "my_photos" / "masks" / row.mask.rsplit("/", 1)[1]).symlink_to(row.mask)
    commands = bash_commands(GUIDE[:GUIDE.index("\n## Class labels\n")])  # test_prepare_classes.py runs those on class labels
    assert len(commands) == len(bash_commands(GUIDE)) - 9 == 26
    for command in commands:
        run_command(command, tmp_path)
        if "train_teacher.py" in command and "--weighted" not in command:
            make_masks_of_others(tmp_path)
    assert (tmp_path / "runs" / "by_pixels" / "result.json").exists()
    assert (tmp_path / "data" / "csv" / "my_corrected" / "train_truth.csv").exists()
    scores = json.loads((tmp_path / "runs" / "nlkd" / "test.json").read_text())
    assert scores["images"] == len(list((tmp_path / "runs" / "nlkd" / "masks").iterdir())) == 3
    assert (tmp_path / "runs" / "report" / "examples.png").exists()


def run_command(command, folder):
    """Run a command of the guide in a folder, as small as EXTRA makes it."""
    if command.startswith("python "):
        script, *flags = shlex.split(command)[1:]
        judged = {"--pred-dir", "--merge"} & set(flags) and script == "audit.py"  # no judge is trained
        run_script(ROOT / script, *flags, *([] if judged else EXTRA.get(script, "").split()), cwd=folder)
    else:
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count("\n") > 5, done.stderr


def make_masks_of_others(folder):
    """Make the files that the guide assumes: masks of two other models, and some corrected by hand."""
    shutil.copytree(folder / "my_photos" / "masks", folder / "my_photos" / "corrected")
    shutil.copytree(folder / "runs" / "my_teacher" / "pseudo", folder / "sam_masks")
    (folder / "colleague_masks").mkdir()
    for path in (folder / "sam_masks").iterdir():
        shutil.copy(path, folder / "colleague_masks" / f"{path.stem}_mask.png")


def test_the_papers_commands_know_their_flags():
    commands = [line.strip() for line in README.splitlines()
                if line.startswith(("    python train_", '    python "train_')) and "data/csv/train_noisy_60" in line]
    assert len(commands) == 6
    for command in commands:
        script, *flags = shlex.split(command)[1:]
        done = run_script(script, *flags, check=False)
        assert done.returncode == 2 and "no such CSV" in done.stderr


def test_the_prepare_commands_know_their_flags(tmp_path):
    commands = re.findall(r"\| `(python data/prepare_.*?)` \|", REFERENCE)
    assert len(commands) == 8
    for command in commands:
        script, _, *flags = shlex.split(command)[1:]  # the second word is the data set's folder
        flags = [flag for flag in flags if flag != "--download"]
        done = run_script(script, tmp_path / "missing", *flags, check=False)
        assert done.returncode == 2 and str(tmp_path / "missing") in done.stderr, done.stderr


def test_the_table_command_knows_its_flags(tmp_path):
    commands = commands_of(GUIDE, "bash run.sh table")
    assert commands
    for command in commands:
        done = run_script(ROOT / "tables.py", *shlex.split(command)[2:], check=False, cwd=tmp_path)
        assert done.returncode == 2 and "--data my_photos: neither" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_the_quick_command_knows_its_flags(name, tmp_path):
    commands = commands_of(page(name), "bash run.sh quick")
    assert commands
    for command in commands:
        done = run_script(ROOT / "quick.py", *shlex.split(command)[3:], check=False, cwd=tmp_path)
        assert done.returncode == 2 and "images/ and masks/, or train.csv" in done.stderr, done.stderr


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_run_sh_knows_the_jobs_that_pages_name(path):
    known = subprocess.run(["bash", "run.sh", "--help"], cwd=ROOT, capture_output=True, text=True).stdout
    for job in re.findall(r"bash run\.sh(?: (\w+))?", path.read_text(encoding="utf-8")):
        assert not job or re.fullmatch("table[1-5]|alternatives", job) or f"bash run.sh {job}" in known, job


def test_run_sh_explains_itself_and_refuses_what_it_does_not_know():
    done = subprocess.run(["bash", "run.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for job in ("quick DIR", "test", "setup", "table1 ... table5 --data CSVDIR", "figure3 --data CSVDIR"):
        assert f"bash run.sh {job}" in done.stdout
    assert subprocess.run(["bash", "run.sh", "nonsense"], cwd=ROOT, capture_output=True).returncode == 2


SCRIPTS = [path for pattern in ("*.py", "data/*.py", "utils/*.py", "related/*/*.py") for path in sorted(ROOT.glob(pattern))
           if "__main__" in path.read_text(encoding="utf-8")]
SCRIPTS_TABLE, FLAGS_OF_EACH = (re.search(rf"\n## {title}\n(.*?)\n## ", REFERENCE, re.S).group(1)
                                for title in ("Scripts", "Flags of each script"))


def test_every_script_is_in_the_reference():
    """Of the scripts in related/, which stand side by side, the file's name is enough."""
    assert len(SCRIPTS) > 30
    for path in SCRIPTS:
        names = {f"`{path.relative_to(ROOT)}`"} | ({f"`{path.name}`"} if "related" in path.parts else set())
        assert any(name in SCRIPTS_TABLE for name in names), path


def flags_of(script, monkeypatch):
    """Long flags of a script, as its parser knows them: a list of spellings for each flag that --help shows."""
    parsers = []
    monkeypatch.setattr("argparse.ArgumentParser.print_help", lambda parser, file=None: parsers.append(parser))
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code and len(parsers) == 1
    actions = [action for action in parsers[0]._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_is_in_the_reference(path, monkeypatch):
    """In backticks, in the reference or, of a neighbour's script, on its own page; an underscore may be a hyphen."""
    text = REFERENCE + ((path.parent / "README.md").read_text(encoding="utf-8") if "related" in path.parts else "")
    stated = {flag.replace("_", "-") for code in re.findall("`([^`]+)`", text) for flag in re.findall(r"--[\w-]+", code)}
    flags = {flag.replace("_", "-") for flag in flags_of(path, monkeypatch)}
    assert flags and flags <= stated, sorted(flags - stated)


def test_the_shared_flags_are_those_of_every_script_that_trains_networks(monkeypatch):
    """But for flags of class labels, where a script takes masks alone, and of one network, where a script has two."""
    table = REFERENCE[REFERENCE.index("\n| flags | |"):REFERENCE.index("\nA good choice on most")]
    cells = re.findall(r"^\| (.*?) \|", table.replace("\\|", "/"), re.M)
    shared = {flag for cell in cells for flag in re.findall(r"--[a-z][\w-]*", cell)}
    scripts = [path for path in SCRIPTS if path.name.startswith("train_") and path.name != "train_on_features.py"]
    assert len(scripts) == 8 and len(shared) > 30
    for path in scripts:
        own = set(flags_of(path, monkeypatch))
        left_out = {"--model", "--encoder", "--encoder-weights"} if "--model-a" in own else set()
        if f"`{path.name}`" not in REFERENCE[REFERENCE.index("\n## Class labels"):REFERENCE.index("\n## Masks")]:
            left_out |= {"--mirror", "--shift", "--padding"}
        assert shared - own == left_out, path


def test_the_flags_of_each_script_are_its_own(monkeypatch):
    """A row of the tables names no flag that its script lacks."""
    rows = re.findall(r"^\| (.*?) ?\| ([^|]*--[^|]*) \| [^|]+ \|$", FLAGS_OF_EACH.replace("\\|", "/"), re.M)
    assert len(rows) == len(re.findall(r"^\|.*--[a-z]", FLAGS_OF_EACH, re.M)) > 50
    of = {path.name: path for path in SCRIPTS}
    groups = {"both": ["quick.py", "tables.py"], "training alone": ["blind_knowledge_dist_training.py"],
              "published scripts": ["blind_knowledge_dist_training.py", "learning.py", "detection.py"]}
    scripts = []
    for title, cells in rows:
        if title:
            scripts = groups.get(title) or [name.rsplit("/", 1)[-1] for name in re.findall("`(.*?)`", title)]
        assert scripts, cells
        for name in scripts:
            assert set(re.findall(r"--[\w-]+", cells)) <= set(flags_of(of[name], monkeypatch)), (name, cells)


RESULTS = sorted(path for path in (ROOT / "docs" / "results").glob("*.json") if "noise" not in path.name)


def tables_in(content):
    """All tables that a committed JSON stands for, as text."""
    if "noise" in content:  # of class labels
        return [blindkd_text(content)]
    if "tables" in content:  # of a benchmark
        return ["\n".join(lines) for lines in content["tables"].values()]
    return [table_text(content) if "table" in content else report_text(content)]


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_the_pages_show_the_committed_results(path):
    """people_table2.json stands in people.md, and so on."""
    content = json.loads(path.read_text())
    page = path.with_name(re.sub("_(table.|alternatives|own)$", "", path.stem) + ".md")
    if {"tables", "noise"} & set(content):
        page = path.with_name(re.sub("_.*", "", path.stem) + ".md")  # detectors_people2.json: detectors.md
    for table in tables_in(content):
        assert table.strip() in page.read_text()
    assert f"({page.name})" in (ROOT / "docs" / "results" / "README.md").read_text()
    for result in content.get("runs", {}).values():  # no path of the machine that measured
        assert not any(str(value).startswith(("/", "~")) for value in {**content.get("args", {}), **result["args"]}.values())


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
    trainings = run_script("train_teacher.py", "--help").stdout
    for command in commands_of(LOG, ""):
        program, script, *words = shlex.split(command)
        if words[:1] == ["blindkd"]:
            known = run_script(ROOT / "related" / "blindkd" / "table.py", "--help").stdout
            assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z0-9_-]+", known)), command
        elif program == "bash":
            done = run_script(ROOT / "tables.py", *words, check=False, cwd=tmp_path)
            assert done.returncode == 2 and "neither a folder with train.csv" in done.stderr, done.stderr
        elif script.startswith("benchmarks/"):
            flags = {word for word in words if word.startswith("--")}
            known = run_script(ROOT / script, "--help").stdout + trainings  # bench_leak.py hands some on
            assert flags <= set(re.findall(r"--[a-z0-9-]+", known)), command
        else:
            done = run_script(ROOT / script, *words, check=False, cwd=tmp_path)
            assert done.returncode == 2 and any(word in done.stderr for word in words[:2]), done.stderr


@pytest.mark.parametrize("name", ["people", "camvid"])
def test_the_noise_tables_are_those_of_the_committed_scores(name):
    scores = json.loads((ROOT / "docs" / "results" / f"noise_{name}.json").read_text())
    assert level_table(scores["levels"]) in (ROOT / "docs" / "noise.md").read_text()


def anchors(text):
    """Anchors of a page's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_exist(path):
    for link in re.findall(r"\]\(([^)]+)\)", re.sub("`.*?`", "", path.read_text(encoding="utf-8"))):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_can_be_reached_from_the_readme():
    reached, new = set(), [ROOT / "README.md"]
    while new:
        path = new.pop()
        reached.add(path)
        links = re.findall(r"\]\(([^)#]+\.md)[^)]*\)", path.read_text(encoding="utf-8"))
        new += {(path.parent / link).resolve() for link in links} - reached
    assert reached >= set(PAGES)


def test_the_tested_versions_fit_the_requirements():
    assert sys.version_info >= (3, 10)
    tested = dict(re.findall(r"^([\w.-]+)==([\d.]+)$", page("constraints.txt"), re.M))
    for name, least in re.findall(r"^([\w.-]+)>=([\d.]+)$", page("requirements.txt") + page("requirements-dev.txt"), re.M):
        assert [int(part) for part in tested[name].split(".")] >= [int(part) for part in least.split(".")], name


def test_the_reliability_page_names_tests_that_exist_and_their_cases():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 40
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.M), f"{file}::{test}"
    for title, cases in (("CSV files", CSV_FILES), ("images", IMAGES), ("masks", MASKS), ("weights", WEIGHTS),
                         ("folders of the prepare scripts", FOLDERS)):
        assert f"| {title} | {len(cases)} |" in page
