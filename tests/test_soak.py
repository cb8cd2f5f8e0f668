"""Many small trainings in one process: neither memory nor open files nor Python's objects grow."""

import gc

import psutil
import pytest

from engine import loop
from tests.small_runs import arguments

SIZES = (16, 24, 31)
TRAININGS, SETTLED, STRIDE = 80, 20, 12


@pytest.mark.slow
def test_many_trainings_leave_nothing_behind(csvs, tmp_path):
    process, seen = psutil.Process(), []
    for number in range(TRAININGS):
        size = [str(SIZES[number % 3]), str(SIZES[number // 3 % 3])]  # 9 sizes: PyTorch keeps something of each
        args = arguments(csvs, tmp_path, "--size", *size, "--width", "8", "--epochs", "1", "--overwrite")
        loop.run(args, lambda logits, batch, epoch: [batch["weight"]])
        if number >= SETTLED and (number - SETTLED) % STRIDE == STRIDE - 1:  # libraries have settled
            gc.collect()
            seen.append((process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), len(gc.get_objects())))
    memory, files, threads, objects = zip(*seen)
    print(f"\nafter {SETTLED + STRIDE} and {TRAININGS} trainings: {memory[0]:.1f} and {memory[-1]:.1f} MiB, {files[0]} and "
          f"{files[-1]} open files, {threads[0]} and {threads[-1]} threads, {objects[0]} and {objects[-1]} objects")
    assert max(files) <= files[0] and max(threads) <= threads[0]
    assert objects[-1] - objects[0] < TRAININGS - SETTLED - STRIDE  # fewer than one of each training
    assert memory[-1] - memory[0] < 4  # MiB, 0.08 of each training; a network that is kept would be 90
