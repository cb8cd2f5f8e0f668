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
mended.csv, only where the judge is sure. --export hands the worst N to an annotation tool, --merge DIR reads them back.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cli.command_line import class_or_none, command_line, positive_float, positive_int, seed_number, tool_parser
from cli.files import UserError, check_outputs, progress, together, write_rows
from cli.flags import add_class_flag, add_legend_flag
from data.annotation_exchange import export_task, merge_task
from data.annotation_task import read_record
from data.annotation_tools import TOOLS
from data.csv_files import read_table
from data.legend import FILE_NAME as LEGEND
from data.legend import Legend, read_legend
from data.pictures import image_size, read_checked_mask, read_image, resize_labels
from data.rows import OWN_NAMES, check_rows, read_rows
from data.splits import pair_folder
from engine import judges
from engine.annotation_audit import audit_rows, working_size
from engine.devices import start_fabric
from engine.flags import add_device_flags, add_flip_flag
from models import NAMES
from reports.audit_page import audit_page, picture_of, picture_side
from reports.audit_tables import component_table, group_tables, lead_of, page_row, ranking
from reports.experiment import training_flags
from reports.plan import Job, named_files, run_plan
from reports.workers import LocalWorkers
from utils.faults import TOLERANCE
from utils.generate_noisy_label import noisy_mask_names
from utils.verdict import Verdict, doubtful_pixels, settled, tempered, unseen_classes

AREA = 160 * 160  # px of the pictures that the judge is trained on
EPOCHS, MOST_EPOCHS, SAMPLES = 12, 60, 5000  # of the judge; between the two, so many that it sees SAMPLES pictures


def flags() -> argparse.ArgumentParser:
    """The parser of this script's own flags. A folder stands first: elsewhere it might be a value of the training's flags."""
    parser = tool_parser(__doc__)
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
    parser.add_argument("--export", nargs=2, metavar=("TOOL", "N"), help=f"write the worst N as a task: {', '.join(TOOLS)}")
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
    args, other = flags().parse_known_args()
    args.other = other
    if args.merge:
        if args.folder or args.csv or args.export or not args.out:
            raise UserError("--merge goes with --out, the folder of the new CSV, and without a folder, --csv and --export")
        args.out = Path(args.out)
        return args
    if bool(args.folder) == bool(args.csv):
        raise UserError("pass either a folder with images/ and masks/, or --csv")
    if args.background is not None and args.background >= args.num_classes:
        raise UserError(f"--background {args.background}: there are the classes 0 to {args.num_classes - 1}, see --num-classes")
    if args.export and not (args.export[0] in TOOLS and args.export[1].isdecimal() and int(args.export[1])):
        raise UserError(f"--export {' '.join(args.export)}: a tool ({', '.join(TOOLS)}) and a number of masks are needed")
    if args.other and (args.pred_dir or args.checkpoint or args.after):
        raise UserError(f"{args.other[0]}: no flag of this script, and no judge is trained that could take it")
    name = Path(args.folder).resolve().name if args.folder else Path(args.csv).stem
    args.out = Path(args.out or Path("runs", f"audit_{name}"))
    return args


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


# --- the judge ----------------------------------------------------------------------------------------------------


def judge_of(args: argparse.Namespace, rows: pd.DataFrame) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """(class probabilities of each row, how far the judge's training trusted it), see `engine.judges`; 1 where none knows."""
    known = np.ones(len(rows))
    if args.pred_dir:
        return judges.by_masks(rows, args.pred_dir, args.pred_name, args.num_classes), known
    if args.checkpoint:
        if not Path(args.checkpoint).is_file():  # before PyTorch is loaded
            raise UserError(f"--checkpoint {args.checkpoint}: no such checkpoint")
        return judges.by_network(start_fabric(args), args.checkpoint, rows, args.num_classes, flip=args.flip), known
    if args.after:
        run, trained = Path(args.after), rows.drop(columns="annotator", errors="ignore")
    else:
        job = training_job(args, rows)
        run_plan([job], LocalWorkers(shown=True))
        run, trained = job.result.parent, read_rows(args.out / "rows.csv")
    return judges.by_own_run(run, trained, args.num_classes), judges.trust_of_run(run)


def training_job(args: argparse.Namespace, rows: pd.DataFrame) -> Job:
    """The training of the judge, which a second call with the same flags and files does not repeat."""
    csv = args.out / "rows.csv"
    write_rows(csv, rows)
    size = args.size or fitting_size(image_size(rows["image"].iloc[0]))
    batch = min(8, len(rows))
    epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(SAMPLES / len(rows))))
    flags = training_flags(["--epochs", str(epochs), "--batch-size", str(batch), "--optimizer", "adamw", "--learning-rate",
                            "0.001", "--lr-step", str(max(1, epochs // 3)), "--cache", *args.other])
    machine = ["--accelerator", args.accelerator, "--devices", str(args.devices), "--precision", args.precision]
    command = ["train_with_own_weight.py", "--train_csv", str(csv), "--name", "judge", "--out-dir", str(args.out), "--size",
               *map(str, size), "--num-classes", str(args.num_classes), "--theta", str(args.theta), "--model", args.model,
               "--encoder", args.encoder, "--encoder-weights", args.encoder_weights, "--seed", str(args.seed), *flags,
               *machine, "--resume"]
    masks = {str(csv): judges.listing([*rows["image"], *rows["mask"]])}
    return Job(command, args.out / "judge" / "result.json", [], args.out / "judge.out", args.out,
               {**named_files(command, args.out), **masks})


def fitting_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) for training: about AREA px, the shape of a picture of this size (H, W), multiples of 32."""
    ratio = math.sqrt(size[0] / size[1])
    height, width = (max(64, 32 * round(math.sqrt(AREA) * part / 32)) for part in (ratio, 1 / ratio))
    return height, width


# --- what is left -------------------------------------------------------------------------------------------------


def pictures(args: argparse.Namespace, table: pd.DataFrame, verdicts: list[Verdict], proposals: list[Path]) -> Iterator[list]:
    """The pictures of the page, in the order of the ranking, each made when the page takes it."""
    for place, line in enumerate(progress(table.itertuples(), "drawing the page", len(table), "picture")):
        labels, proposal = (read_checked_mask(path, args.num_classes) for path in (line.mask, proposals[line.position]))
        size = working_size(labels.shape)
        scale = size[0] / labels.shape[0]
        labels, proposal = resize_labels(labels, size), resize_labels(proposal, size)
        tolerance = (args.tolerance * scale) if args.tolerance else max(1.0, TOLERANCE * math.hypot(*size))
        verdict = verdicts[line.position]
        wrong = sorted({found.label for found in verdict.findings if found.kind != "fine"}
                       | {found.other for found in verdict.findings if found.other is not None})
        classes = [1] if args.num_classes == 2 else [c for c in wrong if c != args.background]
        yield picture_of(read_image(line.image), labels, proposal, doubtful_pixels(labels, proposal, tolerance), classes,
                         picture_side(place, len(table)))


def write_report(args: argparse.Namespace, path: Path, table: pd.DataFrame, verdicts: list[Verdict], legend: Legend,
                 proposals: list[Path]) -> None:
    """Write report.html, piece by piece."""
    lines = [page_row(line, verdicts[position], legend, image_size(mask)) for line, position, mask in
             zip(table.rename(columns={"class": "label"}).itertuples(), table["position"].tolist(), table["mask"].tolist())]
    tolerance = f"{args.tolerance:g} px" if args.tolerance else f"{100 * TOLERANCE:.2g} % of the picture's diagonal"
    name = Path(args.folder).resolve().name if args.folder else Path(args.csv).name
    with open(path, "w", encoding="utf-8") as file:
        drawn = pictures(args, table, verdicts, proposals)
        for piece in audit_page(lines, drawn, f"Audit of {name}", table.attrs["lead"], tolerance, group_tables(table)):
            file.write(piece)


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


def audit(args: argparse.Namespace, rows: pd.DataFrame, legend: Legend, outputs: list[Path]) -> pd.DataFrame:
    """Judge all rows and write the outputs: ranking, components, page, proposals, mended masks. Returns `ranking`, with the
    sentence that sums it up in `attrs`."""
    names = noisy_mask_names(rows)
    judge, trust = judge_of(args, rows)
    with together() as written_at:
        proposals = [written_at(args.out / "proposals" / name) for name in names]
        mended = [written_at(args.out / "mended" / name) for name in names] if args.mend else []
        verdicts, notes = audit_rows(rows, judge, args.num_classes, args.background, args.tolerance, proposals.__getitem__,
                                     mended.__getitem__ if args.mend else None)
        unseen = [legend.names[label] for label in sorted(unseen_classes(verdicts))]
        verdicts = [tempered(*pair, args.num_classes) for pair in zip(settled(verdicts), trust.tolist())]
        for position, verdict in enumerate(verdicts):
            if args.mend and not {"loose", "tight"} & {found.kind for found in verdict.findings}:  # it does not stand out
                mended[position].unlink(missing_ok=True)
                notes[position] = ""
        table = ranking(rows, verdicts, legend, notes)
        table.drop(columns="position").to_csv(written_at(outputs[0]), index=False)
        component_table(rows, verdicts, legend, table["position"].tolist()).to_csv(written_at(outputs[1]), index=False)
        table.attrs["lead"] = lead_of(table, unseen)
        write_report(args, written_at(outputs[2]), table, verdicts, legend, proposals)
        if args.mend:
            masks = [str(args.out / "mended" / name) if path.exists() else mask
                     for name, path, mask in zip(names, mended, rows["mask"])]
            write_rows(written_at(outputs[3]), rows.assign(mask=masks))
    return table


def check_results(args: argparse.Namespace, rows: pd.DataFrame, outputs: list[Path]) -> None:
    """Raise UserError if an output exists, without --overwrite, or is a file that the audit reads, with or without it."""
    inputs = [args.csv, *rows["image"], *rows["mask"]]
    folders = ("proposals", "mended") if args.mend else ("proposals",)
    check_outputs([*outputs, *(args.out / folder / name for folder in folders for name in noisy_mask_names(rows))],
                  args.overwrite, inputs)
    check_outputs([args.out / "rows.csv"], True, inputs)  # of the judge's training, which a second call may find


def main() -> None:
    args = parse()
    if args.merge:
        merge(args)
        return
    rows, legend = rows_of(args), legend_of(args)
    outputs = [args.out / name for name in ("ranking.csv", "components.csv", "report.html", *["mended.csv"] * args.mend)]
    check_results(args, rows, outputs)
    task = args.out / f"export_{args.export[0]}" if args.export else None
    if task and task.exists():
        raise UserError(f"{task} exists and may hold corrections; move it away, or choose another --out")
    table = audit(args, rows, legend, outputs)
    said = [table.attrs["lead"]]
    if task:
        worst, names = table.head(int(args.export[1])), noisy_mask_names(rows)
        proposals = [args.out / "proposals" / names[position] for position in worst["position"]]
        settings = {"num_classes": args.num_classes, "background": args.background}
        export_task(task, args.export[0], worst, proposals, settings, legend, table)
        said.append(f"{len(worst)} masks for {args.export[0]}: {task}, see its README.txt")
    print(*said, f"open this in a browser: {outputs[2]}", sep="\n")


if __name__ == "__main__":
    command_line(main)
