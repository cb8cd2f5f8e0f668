"""The reference names every script and every flag, and no others."""

import argparse
import re
import runpy

import pytest

from tests.conftest import ROOT
from tests.pages import REFERENCE

pytestmark = pytest.mark.prose

FOLDERS = ("", "data/", "utils/", "reports/", "related/*/")
SCRIPTS = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}*.py"))
           if "__main__" in path.read_text(encoding="utf-8")]
SCRIPTS_TABLE, FLAGS_OF_EACH = (re.search(rf"\n## {title}\n(.*?)\n## ", REFERENCE, re.S).group(1)
                                for title in ("Scripts", "Flags of each script"))


def test_every_script_is_in_the_reference():
    """Of the scripts in related/, which stand side by side, the file's name is enough."""
    assert len(SCRIPTS) > 30
    for path in SCRIPTS:
        names = {f"`{path.relative_to(ROOT)}`"} | ({f"`{path.name}`"} if "related" in path.parts else set())
        assert any(name in SCRIPTS_TABLE for name in names), path


def flags_of(script, monkeypatch):
    """Long flags of a script, as its parser knows them: a list of spellings for each flag that --help shows."""
    parsers = []
    monkeypatch.setattr("argparse.ArgumentParser.print_help", lambda parser, file=None: parsers.append(parser))
    monkeypatch.setattr("sys.argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code and len(parsers) == 1
    actions = [action for action in parsers[0]._actions if action.help != argparse.SUPPRESS and action.dest != "help"]
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_is_in_the_reference(path, monkeypatch):
    """In backticks, in the reference or, of a neighbour's script, on its own page; an underscore may be a hyphen."""
    text = REFERENCE + ((path.parent / "README.md").read_text(encoding="utf-8") if "related" in path.parts else "")
    stated = {flag.replace("_", "-") for code in re.findall("`([^`]+)`", text) for flag in re.findall(r"--[\w-]+", code)}
    flags = {flag.replace("_", "-") for flag in flags_of(path, monkeypatch)}
    assert flags and flags <= stated, sorted(flags - stated)


def test_the_shared_flags_are_those_of_every_script_that_trains_networks(monkeypatch):
    """But for flags of class labels, where a script takes masks alone, and of one network, where a script has two."""
    table = REFERENCE[REFERENCE.index("\n| flags | |"):REFERENCE.index("\nA good choice on most")]
    cells = re.findall(r"^\| (.*?) \|", table.replace("\\|", "/"), re.M)
    shared = {flag for cell in cells for flag in re.findall(r"--[a-z][\w-]*", cell)}
    scripts = [path for path in SCRIPTS if path.parent == ROOT and path.name.startswith("train_")
               and path.name != "train_on_features.py"]
    assert len(scripts) == 8 and len(shared) > 30
    for path in scripts:
        own = set(flags_of(path, monkeypatch))
        left_out = {"--model", "--encoder", "--encoder-weights"} if "--model-a" in own else set()
        if f"`{path.name}`" not in REFERENCE[REFERENCE.index("\n## Class labels"):REFERENCE.index("\n## Masks")]:
            left_out |= {"--mirror", "--shift", "--padding"}
        assert shared - own == left_out, path


def test_the_flags_of_each_script_are_its_own(monkeypatch):
    """A row of the tables names no flag that its script lacks."""
    rows = re.findall(r"^\| (.*?) ?\| ([^|]*--[^|]*) \| [^|]+ \|$", FLAGS_OF_EACH.replace("\\|", "/"), re.M)
    assert len(rows) == len(re.findall(r"^\|.*--[a-z]", FLAGS_OF_EACH, re.M)) > 50
    of = {path.name: path for path in SCRIPTS}
    groups = {"both": ["quick.py", "tables.py"], "training alone": ["blind_knowledge_dist_training.py"],
              "published scripts": ["blind_knowledge_dist_training.py", "learning.py", "detection.py"]}
    scripts = []
    for title, cells in rows:
        if title:
            scripts = groups.get(title) or [name.rsplit("/", 1)[-1] for name in re.findall("`(.*?)`", title)]
        assert scripts, cells
        for name in scripts:
            assert set(re.findall(r"--[\w-]+", cells)) <= set(flags_of(of[name], monkeypatch)), (name, cells)
