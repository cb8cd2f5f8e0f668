"""The method as a whole, on drawn portraits with planted noise: teachers find the noisy masks, and their weights help."""

import importlib
import json
import sys
from functools import cache

import numpy as np
import pytest

from cli.files import write_rows
from data.make_sample import draw_set
from data.rows import read_rows
from data.splits import pair_folder
from utils.ranking import auroc
from utils.weighting import shuffled

SIZE = 48  # px; noise of 25 to 40 px in a picture of 321 is one of 4 to 6 here, so that tiny networks see it
TRAINING = ["--size", SIZE, SIZE, "--width", 8, "--epochs", 16, "--batch-size", 8, "--optimizer", "adamw", "-l", 0.01,
            "--accelerator", "cpu", "--cache"]


def call(module, *arguments):
    """Run a script's main() in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{module}.py", *map(str, arguments)])
        importlib.import_module(module).main()


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A function of a seed: the weight CSV of `judge`, which is made once for all tests."""
    return cache(lambda seed: judge(tmp_path_factory.mktemp("judged"), seed))


def judge(folder, seed, count=120):
    """Draw portraits, make 40 % of their masks noisy, train two out-of-fold teachers; the weight CSV, scored by BF."""
    draw_set(folder / "train", count, (SIZE, SIZE), seed)
    write_rows(folder / "clean.csv", pair_folder(folder / "train"))
    noisy, weights = folder / "noisy.csv", folder / "noisy_bfscore.csv"
    call("utils.generate_noisy_label", "--csv", folder / "clean.csv", "--out", noisy, "--ratio", 0.4, "--levels", 25,
         40, "--seed", seed)
    call("train_teacher", "--train_csv", noisy, "--name", "teacher", "--out-dir", folder, "--seed", seed, *TRAINING)
    call("utils.get_weight", "--csv", noisy, "--pred-dir", folder / "teacher" / "pseudo", "--metric", "bf", "--out",
         weights)
    return weights


def test_teachers_find_the_planted_noise(judged):
    rows = read_rows(judged(1))
    weights, noisy = rows["weight"].to_numpy(), rows["iterations"].to_numpy() > 0
    assert auroc(weights, noisy) > 0.8
    assert max(auroc(shuffled(weights, seed), noisy) for seed in range(20)) < 0.7
    assert weights[~noisy].mean() > weights[noisy].mean() + 0.1


@pytest.mark.slow
def test_a_student_learns_more_by_the_weights_than_by_the_same_ones_shuffled(judged):
    """BF on clean masks, the mean of two sets of portraits."""
    found = {"weighted": [], "shuffled": []}
    for seed in (0, 1):
        weights = judged(seed)
        folder = weights.parent
        draw_set(folder / "test", 40, (SIZE, SIZE), 1000 + seed)
        write_rows(folder / "test.csv", pair_folder(folder / "test"))
        for name, flags in (("weighted", []), ("shuffled", ["--shuffle-weights"])):
            call("train_with_Teacher_weight", "--train_csv", weights, "--test_csv", folder / "test.csv", "--name", name,
                 "--out-dir", folder, "--seed", seed, *TRAINING, *flags)
            found[name].append(json.loads((folder / name / "result.json").read_text())["test_last"][0]["bf"])
    assert np.mean(found["weighted"]) > np.mean(found["shuffled"]) + 0.02, found
