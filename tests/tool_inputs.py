"""An album with everything that the tools read, and checks that a refused tool changes nothing."""

import shutil

import pytest
import torch

from cli.files import write_json
from engine import checkpoint
from tests.album import Album
from tests.run_results import run_of
from tests.script_calls import check

PREDICT, EVALUATE, TEACHER = "predict.py", "evaluate.py", "train_teacher.py"
NOISE, NOISY_SET, WEIGHT, SAMPLE = ("utils/add_noise.py", "utils/generate_noisy_label.py", "utils/get_weight.py",
                                    "data/make_sample.py")
CPU = ["--accelerator", "cpu"]
SCORED = ["--csv", "train.csv", "--pred-dir", "pseudo"]
NETWORK = ["--checkpoint", "x.ckpt", "--csv", "train.csv", *CPU]
RUNS = ["runs/noisy", "runs/clean", "--out", "report"]
LEVELS, WEIGHTS = (0, 0, 6, 6), (1, 0.75, 0.5, 0.25)


class Desk(Album):
    """An album with pseudo-labels, a network, a weight CSV, a noisy one, and two finished runs."""

    def __init__(self, folder):
        super().__init__(folder)
        shutil.copytree(folder / "masks", folder / "pseudo")
        config = {"name": "unet", "encoder": "resnet34", "num_classes": 2, "width": 4, "size": [16, 16], "theta": 3.0}
        torch.manual_seed(0)
        network = {"config": config, "state": checkpoint.build_from(config).state_dict()}
        checkpoint.save(folder / "x.ckpt", {"networks": [network]})
        self.levels("noisy.csv", range(4), LEVELS)
        self.weights("w.csv", range(4), WEIGHTS)
        for name in ("noisy", "clean"):
            write_json(folder / "runs" / name / "result.json", run_of(name))
            (folder / "runs" / name / "log.jsonl").write_text('{"epoch": 0, "loss": [0.5], "weight": [1.0], "valid": null}\n')

    def levels(self, name, numbers, levels):
        self.write(self.rows(numbers, levels), name, "img,filename,iterations\n")

    def weights(self, name, numbers, weights):
        self.folder.joinpath(name).parent.mkdir(exist_ok=True)
        self.write(self.rows(numbers, weights), name, "img,filename,weight\n")

    def spoil(self, name):
        (self.folder / name).write_text("no picture")

    def copy(self, name, other):
        (self.folder / other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / name, self.folder / other)


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(monkeypatch, capsys, folder, script, message, *flags):
    """Check that a command is refused and changes no file."""
    before = contents(folder)
    errors = check(monkeypatch, capsys, folder, script, message, *flags)
    assert contents(folder) == before
    return errors


def named(cases):
    return [pytest.param(*case[1:], id=case[0]) for case in cases]
