"""Packages of the project: imports point down only; files and functions stay short; types hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cli", "data", "models", "utils", "engine", "reports")  # in order: each may import itself and those before it
ABOVE = ("benchmarks", "related")  # may import all rooms; no room imports them
TESTS = sorted(ROOT.glob("tests/*.py"))
MODULES = [path for room in (*ROOMS, *ABOVE) for path in sorted(ROOT.glob(f"{room}/**/*.py"))]


def imports_of(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at its top or inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports_of(path)} & {*ROOMS, *ABOVE}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT).parts[0]
    below = ROOMS[:ROOMS.index(room) + 1] if room in ROOMS else (*ROOMS, room)
    assert rooms_of(path) <= set(below)
    scripts = {script.stem for script in ROOT.glob("*.py")}
    assert not imports_of(path) & scripts or room in ABOVE


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_scripts_never_import_one_another(path):
    assert not {name.split(".")[0] for name in imports_of(path)} & {script.stem for script in ROOT.glob("*.py")}


@pytest.mark.parametrize("path", sorted(ROOT.glob("related/*/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_of_a_neighbour_never_import_one_another(path):
    scripts = {f"{other.parent.relative_to(ROOT).as_posix().replace('/', '.')}.{other.stem}"
               for other in ROOT.glob("related/*/*.py") if '__name__ == "__main__"' in other.read_text(encoding="utf-8")}
    assert scripts and not imports_of(path) & scripts


@pytest.mark.parametrize("path", sorted(ROOT.glob("reports/*.py")), ids=lambda path: path.name)
def test_reports_never_import_torch(path):
    assert not {name for name in imports_of(path) if name.split(".")[0] == "torch" or name == "cli.lazy.torch"}


@pytest.mark.parametrize("name, allowed", [
    ("losses", {"__future__", "__future__.annotations", "typing", "typing.Union", "data", "data.IGNORE_INDEX", "cli.lazy",
                "cli.lazy.torch"}),
    ("agreement", {"__future__", "__future__.annotations", "collections.abc", "collections.abc.Callable",
                   "collections.abc.Sequence", "math", "typing", "typing.Any", "data", "data.IGNORE_INDEX", "cli.lazy",
                   "cli.lazy.torch"})])
def test_rules_on_tensors_know_nothing_of_files(name, allowed):
    assert imports_of(ROOT / "utils" / f"{name}.py") <= allowed


def test_every_room_says_who_lives_there():
    for room in (*ROOMS, *ABOVE):
        assert ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())), room


def test_no_file_touches_the_search_path():
    for path in [*ROOT.glob("*.py"), *MODULES]:
        assert "sys.path" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("*.py")), *MODULES, *TESTS],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_files_have_300_lines_at_most_and_functions_40(path):
    """Of the tests the lines alone: a training written out may take more than 40."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    long = [node.name for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 40]
    assert path in TESTS or not long


@pytest.fixture(scope="module")
def type_check(request, tmp_path_factory):
    """What mypy says of the project and of a file that asks for a type: the types of PyTorch, most of the work, are read once.

    They stay in pytest's cache, as mypy's own cache would in the project.
    """
    pytest.importorskip("mypy")
    seen = tmp_path_factory.mktemp("types") / "seen.py"
    seen.write_text("from cli.lazy import torch\nreveal_type(torch.zeros(3))\n")
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[tool.mypy]\nfiles = [")[2]
    files = re.findall('"(.*?)"', settings[:settings.index("]")])
    assert "engine" in files and "train_teacher.py" in files
    return subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", request.config.cache.mkdir("mypy"), *files, seen],
                          cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_types_hold(type_check):
    assert type_check.returncode == 0, type_check.stdout + type_check.stderr


@pytest.mark.slow
def test_type_checkers_see_the_lazy_packages(type_check):
    assert 'Revealed type is "torch._tensor.Tensor"' in type_check.stdout, type_check.stdout + type_check.stderr
