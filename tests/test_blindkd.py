"""Blind Knowledge Distillation as a whole: both phases against a training written out here, its files, its faults of old."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import evaluate
import predict
from cli.files import UserError
from data.class_sets import class_rows, write_class_set
from data.classification import ClassDataset, channel_statistics, read_class_rows, standardised
from engine import checkpoint
from engine.classification import load_classifier
from models.small_cnn import SmallCNN
from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import detection, learning, memory, noisy_set
from related.blindkd.tipping import TipRule
from tests.conftest import ROOT, TORCHRUN, environment, run_script
from tests.test_blindkd_rules import slow_split
from utils.ranking import precision_recall_f1

SEED, EPOCHS, BATCH, RATE, ALPHAS = 1, 14, 8, 0.02, (0.30, 0.45, 0.55, 0.70)
NAMES = ["bar", "cross", "dot"]


def draw(label, generator):
    """A noisy picture of a class, uint8 (8, 8)."""
    picture = generator.normal(90, 40, (8, 8))
    {"bar": picture[3:5], "cross": picture[:, 3:5], "dot": picture[2:6, 2:6]}[NAMES[label]][:] += 60
    return picture.clip(0, 255).astype(np.uint8)


def draw_set(folder, rows=40):
    """Three classes in folder/data/csv/drawn, 3 of 10 labels wrong in train_worst.csv; returns the set's folder."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows + 12) % 3
    given = np.where(np.arange(rows) % 10 < 3, (labels[:rows] + 1) % 3, labels[:rows])
    home = folder / "data" / "csv" / "drawn"
    files = [home / "images" / f"{number}.png" for number in range(len(labels))]
    true, noisy = (class_rows(files[:rows], each, NAMES) for each in (labels[:rows], given))
    test = class_rows(files[rows:], labels[rows:], NAMES)
    write_class_set(home, NAMES, {"train_clean": true, "train_worst": noisy, "test": test}, False,
                    [(file, draw(label, generator)) for file, label in zip(files, labels)])
    return home


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def call(drawn, tmp_path, monkeypatch):
    """A function that runs one of the scripts on the drawn set, in a working directory of its own; returns the run's folder."""
    monkeypatch.chdir(tmp_path)

    def run(script, *flags, home=None):
        small = ["--model", "small_cnn", "--n_epoch", EPOCHS, "--batch_size", BATCH, "--lr", RATE] if script is training else []
        device = [] if script is detection else ["--accelerator", "cpu"]
        (tmp_path / (home or ".")).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / (home or "."))
        monkeypatch.setattr(sys, "argv", list(map(str, [
            f"{script.__name__.rsplit('.')[-1]}.py", "--dataset", "drawn", "--noise_path", drawn, "--noise_type", "worst",
            "--seed", SEED, *small, *device, *flags])))
        script.main()
        return Path.cwd() / "results" / f"drawn_worst_seed_{SEED}"

    return run


def read(path):
    return json.loads(path.read_text())


# --- both phases, by hand ---------------------------------------------------------------------------------------


def trained_by_hand(drawn, shift=1):
    """Everything from the definitions: dict of the pair's weights, the tipping point, groups, flags, scores.

    What it shares with the project are the network, the moved pictures and the order of an epoch.
    """
    rows = read_class_rows(drawn / "train_worst.csv", NAMES)
    order = np.random.default_rng(SEED).permutation(len(rows))
    kept = np.sort(order[4:])  # a tenth of the 40 rows validate
    statistics = channel_statistics(rows["image"].iloc[kept].tolist(), (8, 8))
    still = standardised_batch(ClassDataset(rows, (8, 8), statistics), range(len(rows)))
    moving = ClassDataset(rows.iloc[kept], (8, 8), statistics, shift=shift, seed=SEED)
    torch.manual_seed(SEED)
    networks = [SmallCNN(3).to(memory_format=torch.channels_last) for _ in range(2)]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    speeds, found = [torch.zeros_like(parameter) for parameter in parameters], {"confidence": [], "groups": None}
    met_in, whole_in = [], []
    for epoch in range(EPOCHS):
        moving.epoch = epoch
        sequence = torch.randperm(len(kept), generator=torch.Generator().manual_seed(SEED + epoch)).tolist()
        met, sure = {}, []
        for index in (sequence[i:i + BATCH] for i in range(0, len(kept) - len(kept) % BATCH, BATCH)):
            images, labels = standardised_batch(moving, index)
            teacher, student = (network.train()(images) for network in networks)
            joint = teacher.softmax(1) * student.softmax(1)
            for row, label, both, own in zip(index, labels, joint.detach(), student.detach().softmax(1)):
                met[row] = (both[label] / both.sum()).item()
                sure.append(own.max().item())
            loss = loss_by_hand(teacher, student, labels, found["groups"] and [found["groups"][row] for row in index])
            for parameter, speed, gradient in zip(parameters, speeds, torch.autograd.grad(loss, parameters)):
                speed.mul_(0.9).add_(gradient + 5e-4 * parameter.detach())
                parameter.data -= RATE * speed
        found["confidence"].append(sum(sure) / len(sure))
        with torch.no_grad():
            teacher, student = (network.eval()(still[0]).softmax(1) for network in networks)
        whole_in.append(((teacher * student)[range(len(rows)), still[1]] / (teacher * student).sum(1)).numpy())
        met_in.append([met.get(row, whole_in[-1][kept[row]]) for row in range(len(kept))])
        if found["groups"] is None and (tip := tip_by_hand(found["confidence"])) is not None:
            found.update(tip=tip, known=epoch, groups=groups_by_hand(np.array(met_in[tip])),
                         flags=np.array(groups_by_hand(whole_in[tip])) == 4, scores=whole_in[tip])
    return {**found, "states": [network.state_dict() for network in networks]}


def standardised_batch(dataset, index):
    batch = dataset.__getitems__(list(index))
    return standardised(batch["image"], batch["statistics"]), batch["label"]


def loss_by_hand(teacher, student, labels, groups):
    """CE(l_T, q) + L_blind, sample by sample and class by class."""
    fit = blind = 0
    for i, label in enumerate(labels.tolist()):
        q = F.one_hot(torch.tensor(label), 3).float()
        if groups:
            alpha = ALPHAS[groups[i] - 1]
            q = ((1 - alpha) * q + alpha * student[i].softmax(0))**(1 + alpha)
            q = q / q.sum()
        fit = fit - (q * teacher[i].log_softmax(0)).sum() / len(labels)
        blind = blind + sum((teacher[i, c] - student[i, c])**2 for c in range(3) if c != label)
    return fit + blind / (len(labels) * 3 - 1)


def tip_by_hand(s):
    for e in range(2, len(s) - 2):
        if len(s) >= 6 and s[e] > s[e - 2] and s[e] > s[e - 1] and s[e] > s[e + 1] and s[e] > s[e + 2]:
            return e
    return None


def groups_by_hand(scores):
    _, low, cut, high = slow_split(scores.astype(float))
    return [1 if s >= high else 2 if s >= cut else 3 if s >= low else 4 for s in scores]


@pytest.fixture(scope="module")
def by_hand(drawn):
    return trained_by_hand(drawn)


def differences(folder, by_hand):
    """What of a run is not as worked out by hand."""
    state = checkpoint.load(folder / "last.ckpt")["networks"][0]["state"]
    far = [name for prefix, own in zip(("teacher", "student"), by_hand["states"]) for name, value in own.items()
           if not torch.allclose(state[f"{prefix}.{name}"].float(), value.float(), rtol=1e-3, atol=1e-4)]
    facts, log = read(folder / "blindkd.json"), [json.loads(line) for line in (folder / "log.jsonl").open()]
    found = {"weights": not far, "tip": facts["epoch"] == by_hand["tip"],
             "groups": facts["groups"]["training"] == np.bincount(by_hand["groups"], minlength=5)[1:].tolist(),
             "flags": np.array_equal(np.load(folder / "detection.npy"), by_hand["flags"]),
             "scores": np.allclose(np.load(folder / "scores.npy"), by_hand["scores"], atol=1e-4),
             "confidence": np.allclose(facts["confidence"], by_hand["confidence"], atol=1e-4),
             "phases": [entry["phase"] for entry in log] == [1 + (epoch > by_hand["known"]) for epoch in range(EPOCHS)]}
    return {name for name, equal in found.items() if not equal}


def test_a_run_trains_and_judges_as_its_equations_say(call, by_hand, capsys):
    folder = call(training, "--shift", 1)
    assert differences(folder, by_hand) == set()
    assert by_hand["flags"].any() and len(set(by_hand["groups"])) == 4 and by_hand["known"] == by_hand["tip"] + 2 < EPOCHS - 3
    said = capsys.readouterr().out
    assert f"tipping point: epoch {by_hand['tip'] + 1}; groups G1/G2/G3/G4 " in said
    assert f"{by_hand['flags'].sum()} of 40 labels flagged; phase 2 from epoch {by_hand['tip'] + 4} on" in said


def groups_of_the_epoch_before(monkeypatch):
    judge = memory.Memory.judge

    def broken(self, epoch):
        if self.rule.find(self.confidence) is not None:
            self.trained = {each: self.trained.get(each - 1, scores) for each, scores in self.trained.items()}
        return judge(self, epoch)

    monkeypatch.setattr(memory.Memory, "judge", broken)


def augmented_scores(monkeypatch):
    build = training.build_loaders

    def broken(*given):
        loaders = build(*given)
        loaders["whole"].dataset.shift = 1
        return loaders

    monkeypatch.setattr(training, "build_loaders", broken)


def another_tip(monkeypatch):
    find = TipRule.find
    monkeypatch.setattr(TipRule, "find", lambda self, confidence: (tip := find(self, confidence)) and tip + 1)


FAULTS = {  # what is broken -> (how, flags, what shows it)
    "unmasked": (None, ["--unmasked"], {"weights", "confidence"}),
    "order of the alphas": (None, ["--alpha1", 0.7, "--alpha2", 0.55, "--alpha3", 0.45, "--alpha4", 0.3], {"weights"}),
    "targets without gradient": (None, ["--detach-targets"], {"weights"}),
    "another epoch": (another_tip, [], {"tip", "weights", "scores"}),
    "groups of another epoch": (groups_of_the_epoch_before, [], {"weights"}),
    "scores of moved pictures": (augmented_scores, [], {"scores"})}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_by_hand_shows_planted_faults(call, by_hand, monkeypatch, fault):
    plant, flags, shown = FAULTS[fault]
    if plant:
        plant(monkeypatch)
    assert differences(call(training, "--shift", 1, *flags), by_hand) >= shown


# --- what a run leaves ------------------------------------------------------------------------------------------


def test_files_hold_what_they_promise(call, drawn, capsys):
    folder = call(training)
    best = checkpoint.load(folder / "best.ckpt")
    for name in ("teacher", "student"):
        saved = torch.load(folder / f"{name}.pth.tar", weights_only=True)
        network = SmallCNN(3)
        network.load_state_dict(saved["state_dict"])
        assert saved["epoch"] == best["epoch"] == read(folder / "result.json")["best_epoch"]
        assert torch.equal(network.head.weight, best["networks"][0]["state"][f"{name}.head.weight"])
    flags, scores = np.load(folder / "detection.npy"), np.load(folder / "scores.npy")
    assert flags.dtype == bool and len(flags) == len(scores) == 40
    judged = read(folder / "blindkd.json")
    assert np.array_equal(flags, scores < judged["detection"]["low"])
    assert judged["groups"]["detection"][3] == flags.sum() and sum(judged["groups"]["training"]) == 36


def test_learning_tells_the_accuracy_of_both_epochs_and_of_each_network(call, drawn, capsys):
    folder = call(training)
    capsys.readouterr()
    call(learning)
    said, found, result = capsys.readouterr().out, read(folder / "learning.json"), read(folder / "result.json")
    assert found["best"]["both"] == result["test"][0]["accuracy"]
    assert found["last"]["both"] == result["test_last"][0]["accuracy"]
    assert (found["best"]["epoch"], found["last"]["epoch"]) == (result["best_epoch"] + 1, EPOCHS)
    assert f"Best test acc selected by val is {100 * found['best']['both']:.2f}\n" in said
    assert f"Test acc of the last epoch is {100 * found['last']['both']:.2f}\n" in said
    rows, statistics = read_class_rows(drawn / "test.csv", NAMES), [best_config(folder)[key] for key in ("mean", "std")]
    images, labels = standardised_batch(ClassDataset(rows, (8, 8), statistics), range(12))
    for name in ("teacher", "student"):
        network = SmallCNN(3).eval()
        network.load_state_dict(torch.load(folder / f"{name}.pth.tar", weights_only=True)["state_dict"])
        assert found["best"][name] == (network(images).argmax(1) == labels).sum().item() / 12
    with pytest.raises(UserError, match="learning.json exists; pass --overwrite"):
        call(learning)


def best_config(folder):
    return checkpoint.load(folder / "best.ckpt")["networks"][0]["config"]


def test_the_other_scripts_take_the_pair_as_one_network(call, drawn, tmp_path, monkeypatch):
    folder = call(training)
    command = ["--checkpoint", str(folder / "last.ckpt"), "--csv", str(drawn / "test.csv"), "--accelerator", "cpu"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *command, "--json", str(tmp_path / "scores.json")])
    evaluate.main()
    assert read(tmp_path / "scores.json")["accuracy"] == read(folder / "result.json")["test_last"][0]["accuracy"]
    monkeypatch.setattr(sys, "argv", ["predict.py", *command, "--out-dir", str(tmp_path)])
    predict.main()
    found = pd.read_csv(tmp_path / "predictions.csv")
    statistics = [best_config(folder)[key] for key in ("mean", "std")]
    images, _ = standardised_batch(ClassDataset(read_class_rows(drawn / "test.csv", NAMES), (8, 8), statistics), range(12))
    pair = load_classifier(str(folder / "last.ckpt"))[0]
    product = pair.teacher(images).softmax(1) * pair.student(images).softmax(1)
    expected = (product / product.sum(1, keepdim=True)).detach().numpy()
    np.testing.assert_allclose(found[[f"probability_{name}" for name in NAMES]].to_numpy(), expected, atol=1e-5)
    # the predictions are a class CSV of names, without a classes.json: the network knows the names
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *command[:2], "--csv", str(tmp_path / "predictions.csv"), "--accelerator",
                                      "cpu", "--json", str(tmp_path / "own.json")])
    evaluate.main()
    assert read(tmp_path / "own.json")["accuracy"] == 1


def test_detection_by_hand(call, drawn, capsys):
    folder = call(training)
    flags = np.zeros(40, bool)
    flags[[0, 1, 2, 3, 10]] = True  # wrong are 0, 1, 2 of each ten: 12
    np.save(folder / "detection.npy", flags)
    capsys.readouterr()
    call(detection)
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["precision is 0.8000", "recall is 0.3333", "The f-score is 0.4706"]
    found = read(folder / "detection.json")
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((4 / 5, 4 / 12, 8 / 17))
    assert found["flagged"] == 5 and found["wrong"] == 12 and found["all"]["f1"] == pytest.approx(2 * 0.3 / 1.3)


def test_without_flags_detection_says_0_of_0(call, capsys):
    folder = call(training)
    np.save(folder / "detection.npy", np.zeros(40, bool))
    capsys.readouterr()
    call(detection)
    said = capsys.readouterr().out
    assert "precision is 0.0000 (0/0: 0 labels flagged, 12 wrong)" in said and "The f-score is 0.0000\n" in said
    assert read(folder / "detection.json")["precision"] == 0


def test_clean_labels_change_nothing_but_what_detection_prints(call, drawn, tmp_path, capsys):
    """Train with true labels that are shuffled, and without any."""
    clean = drawn / "train_clean.csv"
    text, outcomes = clean.read_text(), []
    table = pd.read_csv(clean)
    shuffled = table.assign(label=table["label"].sample(frac=1, random_state=0).to_numpy()).to_csv(index=False)
    try:
        for home, content in (("true", text), ("shuffled", shuffled), ("missing", None)):
            clean.write_text(content) if content else clean.unlink()
            folder = call(training, home=home)
            call(learning, home=home)
            files = {name: (folder / name).read_bytes() for name in (*NAMES_OF_FILES, "teacher.pth.tar", "learning.json")}
            capsys.readouterr()
            if content:
                call(detection, home=home)
            outcomes.append((files, capsys.readouterr().out))
    finally:
        clean.write_text(text)
    assert outcomes[0][0] == outcomes[1][0] == outcomes[2][0]
    assert outcomes[0][1] != outcomes[1][1]


def test_without_validation_the_last_epoch_counts_and_it_is_said(call, capsys):
    folder = call(training, "--val_ratio", 0)
    assert "--val_ratio 0: no rows validate, the last epoch is the one that is reported" in capsys.readouterr().out
    call(learning)
    said = capsys.readouterr().out
    assert "--val_ratio 0: no rows validated, nothing was selected" in said and "Best test acc" not in said
    assert torch.load(folder / "student.pth.tar", weights_only=True)["epoch"] == EPOCHS - 1
    assert read(folder / "learning.json")["best"] is None and sum(read(folder / "blindkd.json")["groups"]["training"]) == 40


# --- without a tipping point ------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 4])
def test_without_a_tipping_point_the_last_epoch_judges(call, capsys, epochs):
    folder = call(training, "--n_epoch", epochs)
    said = capsys.readouterr().out
    assert f"no tipping point in {epochs} epochs, so there is no phase 2; by the last epoch's scores: " in said
    judged = read(folder / "blindkd.json")
    assert judged["why"] == "no tipping point" and judged["epoch"] == epochs - 1 and judged["groups"]["training"] is None
    call(detection)
    assert read(folder / "detection.json")["why"] == "no tipping point"
    assert all(json.loads(line)["phase"] == 1 for line in (folder / "log.jsonl").open())


def test_a_fallback_takes_the_place_of_a_tipping_point(call, capsys):
    folder = call(training, "--n_epoch", 5, "--fallback", 3)
    assert "no tipping point; epoch 3 is used instead (--fallback); groups" in capsys.readouterr().out
    assert read(folder / "blindkd.json")["epoch"] == 2
    assert [json.loads(line)["phase"] for line in (folder / "log.jsonl").open()] == [1, 1, 1, 2, 2]


def test_a_tipping_point_comes_before_the_fallback(call, by_hand):
    folder = call(training, "--shift", 1, "--fallback", by_hand["known"] + 2)
    assert differences(folder, by_hand) == set()


def test_scores_that_are_all_alike_flag_nothing(call, monkeypatch, capsys):
    monkeypatch.setattr(memory, "agreement", lambda teacher, student, labels: torch.full((len(labels),), 0.25))
    folder = call(training, "--n_epoch", 4, "--fallback", 2)
    said = capsys.readouterr().out
    assert "groups G1/G2/G3/G4 36/0/0/0 (all scores are alike); no label flagged: all scores are alike" in said
    assert not np.load(folder / "detection.npy").any()
    call(detection)
    assert "0/0" in capsys.readouterr().out


# --- stopped and resumed ----------------------------------------------------------------------------------------


NAMES_OF_FILES = ("last.ckpt", "best.ckpt", "detection.npy", "scores.npy", "blindkd.json", "student.pth.tar")


def test_a_stop_amid_an_epoch_and_amid_its_scoring_changes_nothing(call, monkeypatch, interruptible):
    """Stops in phase 1, while scores are taken, also those after which the tipping point is known, and in phase 2."""
    whole = call(training, home="whole")
    methods = {"training": (memory.Memory, "record"), "scoring": (memory.LabelScores, "update")}  # 4 and 5 batches an epoch
    for part, moment, epoch in (("training", 1, 1), ("scoring", 3, 1), ("training", 10, 4), ("scoring", 17, 7),
                                ("training", 20, 13)):
        owner, name = methods[part]
        original, calls = getattr(owner, name), iter(range(1000))

        def counted(self, *given, original=original, moment=moment, calls=calls):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *given)

        monkeypatch.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {epoch} "):
            call(training, "--resume", home="broken")
        monkeypatch.setattr(owner, name, original)
    assert read(whole / "blindkd.json")["epoch"] == 4
    broken = call(training, "--resume", home="broken")
    for name in NAMES_OF_FILES:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def test_a_finished_run_gives_its_files_again(call):
    folder = call(training)
    before = {name: (folder / name).read_bytes() for name in NAMES_OF_FILES}
    for name in ("detection.npy", "blindkd.json", "student.pth.tar"):
        (folder / name).unlink()
    call(training, "--resume")
    assert before == {name: (folder / name).read_bytes() for name in NAMES_OF_FILES}


@pytest.mark.slow
def test_25_kills_change_nothing(drawn):
    done = run_script("tests/kill_drill.py", "related/blindkd/blind_knowledge_dist_training.py", "--run",
                      "results/drawn_worst_seed_0", "--kills", 25, "--signals", "KILL", "INT", "TERM",
                      "--dataset", "drawn", "--noise_path", drawn, "--model", "small_cnn", "--n_epoch", 200,
                      "--batch_size", BATCH, "--lr", RATE, "--min-epoch", 80, "--accelerator", "cpu")
    found = json.loads(done.stdout)
    assert found["kills"] == 25 and found["differs"] == [] and found["last exit code"] == 0


# --- where the data lie -----------------------------------------------------------------------------------------


def test_the_projects_sets_are_found_from_any_working_directory(tmp_path, monkeypatch, call):
    """Though the paths in its CSVs are relative to the project."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    folder = draw_set(tmp_path / "project")
    assert "\ndata/csv/drawn/images/0.png," in (folder / "train_worst.csv").read_text()
    monkeypatch.setattr(noisy_set, "PROJECT", tmp_path / "project")
    assert (call(training, "--n_epoch", 1, "--noise_path", "", home="elsewhere") / "detection.npy").exists()
    assert (call(training, "--n_epoch", 1, "--noise_path", folder / "train_clean.csv", home="other") / "detection.npy").exists()


@pytest.mark.parametrize("name, moves", [("cifar10", (True, 4, "reflect")), ("cifar100", (True, 4, "zero")),
                                         ("digits", (False, 0, "reflect"))])
def test_published_augmentation_goes_by_the_name_of_the_set(drawn, monkeypatch, name, moves):
    flags = ["--dataset", name, "--noise_path", str(drawn)]
    monkeypatch.setattr(sys, "argv", ["blind_knowledge_dist_training.py", *flags])
    args = training.parse()
    assert (args.mirror, args.shift, args.padding) == moves and args.model == "preact_resnet18"
    monkeypatch.setattr(sys, "argv", [sys.argv[0], *flags, "--no-mirror", "--shift", "1", "--padding", "reflect"])
    args = training.parse()
    assert (args.mirror, args.shift, args.padding) == (False, 1, "reflect")


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script, flags, message", [
    (training, ["--noise_type", "aggre"], "--noise_type aggre: .* has no train_aggre.csv; there are clean, worst"),
    (training, ["--noise_path", "nowhere"], "nowhere: no such folder with train_worst.csv; make it with data/prepare_cifar_n"),
    (training, ["--noise_path", "labels.pt"], "--noise_path labels.pt: not a CSV; data/prepare_cifar_n.py makes"),
    (training, ["--val_ratio", 0.001], "--val_ratio 0.001: of 40 rows 0 would validate and 40 train"),
    (training, ["--val_ratio", 1], "--val_ratio 1: of 40 rows 40 would validate and 0 train"),
    (learning, [], "drawn_worst_seed_1: no run of blind_knowledge_dist_training.py; train first"),
    (detection, [], "drawn_worst_seed_1: no run of blind_knowledge_dist_training.py; train first")])
def test_bad_input_is_named(call, tmp_path, script, flags, message):
    (tmp_path / "labels.pt").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        call(script, *flags)
    assert not (tmp_path / "results").exists()


def test_rows_that_changed_since_the_training_are_refused(call, drawn):
    """Other labels in the noisy CSV; the rows of both CSVs in another order; other test rows."""
    call(training)
    kept = {name: (drawn / name).read_text() for name in ("train_worst.csv", "train_clean.csv", "test.csv")}

    def reverse(name):
        header, *lines = kept[name].splitlines(keepends=True)
        (drawn / name).write_text(header + "".join(reversed(lines)))

    try:
        header, first, *lines = kept["train_worst.csv"].splitlines(keepends=True)
        other = first.replace(first.strip().split(",")[1], next(name for name in NAMES if name not in first))
        (drawn / "train_worst.csv").write_text(header + other + "".join(lines))
        with pytest.raises(UserError, match="train_worst.csv: its rows or pictures have changed since the training"):
            call(detection)
        for name in ("train_worst.csv", "train_clean.csv"):
            reverse(name)
        with pytest.raises(UserError, match="train_worst.csv: its rows or pictures have changed since the training"):
            call(detection)
        reverse("test.csv")
        with pytest.raises(UserError, match="test.csv: its rows or pictures have changed since the training"):
            call(learning)
    finally:
        for name, text in kept.items():
            (drawn / name).write_text(text)
    call(detection)
    call(learning)


def test_a_moved_run_goes_on(call):
    folder = call(training, "--n_epoch", 2)
    folder.parent.rename(folder.parent.with_name("kept"))
    assert "results" not in read(folder.parents[1] / "kept" / folder.name / "args.json")
    call(training, "--n_epoch", 2, "--resume", "--results", "kept")
    call(detection, "--results", "kept")


def test_a_picture_never_trains_and_validates(call, drawn):
    text = (drawn / "train_worst.csv").read_text()
    try:
        (drawn / "train_worst.csv").write_text(text + "".join(text.splitlines(keepends=True)[1:]))
        with pytest.raises(UserError, match=r"--val_ratio 0.3 of .*train_worst.csv: \d+ of its 24 images are in"):
            call(training, "--val_ratio", 0.3)
    finally:
        (drawn / "train_worst.csv").write_text(text)


@pytest.mark.parametrize("flags", [["--smooth", 2], ["--fallback", "never"], ["--alpha1", 1.5], ["--min-epoch", -1]])
def test_bad_flags_are_named(call, flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(training, *flags)
    assert stopped.value.code == 2 and f"argument {flags[0]}" in capsys.readouterr().err


def test_a_run_that_goes_on_or_was_trained_otherwise_is_refused(call):
    folder = call(training, "--n_epoch", 2)
    with pytest.raises(UserError, match="--n_epoch 5: results/drawn_worst_seed_1 was trained with 2"):
        call(learning, "--n_epoch", 5)
    (folder / "detection.npy").unlink()
    with pytest.raises(UserError, match="detection.npy: no such file; the training command with --resume writes it again"):
        call(detection)
    np.save(folder / "detection.npy", np.zeros(39, bool))
    with pytest.raises(UserError, match="detection.npy: has shape .39,., the CSV 40 rows"):
        call(detection)
    (folder / "result.json").unlink()
    for script in (learning, detection):
        with pytest.raises(UserError, match="its training has not finished"):
            call(script)
    with pytest.raises(UserError, match="pass --resume to go on"):
        call(training, "--n_epoch", 2)


def test_published_flags_without_effect_are_told(call, capsys):
    folder = call(training, "--n_epoch", 1, "--print_freq", 50, "--clean_test_freq", 1, "--noisy_val_freq", 10)
    said = capsys.readouterr().out
    assert all(f"--{flag}: has no effect here" in said for flag in ("print_freq", "clean_test_freq", "noisy_val_freq"))
    assert "print_freq" not in read(folder / "args.json")


# --- the page's commands ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.prose
def test_the_pages_commands_run_as_they_stand(tmp_path):
    """Redirections included, in a folder made like the project, with the set of three classes as cifar10; in fewer epochs."""
    page = (ROOT / "related" / "blindkd" / "README.md").read_text()
    block = [line.strip() for line in page[page.index("    cd related/blindkd"):].split("\n\n")[0].splitlines()]
    assert len(block) == 9 and sum(line.count(" > results/") for line in block) == 3
    home = tmp_path / "related" / "blindkd"
    home.mkdir(parents=True)
    for script in ("blind_knowledge_dist_training.py", "learning.py", "detection.py"):
        (home / script).symlink_to(ROOT / "related" / "blindkd" / script)
    folder = draw_set(home)
    folder.rename(folder.with_name("cifar10"))
    folder = folder.with_name("cifar10")
    for csv in folder.glob("*.csv"):
        csv.write_text(csv.read_text().replace("/drawn/", "/cifar10/"))
    (folder / "train_worst.csv").rename(folder / "train_aggre.csv")
    short = [line.replace("--seed ${SEED}", "--seed ${SEED} --n_epoch 3") for line in block]
    python = f"python() {{ {sys.executable} \"$@\"; }}\n"
    done = subprocess.run(["bash", "-ec", python + "\n".join(short)], cwd=tmp_path, env=environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    run = home / "results" / "cifar10_aggre_seed_42"
    assert "Best test acc selected by val is " in (run / "learning.log").read_text()
    assert "The f-score is " in (run / "detection.log").read_text()
    assert "epoch 3/3" in (run / "training.log").read_text() and read(run / "args.json")["model"] == "preact_resnet18"
    assert len(np.load(run / "detection.npy")) == 40
    published = {"mirror": True, "shift": 4, "padding": "reflect", "epochs": 300, "batch_size": 128, "learning_rate": 0.02,
                 "momentum": 0.9, "weight_decay": 5e-4, "lr_step": 150, "lr_gamma": 0.1, "val_ratio": 0.1, "clip": 0,
                 "optimizer": "sgd"}
    assert {name: read(run / "args.json")[name] for name in published} == {**published, "epochs": 3}


@pytest.mark.slow
def test_two_processes_gather_their_scores(drawn, tmp_path):
    script = ROOT / "related" / "blindkd" / "blind_knowledge_dist_training.py"
    run_script(*TORCHRUN, script, "--dataset", "drawn", "--noise_path", drawn, "--seed", SEED, "--model", "small_cnn",
               "--n_epoch", 5, "--batch_size", BATCH, "--lr", RATE, "--fallback", 3, "--accelerator", "cpu", cwd=tmp_path)
    folder = tmp_path / "results" / f"drawn_worst_seed_{SEED}"
    scores, facts = np.load(folder / "scores.npy"), read(folder / "blindkd.json")
    assert len(scores) == 40 and (scores >= 0).all() and sum(facts["groups"]["training"]) == 36
    assert len(set(np.round(scores, 6))) > 30 and all(1 / 3 < value < 1 for value in facts["confidence"])
    assert read(folder / "result.json")["machine"]["processes"] == 2


@pytest.mark.slow
def test_digits_with_the_wrong_labels_that_people_gave(tmp_path, monkeypatch):
    """The whole way of section "The commands" with 41 % wrong labels; random flags of the same number would not pass."""
    monkeypatch.chdir(tmp_path)
    for script, *flags in (("data/make_digits.py", "--out", "data/csv/digits"),
                           ("utils/class_noise.py", "--csv", "data/csv/digits/train_clean.csv", "--noise", "worst", "--out",
                            "data/csv/digits/train_worst_0.csv")):
        run_script(ROOT / script, *flags, cwd=tmp_path)
    page = (ROOT / "related" / "blindkd" / "README.md").read_text()
    command = next(line for line in page.splitlines() if "--dataset digits" in line).split()[1:]
    run_script(ROOT / "related" / "blindkd" / command[0], *command[1:], "--accelerator", "cpu", cwd=tmp_path)
    for script in ("learning.py", "detection.py"):
        run_script(ROOT / "related" / "blindkd" / script, "--dataset", "digits", "--noise_type", "worst_0", cwd=tmp_path)
    folder = tmp_path / "results" / "digits_worst_0_seed_0"
    assert read(folder / "learning.json")["last"]["both"] >= 0.76  # cross-entropy alone ends at .62 to .70
    found, generator = read(folder / "detection.json"), np.random.default_rng(0)
    given, true = (pd.read_csv(f"data/csv/digits/train_{name}.csv")["label"] for name in ("worst_0", "clean"))
    chance = precision_recall_f1(generator.permutation(np.load(folder / "detection.npy")), (given != true).to_numpy())
    assert found["f1"] >= 0.7 and found["f1"] >= found["all"]["f1"] + 0.1 and found["why"] == "tipping point"
    assert chance["f1"] < 0.5
