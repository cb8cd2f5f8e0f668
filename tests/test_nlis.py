"""train_nlis.py on class CSVs: stages, counts, weights, flags; runs that go on; nothing reads what is wrong."""

import json
import signal
from argparse import Namespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from data.make_digits import digits, glued, with_background
from engine import checkpoint
from models import build_classifier
from related.nlis.objective import NAMES, RobustLoss, SetCounts
from related.nlis.roi_scores import RoiScorer
from tests.conftest import run_script
from tests.script_calls import run
from tests.test_nlis_rules import LABELS, logits

SCRIPT = "related/nlis/train_nlis.py"
SMALL = ("--epochs", 4, "--stage1-epochs", 2, "--batch-size", 32, "--learning-rate", 0.05, "--accelerator", "cpu")


def objective(**changed):
    args = Namespace(**{"loss": "nlis", "stage1_epochs": 2, "pon_threshold": None, "weighted": False, **changed})
    return RobustLoss(args, SetCounts(args.stage1_epochs))


def loss_at(epoch, weights=(1, 1, 1, 1), **changed):
    batch = {"label": LABELS, "weight": torch.tensor(weights)}
    return objective(**changed)([logits()], batch, epoch)[0].item()


def test_the_stages_and_their_losses_by_hand():
    assert loss_at(0) == loss_at(1) == pytest.approx(2.620827, abs=1e-5)
    assert loss_at(2) == loss_at(9) == pytest.approx(3.426766, abs=1e-5)
    assert loss_at(2, pon_threshold=6.0) == pytest.approx(1.125332, abs=1e-5)
    assert loss_at(0, stage1_epochs=0) == pytest.approx(3.426766, abs=1e-5)
    assert loss_at(2, loss="sce") == pytest.approx(3.173332, abs=1e-5) and loss_at(1, loss="sce") == loss_at(0)
    assert loss_at(2, loss="gce") == pytest.approx(1.302320, abs=1e-5)
    assert loss_at(2, loss="ce") == loss_at(0, loss="ce") == pytest.approx(2.620827, abs=1e-5)


def test_weights_change_the_robust_part_alone():
    """OS: samples 3 and 4, RCE 1.842068 and 9.205735; a quarter of the first and none of the second are left."""
    assert loss_at(2, (.5, .5, .25, 0), weighted=True) == pytest.approx(.664815 + 1.842068 / 16, abs=1e-5)
    assert loss_at(2, (.5, .5, .25, 0)) == pytest.approx(3.426766, abs=1e-5)
    assert loss_at(0, (.5, .5, .25, 0), weighted=True) == pytest.approx(2.620827, abs=1e-5)


def test_the_losses_of_a_detector_are_added():
    output = {"logits": logits(), "labels": LABELS, "weights": torch.ones(4), "other": torch.tensor(2.0)}
    assert objective()([output], {}, 5)[0].item() == pytest.approx(5.426766, abs=1e-5)


def test_counts_are_of_one_epoch_and_survive_a_stop():
    found = objective(pon_threshold=6.0)
    batch = {"label": LABELS, "weight": torch.ones(4)}
    found([logits()], batch, 0)
    kept = SetCounts(2)
    kept.load_state_dict(found.counts.state_dict())
    found.counts = kept
    found([logits()], batch, 0)
    state, fabric = Namespace(epoch=1), Fabric(accelerator="cpu", devices=1)
    assert kept.after_epoch(fabric, state, None) == {"stage": 1, "sets": {"NEG": 2, "PSN": 2, "PON": 2, "OS": 2}}
    found([logits()], batch, 2)
    state.epoch = 2
    told = kept.after_epoch(fabric, state, None)
    assert told == {"stage": 2, "sets": {"NEG": 1, "PSN": 1, "PON": 1, "OS": 1}}
    assert kept.facts(None) == {"sets": told["sets"]}


def test_counts_are_those_of_all_processes():
    """Of a process that stands beside two others of the same counts."""
    class Fabric:
        world_size, device, is_global_zero = 3, "cpu", False

        def all_reduce(self, counts, reduce_op):
            return 3 * counts if reduce_op == "sum" else counts

    found = objective()
    found([logits()], {"label": LABELS, "weight": torch.ones(4)}, 0)
    told = found.counts.after_epoch(Fabric(), Namespace(epoch=0), None)
    assert told["sets"] == found.counts.facts(None)["sets"] == {"NEG": 3, "PSN": 3, "PON": 0, "OS": 6}
    assert not found.counts.state_dict()["counts"].any()


def test_scores_of_regions_by_hand():
    """Class 0 is the background. Truth 0 0 1 1 2, predicted 0 1 1 0 1: one of three objects right; told apart: 3 of 5."""
    scorer = RoiScorer(3)
    predicted = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 0, 1]), 3).float()
    scorer.update(predicted, {"label": torch.tensor([0, 0, 1, 1, 2])})
    told = scorer.compute()
    assert told["class_accuracy"] == pytest.approx(1 / 3) and told["foreground_accuracy"] == pytest.approx(3 / 5)
    assert told["accuracy"] == pytest.approx(2 / 5)


def test_background_patches_are_halves_on_the_wrong_side():
    pictures, labels = digits()
    few, of = pictures[:40], labels[:40]
    patches = glued(few, of, 3)
    for number, (patch, own) in enumerate(zip(patches, few)):
        upright = (patch[:4] == own[4:]).all()
        assert upright or (patch[:, :4] == own[:, 4:]).all()
        rest = [other for other, each in enumerate(few)
                if (patch[4:] == each[:4]).all() or (patch[:, 4:] == each[:, :4]).all()]
        assert any(of[other] != of[number] for other in rest)
    assert not np.array_equal(patches, glued(few, of, 4)) and np.array_equal(patches, glued(few, of, 3))
    images, numbers = with_background(pictures, labels, 0)
    assert len(images) == 2 * 1797 and (numbers[1200:2400] == 0).all() and (numbers[2997:] == 0).all()
    assert np.array_equal(numbers[:1200], labels[:1200] + 1) and np.array_equal(numbers[2400:2997], labels[1200:] + 1)


def learnt_on(labels, loss):
    """The share of 100 unseen digits whose likeliest digit is right, by a network trained on labels (200,) of 100 digits and
    100 patches of background: 6 epochs of cross-entropy, then 6 of the loss."""
    torch.manual_seed(0)
    pictures, truth = (np.concatenate([each[:100], each[1200:1300], each[2400:2500]])
                       for each in with_background(*digits(), 0))
    pictures = torch.from_numpy(pictures / 64 - 1).float()[:, None].repeat(1, 3, 1, 1)
    network, found = build_classifier("roi_cnn", num_classes=11).train(), objective(loss=loss, stage1_epochs=6)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(12):
        for rows in torch.randperm(200).split(40):
            batch = {"label": labels[rows], "weight": torch.ones(40)}
            optimizer.zero_grad()
            found([network(pictures[rows])], batch, epoch)[0].backward()
            optimizer.step()
    told = network.eval()(pictures[200:])[:, 1:].argmax(1) + 1
    return (told == torch.from_numpy(truth[200:])).float().mean().item()


@pytest.mark.parametrize("loss", NAMES)
def test_every_loss_is_at_chance_on_labels_drawn_at_random(loss):
    """One in ten is right by chance. The pictures of a digit go right or wrong together, so its standard deviation is about
    .095: .35 lies 2.6 of them above. With true labels the same training learns most digits."""
    _, truth = with_background(*digits(), 0)
    true = torch.from_numpy(np.concatenate([truth[:100], truth[1200:1300]]))
    drawn = torch.where(true > 0, torch.randint(1, 11, (200,), generator=torch.Generator().manual_seed(5)), 0)
    assert learnt_on(drawn, loss) < 0.35 and learnt_on(true, loss) > 0.6


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rois(tmp_path_factory):
    """A folder with train.csv (half of the digits' labels wrong, 200 rows) and test.csv of digits and background."""
    folder = tmp_path_factory.mktemp("rois")
    run_script("data/make_digits.py", "--background", "--out", folder)
    for name, whole in (("few", "train_clean"), ("test_few", "test")):
        lines = (folder / f"{whole}.csv").read_text().splitlines()
        (folder / f"{name}.csv").write_text("\n".join([lines[0], *lines[1:81], *lines[-80:]]) + "\n")
    run_script("utils/class_noise.py", "--csv", folder / "few.csv", "--noise", "symmetric", "--rate", 0.5, "--keep",
               "background", "--out", folder / "train.csv")
    return folder


def flags_of(rois, home):
    return ["--train_csv", rois / "train.csv", "--test_csv", rois / "test_few.csv", "--name", "run", "--out-dir", home, *SMALL]


def train(rois, home, *flags):
    run_script(SCRIPT, *flags_of(rois, home), *flags)
    return home / "run"


def timeless(folder):
    """The lines of a run's log without its times."""
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{**line, "seconds": 0, "images_per_second": 0} for line in lines]


def weights_in(folder):
    return checkpoint.load(folder / "last.ckpt")["networks"][0]["state"]


def test_a_split_without_an_object_is_refused(rois, tmp_path, monkeypatch, capsys):
    lines = (rois / "test_few.csv").read_text().splitlines()
    (rois / "empty.csv").write_text("\n".join([lines[0], *(line for line in lines if line.endswith(",background"))]) + "\n")
    code, error = run(monkeypatch, capsys, ".", SCRIPT, *flags_of(rois, tmp_path), "--test_csv", rois / "empty.csv")
    assert code == 2 and "empty.csv: all rows are background (label 0), there is no object to score" in error, error
    assert not (tmp_path / "run").exists()


def test_a_run_has_both_stages_in_its_log(rois, tmp_path):
    folder = train(rois, tmp_path, "--pon-threshold", 0.6)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == [1, 1, 2, 2]
    assert all(sum(entry["sets"].values()) == 160 and entry["sets"]["NEG"] == 80 for entry in log) and log[0]["sets"]["PON"]
    result = json.loads((folder / "result.json").read_text())
    assert result["sets"] == log[-1]["sets"] and result["compared"] == ["class_accuracy"]
    assert {"class_accuracy", "foreground_accuracy", "accuracy"} <= result["test"][0].keys()


@pytest.mark.slow
def test_a_run_goes_on_bit_exactly_across_the_switch(rois, tmp_path, monkeypatch, capsys):
    """Stopped by SIGTERM in the middle of the last epoch of stage 1, and of the first one of stage 2."""
    import engine.loop as loop

    whole = weights_in(train(rois, tmp_path / "whole"))
    own, step = loop.train_step, {"count": 0}

    def stopping(*inputs):
        step["count"] += 1
        if step["count"] in (8, 13):  # of 5 a epoch
            signal.raise_signal(signal.SIGTERM)
        return own(*inputs)

    monkeypatch.setattr(loop, "train_step", stopping)
    for expected in (143, 143, 0):
        code, error = run(monkeypatch, capsys, ".", SCRIPT, *flags_of(rois, tmp_path), "--resume")
        assert code == expected, error
    parts = weights_in(tmp_path / "run")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert timeless(tmp_path / "whole" / "run") == timeless(tmp_path / "run")


@pytest.mark.slow
def test_scrambling_which_labels_are_wrong_changes_nothing(rois, tmp_path):
    whole = weights_in(train(rois, tmp_path / "a"))
    flips = rois / "train_flips.csv"
    before = flips.read_text()
    flips.write_text("row,true,given\nnonsense\n")
    (rois / "train_noise.json").rename(rois / "elsewhere.json")
    try:
        again = weights_in(train(rois, tmp_path / "b"))
    finally:
        flips.write_text(before)
        (rois / "elsewhere.json").rename(rois / "train_noise.json")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.parametrize("flags, message", [
    (["--loss", "ce", "--pon-threshold", 6], "--pon-threshold: goes with --loss nlis, not with ce"),
    (["--loss", "sce", "--weighted"], "--weighted: goes with --loss nlis"),
    (["--epochs", 2, "--stage1-epochs", 3], "--stage1-epochs 3: the run has 2 epochs"),
    (["--weighted"], "this script needs a column named `weight`"),
    (["--rois", 64], "--rois: goes with a COCO JSON"),
    (["--model", "maskrcnn"], "--model maskrcnn: not a network for class labels")])
def test_flags_that_contradict_are_refused(flags, message, rois, tmp_path, monkeypatch, capsys):
    code, error = run(monkeypatch, capsys, tmp_path, SCRIPT, "--train_csv", rois / "train.csv", "--name", "x", *flags)
    assert code == 2 and message in error, error


def test_the_first_class_must_be_the_background(rois, tmp_path, monkeypatch, capsys):
    (tmp_path / "classes.json").write_text('{"names": ["a", "b"]}')
    (tmp_path / "x.csv").write_text(f"image,label\n{rois}/images/0000.png,a\n{rois}/images/0001.png,b\n")
    code, error = run(monkeypatch, capsys, tmp_path, SCRIPT, "--train_csv", "x.csv", "--name", "x")
    assert code == 2 and "the first class is `a`, and must be `background`" in error
