"""Blind Knowledge Distillation: both phases against a training written out here, with and without a tipping point."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data.classification import ClassDataset, channel_statistics, read_class_rows
from engine import checkpoint
from models.small_cnn import SmallCNN
from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import detection, memory
from related.blindkd.tipping import TipRule
from tests import blindkd_set
from tests.blindkd_set import ALPHAS, BATCH, EPOCHS, NAMES, RATE, SEED, read, standardised_batch
from tests.test_blindkd_rules import slow_split

drawn, call = blindkd_set.drawn, blindkd_set.call


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
