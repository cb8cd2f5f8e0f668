"""Jobs of many commands as a user starts them: quick.py and tables.py, from a copy of the project."""

import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from cli.files import write_rows
from data.legend import write_legend
from data.pictures import read_mask, write_image, write_mask
from data.rows import read_rows
from tests.conftest import DATASETS, ROOT, run_script
from tests.script_calls import run
from tests.test_structure import ROOMS


@pytest.fixture
def project(tmp_path):
    """A copy of the project, by links, whose `bash run.sh` uses this interpreter."""
    folder = tmp_path / "project"
    folder.mkdir()
    installed = ("requirements-cluster.txt", "requirements-dev.txt", "requirements.txt", "pyproject.toml")
    files = ("run.sh", *installed, *(p.name for p in ROOT.glob("*.py")))
    for item in (*ROOMS, *files):
        (folder / item).symlink_to(ROOT / item)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / ".venv" / "installed.txt").write_text("".join((ROOT / name).read_text() for name in installed))
    return folder


def run_job(project, *arguments):
    """bash run.sh ARGUMENTS; returns the CompletedProcess."""
    # PYTHONPATH keeps this interpreter's packages visible through the link, and the copy's rooms, which no link installs
    packages = [str(project), *(p for p in sys.path if "site-packages" in p)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages),
                   "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "run.sh", *map(str, arguments)], cwd=project, env=environment, text=True,
                          capture_output=True)


@pytest.mark.slow
def test_the_main_job_ends_in_a_table_and_is_quick_the_second_time(photos, project, monkeypatch, capsys):
    """bash run.sh quick on a handful of photographs, from a copy of the project."""
    words = [photos, "--name", "job", "--limit", 20, "--size", 48, 32, "--model", "unet", "--width", 4, "--encoder-weights",
             "none", "--epochs", 1]
    done = run_job(project, "quick", *words, "--jobs", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (project / "runs" / "job" / "report" / "table.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:8] == ["noisy", "kd_bm", "own", "own2", "own3", "clean"]
    printed, _, files = table.partition("\nLowest weights of ")
    assert printed.strip() in done.stdout and "runs/job/report" in done.stdout
    sentence = printed.strip().splitlines()[-1]  # after one epoch the best method is chance
    assert re.search("take (no weights|`kd_bm`|`own[23]?`|it)", sentence) and sentence.count(". ") == 0
    page = (project / "runs" / "job" / "report" / "report.html").read_text()
    assert "<h1>job: noisy, kd_bm, own, own2, own3, clean</h1>" in page and '<p class="lead">' in page
    before = {p: p.stat().st_mtime for p in (project / "runs").rglob("*.ckpt")}
    assert run_job(project, "quick", *words).returncode == 0
    assert before == {p: p.stat().st_mtime for p in (project / "runs").rglob("*.ckpt")}
    code, told = run(monkeypatch, capsys, project, "quick.py", *words, "--ratio", 0.3)
    assert code == 2 and "asks for 0.3; pass --name" in told
    missing = run_job(project, "quick", "nowhere")
    assert missing.returncode == 2 and "images/ and masks/" in missing.stderr


def street_csvs(num_classes, folder):
    """Prepared CSVs of a few street scenes: real ones of 11 classes where they are, else drawn stripes of `num_classes`."""
    if num_classes == 11 and (DATASETS / "camvid").is_dir():
        run_script("data/prepare_camvid.py", DATASETS / "camvid", "--out", folder)
    else:
        write_legend(folder, [f"thing {c}" for c in range(num_classes)])
        for split, count in (("train", 8), ("valid", 3), ("test", 4)):
            rows = []
            for number in range(count):
                generator = np.random.default_rng([count, number])
                labels = np.sort(generator.integers(0, num_classes, (48, 64)), axis=1).astype(np.uint8)
                labels[:3] = 255
                image = cv2.applyColorMap(labels * (255 // num_classes), cv2.COLORMAP_HSV)
                paths = folder / "images" / f"{split}{number}.png", folder / "masks" / f"{split}{number}.png"
                write_image(paths[0], image)
                write_mask(paths[1], labels, num_classes)
                rows.append(paths)
            write_rows(folder / f"{split}.csv", pd.DataFrame(rows, columns=["image", "mask"]).astype(str))
    for split, count in (("train", 8), ("valid", 3), ("test", 4)):
        write_rows(folder / f"{split}.csv", read_rows(folder / f"{split}.csv").iloc[:count])


@pytest.mark.slow
@pytest.mark.parametrize("num_classes, kind, left_out", [
    (2, "morphology", set()), (11, "markov", {"decoupling", "co_teaching", "shuffled"}),
    (19, "polygon", {"co_teaching", "deeplab_taught_bm_kd", "constant", "oracle"})])
def test_all_methods_run_to_a_table(photos, project, tmp_path, monkeypatch, capsys, num_classes, kind, left_out):
    """bash run.sh table5: noise, teachers, weights, six scripts, controls, tables of classes, pictures.

    run.sh makes the first table of two classes; else tables.py runs in this process, whose fork server has the libraries.
    """
    def job(*arguments):
        if num_classes > 2 or made_by_run_sh:
            return run(monkeypatch, capsys, project, "tables.py", *arguments)
        made_by_run_sh.append(arguments)
        done = run_job(project, *arguments)
        return done.returncode, done.stdout + done.stderr

    made_by_run_sh = []
    source, flags = tmp_path / "set", ["--num-classes", num_classes]
    if num_classes > 2:
        flags += ["--background", "none"]
        street_csvs(num_classes, source)
    else:
        run_script("data/prepare_folder.py", photos, "--out", source, "--limit", 15)
    names = {"noisy", "decoupling", "co_teaching", "co_teaching+", "deeplab_taught_bm_kd", "sharp", "shuffled", "constant",
             "oracle", "clean"} - left_out
    flags += ["--seeds", 3, "--share", 0.5, "--size", 48, 64, "--noise", kind, "--folds", 2, "--teacher", "smp_unet",
              "--encoder-weights", "none", "--epochs", 1, "--batch-size", 4, "--jobs", 2]
    code, told = job("table5", "--data", source, "--rows", *names, *flags)
    assert code == 0, told
    monkeypatch.chdir(project)
    home = project / "runs" / "tables" / "set"
    noisy = read_rows(home / "noise50" / "seed3" / "csv" / "train_noisy.csv")
    assert (noisy["iterations"] > 0).sum() == len(noisy) // 2
    if num_classes > 2:
        assert all(read_mask(mask, num_classes).max() == 255 for mask in noisy["mask"])
    content = json.loads((home / "table5" / "table.json").read_text())
    assert {result["name"] for result in content["runs"].values()} == names and len(content["runs"]) == len(names)
    scripts = {result["name"]: result["script"] for result in content["runs"].values()}
    assert scripts["co_teaching+"] == "train_co_teaching+.py" and scripts["sharp"] == "train_with_Teacher_weight.py"
    table = (home / "table5" / "table.md").read_text()
    assert "| Co-teaching+ |" in table and "| 83.16 / 41.56 |" not in table and "| co_teaching+, network 2 |" in table
    if num_classes > 2:
        legend = json.loads((source / "classes.json").read_text())["names"]
        assert all(f"| {name} |" in table for name in legend)
    made = {path.name for path in (home / "table5").iterdir()}
    assert ("gain.png" in made) == (num_classes < 19)  # of 19 classes, two sets of weights alone are tried
    assert {"weights.png", "learning_curves.png", "table.csv", "report.html"} <= made
    before = {p: p.stat().st_mtime for p in home.rglob("*.ckpt")}
    code, told = job("table5", "--data", source, "--rows", *names, *flags, "--epochs", 2)
    assert code == 2 and "made with --epochs 1 and this call asks for 2; pass --name" in told
    code, told = job("figure3", "--data", source, *flags)
    assert code == 0, told
    assert (home / "figure3" / "examples.png").exists()
    assert before == {p: p.stat().st_mtime for p in home.rglob("*.ckpt")}  # tables share their runs


@pytest.mark.slow
def test_really_coarse_annotations_need_no_noise(project, real_datasets, tmp_path, monkeypatch):
    """FASSEG's coarse and fine masks: bash run.sh quick on prepared CSVs, and how the weights rank the coarse masks."""
    run_script("data/prepare_coarse_fine.py", real_datasets / "faces", "--out", tmp_path / "csv", "--test-names", "test_*")
    done = run_job(project, "quick", tmp_path / "csv", "--name", "faces", "--num-classes", 6, "--size", 48, 48,
                   "--model", "unet", "--width", 4, "--encoder-weights", "none", "--epochs", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((project / "runs" / "faces").rglob("*noisy/*.png"))
    content = json.loads((project / "runs" / "faces" / "report" / "table.json").read_text())
    csvs = {result["name"]: result["args"]["train_csv"] for result in content["runs"].values()}
    monkeypatch.chdir(project)
    for name, source in (("noisy", "train.csv"), ("clean", "train_truth.csv")):
        assert read_rows(csvs[name])["mask"].tolist() == read_rows(tmp_path / "csv" / source)["mask"].tolist()
    ranks = {name: summary.get("spearman") for name, summary in content["weights"].items()}
    assert len(ranks) == 2
    for name, rank in ranks.items():  # own weights do not know the truth
        assert (rank is None and name == "weights") or -1 <= rank <= 1
    assert "| Spearman |" in (project / "runs" / "faces" / "report" / "table.md").read_text()
