"""Plans of commands: their order, skipped jobs, and jobs that a failure stops."""

import pytest

from cli.files import UserError
from reports.plan import Job, run_plan, with_needs
from reports.workers import LocalWorkers


def job(folder, name, code, *needs):
    """A job of one line of Python; `OUT` in it is its result. It adds its name to the file `order`."""
    code = f"open({str(folder / 'order')!r}, 'a').write({name!r} + ' '); " + code.replace("OUT", repr(str(folder / name)))
    return Job(["-c", code], folder / name, list(needs), folder / "logs" / f"{name}.out")


def again(folder, *jobs):
    """The same jobs, planned anew."""
    new = {}
    for each in jobs:
        new[each] = Job(each.command, each.result, [new[need] for need in each.needs], each.log)
    return new.values()


def order(folder):
    return (folder / "order").read_text().split()


def test_needs_come_first_and_only_once(tmp_path):
    a = job(tmp_path, "a", "open(OUT, 'w')")
    b = job(tmp_path, "b", "open(OUT, 'w')", a)
    c = job(tmp_path, "c", "open(OUT, 'w')", b, a)
    assert [each.result.name for each in with_needs([c, b])] == ["a", "b", "c"]
    run_plan([c, b])
    assert order(tmp_path) == ["a", "b", "c"]
    run_plan([c, b])
    assert order(tmp_path) == ["a", "b", "c"]  # finished, so not run again


def test_two_at_a_time_and_never_before_what_they_need(tmp_path):
    """Each of two jobs waits for a file of the other, so both end only if they run at the same time."""
    wait = "import time; from pathlib import Path; Path(OUT + '.began').touch(); t = time.time()\n" \
           "while not Path({!r}).exists():\n    assert time.time() - t < 60; time.sleep(0.05)\nopen(OUT, 'w')"
    a = job(tmp_path, "a", wait.format(str(tmp_path / "b.began")))
    b = job(tmp_path, "b", wait.format(str(tmp_path / "a.began")))
    last = job(tmp_path, "last", f"assert open({str(tmp_path / 'b')!r}); open(OUT, 'w')", a, b)
    run_plan([last, a, b], LocalWorkers(2))
    assert order(tmp_path)[2] == "last"


@pytest.mark.parametrize("given, seen", [(None, "3"), ("1", "1")])
def test_commands_side_by_side_share_the_cores(tmp_path, monkeypatch, given, seen):
    monkeypatch.setattr("reports.workers.usable_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    run_plan([job(tmp_path, "a", "import os; open(OUT, 'w').write(os.environ['OMP_NUM_THREADS'])")], LocalWorkers(2))
    assert (tmp_path / "a").read_text() == seen


def test_a_failure_stops_only_what_needs_it(tmp_path):
    bad = job(tmp_path, "bad", "raise SystemExit('the reason')")
    after = job(tmp_path, "after", "open(OUT, 'w')", bad)
    far = job(tmp_path, "far", "open(OUT, 'w')", after)
    good = job(tmp_path, "good", "open(OUT, 'w')")
    with pytest.raises(UserError, match=r"1 of 4 commands failed(.|\n)*the reason"):
        run_plan([bad, far, good])
    assert order(tmp_path) == ["bad", "good"]
    bad.command[1] = bad.command[1].replace("raise SystemExit('the reason')", f"open({str(tmp_path / 'bad')!r}, 'w')")
    bad, after, far, good = again(tmp_path, bad, after, far, good)
    run_plan([bad, far, good])
    assert order(tmp_path) == ["bad", "good", "bad", "after", "far"]


def test_a_result_that_nobody_vouches_for_is_made_again(tmp_path):
    (tmp_path / "a").touch()
    a = job(tmp_path, "a", "open(OUT, 'w')")
    run_plan([a])
    assert order(tmp_path) == ["a"] and a.finished()


def test_needs_that_changed_are_refused(tmp_path):
    a = job(tmp_path, "a", "open(OUT, 'w')")
    b = job(tmp_path, "b", "open(OUT, 'w')", a)
    run_plan([b])
    other = job(tmp_path, "a", "open(OUT, 'w')", job(tmp_path, "c", "open(OUT, 'w')"))
    with pytest.raises(UserError, match="a: was made from other results"):
        run_plan([other])
    assert order(tmp_path) == ["a", "b"]  # refused before anything ran


def test_a_command_that_leaves_no_result_has_failed(tmp_path):
    with pytest.raises(UserError, match="1 of 1 commands failed"):
        run_plan([job(tmp_path, "a", "pass")])


# --- jobs that share a command ------------------------------------------------------------------------------------

COPIER = """import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--value", nargs="+")
parser.add_argument("--out", nargs="+")
parser.add_argument("--way")
args = parser.parse_args()
open({order!r}, "a").write(f"{{args.way}}:{{'+'.join(args.value)}} ")
assert "bad" not in args.value, "a bad value"
for value, path in zip(args.value, args.out):
    open(path, "w").write(value)
"""


def copying(folder, value, *needs, way="w"):
    """A job that writes its value to the file of that name; one command does it for many values."""
    command = ["-c", COPIER.format(order=str(folder / "order")), "--value", value, "--out", str(folder / value), "--way", way]
    return Job(command, folder / value, list(needs), folder / "logs" / f"{value}.out", listed=("--value", "--out"))


def test_jobs_that_differ_in_listed_flags_alone_are_one_command(tmp_path):
    first, other = (job(tmp_path, name, "open(OUT, 'w')") for name in ("first", "other"))
    jobs = [copying(tmp_path, "a", first), copying(tmp_path, "far", first, other), copying(tmp_path, "b", first),
            copying(tmp_path, "odd", first, way="v"), copying(tmp_path, "c", first)]
    run_plan([*jobs, job(tmp_path, "last", "open(OUT, 'w')", *jobs)])
    assert order(tmp_path) == ["first", "w:a+b+c", "other", "w:far", "v:odd", "last"]  # `far` needs more
    assert [each.result.read_text() for each in jobs] == ["a", "far", "b", "odd", "c"]
    assert all(each.finished() for each in jobs)


def test_what_a_shared_command_has_made_is_not_made_again(tmp_path):
    run_plan([copying(tmp_path, "b")])
    before = (tmp_path / "b").stat().st_mtime_ns
    run_plan([copying(tmp_path, name) for name in "abc"])
    run_plan([copying(tmp_path, name) for name in "cba"])
    assert order(tmp_path) == ["w:b", "w:a+c"] and (tmp_path / "b").stat().st_mtime_ns == before
    (tmp_path / "c").unlink()
    run_plan([copying(tmp_path, name) for name in "abc"])
    assert order(tmp_path)[2:] == ["w:c"]


def test_a_shared_command_that_fails_is_told_once(tmp_path):
    jobs = [copying(tmp_path, name) for name in ("a", "bad")]
    with pytest.raises(UserError, match="1 of 2 commands failed") as told:
        run_plan([*jobs, job(tmp_path, "after", "open(OUT, 'w')", jobs[0])])
    assert str(told.value).count("AssertionError: a bad value") == 1
    assert f"--value a bad --out {tmp_path}/a {tmp_path}/bad" in str(told.value)
    assert order(tmp_path) == ["w:a+bad"] and not any(each.finished() for each in jobs)


def test_a_need_that_was_planned_twice_is_waited_for(tmp_path):
    """Tables plan each for itself: equal jobs are two objects, of which one runs."""
    slow = "import time; time.sleep(0.5); open(OUT, 'w')"
    a, twin = (job(tmp_path, "a", slow) for _ in range(2))
    b = job(tmp_path, "b", f"assert open({str(tmp_path / 'a')!r}); open(OUT, 'w')", twin)
    run_plan([a, b], LocalWorkers(2))
    assert order(tmp_path) == ["a", "b"]
