"""The commands a user types: as published, resumed after a kill, refused when wrong; and the shape of the scripts."""

import ast
import itertools
import json
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from data.pictures import read_image, read_mask
from data.rows import pseudo_label_names, read_rows
from engine.folds import assign_folds
from tests.conftest import ROOT, environment, run_script
from tests.processes import kill, run_together, start_script
from tests.small_runs import wait_for
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
    """A command's words, and of two networks the flag that makes the second one small: DeepLabv3+ has no --width."""
    small = [] if "weight" in command.split(".py")[0] else ["--encoder-b", "mobilenet_v2"]
    return [*command.format(csv=csvs).replace('"', "").split(), *small]


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
    """As torchrun does, on CPUs: every test sample counted once, both networks equal in both processes."""
    printed = run_together(tmp_path, *words(command, csvs), "--out-dir", tmp_path / "runs", *TINY, "--epochs", 1)
    folder, = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["machine"]["processes"] == 2, printed
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
    started = start_script(*command, "--name", "run", "--out-dir", tmp_path / "broken")
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, started)
    kill(started)
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
ANSWERS = """
import json, os, runpy, sys
import cv2, numpy, pandas
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = json.loads(line)
        sys.path[0] = os.path.dirname(sys.argv[0])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            print("ended with", end.code)
        print("loaded", *sys.modules, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("next", flush=True)
"""


@pytest.fixture(scope="module")
def loaded_by():
    """A function that runs a command; returns its exit code and the modules that it had loaded when it ended.

    Commands are forks of one interpreter that has the light packages alone, which most of them import.
    """
    process = subprocess.Popen([sys.executable, "-c", ANSWERS], cwd=ROOT, env=environment(), text=True, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def answer(*command):
        process.stdin.write(json.dumps(list(map(str, command))) + "\n")
        process.stdin.flush()
        lines = itertools.takewhile(lambda line: line not in ("", "next\n"), iter(process.stdout.readline, None))
        *_, ended, loaded = lines
        return ended.strip(), set(loaded.split())

    yield answer
    process.stdin.close()
    assert process.wait(timeout=30) == 0


SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for folder in (".", "utils", "data", "benchmarks", "related/blindkd")
                 for path in (ROOT / folder).glob("*.py") if "\n    command_line(main)" in path.read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_nothing_heavy(loaded_by, script):
    ended, loaded = loaded_by(ROOT / script, "--help")
    assert ended == "ended with 0" and not loaded & HEAVY


@pytest.mark.parametrize("script", ["train_without_weight.py", "train_with_KDweight.py", "train_co_teaching.py",
                                    "train_teacher.py"])
def test_a_faulty_csv_is_refused_before_anything_heavy_is_loaded(loaded_by, script, tmp_path):
    csv = tmp_path / "train_bmscore.csv"
    csv.write_text("img,filename,weight\n" + "".join(f"i{n}.jpg,m{n}.png,0.5\n" for n in range(100)))
    ended, loaded = loaded_by(ROOT / script, "--train_csv", csv, "--name", "n", "--out-dir", tmp_path)
    assert ended == "ended with 2" and not loaded & HEAVY
