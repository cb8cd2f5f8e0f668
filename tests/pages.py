"""The pages of the documentation, and the commands in them."""

from tests.conftest import ROOT


def page(name):
    """Text of a Markdown page."""
    return (ROOT / name).read_text(encoding="utf-8")


def commands_of(text, start):
    """Commands of the indented code blocks of a page that start with `start`, without their comments."""
    lines = [line[4:].split("   #")[0].strip() for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith(start)]


README, GUIDE, REFERENCE, LOG = map(page, ("README.md", "docs/guide.md", "docs/reference.md", "docs/results/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md",
         *sorted((ROOT / "docs").rglob("*.md"))]
