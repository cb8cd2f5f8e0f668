"""The sentence that says which option to take."""

from pathlib import Path

import pytest

from reports.report_files import packed, report_text, write_report
from reports.verdict import teacher_text, verdict
from tests.run_results import run_of


def options(pixels, kd=0.4, noisy=0.4, clean=0.8, **summary):
    """The sentence on four runs with these BF, and on a summary of the option's weights."""
    runs = {name: run_of(name, bf=bf, noise=0 if name == "clean" else 0.6, train_csv=f"csv/{name}.csv")
            for name, bf in (("noisy", noisy), ("kd", kd), ("pixels", pixels), ("clean", clean))}
    return verdict(runs, {"csv/pixels": summary}, "pixels")


@pytest.mark.parametrize("sentence, expected", [
    (options(0.7), "Weights bring 30.0 points of BF here, 75 % of the gap to clean annotations: take `pixels`."),
    (options(0.415), "another seed can change as much: take no weights (`noisy`)."),
    (options(0.385), "Weights bring -1.5 points of BF here, another seed can change as much"),
    (options(0.3), "Weights cost 10.0 points of BF here: take no weights (`noisy`)."),
    (options(0.5, kd=0.6), "Weights bring 20.0 points of BF here, 50 % of the gap to clean annotations, and the recommended "
                           "`pixels` brings 10.0 points: take `kd`."),
    (options(0.3, kd=0.6), "the recommended `pixels` brings -10.0 points: take `kd`."),
    (options(0.5, kd=0.51), "take `pixels`."),
    (options(0.411, kd=0.431), "brings 1.1 points: take `kd`."),  # only the gain of the option is within chance
    (options(0.4, fallback="since its judge is weak: bm 0.100"), "All weights of `pixels` are 1, since its judge is weak: bm"),
    (options(0.4, fallback="since its judge is weak"), "weak: take no weights (`noisy`), or train the teachers longer"),
    (options(0.4, mean_weight=1.0), "are 1, since no annotation stands out as noisy to the teacher: take no weights (`noisy`)"),
    (options(0.4, kd=0.5, mean_weight=1.0), "`kd` brings 10.0 points of BF here, 25 % of the gap to clean annotations, take"),
    (options(0.4, clean=0.41), "Training on clean annotations gains only 1.0 points of BF here, and another seed"),
])
def test_one_sentence_says_which_option_to_take(sentence, expected):
    assert expected in sentence and sentence.count("\n") == 0


def test_no_sentence_speaks_of_two_shares_of_noise_or_two_lengths():
    both = (("noisy", 0.4), ("own3", 0.7))
    runs = {f"{name}{share}": run_of(name, bf=bf, noise=share) for share in (0.3, 0.6) for name, bf in both}
    assert verdict(runs, {}, "own3") is None
    alone = {name: run for name, run in runs.items() if name.endswith("0.6")}
    assert "Weights bring 30.0 points" in verdict(alone, {}, "own3")
    longer = {f"{name}{epochs}": run_of(name, bf=bf, noise=0.6, epochs=epochs)
              for epochs in (5, 9) for name, bf in both}
    assert verdict(longer, {}, "own3") is None


def own_options(*facts, csvs=None, **args):
    """The sentence on runs that gain nothing by own weights, one a seed, which end with these facts of weights."""
    runs = {f"{seed}/{name}": run_of(name, bf=bf, seed=seed, **(args if name == "own" else {}))
            for seed in range(len(facts)) for name, bf in (("noisy", 0.4), ("own", 0.4), ("clean", 0.8))}
    for seed, each in enumerate(facts):
        runs[f"{seed}/own"]["weights"] = each
    return verdict(runs, csvs or {}, "own")


ONE_GROUP = {"mean": 1.0, "auroc": None, "fallback": "since the scores form one group: no mask stands out as coarse"}
OWN = {"from_epoch": 3}


@pytest.mark.parametrize("sentence, expected", [
    (own_options(ONE_GROUP, **OWN), "All weights of `own` are 1, since the scores form one group: no mask stands out as "
                                    "coarse: take no weights (`noisy`), or train longer."),
    (own_options(ONE_GROUP, ONE_GROUP, **OWN), "All weights of `own` are 1, since the scores form one group"),
    (own_options({"mean": 1.0}, **OWN), "are 1, since no annotation stands out as noisy to its network: take no weights"),
    (own_options({"mean": 1.0}), "noisy to the teacher: take no weights (`noisy`), or train the teachers longer or on more"),
    (own_options(ONE_GROUP, {"mean": 0.7}, **OWN), "Weights bring 0.0 points"),  # one seed has weights
    (own_options({**ONE_GROUP, "doubted": 4}, **OWN), "Weights bring 0.0 points"),  # a further pass that moved four masks
    (own_options(None, **OWN), "Weights bring 0.0 points"),
    (own_options(ONE_GROUP, None, **OWN), "Weights bring 0.0 points"),
    (own_options(ONE_GROUP, csvs={"s0/train": {"mean_weight": 0.7}}, **OWN), "Weights bring 0.0 points"),  # the CSV is known
])
def test_without_a_weight_csv_the_runs_tell_of_their_weights(sentence, expected):
    assert expected in sentence and ("own" not in expected or "teacher" not in sentence), sentence


def test_the_sentence_stands_in_table_and_page_and_needs_its_runs(tmp_path):
    runs = {str(tmp_path / name): run_of(name, bf=bf, noise=0.6) for name, bf in (("noisy", 0.4), ("pixels", 0.7))}
    for folder in runs:
        Path(folder).mkdir()
        (Path(folder) / "log.jsonl").write_text('{"loss": [0.5], "weight": [1.0], "valid": null}\n')
    content = {"classes": ["a", "b"], "recommended": "pixels", **packed(runs)}
    write_report(tmp_path / "out", "title", content, report_text(content))
    for name in ("table.md", "report.html"):
        assert "Weights bring 30.0 points of BF here: take" in (tmp_path / "out" / name).read_text(), name
    assert (tmp_path / "out" / "report.html").read_text().count("Weights bring") == 1
    assert verdict(runs, {}, "sharp") is None and "Weights" not in report_text({**content, "recommended": None})


def test_a_weak_teacher_is_named_first():
    agreement = {"miou": 0.3, "bf": 0.05, "bm": 0.175}
    good = {"agreement": {"miou": 0.9, "bf": 0.5, "bm": 0.7}, "theta": 2.0}
    text = teacher_text({"weak": {"agreement": agreement}, "good": good, "unknown": {}}, {"miou": "mIoU", "bf": "BF"})
    assert text.count("Warning: this teacher is weak") == 1 and text.startswith("Teacher of weak:")
    assert "mIoU 0.900, BF 0.500, bm 0.700 (BF within 2 px).\n\n" in text and "unknown" not in text
    level = {"auroc": None, "levels": {}}
    content = {"classes": ["a", "b"], "weights": {"w": {**level, **good}}, **packed({"a": run_of("noisy")})}
    assert report_text(content).startswith("Teacher of w: on average its pseudo-labels agree")
