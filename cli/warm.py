"""Scripts in processes that have their libraries already: each is forked from one process that imported them.

A training's imports take seconds, as long as the training of a small table. multiprocessing's fork server imports them
once for all scripts that this process starts; a script then begins in a tenth of a second, with a memory, signals and an exit
code of its own, as if it had been called by `python SCRIPT FLAGS`. What differs: its standard input is empty, the search path
is that of this process, `ps` shows the fork server's command, libraries' exit handlers do not run, and variables that are read
at import are those of the first script. There is no fork server on Windows, and none here before Python 3.11.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil

from cli.machine import usable_cores

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = [  # what trainings and their tools import; none of it asks for a GPU, which would tie all scripts to its state
    "pandas", "scipy.stats", "scipy.ndimage", "cv2", "torch", "torchvision.transforms.v2", "segmentation_models_pytorch",
    "lightning_fabric", "torch_optimizer", "sklearn.metrics", "sklearn.mixture", "torch.utils.tensorboard", "engine.loop",
    "engine.own_run", "engine.folds", "models.smp", "utils.get_weight", "cli.warm"]
LOST = 255  # the exit code of a script whose server has died
_started: list[bool] = []
_one_at_a_time = threading.Lock()  # starting a process looks whether others have ended, and an exit code can be read once


def available() -> bool:
    """Whether this system can fork a process that has been prepared."""
    return sys.version_info >= (3, 11) and "forkserver" in multiprocessing.get_all_start_methods()


def start_script(script: str | Path, flags: Sequence[str], environment: Mapping[str, str], output: str | Path | None = None,
                 errors: str | Path | None = None, folder: str | Path | None = None) -> ForkServerProcess:
    """Start a script in a process of its own; returns the process; see `exit_code`.

    The script is killed when this process ends, however it ends, or drops what is returned here.

    Args:
        script: path.
        flags: its arguments.
        environment: all variables that it sees. OMP_NUM_THREADS among them counts, others that libraries read while they
            are imported do not.
        output, errors: files for what it prints; default: where this process prints. One file for both is given as `output`.
        folder: where it runs; default: here.
    """
    context = multiprocessing.get_context("forkserver")
    place, streams = str(folder or os.getcwd()), (_absolute(output), _absolute(errors))
    with _one_at_a_time:
        seen = dict(environment)
        process = context.Process(target=_run, args=(str(script), list(flags), seen, *streams, place))
        _start_server(context, seen)
        process.start()
    return process


def own_environment() -> dict[str, str]:
    """The variables of this process; unlike `os.environ`, never those that the fork server gets for a moment."""
    with _one_at_a_time:
        return dict(os.environ)


def exit_code(process: ForkServerProcess) -> int:
    """Wait for the end of a script; its exit code, or minus the signal that ended it."""
    wait([process.sentinel])
    with _one_at_a_time:
        process.join()
    assert process.exitcode is not None, "it has ended"
    if process.exitcode == LOST and process.pid:
        while psutil.pid_exists(process.pid):  # the server has died, not the script: nothing may write to its files beside it
            time.sleep(0.2)
    return process.exitcode


def run_script(script: str | Path, flags: Sequence[str], environment: Mapping[str, str],
               folder: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, as `subprocess.run(..., capture_output=True, text=True)` does; see `start_script`."""
    command = [str(script), *flags]
    if not available():
        return subprocess.run([sys.executable, *command], cwd=folder, env=environment, text=True, capture_output=True)
    with tempfile.TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        code = exit_code(start_script(script, flags, environment, output, errors, folder))
        printed = [file.read_text(errors="replace") for file in (output, errors)]
        return subprocess.CompletedProcess(command, code, *printed)


def _absolute(path: str | Path | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _start_server(context: ForkServerContext, environment: Mapping[str, str]) -> None:
    """Start the process that imports; it does nothing where it runs already.

    It sees `environment` alone: what the C library reads when a process starts counts for all scripts. PYTHONSAFEPATH keeps
    the folder where the user is from its search path: there may be a folder `data` or `utils`. Ctrl-C is for the scripts.
    """
    if _started:
        return
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    wanted = {**environment, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    before = dict(os.environ)
    context.set_forkserver_preload(PRELOADED)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        _see(wanted)
        forkserver.ensure_running()
        _started.append(True)
    finally:
        _see(before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _see(environment: Mapping[str, str]) -> None:
    """Make these the variables of this process, without a moment in which those that stay are missing."""
    os.environ.update(environment)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


def _end_with_parent() -> None:
    """Kill this process once the one that asked for it is gone: what it does would soon be done a second time elsewhere."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "it was forked"

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # the thread inherits it: all go to the script
    threading.Thread(target=watch, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def _run(script: str, flags: list[str], environment: dict[str, str], output: str | None, errors: str | None,
         folder: str) -> None:
    """Be `python SCRIPT FLAGS`: called in the new process."""
    for path, streams in ((output, (1, 2)), (errors, (2,))):
        if path:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for stream in streams:
                os.dup2(file, stream)
            os.close(file)
    _end_with_parent()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    sys.modules["torch"].set_num_threads(int(threads) if threads.isdigit() and int(threads) else usable_cores())
    sys.modules["torch"].seed()  # else all scripts would draw what the first one draws
    sys.modules["numpy"].random.seed()
    with suppress(OSError):  # the name that `top` shows; Linux alone has it
        Path("/proc/self/comm").write_text(Path(script).stem[:15])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as Python has it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)  # the system's: it was this one's
    sys.argv = [script, *flags]
    runpy.run_path(script, run_name="__main__")
