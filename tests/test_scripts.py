"""The commands a user types: as published, resumed after a kill, refused when wrong; and the shape of the scripts."""

import ast
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from cli.files import write_rows
from data.legend import write_legend
from data.pictures import read_image, read_mask, write_image, write_mask
from data.rows import pseudo_label_names, read_rows
from engine.folds import assign_folds
from tests.conftest import DATASETS, ROOT, TORCHRUN, run_script
from tests.test_structure import ROOMS

TINY = ["--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--cache"]

# the spec's ten commands; {csv} stands for data/csv
SPLITS = '--valid_csv "{csv}/valid_noisy_60.csv" --test_csv "{csv}/test.csv" '
RECIPE = "--epochs 100 --batch-size 4 --learning-rate 0.1"
PUBLISHED = [
    'train_without_weight.py --train_csv "{csv}/train_noisy_60.csv" ' + SPLITS + "--name train_noisy_60_noweight " + RECIPE,
    *('train_with_Teacher_weight.py --train_csv "{csv}/train_noisy_60_PointRend_weight_' + m + 'score.csv" ' + SPLITS
      + f"--name train_noisy_60_{m}weight_noKD " + RECIPE for m in ("miou", "bf", "bm")),
    *('train_with_KDweight.py --train_csv "{csv}/train_noisy_60_PointRend_weight_' + m + 'score.csv" ' + SPLITS
      + f"--name train_noisy_60_{m}weight_KD " + RECIPE for m in ("miou", "bf", "bm")),
    *(f'"train_{m}.py" --train_csv "{{csv}}/train_noisy_60.csv" ' + SPLITS + f"--name train_{m} " + RECIPE
      for m in ("decoupling", "co_teaching", "co_teaching+")),
]
SHORT = ('train_with_KDweight.py -train "{csv}/train_noisy_60_PointRend_weight_bmscore.csv" -valid "{csv}/valid_noisy_60.csv" '
         '-test "{csv}/test.csv" -n short -e 100 -b 4 -l 0.1')


def words(command, csvs):
    return command.format(csv=csvs).replace('"', "").split()


@pytest.mark.parametrize("command", [PUBLISHED[0], PUBLISHED[1], PUBLISHED[6],
                                     *(pytest.param(command, marks=pytest.mark.slow) for command in PUBLISHED[7:9]),
                                     PUBLISHED[9], SHORT],
                         ids=["noweight", "teacher", "kd", "decoupling", "co_teaching", "co_teaching+", "short"])
def test_published_commands_run_verbatim(csvs, tmp_path, command):
    """Verbatim, then flags that only make it short and small."""
    done = run_script(*words(command, csvs), "--out-dir", tmp_path, *TINY, "--epochs", 2)
    folder, = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["test"][0]["images"] == 4 and 0 <= result["test"][0]["miou"] <= 1
    assert {"args.json", "log.jsonl", "last.ckpt", "best.ckpt", "tensorboard"} <= {p.name for p in folder.iterdir()}
    assert result["args"]["optimizer"] == "ranger" and result["args"]["learning_rate"] == 0.1
    assert "| run | mIoU |" in done.stdout
    if "KDweight" in command:
        assert "scored by bm" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", PUBLISHED, ids=[command.split("--name ")[1].split()[0] for command in PUBLISHED])
def test_published_commands_run_on_two_processes(csvs, tmp_path, command):
    """By torchrun, on CPUs: every test sample counted once, both networks equal in both processes."""
    done = run_script(*TORCHRUN, *words(command, csvs), "--out-dir", tmp_path, *TINY, "--epochs", 1)
    folder, = tmp_path.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["machine"]["processes"] == 2, done.stdout
    assert all(scores["images"] == 4 for scores in result["test"]) and len(result["test"]) == len(result["parameters"])


@pytest.mark.parametrize("script, train", [
    pytest.param("train_without_weight.py", "train_noisy_60.csv", marks=pytest.mark.slow),
    pytest.param("train_with_Teacher_weight.py", "train_noisy_60_PointRend_weight_bfscore.csv", marks=pytest.mark.slow),
    ("train_with_KDweight.py", "train_noisy_60_PointRend_weight_bmscore.csv"),
    pytest.param("train_co_teaching.py", "train_noisy_60.csv", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_to_the_same_bits(csvs, tmp_path, script, train):
    command = [script, "--train_csv", csvs / train, "--valid_csv", csvs / "valid_noisy_60.csv", "--test_csv", csvs / "test.csv",
               *TINY, "--epochs", 6, "--augment"]
    if "KD" in script:
        command += ["--lambda-warmup", 1]
    if "co_teaching" in script:
        command += ["--model-b", "unet"]
    run_script(*command, "--name", "run", "--out-dir", tmp_path / "whole")
    log = tmp_path / "broken" / "run" / "log.jsonl"
    started = subprocess.Popen([sys.executable, *map(str, command), "--name", "run", "--out-dir", str(tmp_path / "broken")],
                               cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    while started.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.02)
    started.kill()
    started.wait()
    assert not (log.parent / "result.json").exists(), "the run was over before it could be killed"
    run_script(*command, "--name", "run", "--out-dir", tmp_path / "broken", "--resume")

    whole, broken = (tmp_path / name / "run" for name in ("whole", "broken"))
    for checkpoint in ("last.ckpt", "best.ckpt"):
        one, other = (torch.load(folder / checkpoint, weights_only=True) for folder in (whole, broken))
        assert_equal(one, other)
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (whole, broken))
    assert all(one[key] == other[key] for key in ("test", "test_last", "valid", "best_epoch"))
    logs = [[{**json.loads(line), "seconds": 0, "images_per_second": 0} for line in (folder / "log.jsonl").open()]
            for folder in (whole, broken)]
    assert logs[0] == logs[1] and len(logs[0]) == 6


def assert_equal(one, other):
    """Nested dicts and lists of tensors and values, equal bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other):
            assert_equal(a, b)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("script, flags, message", [
    ("train_with_Teacher_weight.py", ["--train_csv", "{csv}/train_noisy_60.csv"], "found `iterations`"),
    ("train_with_KDweight.py", ["--train_csv", "{csv}/train_noisy_60.csv"], "found `iterations`"),
    ("train_with_KDweight.py", ["--train_csv", "{csv}/test.csv"], "named `weight`, found none"),
    ("train_without_weight.py", ["--train_csv", "{csv}/train_noisy_60.csv", "--epochs", "0"], "--epochs: '0' is not"),
    ("train_without_weight.py", ["--train_csv", "{csv}/train_noisy_60.csv", "--num-classes", "1"], "--num-classes"),
    ("train_without_weight.py", ["--train_csv", "{csv}/train_noisy_60.csv", "--model", "smp_unet", "--encoder", "x"],
     "encoder 'x'"),
    ("train_without_weight.py", ["--train_csv", "{csv}/train_noisy_60.csv", "--load", "none.ckpt"], "none.ckpt: no such"),
    ("predict.py", ["--checkpoint", "none.ckpt", "--csv", "{csv}/test.csv"], "none.ckpt: no such checkpoint"),
])
def test_wrong_input_gets_one_line_and_exit_code_2(csvs, tmp_path, script, flags, message):
    name = [] if script == "predict.py" else ["--name", "run", *TINY]
    done = run_script(script, *[flag.format(csv=csvs) for flag in flags], *name, "--out-dir", tmp_path / "out", check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_teachers_judge_only_what_they_never_saw_and_the_chain_holds(csvs, tmp_path):
    """train_teacher -> pseudo-labels of every row -> get_weight -> evaluate -> predict -> report."""
    train = csvs / "train_noisy_60.csv"
    run_script("train_teacher.py", "--train_csv", train, "--valid_csv", csvs / "valid_noisy_60.csv", "--name", "teacher",
               "--out-dir", tmp_path, *TINY, "--epochs", 1, "--folds", 3)
    record = json.loads((tmp_path / "teacher" / "teacher.json").read_text())
    rows = read_rows(train)
    names = np.array(pseudo_label_names(rows))
    judged = [name for fold in record["folds"] for name in fold["judges"]]
    assert sorted(judged) == sorted(names) and record["out_of_fold"]
    for fold in record["folds"]:
        seen = pseudo_label_names(read_rows(fold["trained_on"]))
        assert len(seen) == 8 and not set(seen) & set(fold["judges"])
    for row, name in zip(rows.itertuples(), names):  # at each picture's own size
        assert read_mask(tmp_path / "teacher" / "pseudo" / name).shape == read_image(row.image).shape[:2]

    # a pseudo-label is what its own fold's network predicts
    fold = record["folds"][1]
    run_script("predict.py", "--checkpoint", fold["checkpoint"], "--csv", train, "--out-dir", tmp_path / "again",
               "--accelerator", "cpu")
    for name in fold["judges"]:
        assert np.array_equal(read_mask(tmp_path / "again" / name), read_mask(tmp_path / "teacher" / "pseudo" / name))
    run_script("predict.py", "--checkpoint", fold["checkpoint"], "--images", *rows["image"][:3], "--out-dir",
               tmp_path / "listed", "--accelerator", "cpu")
    for name in names[:3]:  # images without a CSV
        assert np.array_equal(read_mask(tmp_path / "listed" / name), read_mask(tmp_path / "again" / name))

    weights = tmp_path / "train_weight_bmscore.csv"
    run_script("utils/get_weight.py", "--csv", train, "--pred-dir", tmp_path / "teacher" / "pseudo", "--out", weights)
    run_script("train_with_KDweight.py", "--train_csv", weights, "--valid_csv", csvs / "valid_noisy_60.csv", "--test_csv",
               csvs / "test.csv", "--name", "kd", "--out-dir", tmp_path, *TINY, "--epochs", 2)
    run_script("evaluate.py", "--checkpoint", tmp_path / "kd" / "best.ckpt", "--csv", csvs / "test.csv", "--json",
               tmp_path / "scores.json", "--accelerator", "cpu")
    result, scores = (json.loads(p.read_text()) for p in (tmp_path / "kd" / "result.json", tmp_path / "scores.json"))
    assert scores["bf"] == pytest.approx(result["test"][0]["bf"], abs=1e-6)
    assert {"miou", "iou_per_class", "dice", "bf", "boundary_iou"} <= scores.keys()
    run_script("report.py", tmp_path / "kd", "--out", tmp_path / "report", "--weights", weights, "--noisy-csv", train,
               "--pred-dir", tmp_path / "teacher" / "pseudo")
    made = {path.name for path in (tmp_path / "report").iterdir()}
    assert made == {"table.md", "table.json", "table.csv", "report.html", "learning_curves.png", "weights.png", "examples.png"}


def test_folds_are_even_seeded_and_keep_an_image_together():
    images = pd.Series([f"{i}.jpg" for i in range(10)])
    folds = assign_folds(images, 3, seed=1)
    assert sorted(np.bincount(folds)) == [3, 3, 4]
    assert np.array_equal(folds, assign_folds(images, 3, seed=1)) and not np.array_equal(folds, assign_folds(images, 3, seed=2))
    assert np.array_equal(assign_folds(pd.concat([images, images]), 3, seed=1), np.tile(folds, 2))


@pytest.fixture
def project(tmp_path):
    """A copy of the project, by links, whose `bash run.sh` uses this interpreter."""
    folder = tmp_path / "project"
    folder.mkdir()
    files = ("run.sh", "requirements.txt", "requirements-dev.txt", "pyproject.toml", *(p.name for p in ROOT.glob("*.py")))
    for item in (*ROOMS, *files):
        (folder / item).symlink_to(ROOT / item)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    installed = ("requirements-dev.txt", "requirements.txt", "pyproject.toml")
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
def test_the_main_job_ends_in_a_table_and_is_quick_the_second_time(photos, project):
    """bash run.sh quick on a handful of photographs, from a copy of the project."""
    def quick(*flags):
        return run_job(project, "quick", photos, "--name", "job", "--limit", 20, "--size", 48, 32, "--model", "unet",
                       "--width", 4, "--encoder-weights", "none", "--epochs", 1, *flags)

    done = quick()
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
    assert quick().returncode == 0
    assert before == {p: p.stat().st_mtime for p in (project / "runs").rglob("*.ckpt")}
    other = quick("--ratio", "0.3")
    assert other.returncode == 2 and "asks for 0.3; pass --name" in other.stderr
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
def test_all_methods_run_to_a_table(photos, project, tmp_path, monkeypatch, num_classes, kind, left_out):
    """bash run.sh table5: noise, teachers, weights, six scripts, controls, tables of classes, pictures."""
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
    done = run_job(project, "table5", "--data", source, "--rows", *names, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
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
    other = run_job(project, "table5", "--data", source, "--rows", *names, *flags, "--epochs", 2)
    assert other.returncode == 2 and "made with --epochs 1 and this call asks for 2; pass --name" in other.stderr
    again = run_job(project, "figure3", "--data", source, *flags)
    assert again.returncode == 0, again.stdout + again.stderr
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


# --- the shape --------------------------------------------------------------------------------------------------


def test_no_six_equal_lines_stand_twice_among_the_scripts():
    seen = defaultdict(set)
    for path in [*ROOT.glob("*.py"), *(path for room in ROOMS for path in ROOT.glob(f"{room}/*.py"))]:
        lines = [line.strip() for line in path.read_text().splitlines()]
        lines = [line for line in lines if line not in ("", '"""') and not line.startswith(("import ", "from "))]
        for i in range(len(lines) - 5):
            seen["\n".join(lines[i:i + 6])].add(f"{path.name}:{i}")
    twice = {block: places for block, places in seen.items() if len(places) > 1}
    assert not twice, twice


def test_each_train_script_fits_a_page():
    for path in ROOT.glob("train_*.py"):
        assert len(path.read_text().splitlines()) <= 90, path


@pytest.mark.prose
def test_every_script_explains_itself_with_a_command():
    for path in [*ROOT.glob("*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("utils/*.py"), *ROOT.glob("benchmarks/*.py")]:
        text = path.read_text()
        if "__main__" in text:
            assert f"python {path.relative_to(ROOT)}" in ast.get_docstring(ast.parse(text)), path


# --- quick to answer --------------------------------------------------------------------------------------------

HEAVY = {"torch", "torchvision", "lightning_fabric", "segmentation_models_pytorch", "timm", "matplotlib.pyplot", "scipy",
         "sklearn"}
ANSWER = """
import os, runpy, sys
sys.argv, sys.path[0] = sys.argv[1:], os.path.dirname(sys.argv[1])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("ended with", end.code)
print("loaded", *sys.modules)
"""


def loaded_by(*command):
    """The exit code of a command and the modules that it had loaded when it ended."""
    *_, ended, loaded = run_script("-c", ANSWER, *command).stdout.splitlines()
    return ended, set(loaded.split())


SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for folder in (".", "utils", "data", "benchmarks", "related/blindkd")
                 for path in (ROOT / folder).glob("*.py") if "\n    command_line(main)" in path.read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(script):
    ended, loaded = loaded_by(ROOT / script, "--help")
    assert ended == "ended with 0" and not loaded & HEAVY


@pytest.mark.parametrize("script", ["train_without_weight.py", "train_with_KDweight.py", "train_co_teaching.py",
                                    "train_teacher.py"])
def test_a_faulty_csv_is_refused_before_anything_heavy_is_loaded(script, tmp_path):
    csv = tmp_path / "train_bmscore.csv"
    csv.write_text("img,filename,weight\n" + "".join(f"i{n}.jpg,m{n}.png,0.5\n" for n in range(100)))
    ended, loaded = loaded_by(ROOT / script, "--train_csv", csv, "--name", "n", "--out-dir", tmp_path)
    assert ended == "ended with 2" and not loaded & HEAVY
