"""The commands of the README and of docs/ run, and links lead somewhere."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from data.pictures import read_image, resize_image, write_image
from data.splits import pair_folder
from tests.conftest import ROOT, bash_commands, run_script
from tests.pages import GUIDE, PAGES, README, REFERENCE, commands_of, page
from tests.test_bad_files import CSV_FILES, IMAGES, MASKS, WEIGHTS
from tests.test_bad_folders import FOLDERS

pytestmark = pytest.mark.prose

SMALL = "--model unet --width 4 --size 48 32 --epochs 2 --batch-size 4 --encoder-weights none --accelerator cpu"
EXTRA = {"train_teacher.py": SMALL, "train_without_weight.py": SMALL, "train_with_KDweight.py": SMALL,
         "train_with_Teacher_weight.py": SMALL, "train_with_own_weight.py": SMALL,
         "predict.py": "--accelerator cpu", "evaluate.py": "--accelerator cpu", "audit.py": SMALL}


def test_the_citation_names_the_version_and_the_paper_s_year():
    """As pyproject.toml and the changelog have it; a version that is not released has no date, a released one has it twice."""
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    version, state = re.search(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M).groups()
    packaged = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]
    assert cited["version"] == packaged == version
    assert str(cited.get("date-released", "not released")) == state
    paper = cited["preferred-citation"]
    assert paper["type"] == "conference-paper" and paper["year"] == 2021 and paper["conference"]["name"]
    names = re.search(r"\((Liang[\w, ]+)\)", page("docs/method.md"))[1]
    assert [author["family-names"] for author in paper["authors"]] == names.split(", ")


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
    assert len(commands) == len(bash_commands(GUIDE)) - 9 == 29
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
        judged = {"--pred-dir", "--merge", "--after"} & set(flags) and script == "audit.py"  # no judge is trained
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
    assert len(commands) == 12
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
        assert not job or re.fullmatch("table[1-5]", job) or f"bash run.sh {job}" in known, job


def test_run_sh_explains_itself_and_refuses_what_it_does_not_know():
    done = subprocess.run(["bash", "run.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for job in ("quick DIR", "test", "setup", "table1 ... table5 --data CSVDIR", "figure3 --data CSVDIR"):
        assert f"bash run.sh {job}" in done.stdout
    assert subprocess.run(["bash", "run.sh", "nonsense"], cwd=ROOT, capture_output=True).returncode == 2


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
    stated = "".join(page(f"requirements{suffix}.txt") for suffix in ("", "-cluster", "-dev"))
    for name, least in re.findall(r"^([\w.-]+)>=([\d.]+)$", stated, re.M):
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
