"""Compare NLIS with cross-entropy, SCE and GCE on wrong class labels, and find the wrong labels.

    bash run.sh nlis                three seeds
    bash run.sh nlis --quick        one seed, fewer epochs, to see that all of it runs

RoI bench: digits and background patches stand for the regions that a detector classifies; from one stage-1 network each loss
goes on alone, under symmetric, asymmetric and no noise, and on labels drawn at random, where nothing can be learnt. Shapes and
coco200: the same with Mask R-CNN on drawn shapes and, where --photographs names a COCO JSON, on photographs, to see that it
runs; and how well wrong labels are found by detectors that never saw them.

Finished runs are skipped, broken ones go on; other flags need another --name. Leaves --out/NAME/table.json and table.md;
--json FILE prints the tables of such a file again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cli.command_line import command_line, none_or_str, positive_int, seed_number, tool_parser
from cli.files import UserError, atomic_path, read_json, write_json
from engine import lock
from engine.run_folder import inside
from related.nlis import detector_table, roi_table
from related.nlis.detector_plan import SHAPES, photographs
from reports.plan import Job, run_plan

PARTS = ("rois", "shapes", "coco200")
PROJECT = Path(__file__).resolve().parents[2]
BESIDE = PROJECT.parent / "shared"  # photographs and weights that are no part of the project


def beside(name: str, *places: Path) -> str:
    """A file in data/generated, or in one of the other places if only there it exists."""
    return str(next((place / name for place in places if (place / name).is_file()), PROJECT / "data" / "generated" / name))


def parse() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="print the tables of a table.json; runs nothing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="of the comparison (default: all; coco200 where its JSON is)")
    parser.add_argument("--photographs", metavar="JSON", default=beside("coco200/instances.json", BESIDE / "datasets"),
                        help="COCO JSON of the part coco200")
    parser.add_argument("--encoder-weights", metavar="FILE", type=none_or_str,
                        default=beside("mobilenet_v2-imagenet.safetensors", BESIDE / "weights"),
                        help="of MobileNetV2, for coco200; none: from scratch")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="(default: 0 1 2; with --quick: 0)")
    parser.add_argument("--quick", action="store_true", help="one seed and fewer epochs: no result, but all of it runs")
    parser.add_argument("--jobs", type=positive_int, default=2, help="commands side by side")
    parser.add_argument("--out", default="runs/nlis", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: full, or quick)")
    args = parser.parse_args()
    there = Path(args.photographs).is_file()
    if not there and "coco200" in (args.parts or ()):
        raise UserError(f"--photographs {args.photographs}: no such file; leave coco200 out of --parts")
    if not args.parts:
        args.parts = list(PARTS if there else PARTS[:-1])
        print("" if there else f"{args.photographs}: no such file, so the part coco200 is left out")
    args.seeds = args.seeds or ([0] if args.quick else [0, 1, 2])
    args.home = inside(args.out, args.name or ("quick" if args.quick else "full"))
    return args


def plan(args: argparse.Namespace, part: str, shared: dict[Path, Job]) -> dict[Any, Job]:
    """The jobs of a part; `shared` gets all jobs."""
    if part == "rois":
        return roi_table.plan(args.home, args.seeds, args.quick, shared)
    weights = Path(args.encoder_weights) if args.encoder_weights and Path(args.encoder_weights).is_file() else None
    data, seeds = (SHAPES, args.seeds) if part == "shapes" else (photographs(Path(args.photographs), weights), args.seeds[:1])
    return detector_table.plan(args.home, data, seeds, args.quick, shared)


def text_of(content: dict) -> str:
    """All tables of a table.json as Markdown."""
    texts = [roi_table.text_of(content["rois"])] if "rois" in content else []
    return "\n\n".join(texts + [detector_table.text_of(content[part], part) for part in PARTS[1:] if part in content])


def main() -> None:
    args = parse()
    if args.json:
        print(text_of(read_json(args.json, "args", "machine")))
        return
    shared: dict[Path, Job] = {}
    jobs = {part: plan(args, part, shared) for part in args.parts}
    with lock.folder_lock(args.home):
        run_plan([job for each in jobs.values() for job in each.values()], args.jobs)
    some = next(path for path in shared if path.name == "result.json")
    content = {"args": {"seeds": args.seeds, "quick": args.quick}, "machine": read_json(some, "machine")["machine"]}
    for part, each in jobs.items():
        content[part] = (roi_table if part == "rois" else detector_table).collect(each)
    text = text_of(content)
    write_json(args.home / "table.json", content)
    with atomic_path(args.home / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\ntables: {args.home / 'table.md'}")


if __name__ == "__main__":
    command_line(main)
