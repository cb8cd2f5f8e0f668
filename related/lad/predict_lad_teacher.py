"""What a label-assisted teacher makes of images and their annotations: a label map for each row of a CSV.

    python related/lad/predict_lad_teacher.py --checkpoint runs/teacher/last.ckpt --csv data/csv/people/fold0.csv --out-dir out

Logits are averaged over --draws of the label channel. With --eval-codes zero the teacher sees images alone, with shuffled the
annotation of another row. This is for judging or mending annotations by teachers that were trained on others; a student needs
no label, and predict.py takes it.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pandas as pd

from cli.command_line import command_line, positive_int, seed_number, tool_parser
from cli.files import UserError, check_outputs, progress, together
from cli.lazy import lightning_fabric, torch
from data.dataset import as_it_is
from data.pictures import image_size, write_mask
from data.rows import check_rows, pseudo_label_names, read_rows
from engine.devices import start_fabric
from engine.flags import add_device_flags
from engine.loaders import on_device, worker_count
from related.lad.assisted import EVAL_CODES, LabelledImages, assisted, check_shuffled, codes_of, load_teacher
from utils.agreement import hard_labels


def predict(args: Namespace, fabric: lightning_fabric.Fabric, network: torch.nn.Module, config: dict[str, Any],
            rows: pd.DataFrame, names: list[str]) -> None:
    """Write the label map of each row to --out-dir, at its image's own size: all of them, or none."""
    network, classes = fabric.to_device(network), config["num_classes"]
    settings = Namespace(size=config["size"], num_classes=classes, augment=False, cache=False, seed=args.seed)
    dataset: Any = LabelledImages(rows, settings, False, args.draws, shuffled=args.eval_codes == "shuffled")
    loader = torch.utils.data.DataLoader(dataset, args.batch_size, num_workers=worker_count(args, fabric), collate_fn=as_it_is)
    sizes = [image_size(path) for path in rows["image"]]
    with together() as written_at:
        for batch in progress(loader, "predicting", unit="batch"):
            batch = on_device(fabric, batch)
            with torch.no_grad(), fabric.autocast():
                inputs = [assisted({**batch, "seeds": [seeds]}, classes, args.codes, args.eval_codes)
                          for seeds in batch["seeds"]]
                logits = torch.stack([network(each).float() for each in inputs]).mean(0)  # (B, C, H, W)
            for one, index in zip(logits, batch["index"].tolist()):
                own = torch.nn.functional.interpolate(one[None], sizes[index], mode="bilinear", align_corners=False)
                write_mask(written_at(Path(args.out_dir) / names[index]), hard_labels(own)[0].byte().cpu().numpy(), classes)


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of train_lad_teacher.py")
    parser.add_argument("--csv", required=True, help="images and the annotations that the teacher sees")
    parser.add_argument("--out-dir", required=True, help="folder of the label maps")
    parser.add_argument("--codes", choices=("random", "fixed"), help="(default: those of the teacher's training)")
    parser.add_argument("--eval-codes", choices=EVAL_CODES, default="own", help="whose annotation the teacher sees")
    parser.add_argument("--draws", type=positive_int, help="draws of the label channel (default: 4; of zeros: 1)")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--seed", type=seed_number, default=0, help="of the draws")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier call")
    add_device_flags(parser)
    args = parser.parse_args()
    if args.eval_codes == "zero" and (args.draws or args.codes):
        raise UserError(f"{'--draws' if args.draws else '--codes'}: with --eval-codes zero nothing is drawn; leave it out")
    args.draws = args.draws or (1 if args.eval_codes == "zero" else 4)
    rows = read_rows(args.csv)
    if args.eval_codes == "shuffled":
        check_shuffled(rows, args.csv)
    names = pseudo_label_names(rows)
    if len(set(names)) < len(names):
        raise UserError(f"{args.csv}: two rows have one image, and what is predicted depends on the row; leave one out")
    check_outputs([Path(args.out_dir) / name for name in names], args.overwrite,
                  [args.csv, args.checkpoint, *rows["image"], *rows["mask"]])
    network, config = load_teacher(args.checkpoint, None, "lad", "--checkpoint")
    args.codes = "zero" if args.eval_codes == "zero" else codes_of(args.checkpoint, config, args.codes)
    check_rows(args.csv, rows, config["num_classes"])
    predict(args, start_fabric(args), network, config, rows, names)
    print(f"{len(names)} label maps in {args.out_dir}")


if __name__ == "__main__":
    command_line(main)
