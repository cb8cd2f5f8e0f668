"""Weights by a weak judge: reported, not sharpened, refused; and the JSON of facts beside a weight CSV."""

import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch

from cli.files import UserError, write_json, write_rows
from data.pictures import read_mask, write_mask
from data.rows import pseudo_label_names, read_rows
from data.splits import pair_folder
from engine.flags import metric_of
from tests.conftest import run_script
from utils import judge
from utils.weighting import scaled, sharpened

TINY = ["--size", 48, 32, "--width", 4, "--accelerator", "cpu", "--epochs", 1]
TEACHER, KD = "train_with_Teacher_weight.py", "train_with_KDweight.py"


def test_effective_share_by_hand():
    assert judge.effective_share(np.array([1.0, 1, 1, 1])) == 1
    assert judge.effective_share(np.array([1.0, 0, 0, 0])) == 0.25
    assert judge.effective_share(np.array([1.0, 0.5])) == 1.5**2 / (2 * 1.25)
    assert judge.effective_share(np.zeros(3)) == 0


@pytest.mark.parametrize("bm, weights, told", [
    (0.16, [1.0, 1.0], "bm 0.160, below 0.2"), (0.065, [0.1, 0.1], "bm 0.065"), (0.33, [1.0, 0.0], None),
    (0.6, [1.0] + 19 * [0.0], "is 0.050, below 0.1"), (None, 9 * [0.8], None), (0.6, [0.0, 0.0], None)])
def test_what_makes_a_judge_weak(bm, weights, told):
    found = judge.weakness(bm and {"miou": bm, "bf": bm, "bm": bm}, np.array(weights))
    assert (told in found) if told else found is None


def test_scaled_weights_by_hand():
    def weigh(logits, batch, epoch):
        return [torch.tensor([0.5, 0.25])]

    assert scaled(weigh, 1.0) is weigh  # the paper's own sum, bit for bit
    assert scaled(weigh, 4.0)(None, None, 0)[0].tolist() == [2, 1]


@pytest.fixture
def judged(photos, tmp_path):
    """Twenty rows, half of them marked as noisy; pseudo-labels of a good judge (good/) and of a weak one (weak/)."""
    rows = pair_folder(photos).iloc[:20].reset_index(drop=True)
    rows["iterations"] = np.arange(20) % 2 * 6
    for number, (mask, name) in enumerate(zip(rows["mask"], pseudo_label_names(rows))):
        labels = read_mask(mask)
        write_mask(tmp_path / "good" / name, labels)
        guess = np.ones_like(labels)  # all foreground except a corner
        guess[:1 + 2 * number, :5] = 0
        write_mask(tmp_path / "weak" / name, guess)
    write_rows(tmp_path / "train.csv", rows, "iterations")
    return tmp_path


def get_weight(folder, pseudo, out, *flags):
    """What utils/get_weight.py printed, and its JSON."""
    done = run_script("utils/get_weight.py", "--csv", folder / "train.csv", "--pred-dir", folder / pseudo,
                      "--out", folder / out, *flags)
    return done.stdout, json.loads((folder / out).with_suffix(".json").read_text())


def test_a_weak_judge_is_told_and_its_scores_are_not_sharpened(judged):
    out, content = get_weight(judged, "weak", "w.csv", "--metric", "bf", "--sharpen")
    rows = read_rows(judged / "w.csv")
    assert (rows["weight"] == 1).all() and "bm 0." in content["fallback"]
    assert "--sharpen: all weights are 1" in out and f"bm {content['agreement']['bm']:.3f}, below 0.2" in out
    assert content["agreement"]["bm"] == pytest.approx((content["agreement"]["bf"] + content["agreement"]["miou"]) / 2)
    assert content["mean_weight"] == content["effective_share"] == 1
    assert "size" in out and "--size" in out  # it was scored at each annotation's own


def test_a_good_judges_scores_are_sharpened_as_before(judged):
    rows = read_rows(judged / "train.csv")
    for name, level in zip(pseudo_label_names(rows), rows["iterations"]):
        if level:
            labels = read_mask(judged / "good" / name)
            write_mask(judged / "good" / name, np.roll(labels, labels.shape[1] // 6, axis=1))
    out, content = get_weight(judged, "good", "w.csv", "--metric", "bf", "--sharpen", "--size", 96, 64)
    weights = read_rows(judged / "w.csv")["weight"]
    assert weights[::2].min() > 0.99 and weights[1::2].max() < 0.01
    assert content["fallback"] is None and content["effective_share"] == pytest.approx(0.5, abs=0.01)
    assert content["mean_weight"] == pytest.approx(0.5, abs=0.01) and "own size" not in out


def test_masks_without_an_outline_are_no_group_of_good_ones(judged, tmp_path):
    """A third of the masks is empty, and so are their pseudo-labels; the others are scored alike: none is doubted."""
    rows = read_rows(judged / "train.csv")
    for number, name in enumerate(pseudo_label_names(rows)):
        labels = read_mask(judged / "good" / name)
        empty = number % 3 == 0
        write_mask(tmp_path / "masks" / name, np.zeros_like(labels) if empty else labels)
        write_mask(tmp_path / "pseudo" / name, np.zeros_like(labels) if empty
                   else np.roll(labels, labels.shape[1] // 20, axis=1))
    rows["mask"] = [str(tmp_path / "masks" / name) for name in pseudo_label_names(rows)]
    write_rows(tmp_path / "train.csv", rows)
    run_script("utils/get_weight.py", "--csv", tmp_path / "train.csv", "--pred-dir", tmp_path / "pseudo", "--metric", "bf",
               "--out", tmp_path / "plain.csv")
    scores = read_rows(tmp_path / "plain.csv")["weight"]
    assert (scores[::3] == 1).all() and (sharpened(scores.to_numpy())[1::3] < 0.5).all()
    run_script("utils/get_weight.py", "--csv", tmp_path / "train.csv", "--pred-dir", tmp_path / "pseudo", "--metric", "bf",
               "--out", tmp_path / "sharp.csv", "--sharpen")
    assert (read_rows(tmp_path / "sharp.csv")["weight"] == 1).all()


def test_the_judge_of_parts_is_the_judge_of_the_whole(judged):
    _, whole = get_weight(judged, "weak", "whole.csv")
    for part in (1, 2, 3):
        run_script("utils/get_weight.py", "--csv", judged / "train.csv", "--pred-dir", judged / "weak", "--out",
                   judged / "apart.csv", "--shard", f"{part}/3")
    run_script("utils/get_weight.py", "--join", "--out", judged / "apart.csv")
    apart = json.loads((judged / "apart.json").read_text())
    assert apart["agreement"] == pytest.approx(whole["agreement"]) and apart["mean_weight"] == whole["mean_weight"]


def train(script, csv, *flags, check=True):
    return run_script(script, "--train_csv", csv, "--name", "run", "--out-dir", csv.parent / "runs", *TINY, *flags, check=check)


def weight_csv(csvs, folder, weights=None, **origin):
    """A CSV of weights with the JSON that get_weight leaves beside it."""
    rows = read_rows(csvs / "train_noisy_60.csv")
    weights = np.linspace(0.4, 1, len(rows)) if weights is None else weights
    write_rows(folder / "w.csv", rows.assign(weight=weights), "weight")
    write_json(folder / "w.json", {"metric": "bm", "theta": 3.0, "size": [48, 32], "num_classes": 2, "sharpen": False,
                                   "known": None, "mix": None, "agreement": {"miou": 0.6, "bf": 0.5, "bm": 0.55}, **origin})
    return folder / "w.csv"


WEAK = {"miou": 0.12, "bf": 0.02, "bm": 0.07}


@pytest.mark.parametrize("script, weights, origin, flags", [
    (TEACHER, None, {"agreement": WEAK, "sharpen": True}, []),
    (TEACHER, None, {"agreement": WEAK}, ["--pixels", "nowhere"]),
    (TEACHER, [1] + 11 * [0.001], {"sharpen": True}, []),
    ("train_teacher.py", None, {"agreement": WEAK, "sharpen": True}, ["--weighted"])])
def test_weights_that_a_weak_judge_decided_are_refused(csvs, tmp_path, script, weights, origin, flags):
    csv = weight_csv(csvs, tmp_path, weights, **origin)
    done = train(script, csv, *flags, check=False)
    assert done.returncode == 2 and "--weak-judge use" in done.stderr and "Traceback" not in done.stderr
    assert ("bm 0.070, below 0.2" if "agreement" in origin else "is 0.085, below 0.1") in done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_the_user_has_the_last_word_on_a_weak_judge(csvs, tmp_path):
    csv = weight_csv(csvs, tmp_path, agreement=WEAK, sharpen=True)
    assert "bm 0.070" in train(TEACHER, csv, "--weak-judge", "use").stdout


def test_the_papers_own_weights_by_a_weak_judge_are_used_with_a_warning(csvs, tmp_path):
    assert "w.csv: its judge is weak: on average it agrees with the annotations by bm 0.070" in train(
        KD, weight_csv(csvs, tmp_path, agreement=WEAK)).stdout


def test_a_users_own_weights_on_few_rows_are_used_with_a_word(csvs, tmp_path):
    """A CSV without a JSON: its judge is unknown. With --mean-weights all rows have the same weight."""
    csv = weight_csv(csvs, tmp_path, [1] + 11 * [0.001])
    assert "effective share of the rows" in train(KD, csv).stdout
    assert "effective share" not in train(TEACHER, csv, "--mean-weights", "--overwrite").stdout


def test_weights_that_fell_back_to_1_train_without_weights(csvs, tmp_path):
    csv = weight_csv(csvs, tmp_path, 1.0, agreement=WEAK, sharpen=True, fallback="since its judge is weak")
    assert "all weights are 1, since its judge is weak" in train(TEACHER, csv).stdout


def test_published_weights_have_no_json_and_known_ones_no_judge(csvs, tmp_path, capsys):
    args = Namespace(train_csv=str(csvs / "train_noisy_60_PointRend_weight_bmscore.csv"), weak_judge="refuse")
    judge.check_weights(args)
    args.train_csv = str(weight_csv(csvs, tmp_path, [1] + 11 * [0], known=0.0, agreement=None))
    judge.check_weights(args)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("script, flags", [(TEACHER, []), (KD, ["--min-weight", 0.5])])
def test_the_loss_keeps_its_size(csvs, tmp_path, script, flags):
    """Equal weights, divided by their mean, give the same training as no weights."""
    csv = weight_csv(csvs, tmp_path, 0.5)
    losses = {}
    for name, more in (("small", []), ("kept", ["--keep-loss-size"])):
        train(script, csv, "--overwrite", *flags, *more)
        logged = json.loads((tmp_path / "runs" / "run" / "log.jsonl").read_text())
        losses[name] = logged["loss"][0], logged["weight"][0]
    assert losses["small"][1] == pytest.approx(0.5) and losses["kept"][1] == pytest.approx(1)
    refused = train(TEACHER, csv, "--keep-loss-size", "--pixels", "p", check=False)
    assert refused.returncode == 2 and "--keep-loss-size goes without --pixels" in refused.stderr


# --- what eq. 6 can mix ------------------------------------------------------------------------------------------------


def arguments(csv, **flags):
    return Namespace(**{"train_csv": str(csv), "metric": None, "theta": 3.0, "size": [48, 32], "num_classes": 2, **flags})


@pytest.mark.parametrize("origin, flags, message", [
    ({"sharpen": True, "metric": "bf"}, {}, "holds sharpened weights"),
    ({"known": 0.0}, {}, "holds weights by --known"),
    ({"metric": None, "mix": ["a", "b"], "parts": [{"metric": "bf"}, {"metric": "bm"}]}, {}, "mixes weights by bf and bm"),
    ({"metric": None, "mix": ["a", "b"], "parts": [{"metric": "bf"}, {"metric": "bf", "known": 0.5}]}, {}, "--known"),
    ({"theta": 2.0}, {}, "--theta 2, this run has 3"),
    ({"theta": 0.01}, {}, "--theta 0.01, this run has 3"),
    ({"num_classes": 6}, {}, "--num-classes 6, this run has 2"),
    ({"metric": "bf"}, {"metric": "bm"}, "--metric bm: .* was scored by bf"),
])
def test_what_eq_6_cannot_mix_is_refused(csvs, tmp_path, origin, flags, message):
    with pytest.raises(UserError, match=message):
        metric_of(arguments(weight_csv(csvs, tmp_path, **origin), **flags))


def test_the_json_knows_the_metric_better_than_the_name(csvs, tmp_path):
    csv = weight_csv(csvs, tmp_path, metric="miou").rename(tmp_path / "w_bfscore.csv")
    assert metric_of(arguments(csv)) == "bf"  # no JSON beside it
    shutil.move(tmp_path / "w.json", csv.with_suffix(".json"))
    assert metric_of(arguments(csv)) == metric_of(arguments(csv, metric="miou")) == "miou"
    write_json(csv.with_suffix(".json"), {"classes": ["somebody else's"]})
    assert metric_of(arguments(csv)) == "bf"


def test_another_size_is_said(csvs, tmp_path, capsys):
    assert metric_of(arguments(weight_csv(csvs, tmp_path))) == "bm" and capsys.readouterr().out == ""
    metric_of(arguments(weight_csv(csvs, tmp_path, size=None)))
    assert "scored at each annotation's own size, the student at 48 x 32 px" in capsys.readouterr().out
    metric_of(arguments(weight_csv(csvs, tmp_path, size=[96, 64])))
    assert "scored at 96 x 64 px, the student at 48 x 32 px" in capsys.readouterr().out


def test_a_sharpened_csv_named_as_scores_is_refused_before_training(csvs, tmp_path):
    csv = weight_csv(csvs, tmp_path, metric="bf", sharpen=True).rename(tmp_path / "train_sharp_bfscore.csv")
    (tmp_path / "w.json").rename(csv.with_suffix(".json"))
    done = train(KD, csv, check=False)
    assert done.returncode == 2 and "holds sharpened weights" in done.stderr and not (tmp_path / "runs").exists()


def test_a_mix_remembers_its_parts(judged):
    for name, pseudo, metric in (("a_bfscore", "good", "bf"), ("b_bfscore", "weak", "bf"), ("c_bmscore", "weak", "bm")):
        get_weight(judged, pseudo, f"{name}.csv", "--metric", metric, "--theta", 2, "--size", 48, 32)

    def mixed(*names):
        run_script("utils/get_weight.py", "--mix", *(judged / f"{name}.csv" for name in names), "--out", judged / "m.csv",
                   "--overwrite")
        return json.loads((judged / "m.json").read_text())

    alike = mixed("a_bfscore", "b_bfscore")
    parts = [json.loads((judged / f"{name}.json").read_text())["agreement"]["bm"] for name in ("a_bfscore", "b_bfscore")]
    assert alike["metric"] == "bf" and alike["theta"] == 2 and alike["size"] == [48, 32] and not alike["sharpen"]
    assert [part["metric"] for part in alike["parts"]] == ["bf", "bf"]
    assert alike["agreement"]["bm"] == pytest.approx(np.mean(parts))
    assert metric_of(arguments(judged / "m.csv", theta=2.0)) == "bf"
    assert mixed("a_bfscore", "c_bmscore")["metric"] is None
    with pytest.raises(UserError, match="mixes weights by bf and bm"):
        metric_of(arguments(judged / "m.csv", theta=2.0))
    (judged / "a_bfscore.json").unlink()  # a published CSV among them
    assert mixed("a_bfscore", "b_bfscore")["metric"] == "bf" and metric_of(arguments(judged / "m.csv")) == "bf"
