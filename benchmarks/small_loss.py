"""Small-loss selection by one network: what Co-teaching does, without the peer.

    w_i = 1 for the R(t) share of the batch with the smallest loss, else 0
    R(t) = 1 - tau * min(t / T_k, 1)                                   (Han et al. 2018)

    python benchmarks/small_loss.py --train_csv train_noisy.csv --test_csv test.csv --name small_loss

tau is --forget-rate, T_k is --ramp-epochs. The network chooses by its own logits of the step, so it confirms its own choice,
which is why Co-teaching takes two. --select-by chooses by agreement scores instead.
"""

from functools import partial

from cli.command_line import command_line
from engine.flags import add_selection_flags, forget_rate_of, train_parser
from engine.loop import run
from engine.task import SEGMENTATION
from utils.weighting import keep_best, keep_share


def weigh(args, logits, batch, epoch):
    """1 for what the network trusts most, else 0; (B,)."""
    return [keep_best(SEGMENTATION.trust(logits[0], batch, args), keep_share(epoch, args.forget_rate, args.ramp_epochs))]


def main():
    parser = train_parser(__doc__)
    add_selection_flags(parser)
    args = parser.parse_args()
    args.forget_rate = forget_rate_of(args)
    run(args, partial(weigh, args), selects=True)


if __name__ == "__main__":
    command_line(main)
