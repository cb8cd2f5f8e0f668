"""BlindKD runs that are stopped and resumed, shared by processes, or started as the page says."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from related.blindkd import blind_knowledge_dist_training as training
from related.blindkd import memory
from tests import blindkd_set
from tests.blindkd_set import BATCH, NAMES_OF_FILES, RATE, SEED, draw_set, read
from tests.conftest import ROOT, environment, run_script
from tests.processes import run_together
from utils.ranking import precision_recall_f1

drawn, call = blindkd_set.drawn, blindkd_set.call


# --- stopped and resumed ----------------------------------------------------------------------------------------


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
                      "--dataset", "drawn", "--noise_path", drawn, "--model", "small_cnn", "--n_epoch", 100,
                      "--batch_size", BATCH, "--lr", RATE, "--min-epoch", 40, "--accelerator", "cpu")
    found = json.loads(done.stdout)
    assert found["kills"] == 25 and found["differs"] == [] and found["last exit code"] == 0


# --- the page's commands ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.prose
def test_the_pages_commands_run_as_they_stand(tmp_path):
    """Redirections included, in a folder made like the project, with the set of three classes as cifar10; in one epoch."""
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
    short = [line.replace("--seed ${SEED}", "--seed ${SEED} --n_epoch 1") for line in block]
    python = f"python() {{ {sys.executable} \"$@\"; }}\n"
    done = subprocess.run(["bash", "-ec", python + "\n".join(short)], cwd=tmp_path, env=environment(), capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    run = home / "results" / "cifar10_aggre_seed_42"
    assert "Best test acc selected by val is " in (run / "learning.log").read_text()
    assert "The f-score is " in (run / "detection.log").read_text()
    assert "epoch 1/1" in (run / "training.log").read_text() and read(run / "args.json")["model"] == "preact_resnet18"
    assert len(np.load(run / "detection.npy")) == 40
    published = {"mirror": True, "shift": 4, "padding": "reflect", "epochs": 300, "batch_size": 128, "learning_rate": 0.02,
                 "momentum": 0.9, "weight_decay": 5e-4, "lr_step": 150, "lr_gamma": 0.1, "val_ratio": 0.1, "clip": 0,
                 "optimizer": "sgd"}
    assert {name: read(run / "args.json")[name] for name in published} == {**published, "epochs": 1}


@pytest.mark.slow
def test_two_processes_gather_their_scores(drawn, tmp_path):
    script = ROOT / "related" / "blindkd" / "blind_knowledge_dist_training.py"
    run_together(tmp_path, script, "--dataset", "drawn", "--noise_path", drawn, "--seed", SEED, "--model", "small_cnn",
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
