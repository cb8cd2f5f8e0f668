"""Shared fixtures: small sets of real photographs where they lie beside the project, else of drawn portraits."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import warm
from cli.files import write_rows
from data.make_sample import draw_portrait
from data.pictures import write_image, write_mask
from data.splits import pair_folder, split_rows
from tests.album import Album

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ROOT.parent / "shared" / "datasets"

# a free port each time, so that two tests may run at once
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)

# their failures show what differs, as those of the tests
pytest.register_assert_rewrite("tests.class_sets", "tests.script_calls", "tests.small_runs", "tests.tool_inputs")

os.environ["NLKD_FILES"] = ""  # tests remember no checked files, but for those of that memory
torch.set_num_threads(1)  # the networks are tiny: more threads only wait for each other


@pytest.hookimpl(trylast=True)  # what is not asked for is gone
def pytest_collection_modifyitems(items):
    """Let files with slow tests begin in both halves of the tests, since each of two processes (`-n 2`) begins with a half.

    Short tests then come last, and no process waits for a long one of the other. Tests of a file stay together.
    """
    slow = sorted({item.path for item in items if item.get_closest_marker("slow")})
    first, second = ([item for item in items if item.path in slow[part::2]] for part in (0, 1))
    others = [item for item in items if item.path not in slow]
    middle = max(0, (len(items) + 1) // 2 - len(first))
    items[:] = first + others[:middle] + second + others[middle:]


def pytest_report_header():
    if DATASETS.is_dir():
        return f"real photographs: {DATASETS}"
    return f"real photographs: NOT FOUND at {DATASETS}; tests on them are SKIPPED, the others use drawn portraits"


def environment():
    """That of a user without a GPU, one thread a command."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def run_script(*arguments, check=True, cwd=ROOT):
    """Run `python ARGUMENTS` as a user would; returns the CompletedProcess with text output.

    A script runs in a process forked from one that has its libraries already, so that tests do not wait for imports.
    """
    command = list(map(str, arguments))
    if command[0].startswith("-"):
        done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment(), text=True, capture_output=True)
    else:
        done = warm.run_script(command[0], command[1:], environment(), cwd)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def bash_commands(text):
    """Commands of a page's ```bash blocks, in order."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    return [line for block in blocks for line in block.splitlines() if line and line[0] != "#"]


@pytest.fixture
def interruptible():
    """Ctrl-C reaches this process and the commands it starts, even where the tests are a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def real_datasets():
    """The folder of real photographs; skips, aloud, where it is not."""
    if not DATASETS.is_dir():
        pytest.skip(f"no real photographs at {DATASETS}")
    return DATASETS


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder with images/ and masks/: people photographs where they are, else drawn ones."""
    if (DATASETS / "people").is_dir():
        return DATASETS / "people"
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(24):
        image, mask = draw_portrait(np.random.default_rng(number), (96, 64))
        write_image(folder / "images" / f"{number}.jpg", image)
        write_mask(folder / "masks" / f"{number}.png", mask)
    return folder


@pytest.fixture(scope="session")
def csvs(photos, tmp_path_factory):
    """Folder of tiny CSVs: train (12 rows), valid (3), test (4), as published: iterations, weights, and `,0` for test."""
    folder = tmp_path_factory.mktemp("csv")
    splits = split_rows(pair_folder(photos), 3 / 19, 4 / 19, seed=0, limit=19)
    train = splits["train"].assign(iterations=np.arange(len(splits["train"])) % 3 * 4,
                                   weight=np.linspace(0.3, 1, len(splits["train"])))
    write_rows(folder / "train_noisy_60.csv", train, "iterations")
    for metric in ("miou", "bf", "bm"):
        write_rows(folder / f"train_noisy_60_PointRend_weight_{metric}score.csv", train, "weight")
    write_rows(folder / "valid_noisy_60.csv", splits["valid"].assign(iterations=0), "iterations")
    rows = "".join(f"{row.image},{row.mask}\n" for row in splits["test"].itertuples())
    (folder / "test.csv").write_text(",0\n" + rows)
    return folder


@pytest.fixture
def album(tmp_path):
    return Album(tmp_path)
