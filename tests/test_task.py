"""The loop on other tasks, with other objectives, memories and frozen networks."""

import json
import os
import signal

import pandas as pd
import pytest
import torch

from cli.files import UserError
from engine import checkpoint, loop
from engine.objective import WeightedLoss
from engine.task import SEGMENTATION, Task
from tests import number_task
from tests.number_task import NUMBERS, Hits, Perceptron, Vectors, uniform
from tests.small_runs import arguments, digests, epochs_of
from utils.losses import main_logits, training_losses, weighted_loss

numbers = number_task.numbers


# --- a task of its own: a number from a vector ------------------------------------------------------------------


def test_a_task_of_numbers_leaves_its_own_scores(numbers, tmp_path, capsys):
    result = loop.run(numbers(), uniform, task=NUMBERS)
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["test"] == result["test"] and saved["test"][0].keys() == {"near", "close", "rows"}
    assert saved["compared"] == ["close"] and saved["titles"] == NUMBERS.titles
    assert saved["test"][0]["rows"] == 16 and saved["test"][0]["close"] > 0.9
    said = capsys.readouterr().out
    assert "| run | within 0.1 | within 1 |" in said and "  within 1 " in said and "mIoU" not in said and "BF" not in said
    close = [entry["valid"][0]["close"] for entry in epochs_of(tmp_path)]
    assert saved["best_epoch"] == close.index(max(close))
    network = Perceptron(16)
    network.load_state_dict(checkpoint.load(tmp_path / "run" / "best.ckpt")["networks"][0]["state"])
    rows = Vectors(pd.read_csv(tmp_path / "test.csv"), None, False)
    assert saved["test"][0]["close"] == pytest.approx(((network(rows.x) - rows.y).abs() < 1).float().mean().item())


def test_a_task_of_numbers_goes_on_and_refuses_other_rows(numbers, tmp_path):
    loop.run(numbers(), uniform, task=NUMBERS)
    assert loop.run(numbers("--resume"), uniform, task=NUMBERS)["epochs"] == 6
    pd.read_csv(tmp_path / "train.csv").iloc[:40].to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(UserError, match="64 rows then, 40 now"):
        loop.run(numbers("--resume"), uniform, task=NUMBERS)
    with pytest.raises(UserError, match="best.ckpt: not a checkpoint of a segmentation network"):
        checkpoint.load_network(tmp_path / "run" / "best.ckpt")


def test_a_loss_that_is_not_finite_names_the_tasks_samples(numbers):
    with pytest.raises(UserError, match=r"epoch 1, step 1: the loss is nan, .* on row \d+, row \d+"):
        loop.run(numbers(), lambda outputs, batch, epoch: [batch["weight"] * float("nan")], task=NUMBERS)


def test_scores_below_zero_choose_an_epoch_too(numbers):
    class Worse(Hits):
        def compute(self):
            return {"close": super().compute()["close"] - 5}

    task = Task(**{**vars(NUMBERS), "scorer": Worse, "titles": {}})
    assert loop.run(numbers(), uniform, task=task)["test"][0]["close"] < -3


# --- objectives -------------------------------------------------------------------------------------------------


def weighed(logits, batch, epoch):
    return [batch["weight"]] * len(logits)


def test_an_objective_equals_the_weights_it_replaces(csvs, tmp_path):
    """Bit-exact: the default task, the same task passed, and the same loss as an objective."""
    def objective(outputs, batch, epoch):
        return [weighted_loss(training_losses(output, batch["mask"]), batch["weight"]) for output in outputs]

    ways = {"default": {"weigh": weighed}, "task": {"weigh": weighed, "task": Task(**vars(SEGMENTATION))},
            "objective": {"objective": objective}}
    for name, way in ways.items():
        loop.run(arguments(csvs, tmp_path / name), **way)
    found = [digests(tmp_path / name / "run") for name in ways]
    assert found[0] == found[1] == found[2]
    logs = [epochs_of(tmp_path / name) for name in ways]
    assert logs[0] == logs[1] and [entry.pop("weight") for entry in logs[0]] and logs[0] == logs[2]


def test_selections_by_an_objective_that_wraps_them_are_counted(numbers, tmp_path):
    """A WeightedLoss can be passed too; here it keeps no sample, so no weight changes."""
    class Nothing(WeightedLoss):
        def __init__(self):
            super().__init__(loop.start_fabric(numbers()), NUMBERS, lambda outputs, batch, epoch: [0 * batch["weight"]], True)

    loop.run(numbers("--epochs", "1"), objective=Nothing(), task=NUMBERS)
    entry, = epochs_of(tmp_path)
    assert entry["empty"] == [8] and entry["weight"] == [0]


# --- frozen networks --------------------------------------------------------------------------------------------


def test_a_frozen_teacher_gives_outputs_and_stays_as_it_is(numbers, tmp_path):
    torch.manual_seed(5)
    teacher, seen = Perceptron(4), []
    before = {name: value.clone() for name, value in teacher.state_dict().items()}

    def objective(outputs, batch, epoch):
        student, taught = outputs
        assert student.requires_grad and not taught.requires_grad and not teacher.training
        seen.append(torch.equal(taught, teacher(batch["x"])))
        return [((student - taught)**2).mean()]

    result = loop.run(numbers(), objective=objective, task=NUMBERS, frozen=lambda args: [teacher])
    assert all(seen) and all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert len(result["test"]) == len(checkpoint.load(tmp_path / "run" / "last.ckpt")["networks"]) == 1
    entries = epochs_of(tmp_path)
    assert entries[-1]["loss"][0] < 0.1 * entries[0]["loss"][0] and "weight" not in entries[0]


def test_weights_see_the_frozen_networks_last(csvs, tmp_path):
    teacher = checkpoint.build_from(checkpoint.model_config(arguments(csvs, tmp_path)))

    def weigh(logits, batch, epoch):
        with torch.no_grad():
            assert len(logits) == 2 and torch.equal(logits[1], main_logits(teacher(batch["image"])))
        return [batch["weight"]]

    loop.run(arguments(csvs, tmp_path, "--epochs", "1"), weigh, frozen=[teacher])


# --- memory -----------------------------------------------------------------------------------------------------


class MeanLosses:
    """A running mean of each sample's loss; samples of a large one weigh less."""

    def __init__(self, rows):
        self.means, self.steps = torch.zeros(rows), 0

    def state_dict(self):
        return {"means": self.means, "steps": self.steps}

    def load_state_dict(self, state):
        self.means, self.steps = state["means"], state["steps"]

    def weigh(self, outputs, batch, epoch):
        losses = (outputs[0] - batch["y"])**2
        self.means[batch["index"]] = 0.9 * self.means[batch["index"]] + 0.1 * losses
        self.steps += 1
        return [1 / (1 + self.means[batch["index"]])]


@pytest.mark.parametrize("flags", [[], ["--schedule", "poly", "--warmup-steps", "10", "--optimizer", "sgd"]])
def test_a_memory_goes_on_amid_an_epoch_as_if_nothing_had_happened(numbers, tmp_path, flags, interruptible):
    def run(home, at=None):
        memory, steps = MeanLosses(64), iter(range(1000))  # new, as in a new process

        def weigh(outputs, batch, epoch):
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return memory.weigh(outputs, batch, epoch)

        args = numbers("-l", "0.01", *flags, *["--resume"] * (at is not None))
        args.out_dir = str(tmp_path / home)
        loop.run(args, weigh, task=NUMBERS, memory=memory)
        return memory

    whole = run("whole")
    for at in (3, 11, 0):
        with pytest.raises(KeyboardInterrupt, match="stopped in epoch"):
            run("broken", at)
    broken = run("broken", 999)
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")
    assert epochs_of(tmp_path / "broken") == epochs_of(tmp_path / "whole")
    assert whole.steps == broken.steps == 6 * 8 and torch.equal(whole.means, broken.means)


def test_a_run_without_the_memory_it_needs_is_not_resumed(numbers, tmp_path):
    loop.run(numbers(), uniform, task=NUMBERS)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match="last.ckpt is not of this run"):
        loop.run(numbers("--resume"), uniform, task=NUMBERS, memory=MeanLosses(64))


def test_what_is_done_after_each_epoch_is_logged_saved_and_done_anew_after_a_stop(numbers, tmp_path, interruptible):
    class Notes:
        """The epochs and the numbers of steps that were done by then."""

        def __init__(self):
            self.notes = []

        def state_dict(self):
            return {"notes": list(self.notes)}

        def load_state_dict(self, state):
            self.notes = list(state["notes"])

    def run(home, at=None):
        memory = Notes()

        def look(fabric, state, stop):
            assert not state.networks[0].training  # validation was before it
            if state.epoch == at:
                os.kill(os.getpid(), signal.SIGTERM)
            stop.check()
            memory.notes.append(state.epoch)
            return {"noted": state.begun["step"]}

        args = numbers("--resume")
        args.out_dir = str(tmp_path / home)
        loop.run(args, uniform, task=NUMBERS, memory=memory, after_epoch=look)
        return memory.notes

    assert run("whole") == list(range(6)) and [entry["noted"] for entry in epochs_of(tmp_path / "whole")] == [8] * 6
    for at in (0, 3, 5):
        with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {at + 1} after 8 of 8 steps, saved"):
            run("broken", at)
    assert run("broken") == list(range(6))
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")
    assert epochs_of(tmp_path / "broken") == epochs_of(tmp_path / "whole")
