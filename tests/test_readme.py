"""The README's commands run, in order, on a folder of photographs; its figures are those of the committed results."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from data.pictures import read_image, resize_image, write_image
from data.splits import pair_folder
from reports.report_files import report_text
from tables import table_text
from tests.conftest import ROOT, run_script
from tests.test_bad_input import CSV_FILES, FOLDERS, IMAGES, MASKS, WEIGHTS
from utils.add_noise import level_table

pytestmark = pytest.mark.prose
README = (ROOT / "README.md").read_text(encoding="utf-8")
SMALL = "--model unet --width 4 --size 48 32 --epochs 1 --batch-size 4 --encoder-weights none --accelerator cpu"
EXTRA = {"train_teacher.py": SMALL, "train_without_weight.py": SMALL, "train_with_KDweight.py": SMALL,
         "train_with_Teacher_weight.py": SMALL,
         "predict.py": "--accelerator cpu", "evaluate.py": "--accelerator cpu"}


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
    commands = [line for line in re.search(r"```bash\n(.*?)```", README, re.S)[1].splitlines() if line and line[0] != "#"]
    assert len(commands) == 9
    for command in commands:
        if command.startswith("python "):
            script, *flags = shlex.split(command)[1:]
            run_script(ROOT / script, *flags, *EXTRA.get(script, "").split(), cwd=tmp_path)
        else:
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0 and done.stdout.count("\n") > 5, done.stderr
    beyond = README[README.index("### Beyond the paper"):README.index("## Scripts")]
    commands = [line.strip() for line in beyond.splitlines() if line.startswith("    python ")]
    assert len(commands) == 4
    for command in commands:
        script, *flags = shlex.split(command)[1:]
        run_script(ROOT / script, *flags, *EXTRA.get(script, "").split(), cwd=tmp_path)
    assert (tmp_path / "runs" / "by_pixels" / "result.json").exists()
    scores = json.loads((tmp_path / "runs" / "nlkd" / "test.json").read_text())
    assert scores["images"] == len(list((tmp_path / "runs" / "nlkd" / "masks").iterdir())) == 3
    assert (tmp_path / "runs" / "report" / "examples.png").exists()


def test_the_papers_commands_know_their_flags():
    commands = [line.strip() for line in README.splitlines()
                if line.startswith(("    python train_", '    python "train_')) and "data/csv/train_noisy_60" in line]
    assert len(commands) == 6
    for command in commands:
        script, *flags = shlex.split(command)[1:]
        done = run_script(script, *flags, check=False)
        assert done.returncode == 2 and "no such CSV" in done.stderr


def test_the_prepare_commands_know_their_flags(tmp_path):
    commands = re.findall(r"\| `(python data/prepare_.*?)` \|", README)
    assert len(commands) == 6
    for command in commands:
        script, _, *flags = shlex.split(command)[1:]  # the second word is the data set's folder
        flags = [flag for flag in flags if flag != "--download"]
        done = run_script(script, tmp_path / "missing", *flags, check=False)
        assert done.returncode == 2 and str(tmp_path / "missing") in done.stderr, done.stderr


def test_the_table_command_knows_its_flags(tmp_path):
    commands = [line.strip() for line in README.splitlines() if line.strip().startswith("bash run.sh table")]
    assert commands
    for command in commands:
        done = run_script(ROOT / "tables.py", *shlex.split(command)[2:], check=False, cwd=tmp_path)
        assert done.returncode == 2 and "--data my_photos: neither" in done.stderr, done.stderr


def test_run_sh_explains_itself_and_refuses_what_it_does_not_know():
    done = subprocess.run(["bash", "run.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for job in ("quick DIR", "test", "setup", "table1 ... table5 --data CSVDIR", "figure3 --data CSVDIR"):
        assert f"bash run.sh {job}" in done.stdout
    assert subprocess.run(["bash", "run.sh", "nonsense"], cwd=ROOT, capture_output=True).returncode == 2


def test_every_script_is_in_the_readme():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("utils/*.py")]:
        if "__main__" in path.read_text():
            assert f"`{path.relative_to(ROOT)}`" in README, path


RESULTS = sorted(path for path in (ROOT / "docs" / "results").glob("*.json") if "noise" not in path.name)


def tables_in(content):
    """All tables that a committed JSON stands for, as text."""
    if "tables" in content:  # of a benchmark
        return ["\n".join(lines) for lines in content["tables"].values()]
    return [table_text(content) if "table" in content else report_text(content)]


@pytest.mark.parametrize("path", RESULTS, ids=[path.stem for path in RESULTS])
def test_the_pages_show_the_committed_results(path):
    """people_table2.json stands in people.md, and so on."""
    content = json.loads(path.read_text())
    page = path.with_name(re.sub("_(table.|alternatives)$", "", path.stem) + ".md")
    if "tables" in content:
        page = path.with_name(re.sub("_.*", "", path.stem) + ".md")  # detectors_people2.json: detectors.md
    for table in tables_in(content):
        assert table.strip() in page.read_text()
    assert f"({page.name})" in (ROOT / "docs" / "results" / "README.md").read_text()
    for result in content.get("runs", {}).values():  # no path of the machine that measured
        assert not any(str(value).startswith(("/", "~")) for value in {**content.get("args", {}), **result["args"]}.values())


def test_figures_in_the_readme_come_from_the_pages():
    section = README[README.index("## Results"):README.index("## Scripts")]
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "results").glob("*.md"))
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 10
    for row in rows:
        assert row in pages, row


@pytest.mark.parametrize("name", ["people", "camvid"])
def test_the_noise_tables_are_those_of_the_committed_scores(name):
    scores = json.loads((ROOT / "docs" / "results" / f"noise_{name}.json").read_text())
    assert level_table(scores["levels"]) in (ROOT / "docs" / "noise.md").read_text()


def test_pictures_in_the_readme_exist():
    for link in re.findall(r"\]\((docs/[^)]+)\)", README):
        assert (ROOT / link).exists(), link
    assert sys.version_info >= (3, 10)


def test_the_reliability_page_names_tests_that_exist_and_their_cases():
    page = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 40
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(), re.M), f"{file}::{test}"
    for title, cases in (("CSV files", CSV_FILES), ("images", IMAGES), ("masks", MASKS), ("weights", WEIGHTS),
                         ("folders of the prepare scripts", FOLDERS)):
        assert f"| {title} | {len(cases)} |" in page
