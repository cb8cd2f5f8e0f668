"""Scripts in forked processes: what they see, print and leave is that of `python SCRIPT`."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cli import warm
from tests.conftest import ROOT, environment

pytestmark = pytest.mark.skipif(not warm.available(), reason="no fork server on this system")

SCRIPT = """
import json, multiprocessing, os, sys, torch
from cli.command_line import command_line
from cli.files import UserError

def main():
    seen = os.environ["SEEN"], torch.get_num_threads(), torch.cuda.is_available(), multiprocessing.get_start_method()
    print(json.dumps([sys.argv[1:], __name__, os.getcwd(), *seen]))
    print("complaint", file=sys.stderr)
    if "fail" in sys.argv:
        raise UserError("no such thing")
    if "break" in sys.argv:
        raise ZeroDivisionError

command_line(main)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path / "script.py"


@pytest.mark.parametrize("flags, code", [([], 0), (["fail", "ü"], 2), (["break"], 1)])
def test_a_forked_script_does_what_a_called_one_does(script, tmp_path, flags, code):
    seen = {**environment(), "SEEN": "x", "PYTHONPATH": str(ROOT)}
    forked = warm.run_script(script, flags, seen, tmp_path)
    called = subprocess.run([sys.executable, str(script), *flags], cwd=tmp_path, env=seen, capture_output=True, text=True)
    assert forked.returncode == called.returncode == code
    assert forked.stdout == called.stdout
    if code != 1:  # a traceback names the files of the fork server, too
        assert forked.stderr == called.stderr
    assert ("ZeroDivisionError" in forked.stderr) == (code == 1)


def test_folders_where_the_user_is_hide_no_module_of_the_project(tmp_path):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("print('hidden')")
    (tmp_path / "asks.py").write_text("import utils\nprint(utils.__file__)")
    (tmp_path / "starts.py").write_text("import os\nfrom cli import warm\n\nif __name__ == '__main__':\n"
                                        "    warm.PRELOADED = ['torch', 'utils.get_weight', 'cli.warm']\n"
                                        "    print(warm.run_script('asks.py', [], os.environ).stdout)")
    done = subprocess.run([sys.executable, "-P", "starts.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**environment(), "PYTHONPATH": str(ROOT)})
    assert done.stdout.strip() == str(ROOT / "utils" / "__init__.py"), done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="the variables of a process are read from /proc")
def test_the_server_sees_the_variables_of_its_call_alone(tmp_path):
    """The C library reads some when the server starts, before any script could drop them."""
    (tmp_path / "asks.py").write_text("import os\nprint('SLOW' in open(f'/proc/{os.getppid()}/environ').read())")
    (tmp_path / "starts.py").write_text(
        "import os\nfrom cli import warm\n\nif __name__ == '__main__':\n    os.environ['SLOW'] = '1'\n"
        "    warm.PRELOADED = ['torch', 'cli.warm']\n"  # less to import than trainings need
        "    seen = {name: value for name, value in os.environ.items() if name != 'SLOW'}\n"
        "    print(warm.run_script('asks.py', [], seen).stdout, os.environ['SLOW'])")
    done = subprocess.run([sys.executable, "starts.py"], cwd=tmp_path, capture_output=True, text=True,
                          env={**environment(), "PYTHONPATH": str(ROOT), "SLOW": "1"})
    assert done.stdout == "False\n 1\n", done.stderr


def test_scripts_do_not_share_random_numbers(tmp_path):
    (tmp_path / "draws.py").write_text("import random, numpy, torch\n"
                                       "print(random.random(), numpy.random.rand(), torch.rand(()))")
    one, other = (warm.run_script(tmp_path / "draws.py", [], environment()).stdout.split() for _ in range(2))
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_threads_are_those_of_the_call(script, tmp_path):
    for threads in ("2", "1"):  # of one server, whose own number is that of the first call
        found = warm.run_script(script, [], {**environment(), "SEEN": "x", "OMP_NUM_THREADS": threads}, tmp_path)
        assert f", {threads}, " in found.stdout


def test_nothing_of_one_script_is_left_in_the_next(tmp_path):
    (tmp_path / "first.py").write_text("import os, torch\nos.environ['LEFT'] = '1'\ntorch.manual_seed(5)\ntorch.left = 1\n")
    (tmp_path / "second.py").write_text("import os, torch\nprint('LEFT' in os.environ, hasattr(torch, 'left'), "
                                        "torch.initial_seed() == 5)")
    assert warm.run_script(tmp_path / "first.py", [], environment()).returncode == 0
    assert warm.run_script(tmp_path / "second.py", [], environment()).stdout == "False False False\n"


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_signals_reach_a_forked_script(tmp_path, number, code):
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("started in the background of a shell, which ignores SIGINT for its children: NOT TESTED")
    ready = tmp_path / "ready"
    (tmp_path / "sleeper.py").write_text("import sys, time\nfrom cli.command_line import command_line\n\ndef main():\n"
                                         f"    open({str(ready)!r}, 'w').close()\n    time.sleep(60)\n\ncommand_line(main)\n")
    process = warm.start_script(tmp_path / "sleeper.py", [], environment(), tmp_path / "output")
    until = time.monotonic() + 30
    while not ready.exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, number)
    assert warm.exit_code(process) == code


def test_many_at_once_each_have_their_own_exit_code(tmp_path):
    """Starting one looks whether others have ended; none may lose its code by that."""
    (tmp_path / "code.py").write_text("import sys\nsys.exit(int(sys.argv[1]))")
    def code_of(number):
        return warm.run_script(tmp_path / "code.py", [str(number)], environment()).returncode

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(code_of, range(48))) == list(range(48))
