"""Many small trainings in one process: neither memory nor open files grow."""

import gc

import psutil
import pytest

from engine import loop
from tests.small_runs import arguments

SIZES = (16, 17, 24, 31, 32, 40, 48)


@pytest.mark.slow
def test_500_trainings_leave_nothing_behind(csvs, tmp_path):
    process, seen = psutil.Process(), []
    for number in range(500):
        size = [str(SIZES[number % 7]), str(SIZES[number // 7 % 7])]  # 49 sizes: PyTorch keeps something of each
        args = arguments(csvs, tmp_path, "--size", *size, "--epochs", "1", "--overwrite")
        loop.run(args, lambda logits, batch, epoch: [batch["weight"]])
        if number >= 100 and number % 50 == 49:  # libraries have settled
            gc.collect()
            seen.append((process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()))
    memory, files, threads = zip(*seen)
    print(f"\nafter 150 and 500 trainings: {memory[0]:.1f} and {memory[-1]:.1f} MiB, {files[0]} and {files[-1]} open files, "
          f"{threads[0]} and {threads[-1]} threads")
    assert max(files) <= files[0] and max(threads) <= threads[0]
    assert memory[-1] - memory[0] < 25  # MiB: a network that is kept would be 100
