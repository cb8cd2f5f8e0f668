"""Scripts in forked processes: one that is still at work, and several that train together as torchrun's do."""

from multiprocessing.connection import wait

import torch

from cli import warm
from tests.conftest import ROOT, environment


def start_script(*arguments, cwd=ROOT, output=None):
    """Start `python ARGUMENTS`, see `conftest.run_script`; returns the process. What it prints goes to a file or nowhere."""
    script, *flags = map(str, arguments)
    return warm.start_script(script, flags, environment(), output or "/dev/null", folder=cwd)


def kill(process):
    """SIGKILL, and wait for the end."""
    process.kill()
    warm.exit_code(process)


def run_together(folder, *arguments, count=2, cwd=ROOT):
    """Run a script in `count` processes with what `torchrun --standalone` tells them; returns what all of them print.

    torchrun adds two or more interpreters that import PyTorch; tests/test_devices.py compares the two ways. As with torchrun,
    this process keeps the store by which they meet, and when one fails the others are ended.

    Args:
        folder: for files of what they print.
    """
    script, *flags = map(str, arguments)
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    outputs = [folder / f"rank{rank}.txt" for rank in range(count)]
    processes = [warm.start_script(script, flags, {**environment(), **variables(rank, count, store.port)}, output, folder=cwd)
                 for rank, output in enumerate(outputs)]
    running = {process.sentinel: process for process in processes}
    try:
        while running:
            codes = [warm.exit_code(running.pop(sentinel)) for sentinel in wait(list(running), timeout=300)]
            if not codes or any(codes):
                break
    finally:
        for process in running.values():
            kill(process)
    printed = "".join(output.read_text(errors="replace") for output in outputs)
    assert [process.exitcode for process in processes] == [0] * count, printed
    return printed


def variables(rank, count, port):
    """The environment of one of torchrun's processes, as strings."""
    found = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "ROLE_RANK": rank, "WORLD_SIZE": count,
             "LOCAL_WORLD_SIZE": count, "GROUP_WORLD_SIZE": 1, "ROLE_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": port, "TORCHELASTIC_RESTART_COUNT": 0, "TORCHELASTIC_MAX_RESTARTS": 0,
             "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": True}
    return {name: str(value) for name, value in found.items()}
