"""--fast: which precision it chooses, what it says and records, how it resumes; and the table of its scores."""

import json
import os
import signal
from argparse import Namespace

import pytest

from benchmarks import bench_fast
from cli import machine
from cli.command_line import Terminated
from cli.files import UserError
from engine import devices, loop
from engine.flags import train_parser
from reports.experiment import training_flags
from tests.small_runs import arguments, digests, weigh

WITH, WITHOUT = "fpu sse2 avx512f avx512_bf16 amx_bf16", "fpu sse2 avx2 avx512f bf16"  # the last one: of another processor


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """A function: be on a machine without a GPU whose processor has these features."""
    def be(features):
        file = tmp_path / "cpuinfo"
        file.write_text(f"processor\t: 0\nflags\t\t: {features}\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n")
        monkeypatch.setattr(machine, "PROCESSOR", str(file))
        monkeypatch.setattr(devices, "gpu_capability", lambda: None)

    return be


# --- the choice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features, accelerator, precision, why", [
    (WITH, "cpu", "bf16-mixed", "the processor has amx_bf16 and avx512_bf16"),
    ("fpu avx512_bf16", "auto", "bf16-mixed", "the processor has avx512_bf16"),
    (WITHOUT, "cpu", "32-true", "the processor has no instructions for bf16"),
    (WITH, "mps", "32-true", "nothing else was measured on Apple's GPUs"),
])
def test_the_precision_of_a_processor(processor, features, accelerator, precision, why):
    processor(features)
    assert devices.fastest_precision(accelerator) == (precision, why)


def test_a_system_that_does_not_tell_has_no_features(monkeypatch):
    monkeypatch.setattr(machine, "PROCESSOR", "/no/such/file")
    assert machine.processor_features() == set()


@pytest.mark.parametrize("capability, precision", [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "32-true")])
def test_the_precision_of_a_gpu(processor, monkeypatch, capability, precision):
    processor(WITHOUT)
    monkeypatch.setattr(devices, "gpu_capability", lambda: capability)
    assert devices.fastest_precision("auto")[0] == precision
    assert devices.fastest_precision("cpu")[0] == "32-true"  # the GPU is not asked for


@pytest.mark.parametrize("words, precision", [
    ("", "32-true"), ("--fast", "fast"), ("--precision fast", "fast"), ("--fast --precision 32-true", "32-true"),
    ("--precision 16-mixed --fast", "fast")])
def test_the_last_flag_counts_and_a_plan_hands_it_on_once(words, precision):
    args = train_parser("").parse_args(["--train_csv", "-", "--name", "-", *words.split()])
    assert args.precision == precision and not hasattr(args, "fast")
    assert training_flags(words.split()) == (["--precision", precision] if precision != "32-true" else [])


# --- runs -------------------------------------------------------------------------------------------------------


def recorded(folder):
    return [json.loads((folder / "run" / name).read_text()) for name in ("args.json", "result.json")]


def test_a_run_says_and_records_what_was_chosen(csvs, tmp_path, capsys, processor):
    processor(WITH)
    loop.run(arguments(csvs, tmp_path / "fast", "--fast"), weigh)
    said = capsys.readouterr().out
    assert said.count("fast:") == 1 and "--fast: --precision bf16-mixed, the processor has amx_bf16 and avx512_bf16\n" in said
    loop.run(arguments(csvs, tmp_path / "named", "--precision", "bf16-mixed"), weigh)
    assert "fast:" not in capsys.readouterr().out
    assert digests(tmp_path / "fast" / "run") == digests(tmp_path / "named" / "run")
    for fast, named in zip(recorded(tmp_path / "fast"), recorded(tmp_path / "named")):
        fast, named = (each.get("args", each) for each in (fast, named))
        assert fast["precision"] == "bf16-mixed" and fast.keys() == named.keys()


def test_without_instructions_for_bf16_a_run_is_that_without_the_flag(csvs, tmp_path, processor):
    processor(WITHOUT)
    loop.run(arguments(csvs, tmp_path / "fast", "--fast"), weigh)
    loop.run(arguments(csvs, tmp_path / "plain"), weigh)
    assert digests(tmp_path / "fast" / "run") == digests(tmp_path / "plain" / "run")
    assert recorded(tmp_path / "fast")[0]["precision"] == "32-true"


def test_a_resumed_run_goes_on_as_it_began_on_another_processor_too(csvs, tmp_path, capsys, processor):
    def run(home, *flags, stopped_in=None):
        def stopping(logits, batch, epoch):
            if epoch == stopped_in:
                os.kill(os.getpid(), signal.SIGTERM)
            return [batch["weight"]]

        return loop.run(arguments(csvs, home, "--fast", *flags), stopping)

    processor(WITH)
    run(tmp_path / "whole")
    with pytest.raises(Terminated):
        run(tmp_path / "broken", stopped_in=1)
    processor(WITHOUT)
    capsys.readouterr()
    run(tmp_path / "broken", "--resume")
    assert "--fast: --precision bf16-mixed, as the run began\n" in capsys.readouterr().out
    assert digests(tmp_path / "broken" / "run") == digests(tmp_path / "whole" / "run")
    assert recorded(tmp_path / "broken")[1]["args"]["precision"] == "bf16-mixed"


def scored(precision, *seeds):
    return {seed: {"miou": miou, "bf": bf, "precision": precision, "seconds": seconds}
            for seed, (miou, bf, seconds) in enumerate(seeds)}


def test_the_table_of_scores_pairs_the_seeds():
    """Differences of 1 and 3 points: 2 on average, and half the interval is 12.706 * 1.4142 / 2 ** 0.5 by Student's t.

    Times of 4 / 10 and 20 / 25, 0.6 on average; by their sums it were 24 / 35.
    """
    found = {"default": scored("32-true", (0.8, 0.5, 10), (0.7, 0.6, 25)),
             "--fast": scored("bf16-mixed", (0.8, 0.51, 4), (0.7, 0.63, 20))}
    assert bench_fast.lines_of(found)[2:] == [
        "| default | 32-true | 75.00 | 55.00 | - | - | 1.00 |",
        "| --fast | bf16-mixed | 75.00 | 57.00 | +0.00 ± 0.00 | +2.00 ± 12.71 | 0.60 |"]


def test_one_seed_has_no_interval():
    found = {"default": scored("32-true", (0.8, 0.5, 10)), "--fast": scored("bf16-mixed", (0.79, 0.52, 5))}
    assert bench_fast.lines_of(found)[-1] == "| --fast | bf16-mixed | 79.00 | 52.00 | -1.00 | +2.00 | 0.50 |"


def test_a_drawn_set_of_other_flags_is_refused(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(bench_fast, "python", lambda script, *words: calls.append(script))
    bench_fast.drawn(Namespace(count=5, size=[32, 24]), tmp_path)
    assert len(calls) == 3
    (tmp_path / "train_noisy.csv").touch()
    bench_fast.drawn(Namespace(count=5, size=[32, 24]), tmp_path)
    for count, size in ((6, [32, 24]), (5, [24, 32])):
        with pytest.raises(UserError, match="holds a set of another --count or --size"):
            bench_fast.drawn(Namespace(count=count, size=size), tmp_path)
    assert len(calls) == 3
    (tmp_path / "settings.json").unlink()  # as earlier versions left it
    bench_fast.drawn(Namespace(count=5, size=[32, 24]), tmp_path)
    assert len(calls) == 3
