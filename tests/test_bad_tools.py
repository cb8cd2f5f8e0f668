"""Tools write all outputs or none, never destroy an input, and never confuse rows."""

import json

import cv2
import numpy as np
import pytest

from cli.files import read_json, write_json
from tests import tool_inputs
from tests.script_calls import TINY, check
from tests.tool_inputs import (
    EVALUATE,
    NETWORK,
    NOISE,
    NOISY_SET,
    PREDICT,
    SAMPLE,
    SCORED,
    WEIGHT,
    WEIGHTS,
    contents,
    named,
    refused,
)

desk = tool_inputs.desk


# --- refusals: (name, script, what prepares the desk, words of the message, flags) -----------------------------------------

NOTHING_LEFT = [
    ("predict, a broken image", PREDICT, lambda d: d.spoil("images/2.jpg"), "images/2.jpg", [*NETWORK, "--out-dir", "out"]),
    ("predict, a broken image, one a batch", PREDICT, lambda d: d.spoil("images/2.jpg"), "images/2.jpg",
     [*NETWORK, "--out-dir", "deep/out", "--batch-size", 1]),
    ("predict, no such network", PREDICT, None, "there is no number 1", [*NETWORK, "--out-dir", "out", "--network", 1]),
    ("noise, a broken mask", NOISY_SET, lambda d: d.spoil("masks/3.png"), "masks/3.png",
     ["--csv", "train.csv", "--out", "n.csv", "--ratio", 1]),
    ("noise, a class too many", NOISY_SET, lambda d: d.save_mask(np.full((24, 16), 5), 3, 1), "masks/3.png holds [5]",
     ["--csv", "train.csv", "--out", "n.csv", "--ratio", 1, "--num-classes", 3]),
    ("noise, black and white masks as class numbers", NOISY_SET, None, "masks are binary: --num-classes 2",
     ["--csv", "train.csv", "--out", "n.csv", "--ratio", 1, "--num-classes", 3]),
    ("noise, levels turned round", NOISY_SET, None, "LOW must not be above HIGH",
     ["--csv", "train.csv", "--out", "n.csv", "--levels", 9, 3]),
    ("noise on a folder, a broken mask", NOISE, lambda d: d.spoil("masks/5.png"), "masks/5.png",
     ["masks", "--out", "out", "--sheet", "s.png", "--table", "t.json"]),
    ("noise on a folder alone, a broken mask", NOISE, lambda d: d.spoil("masks/5.png"), "masks/5.png",
     ["masks", "--out", "out"]),
    ("noise on no mask", NOISE, None, "masks/9.png", ["masks/9.png", "--out", "n.png"]),
    ("noise on an empty folder", NOISE, lambda d: (d.folder / "empty").mkdir(), "empty: no masks", ["empty", "--out", "n"]),
    ("noise, a picture of no format", NOISE, None, "no picture format", ["masks/1.png", "--out", "n.png", "--sheet", "s.xyz"]),
    ("noise, masks of a format that loses", NOISE, None, "a mask is written as .png", ["masks/1.png", "--out", "n.jpg"]),
    ("noise, nothing to do", NOISE, None, "nothing to do", ["masks/1.png"]),
    ("weights, other truth", WEIGHT, None, "--truth test.csv: holds other images",
     [*SCORED, "--truth", "test.csv", "--out", "o.csv"]),
    ("weights, other truth, known before the scoring", WEIGHT, lambda d: d.spoil("pseudo/0.png"), "--truth test.csv: holds",
     [*SCORED, "--truth", "test.csv", "--out", "o.csv"]),
    ("weights, truth in another order", WEIGHT, lambda d: d.write(d.rows([3, 2, 1, 0]), "truth.csv"), "or another order",
     [*SCORED, "--truth", "truth.csv", "--out", "o.csv"]),
    ("weights, truth that cannot be read", WEIGHT, lambda d: d.write("images/0.jpg,masks/9.png\n", "truth.csv"),
     "truth.csv: 1 fault", [*SCORED, "--truth", "truth.csv", "--out", "o.csv"]),
    ("weights, a broken truth", WEIGHT, lambda d: (d.spoil("masks/5.png"), d.write(
        "".join(f"images/{n}.jpg,masks/{m}.png\n" for n, m in enumerate((0, 1, 2, 5))), "truth.csv")), "masks/5.png",
     [*SCORED, "--truth", "truth.csv", "--out", "o.csv"]),
    ("weights, a broken pseudo-label", WEIGHT, lambda d: d.spoil("pseudo/3.png"), "pseudo/3.png", [*SCORED, "--out", "o.csv"]),
    ("weights, a pseudo-label missing", WEIGHT, lambda d: (d.folder / "pseudo/3.png").unlink(), "1 of 4 pseudo-labels",
     [*SCORED, "--out", "o.csv"]),
    ("weights, nothing to read", WEIGHT, None, "pass --csv and --pred-dir", ["--out", "o.csv"]),
    ("weights, other rows to mix", WEIGHT, lambda d: d.weights("v.csv", range(3), WEIGHTS), "--mix v.csv: holds other rows",
     ["--mix", "w.csv", "v.csv", "--out", "o.csv"]),
    ("more parts than rows", WEIGHT, None, "--shard 1/5: train.csv has only 4 rows",
     [*SCORED, "--out", "o.csv", "--shard", "1/5"]),
    ("a part of no rows", WEIGHT, None, "--shard 7/8: train.csv has only 4 rows",
     [*SCORED, "--out", "o.csv", "--shard", "7/8"]),
    ("a metric for parts", WEIGHT, None, "--metric: is that of the parts", ["--join", "--metric", "bf", "--out", "o.csv"]),
    ("densecrf's flag for grabcut", "benchmarks/refine_masks.py", None, "--reach: is of --method densecrf",
     ["--csv", "train.csv", "--method", "grabcut", "--reach", 9, "--out", "o.csv"]),
    ("a threshold of rows for pixels", "benchmarks/confident_filter.py", None, "--threshold 0.5: is of --drop rows",
     ["--csv", "train.csv", "--teacher", "t", "--drop", "pixels", "--threshold", 0.5, "--out", "o.csv"]),
    ("one round's metric", "train_teacher.py", None, "--metric: is of the weights between two rounds",
     ["--train_csv", "train.csv", "--name", "t", "--metric", "bm"]),
    ("moved masks without an offset", "utils/calibrate_masks.py", None, "--mask-dir: is of moved masks",
     ["--csv", "train.csv", "--fixed", "masks", "--no-offset", "--mask-dir", "x", "--out", "o.csv"]),
    ("a legend for a finished table", "report.py", None, "--classes: --json prints the tables of a file",
     ["--json", "t.json", "--classes", "c.json"]),
    ("no parts", WEIGHT, None, "--join: 0 parts", ["--join", "--out", "o.csv"]),
    ("parts of no number", WEIGHT, lambda d: d.copy("w.csv", "o.part1ofall.csv"), "--join: 0 parts",
     ["--join", "--out", "o.csv"]),
    ("scores, a broken image", EVALUATE, lambda d: d.spoil("images/2.jpg"), "images/2.jpg", [*NETWORK, "--json", "s.json"]),
    ("scores, no checkpoint", EVALUATE, lambda d: d.spoil("x.ckpt"), "x.ckpt: not a checkpoint",
     [*NETWORK, "--json", "s.json"]),
    ("a sample of no size", SAMPLE, None, "--size: '0' is not", ["--out", "sample", "--size", 0, 9]),
]

INPUTS_KEPT = [
    ("predict over the masks", PREDICT, None, "masks/0.png is read here and would be lost", [*NETWORK, "--out-dir", "masks"]),
    ("predict over the masks, asked", PREDICT, None, "is read here", [*NETWORK, "--out-dir", "masks", "--overwrite"]),
    ("predict over a link to the masks", PREDICT, lambda d: (d.folder / "m").symlink_to("masks"), "m/0.png is read here",
     [*NETWORK, "--out-dir", "m", "--overwrite"]),
    ("predict over .png images", PREDICT, lambda d: (cv2.imwrite(str(d.folder / "images/1.png"), np.zeros((24, 16, 3))),
                                                     d.write("images/1.png,masks/1.png\n")),
     "images/1.png is read here", [*NETWORK, "--out-dir", "images", "--overwrite"]),
    ("noisy masks over the masks", NOISY_SET, None, "is read here",
     ["--csv", "train.csv", "--out", "n.csv", "--mask-dir", "masks", "--overwrite"]),
    ("the noisy CSV over the CSV", NOISY_SET, None, "train.csv is read here", ["--csv", "train.csv", "--out", "train.csv"]),
    ("the same, asked", NOISY_SET, None, "train.csv is read here",
     ["--csv", "train.csv", "--out", "./train.csv", "--overwrite"]),
    ("the noisy CSV over a mask", NOISY_SET, None, "masks/0.png is read here",
     ["--csv", "train.csv", "--out", "masks/0.png", "--mask-dir", "n", "--overwrite"]),
    ("noise over its mask", NOISE, None, "masks/1.png is read here", ["masks/1.png", "--out", "masks/1.png", "--overwrite"]),
    ("noise over its folder", NOISE, None, "is read here", ["masks", "--out", "masks", "--overwrite"]),
    ("a sheet over the mask", NOISE, None, "is read here", ["masks/1.png", "--sheet", "masks/1.png", "--overwrite"]),
    ("a table over the legend", NOISE, lambda d: d.spoil("c.json"), "c.json is read here",
     ["masks/1.png", "--table", "c.json", "--classes", "c.json", "--overwrite"]),
    ("weights over their CSV", WEIGHT, None, "train.csv is read here", [*SCORED, "--out", "train.csv", "--overwrite"]),
    ("weights over the truth", WEIGHT, lambda d: d.copy("train.csv", "truth.csv"), "truth.csv is read here",
     [*SCORED, "--truth", "truth.csv", "--out", "truth.csv", "--overwrite"]),
    ("weights over a mask", WEIGHT, None, "masks/0.png is read here", [*SCORED, "--out", "masks/0.png", "--overwrite"]),
    ("a mix over what it mixes", WEIGHT, None, "w.csv is read here", ["--mix", "w.csv", "--out", "w.csv", "--overwrite"]),
    ("known weights over their CSV", WEIGHT, None, "noisy.csv is read here",
     ["--csv", "noisy.csv", "--known", 0, "--out", "noisy.csv", "--overwrite"]),
    ("a part of what would be the CSV", WEIGHT, None, "train.csv is read here",
     [*SCORED, "--out", "train.csv", "--shard", "1/2"]),
    ("the summary over the weights", WEIGHT, None, "--out o.json: the summary goes there", [*SCORED, "--out", "o.json"]),
    ("the summary over classes", WEIGHT, lambda d: write_json(d.folder / "o.json", ["sky"]), "o.json: exists and is not the",
     [*SCORED, "--out", "o.csv", "--overwrite"]),
    ("the summary over no JSON", WEIGHT, lambda d: d.spoil("o.json"), "o.json: exists and is not the summary of o.csv",
     [*SCORED, "--out", "o.csv", "--overwrite"]),
    ("the summary over that of others", WEIGHT, lambda d: write_json(d.folder / "o.json", {"out": "o.v1", "levels": {}}),
     "o.json: exists and is not the summary of o.v2", [*SCORED, "--out", "o.v2", "--overwrite"]),
    ("the same, unasked", WEIGHT, lambda d: write_json(d.folder / "o.json", {"out": "o.v1", "levels": {}}),
     "o.json: exists and is not the summary of o.csv", [*SCORED, "--out", "o.csv"]),
    ("a summary that is a folder", WEIGHT, lambda d: (d.folder / "o.json").mkdir(), "o.json is a folder",
     [*SCORED, "--out", "o.csv"]),
    ("scores over their CSV", EVALUATE, None, "train.csv is read here", [*NETWORK, "--json", "train.csv", "--overwrite"]),
    ("scores over the network", EVALUATE, None, "x.ckpt is read here", [*NETWORK, "--json", "x.ckpt", "--overwrite"]),
    ("a sample over a folder", SAMPLE, None, "images exists", ["--out", "images", "--count", 1]),
]

ODD_OUTPUTS = [
    ("pseudo-labels in a file", PREDICT, None, "train.csv is a file and cannot be", [*NETWORK, "--out-dir", "train.csv"]),
    ("pseudo-labels below a file", PREDICT, None, "train.csv is a file and cannot be", [*NETWORK, "--out-dir", "train.csv/x"]),
    ("pseudo-labels that exist", PREDICT, lambda d: d.copy("masks/0.png", "out/1.png"), "out/1.png exists; pass --overwrite",
     [*NETWORK, "--out-dir", "out"]),
    ("a pseudo-label that is a folder", PREDICT, lambda d: (d.folder / "out/1.png").mkdir(parents=True), "1.png is a folder",
     [*NETWORK, "--out-dir", "out", "--overwrite"]),
    ("a noisy CSV that is a folder", NOISY_SET, None, "images is a folder", ["--csv", "train.csv", "--out", "images"]),
    ("a noisy CSV named as its folder", NOISY_SET, None, "cannot be an output and the folder of another",
     ["--csv", "train.csv", "--out", "n"]),
    ("a noisy mask named as the CSV", NOISY_SET, None, "2 outputs have this name",
     ["--csv", "train.csv", "--out", "n/1.png", "--mask-dir", "n", "--ratio", 1]),
    ("a noisy CSV below a file", NOISY_SET, None, "x.ckpt is a file and cannot be",
     ["--csv", "train.csv", "--out", "x.ckpt/n.csv"]),
    ("masks that share a stem", NOISE, lambda d: d.copy("images/1.jpg", "masks/1.jpg"), "1.png: 2 outputs have this name",
     ["masks", "--out", "out"]),
    ("a sheet named as the mask", NOISE, None, "2 outputs have this name",
     ["masks/1.png", "--out", "n.png", "--sheet", "n.png"]),
    ("a table that exists", NOISE, lambda d: d.spoil("t.json"), "t.json exists", ["masks/1.png", "--table", "t.json"]),
    ("noisy masks in a file", NOISE, None, "x.ckpt is a file and cannot be", ["masks", "--out", "x.ckpt"]),
    ("weights that are a folder", WEIGHT, None, "images is a folder", [*SCORED, "--out", "images", "--overwrite"]),
    ("weights below a file", WEIGHT, None, "x.ckpt is a file and cannot be", [*SCORED, "--out", "x.ckpt/w.csv"]),
    ("scores in a folder", EVALUATE, None, "images is a folder", [*NETWORK, "--json", "images", "--overwrite"]),
    ("scores below a file", EVALUATE, None, "x.ckpt is a file and cannot be", [*NETWORK, "--json", "x.ckpt/s.json"]),
    ("a sample below a file", SAMPLE, None, "x.ckpt/s: cannot be written", ["--out", "x.ckpt/s", "--count", 1]),
]


@pytest.mark.parametrize("script, prepare, message, flags", named(NOTHING_LEFT + INPUTS_KEPT + ODD_OUTPUTS))
def test_tools_refuse_and_leave_nothing(desk, monkeypatch, capsys, script, prepare, message, flags):
    if prepare:
        prepare(desk)
    refused(monkeypatch, capsys, desk.folder, script, message, *flags)


# --- after the fault is mended, the same command works -------------------------------------------------------------------


@pytest.mark.parametrize("script, spoilt, flags, made", [
    (PREDICT, "images/3.jpg", [*NETWORK, "--out-dir", "out", "--batch-size", 1], [f"out/{n}.png" for n in range(4)]),
    (NOISY_SET, "masks/3.png", ["--csv", "train.csv", "--out", "n.csv", "--ratio", 1],
     [*(f"n/{n}.png" for n in range(4)), "n.csv"]),
    (NOISE, "masks/5.png", ["masks", "--out", "out", "--table", "t.json"], [*(f"out/{n}.png" for n in range(6)), "t.json"]),
    (WEIGHT, "pseudo/3.png", [*SCORED, "--out", "deep/o.csv", "--truth", "train.csv"], ["deep/o.csv", "deep/o.json"]),
    (EVALUATE, "masks/3.png", [*NETWORK, "--json", "deep/s.json"], ["deep/s.json"]),
])
def test_the_repeated_call_makes_it(desk, monkeypatch, capsys, script, spoilt, flags, made):
    whole = (desk.folder / spoilt).read_bytes()
    desk.spoil(spoilt)
    refused(monkeypatch, capsys, desk.folder, script, spoilt, *flags)
    (desk.folder / spoilt).write_bytes(whole)
    before = contents(desk.folder)
    check(monkeypatch, capsys, desk.folder, script, None, *flags)
    after = contents(desk.folder)
    assert sorted(str(path) for path in after.keys() - before.keys() if after[path] is not None) == sorted(made)


def test_a_refused_overwrite_keeps_what_was_there(desk, monkeypatch, capsys):
    flags = [*NETWORK, "--out-dir", "out", "--overwrite", "--batch-size", 1]
    check(monkeypatch, capsys, desk.folder, PREDICT, None, *flags)
    (desk.folder / "out/0.png").write_bytes(b"old")
    desk.spoil("images/3.jpg")
    refused(monkeypatch, capsys, desk.folder, PREDICT, "images/3.jpg", *flags)
    assert (desk.folder / "out/0.png").read_bytes() == b"old"


# --- what else the tools say --------------------------------------------------------------------------------------


def test_the_summary_of_weights_that_are_gone_is_replaced(desk, monkeypatch, capsys):
    check(monkeypatch, capsys, desk.folder, WEIGHT, None, *SCORED, "--metric", "bf", "--out", "o.csv")
    (desk.folder / "o.csv").unlink()
    check(monkeypatch, capsys, desk.folder, WEIGHT, None, *SCORED, "--metric", "miou", "--out", "o.csv")
    assert read_json(desk.folder / "o.json")["metric"] == "miou"


def test_as_many_parts_as_rows_join(desk, monkeypatch, capsys):
    check(monkeypatch, capsys, desk.folder, WEIGHT, None, *SCORED, "--out", "whole[1].csv")
    for part in range(1, 5):
        check(monkeypatch, capsys, desk.folder, WEIGHT, None, *SCORED, "--out", "apart[1].csv", "--shard", f"{part}/4")
    check(monkeypatch, capsys, desk.folder, WEIGHT, None, "--join", "--out", "apart[1].csv")
    assert (desk.folder / "apart[1].csv").read_bytes() == (desk.folder / "whole[1].csv").read_bytes()


@pytest.mark.parametrize("batch, seen", [(2, 4), (3, 3), (4, 4), (1_000_000, 4)])
def test_images_per_second_counts_images_that_were_seen(desk, monkeypatch, capsys, batch, seen):
    check(monkeypatch, capsys, desk.folder, "train_without_weight.py", None, "--train_csv", "train.csv", *TINY,
          "--batch-size", batch)
    entry = json.loads((desk.folder / "runs/run/log.jsonl").read_text())
    assert entry["images_per_second"] * entry["seconds"] == pytest.approx(seen)
