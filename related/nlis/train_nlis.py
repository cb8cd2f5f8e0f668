"""Train on class labels that may be wrong, where it is known what is an object and what is background: NLIS.

    stage 1    mean_N CE
    stage 2    mean_N 1[NEG or PSN] CE  +  mean_N 1[OS] RCE        (Yang et al., ECCV 2020; roles.py says who is in which set)

    python related/nlis/train_nlis.py --train_csv data/coco/train_sn40.json --test_csv data/coco/test.json --name nlis \\
        --encoder resnet50 --encoder-weights imagenet --size 512 1024 --epochs 12

N samples are the regions (RoIs) of a Mask R-CNN, if the rows are a COCO JSON; then its other losses are added as they are. If
they are a CSV headed `image,label`, samples are pictures, and the first class is the background. --loss ce, sce or gce gives
the losses that NLIS is compared with. The log counts the samples of each set.
"""

from cli.command_line import command_line
from engine.loop import run
from related.nlis.flags import nlis_parser, parse
from related.nlis.objective import RobustLoss, SetCounts


def main() -> None:
    args, task = parse(nlis_parser(__doc__))
    counts = SetCounts(args.stage1_epochs)
    run(args, task=task, objective=RobustLoss(args, counts), memory=counts, after_epoch=counts.after_epoch,
        needs_weights=args.weighted)


if __name__ == "__main__":
    command_line(main)
