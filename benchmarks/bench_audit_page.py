"""An audit's memory, and its page of many masks: size, time and memory to make it, time to the first row in a browser.

    python benchmarks/bench_audit_page.py --audit runs/audit_people --rows 5000

--audit is a folder that audit.py left; its rows are repeated until there are --rows. The browser is a headless Chromium, driven
by playwright (pip install playwright); it reads the page from the disk. The first row counts as shown when its picture is
there.
"""

import resource
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.measure import ONE_THREAD, RESULTS, keep, run_command, table
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError, progress
from data.pictures import image_size, read_checked_mask, read_image, resize_labels
from data.rows import pseudo_label_names
from engine.annotation_audit import working_size
from reports.audit_page import audit_page, picture_of, picture_side
from utils.verdict import doubtful_pixels

SCROLLED = 40  # turns of the wheel
FIRST = "() => document.querySelector('.row svg image') && performance.now()"
HEAP = "() => performance.memory.usedJSHeapSize / 2**20"


def pictures(rows, proposals, count):
    """Pictures of the page, made when it takes them."""
    for position in progress(range(count), "drawing", unit="picture"):
        row = rows.iloc[position % len(rows)]
        labels, seen = (read_checked_mask(path) for path in (row["mask"], proposals[position % len(rows)]))
        size = working_size(labels.shape)
        labels, seen = resize_labels(labels, size), resize_labels(seen, size)
        yield picture_of(read_image(row["image"]), labels, seen, doubtful_pixels(labels, seen, 2.0), [1],
                         picture_side(position, count))


def made(folder, count, path):
    """Write the page; (seconds, peak memory of this process in MiB)."""
    rows = pd.read_csv(folder / "ranking.csv")
    proposals = [folder / "proposals" / name for name in pseudo_label_names(rows)]
    began = time.perf_counter()
    lines = []
    for position in range(count):
        row = rows.iloc[position % len(rows)]
        height, width = image_size(row["mask"])
        lines.append({"image": row["image"], "mask": f"{position}/{row['mask']}", "score": position / count,
                      "kind": row["kind"], "offset": None if pd.isna(row["offset"]) else row["offset"],
                      "class": row["class"], "doubt": row["doubt"],
                      "annotator": None, "verdict": row["kind"], "parts": [], "shape": [width, height]})
    with open(path, "w", encoding="utf-8") as file:
        for piece in audit_page(lines, pictures(rows, proposals, count), "Audit", "", "2 px", []):
            file.write(piece)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def audited(folder, count, out):
    """(seconds, peak memory in MiB) of audit.py on the first `count` rows, judged by the proposals."""
    csv = Path(out, f"{count}.csv")
    pd.read_csv(folder / "ranking.csv").head(count).iloc[:, :2].to_csv(csv, index=False)
    command = ["audit.py", "--csv", csv, "--pred-dir", folder / "proposals", "--out", Path(out, str(count))]
    return run_command(command, **ONE_THREAD)


def shown(path):
    """(seconds to the first row, until all is loaded, JS heap in MiB then, and after scrolling)."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError("playwright is not installed; call pip install playwright") from None
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--enable-precise-memory-info"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(path.as_uri(), wait_until="commit")
        first = page.wait_for_function(FIRST).json_value() / 1000
        page.wait_for_load_state("load")
        loaded, heap = page.evaluate("() => performance.now()") / 1000, page.evaluate(HEAP)
        for _ in range(SCROLLED):
            page.mouse.wheel(0, 3000)
            page.wait_for_timeout(50)
        rows, after = page.locator(".row").count(), page.evaluate(HEAP)
        browser.close()
    return first, loaded, heap, after, rows


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--audit", required=True, help="folder that audit.py left, of binary masks")
    parser.add_argument("--rows", type=positive_int, nargs="+", default=[500, 5000])
    parser.add_argument("--rounds", type=positive_int, default=3, help="times that the page is opened; the median counts")
    parser.add_argument("--out", default=str(RESULTS / "audit_page.json"), help="JSON of the results")
    args = parser.parse_args()
    found, lines = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for count in args.rows:
            path = Path(folder, "report.html")
            seconds, memory = made(Path(args.audit), count, path)
            opened = sorted(shown(path) for _ in range(args.rounds))[args.rounds // 2]
            size = path.stat().st_size / 1e6
            found[count] = {"megabytes": size, "seconds": seconds, "memory": memory, "opened": opened}
            lines.append((count, f"{size:.1f}", f"{seconds:.0f}", f"{memory:.0f}", f"{opened[0]:.2f}", f"{opened[1]:.2f}",
                          f"{opened[2]:.0f}", f"{opened[3]:.0f}"))
        whole = len(pd.read_csv(Path(args.audit) / "ranking.csv"))
        runs = {count: audited(Path(args.audit), count, folder) for count in (whole // 4, whole)}
    runs_table = table(("masks", "s", "MiB, peak"), [(count, *(f"{each:.0f}" for each in run)) for count, run in runs.items()])
    keep(args.out, {"pages": found, "runs": runs}, {"audit.py --pred-dir": runs_table, "The audit's page": table(
        ("masks", "MB", "s to make", "MiB to make, peak", "s to the first row", "s until loaded", "JS heap, MiB",
         "JS heap after scrolling, MiB"), lines)}, ("playwright",))


if __name__ == "__main__":
    command_line(main)
