"""Scores of a trained network on a CSV: mIoU, IoU per class, Dice, BF, Boundary IoU; as a table and as JSON.

    python evaluate.py --checkpoint runs/NAME/best.ckpt --csv data/csv/test.csv --json runs/NAME/test.json

Images and masks are scored at the size the network was trained at. mIoU comes from one confusion matrix over the split;
BF, Dice and Boundary IoU are means over its images.
"""

from cli.command_line import command_line, positive_float, positive_int, side_length, tool_parser
from cli.files import check_outputs, write_json
from cli.lazy import torch
from data.dataset import SegmentationDataset, as_it_is
from data.rows import check_batch, check_rows, read_rows
from engine.checkpoint import load_network
from engine.devices import start_fabric
from engine.flags import add_device_flags
from engine.loaders import each_row_once, worker_count
from engine.loop import evaluate
from engine.task import SegmentationScorer
from utils.metrics import score_table


def main():
    parser = tool_parser(__doc__)
    parser.add_argument("--checkpoint", required=True, help="best.ckpt or last.ckpt of a run")
    parser.add_argument("--csv", required=True, help="rows to score")
    parser.add_argument("--json", metavar="FILE", help="write the scores to this file too")
    parser.add_argument("--theta", type=positive_float,
                        help="boundary tolerance: px from 1 on, below 1 a share of the diagonal (default: the run's)")
    parser.add_argument("--size", type=side_length, nargs=2, metavar=("H", "W"), help="px (default: the run's)")
    parser.add_argument("--network", type=int, default=0, choices=(0, 1), help="which network of a two-network run")
    parser.add_argument("-b", "--batch-size", type=positive_int, default=8)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    add_device_flags(parser)
    args = parser.parse_args()

    rows = read_rows(args.csv)
    if args.json:
        check_outputs([args.json], args.overwrite, [args.csv, args.checkpoint, *rows["image"], *rows["mask"]])
    network, config = load_network(args.checkpoint, args.network)
    theta, size = args.theta or config["theta"], args.size or config["size"]
    check_batch(size, args.batch_size, rows)
    check_rows(args.csv, rows, config["num_classes"])
    fabric = start_fabric(args)
    dataset = SegmentationDataset(rows, size, config["num_classes"])
    loader = torch.utils.data.DataLoader(dataset, args.batch_size, num_workers=worker_count(args, fabric), collate_fn=as_it_is,
                                         sampler=each_row_once(dataset, fabric))
    scorer = SegmentationScorer(config["num_classes"], theta, fabric.device)
    scores = evaluate(fabric, fabric.setup_module(network), loader, scorer, title="evaluating")
    if fabric.is_global_zero:
        print(score_table({args.csv: scores}))
        if args.json:
            write_json(args.json, {"checkpoint": args.checkpoint, "csv": args.csv, "theta": theta, "size": size, **scores})


if __name__ == "__main__":
    command_line(main)
