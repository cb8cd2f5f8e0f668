"""Baseline: every annotation counts the same.

    w_i = 1                                                        (the paper's "baseline", Table 2)

    python train_without_weight.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_noisy_60_noweight --epochs 100 --batch-size 4 --learning-rate 0.1
"""

from data.command_line import command_line
from utils.engine import run
from utils.options import train_parser
from utils.weighting import uniform


def weigh(logits, batch, epoch):
    """w_i = 1, (B,)."""
    return [uniform(batch["weight"]) for _ in logits]


def main():
    run(train_parser(__doc__).parse_args(), weigh)


if __name__ == "__main__":
    command_line(main)
