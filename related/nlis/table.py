"""Compare NLIS with cross-entropy, SCE and GCE on wrong class labels, and find the wrong labels.

    bash run.sh nlis                three seeds, 25 minutes on 2 cores
    bash run.sh nlis --quick        one seed, fewer epochs, to see that all of it runs

RoI bench: digits and background patches stand for the regions that a detector classifies; from one stage-1 network each loss
goes on alone, under symmetric, asymmetric and no noise, and on labels drawn at random, where nothing can be learnt.

Finished runs are skipped, broken ones go on; other flags need another --name. Leaves --out/NAME/table.json and table.md;
--json FILE prints the tables of such a file again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.command_line import command_line, positive_int, seed_number, tool_parser
from cli.files import atomic_path, read_json, write_json
from engine import lock
from engine.run_folder import inside
from related.nlis import roi_table
from reports.plan import Job, run_plan

PARTS = {"rois": roi_table}


def parse() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--json", metavar="FILE", help="print the tables of a table.json; runs nothing")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="of the comparison")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="(default: 0 1 2; with --quick: 0)")
    parser.add_argument("--quick", action="store_true", help="one seed and fewer epochs: no result, but all of it runs")
    parser.add_argument("--jobs", type=positive_int, default=2, help="commands side by side")
    parser.add_argument("--out", default="runs/nlis", help="where the runs of all tables are kept")
    parser.add_argument("--name", help="folder in --out (default: full, or quick)")
    args = parser.parse_args()
    args.seeds = args.seeds or ([0] if args.quick else [0, 1, 2])
    args.home = inside(args.out, args.name or ("quick" if args.quick else "full"))
    return args


def text_of(content: dict) -> str:
    """All tables of a table.json as Markdown."""
    return "\n\n".join(module.text_of(content[part]) for part, module in PARTS.items() if part in content)


def main() -> None:
    args = parse()
    if args.json:
        print(text_of(read_json(args.json, "args", "machine")))
        return
    shared: dict[Path, Job] = {}
    jobs = {part: PARTS[part].plan(args.home, args.seeds, args.quick, shared) for part in args.parts}
    with lock.folder_lock(args.home):
        run_plan([job for each in jobs.values() for job in each.values()], args.jobs)
    some = next(path for path in shared if path.name == "result.json")
    content = {"args": {"seeds": args.seeds, "quick": args.quick}, "machine": read_json(some, "machine")["machine"],
               **{part: PARTS[part].collect(each) for part, each in jobs.items()}}
    text = text_of(content)
    write_json(args.home / "table.json", content)
    with atomic_path(args.home / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\ntables: {args.home / 'table.md'}")


if __name__ == "__main__":
    command_line(main)
