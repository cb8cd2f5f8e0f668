"""Blind Knowledge Distillation: train a teacher and a student on wrong class labels, and find the wrong ones.

    python blind_knowledge_dist_training.py --dataset cifar10 --noise_type aggre --seed 42

Phase 1: L = CE(l_T, h) + L_blind; the student learns the teacher's logits, all but the label's own. The tipping point is the
first peak of the student's confidence; its scores part the rows into four groups of trust. Phase 2: L = CE(l_T, q) + L_blind,
where q mixes the label with the student's opinion, by group. (Kaiser et al. 2022, arXiv 2211.11355)

Leaves results/DATASET_NOISE_seed_SEED below the working directory: teacher.pth.tar, student.pth.tar, detection.npy, scores.npy,
blindkd.json, and what every run here leaves: best.ckpt (best on noisy validation rows), last.ckpt, log.jsonl, result.json. Then
learning.py tells the accuracy on the test set, and detection.py, which reads the true labels, how well wrong ones are found.
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli.command_line import command_line
from engine.classification import CLASSIFICATION, complete
from engine.loaders import build_loaders
from engine.lock import is_first_process
from engine.loop import run
from related.blindkd.flags import run_name, settle, training_parser
from related.blindkd.memory import BlindDistillation, Memory
from related.blindkd.noisy_set import csv_beside, noisy_csv, split_rows, validation_split
from related.blindkd.outputs import write_outputs
from related.blindkd.tipping import TipRule


def parse() -> Namespace:
    """The flags, with what the training CSV and the name of the data set tell."""
    args = training_parser(__doc__).parse_args()
    settle(args)
    csv = noisy_csv(args)
    args.train_csv, args.valid_csv, args.test_csv = str(csv), None, str(csv_beside(csv, "test.csv"))
    args.out_dir, args.name, args.load = args.results, run_name(args), None
    del args.results  # a run may be moved before it goes on
    published = args.dataset.startswith("cifar")  # the published augmentation
    args.mirror = published if args.mirror is None else args.mirror
    args.shift = 4 * published if args.shift is None else args.shift
    args.padding = args.padding or ("zero" if args.dataset.startswith("cifar100") else "reflect")
    complete(args)
    return args


def main() -> None:
    args = parse()
    splits = CLASSIFICATION.rows(args)
    whole = splits["train"]
    trained, _ = validation_split(len(whole), args.val_ratio, args.seed)
    splits["train"], valid = split_rows(whole, args.train_csv, args.val_ratio, args.seed)
    if len(valid):
        splits["valid"], args.valid_csv = valid, args.train_csv
    else:
        print("--val_ratio 0: no rows validate, the last epoch is the one that is reported")
    task = replace(CLASSIFICATION, rows=lambda args: splits,
                   config=lambda args, suffix: {**CLASSIFICATION.config(args, suffix), "pair": True},
                   cache_bytes=lambda rows, args: 2 * CLASSIFICATION.cache_bytes(rows, args))  # the whole set is scored, too
    memory = Memory(trained, len(whole), args.epochs, TipRule(args.smooth, args.min_epoch), args.fallback)
    objective = BlindDistillation(memory, [args.alpha1, args.alpha2, args.alpha3, args.alpha4], args.unmasked,
                                  args.detach_targets)
    loaders: dict = {}

    def after_epoch(fabric: Any, state: Any, stop: Any) -> dict:
        if not loaders and not memory.judged:
            loaders.update(build_loaders(args, {"whole": whole}, fabric, CLASSIFICATION))
        return memory.after_epoch(fabric, state, stop, loaders.get("whole"), task)

    run(args, task=task, objective=objective, memory=memory, after_epoch=after_epoch)
    if is_first_process():
        write_outputs(Path(args.out_dir, args.name))


if __name__ == "__main__":
    command_line(main)
