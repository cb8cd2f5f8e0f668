"""How the memory of an audit grows with the number of masks, by judge.

    python benchmarks/bench_audit_memory.py --folder data/generated/people

Each audit is a process of its own; its peak is that of its largest process. --counts masks, the first ones of the folder, are
audited

    trained     by a judge that is trained for this (a tiny network, two epochs: predictions are as large as any network's)
    after       by that run, once it is there
    masks       by other masks, here the same ones (--pred-dir)
"""

import tempfile
from pathlib import Path

from benchmarks.measure import ONE_THREAD, RESULTS, keep, run_command, table
from cli.command_line import command_line, positive_int, tool_parser
from cli.files import UserError, check_outputs, write_rows
from data.splits import pair_folder


def audited(csv, out, size, folder):
    """Peak memory of each judge in MiB, dict."""
    trained = ["--model", "unet", "--width", 4, "--size", *size, "--epochs", 2, "--encoder-weights", "none", "--accelerator",
               "cpu"]
    judges = {"trained": trained, "after": ["--after", out / "trained" / "judge"], "masks": ["--pred-dir", folder]}
    return {name: run_command(["audit.py", "--csv", csv, "--out", out / name, *flags], **ONE_THREAD)[1]
            for name, flags in judges.items()}


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--folder", required=True, help="images/ and masks/, binary ones")
    parser.add_argument("--counts", type=positive_int, nargs=2, default=[120, 480], metavar=("FEW", "MANY"), help="masks")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 96], metavar=("H", "W"), help="of the judge, px")
    parser.add_argument("--out", default=str(RESULTS / "audit_memory.json"), help="JSON of the results")
    args = parser.parse_args()
    check_outputs([args.out], True, [])
    rows, (few, many) = pair_folder(args.folder), args.counts
    if not few < many <= len(rows):
        raise UserError(f"--counts {few} {many}: two numbers that rise, up to {len(rows)}, are needed")
    found = {}
    with tempfile.TemporaryDirectory() as home:
        for count in args.counts:
            csv = Path(home, f"{count}.csv")
            write_rows(csv, rows.head(count))
            found[count] = audited(csv, Path(home, str(count)), args.size, Path(args.folder, "masks"))
    lines = [(name, *(f"{found[count][name]:.0f}" for count in args.counts),
              f"{1024 * (found[many][name] - found[few][name]) / (many - few):.0f}") for name in found[few]]
    titles = ("judge", f"{few} masks, MiB", f"{many} masks, MiB", "KiB more a mask")
    keep(args.out, {"peak": found}, {f"Judge of {args.size[0]} x {args.size[1]} px": table(titles, lines)})


if __name__ == "__main__":
    command_line(main)
