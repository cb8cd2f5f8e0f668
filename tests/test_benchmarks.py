"""The benchmarks run, small; and docs/performance.md shows what they left."""

import json

import pytest

from tests.conftest import ROOT, run_script

UNET = "--model unet --width 2"
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


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL)
def test_a_benchmark_leaves_its_tables_and_how_it_was_made(script, tmp_path):
    import shlex

    flags = shlex.split(SMALL[script])
    done = run_script(f"benchmarks/{script}", *flags, "--rounds", 1, "--out", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["command"].startswith(f"python benchmarks/{script} ") and {"cpu", "cores", "date"} <= result["machine"].keys()
    for lines in result["tables"].values():
        assert len(lines) > 2 and len({line.count("|") for line in lines}) == 1 and "\n".join(lines) in done.stdout
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
