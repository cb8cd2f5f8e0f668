"""Flags that scripts and offline tools share; engine/flags.py holds the flags of a training."""

import argparse

from cli.command_line import class_count, class_or_none, positive_float


def add_class_flag(parser: argparse._ActionsContainer) -> None:
    """--num-classes."""
    parser.add_argument("--num-classes", type=class_count, default=2, help="background included; 2 = binary masks (0/255)")


def add_legend_flag(parser: argparse.ArgumentParser) -> None:
    """--classes."""
    parser.add_argument("--classes", metavar="JSON", help="names and colours of the classes, as the prepare scripts write them")


def add_noise_flags(parser: argparse.ArgumentParser) -> None:
    """--noise, --background."""
    parser.add_argument("--noise", choices=("morphology", "polygon", "markov"), default="morphology",
                        help="kind of error in the outlines, see utils/add_noise.py")
    parser.add_argument("--background", type=class_or_none, default=0, metavar="CLASS|none",
                        help="class that fills the gap beside a shrunken region; none = the regions beside it (street scenes)")


def add_score_flags(parser: argparse.ArgumentParser) -> None:
    """--theta."""
    parser.add_argument("--theta", type=positive_float, default=3.0,
                        help="boundary tolerance of BF: px from 1 on, below 1 a share of the image diagonal")
