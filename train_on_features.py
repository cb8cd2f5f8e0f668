"""The plain baseline: a linear classifier, ignorant of noise, on the features of a frozen pretrained encoder.

    f(x) = softmax(A g(x) + b), g frozen    (NI-ERM: Label Noise: Ignorance Is Bliss, NeurIPS 2024)

    python train_on_features.py --train_csv data/csv/cifar10n/train_worst.csv --test_csv data/csv/cifar10n/test.csv \\
        --name worst_features --encoder mobilenet_v2 --encoder-weights imagenet

g averages the encoder's last feature map over its pixels, so wrong labels do not influence it; A and b are scikit-learn's
logistic regression on standardised features. The regularisation with the lowest out-of-fold log-loss on the given labels is
chosen.

It finds wrong labels too: --folds classifiers each judge the rows that they never saw. scores.csv holds each row's probability
of its given label and the predicted one; weights.csv, for train_with_Teacher_weight.py, has this probability as its weight;
flags.npy (bool, a row each) marks the rows that are confidently of another class (confident learning, Northcutt et al., 2021).
Without --test_csv the run does this alone. result.json can be tabulated by report.py beside runs of networks; its `valid` is
the out-of-fold accuracy on the given labels.
"""

from cli.command_line import class_count, command_line, none_or_str, positive_int, seed_number, side_length, tool_parser
from cli.files import UserError
from engine.linear_run import run_linear


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("-train", "--train_csv", "--train-csv", required=True, metavar="CSV", help="training rows: image,label")
    parser.add_argument("-test", "--test_csv", "--test-csv", metavar="CSV", help="rows for the final score")
    parser.add_argument("-n", "--name", required=True, help="name of the run, a folder in --out-dir")
    parser.add_argument("--encoder", default="mobilenet_v2", help="any of segmentation-models-pytorch (`tu-NAME`: timm's); "
                                                                  "`pixels`: the picture itself, for small ones")
    parser.add_argument("--encoder-weights", type=none_or_str, default="imagenet", metavar="imagenet|none|FILE",
                        help="`imagenet` is fetched from the hub; FILE is a .safetensors or .pth of the encoder")
    parser.add_argument("--maps", type=int, default=1, choices=range(1, 6),
                        help="how many of the last feature maps are averaged")
    parser.add_argument("--size", type=side_length, nargs=2, metavar=("H", "W"),
                        help="px that pictures are resized to (default: 128 128; pixels: the first picture's own)")
    parser.add_argument("--num-classes", type=class_count,
                        help="where no classes.json names them (default: the largest label + 1)")
    parser.add_argument("--folds", type=positive_int, default=5, help="classifiers that judge, each a part of the rows")
    parser.add_argument("--seed", type=seed_number, default=0, help="seed of the folds")
    parser.add_argument("--features-dir", metavar="DIR", help="keep the features here, for other runs on the same images "
                                                              "(default: the run's folder)")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--out-dir", default="runs", help="where runs are kept")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="use the features that a stopped run has left")
    again.add_argument("--overwrite", action="store_true", help="replace an existing run of this name")
    args = parser.parse_args()
    if args.folds < 2:
        raise UserError("--folds 1: a classifier must not judge the rows that it saw; 2 or more are needed")
    run_linear(args)


if __name__ == "__main__":
    command_line(main)
