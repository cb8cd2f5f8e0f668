"""The benchmarks run, small; and docs/performance.md shows what they left."""

import importlib
import json
import shlex
import sys

import pytest

from benchmarks import bench_start, bench_weights, measure, pairs
from tests.benchmark_calls import forked, run_benchmark
from tests.conftest import ROOT, run_script
from tests.script_calls import run

UNET = "--model unet --width 2"
MIB = 150
SMALL = {
    "bench_weights.py": "--rows 12 --memory-rows 1000 --pairs 3 --sides 64 128",
    "bench_step.py": "--width 2 --side 32 --batch-size 2 --classes 3",
    "bench_train.py": UNET + " --side 32 --batch-size 2 --steps 1 --matrix 64 --ways 'fp32, NCHW' 'bf16-mixed, channels last'",
    "bench_loader.py": UNET + " --limit 8 --size 32 48 --batch-size 2",
    "bench_cpu_training.py": UNET + " --side 32 --batch-size 2 --steps 1 --warm-up 1 --ways 'fused AdamW' 'memory given back'",
    "bench_own.py": "--model unet --size 32 48 --batch-size 2 --steps 2",
    "bench_start.py": "--rows 50",
    "bench_first_step.py": "--rows 120",
    "bench_sweep.py": "--portraits 20 --size 32 32 --epochs 1 --seeds 0",
    "bench_growth.py": UNET + " --sides 32 64 --classes 2 3",
}


WITH_COMMANDS = ("bench_weights.py", "bench_step.py", "bench_start.py", "bench_first_step.py", "bench_sweep.py")


def test_a_command_is_timed_and_its_memory_is_that_of_its_largest_process():
    filled = f"x = b'x' * ({MIB} << 20)"
    code = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {filled!r}])\ntime.sleep(0.3)"
    seconds, mib = measure.run_command(["-c", code])
    assert seconds >= 0.3 and MIB < mib < MIB + 50 and measure.run_command(["-c", ""])[1] < 50
    with pytest.raises(SystemExit, match="ended with 3"):
        measure.run_command(["-c", "raise SystemExit(3)"])


@pytest.fixture
def here(monkeypatch, capsys):
    """A function that runs a benchmark and the commands it starts without another interpreter; what it prints."""
    def tables_here(command, **variables):
        """tables.py shares the fork server of this process."""
        if command[0] != "tables.py":
            return forked(command, **variables)
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", list(map(str, command)))
            return measure.seconds_of(importlib.import_module("tables").main), MIB

    def smaller(generator, height=128, width=256, *more, **level):
        """Of the maps of 2048x1024."""
        return pairs.draw_regions(generator, height, width, *more, **level)

    def script_here(words, code):
        if words[0] == "-c":
            return alone(words, code)
        with monkeypatch.context() as patch:
            return measure.seconds_of(lambda: ended.append(run(patch, capsys, ROOT, *words)[0] == code))

    def benchmark(name, *flags):
        with monkeypatch.context() as patch:
            patch.setattr(bench_start, "run", script_here)
            patch.setattr(bench_weights, "draw_regions", smaller)
            run_benchmark(patch, name, *flags, run_command=tables_here)
        assert all(ended)
        return capsys.readouterr().out

    alone, ended = bench_start.run, []
    return benchmark


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_leaves_its_tables_and_how_it_was_made(script, tmp_path, here):
    words = [*shlex.split(SMALL[script]), "--rounds", 1, "--out", tmp_path / "r.json"]
    printed = here(script, *words) if script in WITH_COMMANDS else run_script(f"benchmarks/{script}", *words).stdout
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["command"].startswith(f"python benchmarks/{script} ") and {"cpu", "cores", "date"} <= result["machine"].keys()
    for lines in result["tables"].values():
        assert len(lines) > 2 and len({line.count("|") for line in lines}) == 1 and "\n".join(lines) in printed
    if script == "bench_step.py":
        waits = [line.split("|")[2:-1] for line in result["tables"]["Operations that make the host wait, in one step"][2:]]
        assert {cell.strip() for row in waits for cell in row} == {"0"}
    if script == "bench_weights.py":  # other ways to the same score
        found = result["peers' BF"]
        assert found["OpenCV, ours"] == pytest.approx(found["cdist"]) == pytest.approx(found["5x5 window, max-pooling"])


@pytest.mark.prose
def test_the_page_shows_the_committed_results():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert len(results) >= 5
    for path in results:
        for lines in json.loads(path.read_text())["tables"].values():
            assert "\n".join(lines) in page, path
