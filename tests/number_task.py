"""A task of its own: a number from a vector."""

import pandas as pd
import pytest
import torch

from cli.command_line import tool_parser
from engine.flags import add_optimizer_flags, add_run_flags, add_training_device_flags
from engine.task import Task
from utils.metrics import over_processes


class Vectors:
    """Rows with columns x0, x1 and y, as tensors."""

    def __init__(self, rows, args, training):
        self.x = torch.tensor(rows[["x0", "x1"]].to_numpy(), dtype=torch.float32)
        self.y = torch.tensor(rows["y"].to_numpy(), dtype=torch.float32)
        self.names = [f"row {number}" for number in range(len(rows))]

    def __len__(self):
        return len(self.y)

    def __getitems__(self, indices):
        index = torch.tensor(indices)
        return {"x": self.x[index], "y": self.y[index], "weight": torch.ones(len(index)), "index": index}


class Hits:
    """How often a prediction lies within 0.1 and within 1 of the truth."""

    def __init__(self, args, device):
        self.counts = torch.zeros(3, device=device)

    def update(self, output, batch):
        off = (output - batch["y"]).abs()
        self.counts += torch.stack([(off < 0.1).sum(), (off < 1).sum(), torch.tensor(len(off))])

    def reduce(self, fabric):
        self.counts = over_processes(fabric, self.counts, "sum")

    def compute(self):
        near, close, rows = self.counts.tolist()
        return {"near": near / rows, "close": close / rows, "rows": int(rows)}


class Perceptron(torch.nn.Sequential):
    """A vector (B, 2) -> a number (B,)."""

    def __init__(self, width):
        super().__init__(torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, 1), torch.nn.Flatten(0))


def read_numbers(args):
    return {split: pd.read_csv(csv) for split in ("train", "valid", "test") if (csv := getattr(args, f"{split}_csv"))}


NUMBERS = Task(
    rows=read_numbers, dataset=Vectors, config=lambda args, suffix: {"width": args.hidden},
    build=lambda config, encoder_weights: Perceptron(config["width"]), forward=lambda network, batch: network(batch["x"]),
    losses=lambda output, batch: (output - batch["y"])**2, scorer=Hits, compared=("close",),
    titles={"near": "within 0.1", "close": "within 1"})


@pytest.fixture
def numbers(tmp_path):
    """A function that parses the flags of a run on y = 3 x0 - x1; the command line is put together from the shared groups."""
    generator = torch.Generator().manual_seed(0)
    for split, rows in (("train", 64), ("valid", 16), ("test", 16)):
        x = torch.randn(rows, 2, generator=generator)
        table = pd.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "y": 3 * x[:, 0] - x[:, 1]})
        table.to_csv(tmp_path / f"{split}.csv", index=False)

    def parse(*flags):
        parser = tool_parser("")
        add_run_flags(parser)
        add_optimizer_flags(parser)
        add_training_device_flags(parser)
        parser.add_argument("--hidden", type=int, default=16)
        csvs = [word for split in ("train", "valid", "test") for word in (f"--{split}_csv", str(tmp_path / f"{split}.csv"))]
        return parser.parse_args([*csvs, "--name", "run", "--out-dir", str(tmp_path), "--accelerator", "cpu", "-b", "8",
                                  "--epochs", "6", "--optimizer", "adamw", "-l", "0.05", "--clip", "0", *flags])

    return parse


def uniform(outputs, batch, epoch):
    return [batch["weight"]] * len(outputs)
