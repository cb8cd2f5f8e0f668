"""The published noise scripts' settings as flags, handed to utils/class_noise.py."""

from __future__ import annotations

from cli.command_line import positive_int, seed_number, share, tool_parser
from cli.files import UserError
from data.coco_text import CocoText
from utils.class_maps import CITYSCAPES, fitting_map
from utils.class_noise import make_noise, noise_parser


def make_cityscapes_noise(docstring: str | None, kind: str) -> None:
    """Make one of the noises of Yang et al. on the instances of Cityscapes.

    Args:
        docstring: of the script.
        kind: of utils/class_noise.py: `symmetric` or `asymmetric`.
    """
    parser = tool_parser(docstring)
    parser.add_argument("--r", "--rate", dest="rate", type=share, default=0.4, help="probability that a label is wrong")
    parser.add_argument("--p_a", metavar="JSON", default="instancesonly_filtered_gtFine_train.json", help="true labels, COCO")
    parser.add_argument("--p_g", metavar="JSON", required=True, help="the same file with wrong labels, to be written")
    parser.add_argument("--run", type=positive_int, help="number of the repetition: the seed is run - 1")
    parser.add_argument("--seed", type=seed_number, help="of the draws (default: 0)")
    if kind == "symmetric":
        parser.add_argument("--original-sampling", action="store_true", help="draw as the published code does")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    args = parser.parse_args()
    if kind == "asymmetric" and fitting_map(CocoText(args.p_a).names) is not CITYSCAPES:
        raise UserError(f"--p_a {args.p_a}: names other classes than Cityscapes; utils/class_noise.py takes any")
    if args.run is not None and args.seed is not None:
        raise UserError(f"--run {args.run}: is the seed {args.run - 1}, --seed says {args.seed}; pass one of them")
    seed = args.seed or 0 if args.run is None else args.run - 1
    words = ["--csv", args.p_a, "--out", args.p_g, "--noise", kind, "--rate", str(args.rate), "--seed", str(seed)]
    words += ["--original-sampling"] * getattr(args, "original_sampling", False) + ["--overwrite"] * args.overwrite
    make_noise(noise_parser().parse_args(words))
