"""Own weights: each annotation counts as much as the student itself, over time, agrees with it; one training, no teacher.

    w_i = P(good | mean over the epochs so far of BF(student's prediction of x_i at its step, y_i)), 1 in the first epochs

P is `sharpened`: the probability of being in the better of two groups of scores; masks without an outline make no group. Of
more than two classes, where the scores form two groups, each one's BF counts less that class's mean over the rows, since thin
classes score low in every mask.
Every weight is 1 where the scores form one group, or where most masks are doubted and err alike. The tolerance of this BF is
two thirds of --theta. It goes beyond the paper, whose student scores one step alone.

    python train_with_own_weight.py --train_csv data/csv/train_noisy_60.csv --valid_csv data/csv/valid_noisy_60.csv \\
        --test_csv data/csv/test.csv --name train_noisy_60_own --epochs 100 --batch-size 4 --learning-rate 0.1

--after RUN is a further pass, a training that starts from a finished run's network and memory: a doubted mask (w < 0.5) is
learnt as its most likely level set by that run's predictions, averaged since its weights began, and only where the two agree;
with more than two classes as it is, where its label is the most probable one. All other masks count fully. No file of the CSV
is changed. Where RUN ended with no doubted mask, the pass keeps RUN's network, unless it is a control. --fixed names masks that
a person has corrected: they weigh 1. --from-scratch starts from a new network instead. Three passes are the recommended option
(docs/results).

The memory takes 3 bytes a training row, pixel and class (binary: a row and pixel), with --augment 2 more a row and pixel, three
times as much while it is saved, and is refused where that does not fit; --scores-only does without. It averages the first 257
predictions of a row since the weights began (with --augment the first 255 of a pixel); a longer training adds no more of them,
while scores count to the end. With --augment predictions are brought back to the pixels of the picture as it was, and corrected
masks are moved as the picture is. The run's folder gets weights.csv, the last weights. --shuffle-weights and --mean-weights are
the controls of train_with_Teacher_weight.py.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from cli.command_line import command_line
from engine.flags import train_parser
from engine.loop import run
from engine.own_run import OwnRun, add_own_flags, complete
from utils.agreement import bf_per_class, hard_labels, mean_bf
from utils.own_scores import own_tolerance


def weigh(args: Namespace, own: OwnRun, logits: Sequence, batch: dict, epoch: int) -> list:
    """w_i by the scores of the epochs before, (B,); in a further pass (B, H, W), 0 where a doubted mask does not count."""
    predicted, mask = hard_labels(logits[0]), batch["mask"]
    by_class = bf_per_class(predicted, mask, args.num_classes, own_tolerance(args.theta))  # (B, C)
    scores = mean_bf(by_class, predicted, mask)
    own.memory.note(batch, scores, logits[0], epoch, by_class)
    if own.corrected:
        return [own.corrected.pixel_weights(batch)]
    return [own.memory.weights(epoch, scores.device)[batch["index"]]]


def main() -> None:
    parser = train_parser(__doc__)
    add_own_flags(parser)
    args = parser.parse_args()
    complete(args)
    own = OwnRun(args)
    run(args, partial(weigh, args, own), task=own.task, memory=own, after_epoch=own.after_epoch)
    own.write_weights()


if __name__ == "__main__":
    command_line(main)
