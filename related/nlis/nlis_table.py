"""Compare NLIS with cross-entropy, SCE and GCE on wrong class labels, and find the wrong labels.

    bash run.sh nlis                three seeds
    bash run.sh nlis --quick        one seed, fewer epochs, to see that all of it runs

RoI bench: digits and background patches stand for the regions that a detector classifies; from one stage-1 network each loss
goes on alone, under symmetric, asymmetric and no noise, and on labels drawn at random, where nothing can be learnt. Shapes and
coco200: the same with Mask R-CNN on drawn shapes and, with --photos, on photographs, to see that it runs; and how well wrong
labels are found by detectors that never saw them.

Finished runs are skipped, broken ones go on; other flags need another --name. Leaves --out/NAME/table.json and table.md;
--json FILE prints the tables of such a file again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cli.command_line import command_line, none_or_str, seed_number, tool_parser
from cli.files import UserError, read_json
from engine.run_folder import inside
from related.nlis import detector_table, roi_table
from related.nlis.detector_plan import SHAPES, photographs
from reports.comparison_files import run_and_write
from reports.plan import Job
from reports.workers import add_worker_flags, workers_of

PARTS = ("rois", "shapes", "coco200")
PHOTOGRAPHS = "instances.json"  # in --photos


def parse() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="print the tables of a table.json; runs nothing")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="of the comparison (default: all that can be run)")
    parser.add_argument("--photos", metavar="DIR", help=f"photographs of coco200: a folder with {PHOTOGRAPHS}, a COCO JSON")
    parser.add_argument("--encoder-weights", metavar="FILE", type=none_or_str,
                        help="of MobileNetV2, for coco200 (default: none, from scratch)")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="(default: 0 1 2; with --quick: 0)")
    parser.add_argument("--quick", action="store_true", help="one seed and fewer epochs: no result, but all of it runs")
    add_worker_flags(parser, jobs=2)
    parser.add_argument("--out", default="runs/nlis", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: full, or quick)")
    args = parser.parse_args()
    refuse_photos(args)
    if not args.parts:
        args.parts = list(PARTS if args.photos else PARTS[:-1])
        if not args.photos:
            print("the part coco200 is left out: pass --photos DIR to have it too")
    args.seeds = args.seeds or ([0] if args.quick else [0, 1, 2])
    args.home = inside(args.out, args.name or ("quick" if args.quick else "full"))
    return args


def refuse_photos(args: argparse.Namespace) -> None:
    """Raise UserError if photographs are asked for and not there, or the other way round."""
    if args.photos and not Path(args.photos, PHOTOGRAPHS).is_file():
        raise UserError(f"--photos {args.photos}: has no {PHOTOGRAPHS}; name the folder of a COCO JSON of that name")
    if "coco200" in (args.parts or ()) and not args.photos:
        raise UserError("--parts coco200: needs --photos DIR, the folder of its photographs")
    if args.photos and "coco200" not in (args.parts or PARTS):
        raise UserError(f"--photos {args.photos}: is of the part coco200, which --parts leaves out; leave it out, too")
    if args.encoder_weights and not args.photos:
        raise UserError(f"--encoder-weights {args.encoder_weights}: is of the part coco200, which needs --photos DIR")
    if args.encoder_weights and not Path(args.encoder_weights).is_file():
        raise UserError(f"--encoder-weights {args.encoder_weights}: no such file; pass none to train from scratch")


def plan(args: argparse.Namespace, part: str, shared: dict[Path, Job]) -> dict[Any, Job]:
    """The jobs of a part; `shared` gets all jobs."""
    if part == "rois":
        return roi_table.plan(args.home, args.seeds, args.quick, shared)
    data, seeds = SHAPES, args.seeds
    if part == "coco200":
        weights = Path(args.encoder_weights) if args.encoder_weights else None
        data, seeds = photographs(Path(args.photos, PHOTOGRAPHS), weights), args.seeds[:1]
    return detector_table.plan(args.home, data, seeds, args.quick, shared)


def collect(args: argparse.Namespace, jobs: dict[str, dict[Any, Job]], some: Path) -> dict:
    """What the tables show of finished jobs, JSON-ready.

    Args:
        jobs: of each part.
        some: a result.json, which knows the machine.
    """
    content = {"args": {"seeds": args.seeds, "quick": args.quick}, "machine": read_json(some, "machine")["machine"]}
    return content | {part: (roi_table if part == "rois" else detector_table).collect(each) for part, each in jobs.items()}


def text_of(content: dict) -> str:
    """All tables of a table.json as Markdown."""
    texts = [roi_table.text_of(content["rois"])] if "rois" in content else []
    return "\n\n".join(texts + [detector_table.text_of(content[part], part) for part in PARTS[1:] if part in content])


def main() -> None:
    args = parse()
    if args.json:
        content = read_json(args.json, "args", "machine")
        if not any(part in content for part in PARTS):
            raise UserError(f"{args.json}: no table of this script; name a table.json that it left")
        print(text_of(content))
        return
    shared: dict[Path, Job] = {}
    jobs = {part: plan(args, part, shared) for part in args.parts}
    some = next(path for path in shared if path.name == "result.json")
    run_and_write(args.home, [job for each in jobs.values() for job in each.values()], workers_of(args),
                  lambda: collect(args, jobs, some), text_of)


if __name__ == "__main__":
    command_line(main)
