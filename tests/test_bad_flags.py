"""Flags and checkpoints that users really pass: each works, or is named and leaves nothing."""

import pytest
import torch

from engine import checkpoint
from tests.script_calls import TINY, check

# --- flags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message, flags", [
    ("--epochs: '0' is not a whole number > 0", ["--epochs", 0]),
    ("--epochs: '1.5' is not", ["--epochs", 1.5]),
    ("--epochs: '1e3' is not", ["--epochs", "1e3"]),
    ("--epochs: '' is not", ["--epochs", ""]),
    ("--learning-rate/--lr: '1e400' is not", ["--learning-rate", "1e400"]),
    ("--size: '100000' is not a length in 1..32767 px", ["--size", 100_000, 100_000]),
    ("--size 32767 32767, --batch-size 1000000: the pictures of one batch",
     ["--size", 32_767, 32_767, "--batch-size", 1_000_000]),
    ("--theta: 'inf' is not", ["--theta", "inf"]),
    ("--theta: '1e-400' is not", ["--theta", "1e-400"]),
    ("--num-classes: '256' is not", ["--num-classes", 256]),
    ("http://localhost/x.csv: no such CSV", ["--train_csv", "http://localhost/x.csv"]),
    ("s3://x/x.csv: no such CSV", ["--train_csv", "s3://x/x.csv"]),
    ("--batch-size: '-1' is not", ["--batch-size=-1"]),
    ("--learning-rate/--lr: 'nan' is not a number > 0", ["--learning-rate", "nan"]),
    ("--size: '0' is not", ["--size", 0, 0]),
    ("--num-classes: '1' is not", ["--num-classes", 1]),
    ("--model: invalid choice", ["--model", "segment-anything"]),
    ("--theta: '0' is not", ["--theta", 0]),
    ("--seed: '-1' is not a whole number", ["--seed=-1"]),
    ("--clip: 'nan' is not", ["--clip", "nan"]),
    ("--name ../away: must be a folder inside runs", ["--name", "../away"]),
    ("--name /away: must be a folder inside runs", ["--name", "/away"]),
    ("not allowed with argument", ["--resume", "--overwrite"]),
    ("unrecognized arguments: --learning-speed", ["--learning-speed", 1]),
    ("--accelerator abacus", ["--accelerator", "abacus"]),
    ("encoder 'abacus'", ["--model", "smp_unet", "--encoder", "abacus"]),
    ("--encoder-weights nowhere.pth: no such file", ["--model", "smp_unet", "--encoder-weights", "nowhere.pth"]),
    ("nowhere.ckpt: no such checkpoint", ["--load", "nowhere.ckpt"]),
    ("--batch-size 1 --size 32 32: too little for the network (Expected more than 1 value per channel",
     ["--model", "deeplabv3plus", "--encoder", "mobilenet_v2", "--size", 32, 32, "--batch-size", 1]),
    ("--batch-size 2 --size 1 7: too little for the network (", ["--size", 1, 7]),
])
def test_flags(album, monkeypatch, capsys, message, flags):
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, *flags)


@pytest.mark.parametrize("flags", [["--batch-size", 64], ["--batch-size", 1, "--size", 32, 32], ["--size", 17, 33],
                                   ["--theta", 0.01], ["--theta", "1e-320"], ["--theta", "1e300"],
                                   ["--epochs", "\u0661"], ["--size", "\uff11\uff16", 16]])
def test_odd_flags_that_work(album, monkeypatch, capsys, flags):
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", None, "--train_csv", "train.csv",
          "--test_csv", "test.csv", *TINY, *flags)


# --- checkpoints ------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return open, ("ran", "w")


def save_other(folder, **changes):
    config = {"name": "unet", "encoder": "resnet34", "num_classes": 2, "width": 4, "size": [16, 16], "theta": 3.0, **changes}
    network = checkpoint.build_from(config)
    checkpoint.save(folder / "x.ckpt", {"networks": [{"config": config, "state": network.state_dict()}]})


@pytest.mark.parametrize("spoil, message", [
    (lambda f: (f / "x.ckpt").write_text("weights"), "x.ckpt: not a checkpoint of this software or damaged"),
    (lambda f: torch.save({"format": "nlkd-1", "networks": Evil()}, f / "x.ckpt"), "x.ckpt: not a checkpoint"),
    (lambda f: torch.save({"weights": torch.zeros(3)}, f / "x.ckpt"), "x.ckpt: not a checkpoint of this software (format"),
    (lambda f: save_other(f, num_classes=5), "--load x.ckpt: holds unet with 5 classes"),
    (lambda f: save_other(f, width=8), "--load x.ckpt: holds unet"),
    (lambda f: checkpoint.save(f / "x.ckpt", {"networks": 3}), "x.ckpt: not a checkpoint of this software"),
], ids=["text", "code", "other tensors", "other classes", "other width", "other content"])
def test_checkpoints(album, monkeypatch, capsys, spoil, message):
    spoil(album.folder)
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", message, "--train_csv", "train.csv", *TINY, "--load",
          "x.ckpt")
    assert not (album.folder / "ran").exists()


def test_encoder_weights_that_would_run_code(album, monkeypatch, capsys):
    torch.save({"conv1.weight": Evil()}, album.folder / "x.pth")
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", "--encoder-weights x.pth: not a readable weights file",
          "--train_csv", "train.csv", *TINY, "--model", "smp_unet", "--encoder-weights", "x.pth")
    assert not (album.folder / "ran").exists()


def test_a_damaged_last_checkpoint_is_named(album, monkeypatch, capsys):
    flags = ["--train_csv", "train.csv", *TINY]
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", None, *flags)
    (album.folder / "runs/run/result.json").unlink()
    album.half("runs/run/last.ckpt")
    check(monkeypatch, capsys, album.folder, "train_without_weight.py", "runs/run/last.ckpt: not a checkpoint", *flags,
          "--resume")
