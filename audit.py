"""An audit of a data set's annotations: which masks to fix first, how they are wrong, and by how many pixels.

    python audit.py my_photos
    python audit.py --csv data/csv/my_photos/train.csv --pred-dir sam_masks
    python audit.py my_photos --mend --export cvat 50

FOLDER holds images/ and masks/; or --csv names them. Every mask is compared, component by component, with what a judge sees:

    by default      a network that is trained on these masks with own weights (train_with_own_weight.py); its predictions are
                    averaged over the training, which poor masks do not bend. Flags that are not listed go to that training
    --after RUN     a finished run of train_with_own_weight.py on these rows
    --checkpoint    any trained network of this software; best one that never saw these masks
    --pred-dir      masks of any other model

It leaves in --out: report.html, one file for a browser, worst first, with keys to tick what to fix; ranking.csv and
components.csv, the same as tables; proposals/, the judge's masks. No mask is changed: --mend writes moved copies to mended/ and
mended.csv, only where the judge is sure. --export hands masks to an annotation tool, --merge DIR reads them back: the worst N,
or those that were ticked `fix` on the page, `--export cvat ticks.csv`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from cli.command_line import class_or_none, command_line, given_names, positive_float, positive_int, seed_number, tool_parser
from cli.files import UserError, check_outputs, together, write_rows
from cli.flags import add_class_flag, add_legend_flag
from data.annotation_exchange import export_task, merge_task
from data.annotation_task import names_of, read_record
from data.annotation_tools import TOOLS
from data.csv_files import read_table
from data.legend import FILE_NAME as LEGEND
from data.legend import Legend, read_legend
from data.rows import OWN_NAMES, check_rows, read_rows
from data.splits import pair_folder
from engine.flags import add_device_flags, add_flip_flag
from models import NAMES
from reports.audit_report import write_audit
from reports.audit_tables import ticked_rows
from reports.command import stamp_path
from utils.faults import TOLERANCE
from utils.generate_noisy_label import noisy_mask_names

MERGING = {"merge", "out", "overwrite"}  # flags of --merge
TRAINING = {"model", "encoder", "encoder_weights", "size", "theta", "seed"}  # of the judge's training alone
MACHINE = {"workers", "accelerator", "devices", "strategy", "precision"}  # of networks


def flags() -> argparse.ArgumentParser:
    """The parser of this script's own flags. A folder stands first: elsewhere it might be a value of the training's flags."""
    parser = tool_parser(__doc__, passes_on=True)
    if len(sys.argv) > 1 and (not sys.argv[1].startswith("-") or sys.argv[1] in ("-h", "--help")):
        parser.add_argument("folder", nargs="?", help="stands first; holds images/ and masks/")
    parser.set_defaults(folder=None)
    parser.add_argument("--csv", help="instead of a folder: image, mask, and perhaps a column `annotator`")
    parser.add_argument("--out", help="folder of the results (default: runs/audit_NAME)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier call")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--pred-dir", metavar="DIR", help="judge by another model's masks")
    source.add_argument("--checkpoint", metavar="CKPT", help="judge by a trained network")
    source.add_argument("--after", metavar="RUN", help="judge by a finished run of train_with_own_weight.py on these rows")
    parser.add_argument("--pred-name", default=OWN_NAMES, help="pattern of the file names in --pred-dir")
    parser.add_argument("--background", type=class_or_none, default=0, metavar="CLASS|none",
                        help="class without outlines of its own; none = every class counts (street scenes)")
    parser.add_argument("--tolerance", type=positive_float, metavar="PX",
                        help=f"what an outline may be off (default: {100 * TOLERANCE:.2g} %% of the mask's diagonal)")
    parser.add_argument("--export", nargs=2, metavar=("TOOL", "N|TICKS"),
                        help=f"write the worst N, or those marked `fix` in the CSV of ticks, as a task: {', '.join(TOOLS)}")
    parser.add_argument("--merge", metavar="DIR", help="read a task that came back, and do nothing else")
    parser.add_argument("--mend", action="store_true", help="write copies of masks that are too loose or too tight, moved back")
    parser.add_argument("--model", default="smp_unet", choices=NAMES, help="network of the judge")
    parser.add_argument("--encoder", default="mobilenet_v2", help="encoder of the judge")
    parser.add_argument("--encoder-weights", default="imagenet", metavar="imagenet|none|FILE")
    parser.add_argument("--size", type=positive_int, nargs=2, metavar=("H", "W"),
                        help="px, of the judge's training (default: as the first picture, of about 160 x 160 px)")
    parser.add_argument("--theta", type=positive_float, default=3.0, help="boundary tolerance of the judge's training, px")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the judge's training")
    add_class_flag(parser)
    add_legend_flag(parser)
    add_flip_flag(parser)
    add_device_flags(parser)
    return parser


def parse() -> argparse.Namespace:
    """The flags, checked; unknown ones go to the judge's training."""
    parser = flags()
    args, other = parser.parse_known_args()
    given = given_names(parser, args)
    args.other = other
    if args.merge:
        refuse_needless("--merge", given - MERGING, other, "takes --out, the folder of the new CSV, and --overwrite")
        if not args.out:
            raise UserError("--merge goes with --out, the folder of the new CSV")
        args.out = Path(args.out)
        return args
    late = next((word for word in other if not word.startswith("-") and Path(word, "masks").is_dir()), None)
    if late and not args.folder and not args.csv:
        raise UserError(f"{late}: the folder stands first, before all flags: python audit.py {late} ...")
    if bool(args.folder) == bool(args.csv):
        raise UserError("pass either a folder with images/ and masks/, which stands first, or --csv")
    refuse_other_judges_flags(args, given)
    if args.background is not None and args.background >= args.num_classes:
        raise UserError(f"--background {args.background}: there are the classes 0 to {args.num_classes - 1}, see --num-classes")
    if args.export and not (args.export[0] in TOOLS and (args.export[1].isdecimal() and int(args.export[1])
                                                         or args.export[1].endswith(".csv"))):
        raise UserError(f"--export {' '.join(args.export)}: a tool ({', '.join(TOOLS)}) and a number of masks, or the CSV of "
                        "ticks that the page saved, are needed")
    name = Path(args.folder).resolve().name if args.folder else Path(args.csv).stem
    args.out = Path(args.out or Path("runs", f"audit_{name}"))
    return args


def refuse_other_judges_flags(args: argparse.Namespace, given: set[str]) -> None:
    """Raise UserError at a flag that means nothing to the judge of this call.

    Args:
        given: names of the flags of this script that the user has set.
    """
    if args.pred_dir:
        refuse_needless("--pred-dir", given & {*TRAINING, *MACHINE, "flip"}, args.other, "needs no network")
    elif args.checkpoint:
        refuse_needless("--checkpoint", given & {*TRAINING, "pred_name"}, args.other, "trains no network, and reads no masks")
    elif args.after:
        refuse_needless("--after", given & {*TRAINING, *MACHINE, "flip", "pred_name"}, args.other, "takes that run as it is")
    elif given & {"flip", "pred_name"}:
        refuse_needless("a judge that is trained", given & {"flip", "pred_name"}, [], "neither predicts anew nor reads masks")


def refuse_needless(judge: str, given: set[str], other: list[str], reason: str) -> None:
    """Raise UserError that names the first flag that would be passed over.

    Args:
        given: names of flags of this script.
        other: words that are no flags of this script.
    """
    words = ["the folder" if name == "folder" else "--" + name.replace("_", "-") for name in sorted(given)]
    if words or other:
        unknown = "" if words else "no flag of this script, and "
        raise UserError(f"{[*words, *other][0]}: {unknown}without use here: {judge} {reason}; leave it out")


def rows_of(args: argparse.Namespace) -> pd.DataFrame:
    """The rows, their files checked: `image`, `mask` and, where the CSV has it, `annotator`."""
    rows = pair_folder(args.folder) if args.folder else read_rows(args.csv)
    if args.csv:
        table = read_table(args.csv, None)
        names = [name for name in table.columns[2:] if str(name).strip().lower() == "annotator"]
        if names:
            rows["annotator"] = table[names[0]].fillna("").astype(str).to_numpy()
    check_rows(args.csv or args.folder, rows, args.num_classes)
    return rows


def merge(args: argparse.Namespace) -> None:
    """Write the masks that came back corrected, and merged.csv, in which all masks that were looked at have the weight 1."""
    outputs, corrected = [args.out / "merged.csv"], args.out / "corrected"
    record = read_record(Path(args.merge))
    check_outputs([*outputs, *(corrected / f"{Path(row['name']).stem}.png" for row in record["rows"])], args.overwrite,
                  [row["mask"] for row in record["rows"]])
    with together() as written_at:
        table, back, changed = merge_task(Path(args.merge), lambda name: written_at(corrected / name),
                                          lambda name: corrected / name)
        write_rows(written_at(outputs[0]), table, "weight")
    print(f"{outputs[0]}: {len(table)} rows; {back} masks came back, {changed} of them changed")


def legend_of(args: argparse.Namespace) -> Legend:
    """The classes' names: --classes, else classes.json beside the data."""
    beside = Path(args.folder or Path(args.csv).parent, LEGEND)
    return read_legend(args.classes or (beside if beside.is_file() else None), args.num_classes)


def check_results(args: argparse.Namespace, rows: pd.DataFrame, outputs: list[Path]) -> None:
    """Raise UserError if an output exists, without --overwrite, or is a file that the audit reads, with or without it."""
    inputs = [args.csv, *rows["image"], *rows["mask"]]
    folders = ("proposals", "mended") if args.mend else ("proposals",)
    check_outputs([*outputs, *(args.out / folder / name for folder in folders for name in noisy_mask_names(rows))],
                  args.overwrite, inputs)
    judge = args.out / "judge"
    own = judge.exists() or stamp_path(judge).exists()
    if not (args.pred_dir or args.checkpoint or args.after):  # the judge's training, whose rows a second call may find
        check_outputs([args.out / "rows.csv"], args.overwrite or own, inputs)


def main() -> None:
    args = parse()
    if args.merge:
        merge(args)
        return
    legend = legend_of(args)
    if args.export:
        names_of(legend)  # refuses, before the work, names that no annotation tool can tell apart
    rows = rows_of(args)
    ticked = ticked_rows(args.export[1], rows) if args.export and args.export[1].endswith(".csv") else None
    outputs = [args.out / name for name in ("ranking.csv", "components.csv", "report.html", *["mended.csv"] * args.mend)]
    check_results(args, rows, outputs)
    task = args.out / f"export_{args.export[0]}" if args.export else None
    if task and task.exists():
        raise UserError(f"{task} exists and may hold corrections; move it away, or choose another --out")
    with together() as written_at:
        table = write_audit(args, rows, legend, outputs, written_at)
    said = [table.attrs["lead"]]
    if task:
        worst = table[table["position"].isin(ticked)] if ticked is not None else table.head(int(args.export[1]))
        names = noisy_mask_names(rows)
        proposals = [args.out / "proposals" / names[position] for position in worst["position"]]
        settings = {"num_classes": args.num_classes, "background": args.background}
        export_task(task, args.export[0], worst, proposals, settings, legend, table)
        said.append(f"{len(worst)} masks for {args.export[0]}: {task}, see its README.txt")
    print(*said, f"open this in a browser: {outputs[2]}", sep="\n")


if __name__ == "__main__":
    command_line(main)
