"""Reports of tasks other than segmentation: the scores that result.json names are tabulated, drawn and judged."""

import json
import re
from pathlib import Path

import pytest

from cli.files import UserError, write_json
from report import main
from reports.comparison import compare, number_frame, read_runs
from reports.groups import group_runs
from reports.page import report_page
from reports.report_files import result_tables
from tests.run_results import run_of

CLASSES = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "recall_per_class": "Recall per class"}


def classifier_run(name, balanced, seed=0, noise=0.4, auroc=None, accuracy=None, **args):
    """A result.json of a run that classifies images into three classes: no theta, --num-classes left to the data."""
    scores = {"accuracy": balanced + 0.05 if accuracy is None else accuracy, "balanced_accuracy": balanced,
              "recall_per_class": [balanced, 1.0, None], "images": 50}
    return {"name": name, "script": "x.py", "best_epoch": 1, "epochs": 2, "compared": ["accuracy", "balanced_accuracy"],
            "titles": CLASSES, "test": [scores], "test_last": [scores], "noise_share": noise, "test_set": "1",
            "weights": None if auroc is None else {"auroc": auroc}, "rows": {"train": 10, "test": 40},
            "args": {"test_csv": "t.csv", "train_csv": "train.csv", "size": [32, 32], "num_classes": None, "seed": seed,
                     "marker": name, **args}}


def detector_run(name, ap, noise=0.4, **changes):
    """A result.json of a run whose scores are a share, a count, and one that was not measured."""
    scores = {"ap": ap, "ap_large": None, "objects": 7}
    return {**classifier_run(name, 0.5, noise=noise), "compared": ["ap"],
            "titles": {"ap": "AP", "ap_large": "AP of large objects", "objects": "Objects"},
            "test": [scores], "test_last": [scores], **changes}


def write_runs(folder, runs, line):
    """Folders of finished runs: result.json, and log.jsonl with two epochs.

    Args:
        line: function of a run that gives a line of its log, but for `epoch`.
    """
    for key, run in runs.items():
        write_json(folder / key / "result.json", run)
        lines = [json.dumps({"epoch": epoch, **line(run)}) for epoch in range(2)]
        (folder / key / "log.jsonl").write_text("".join(f"{each}\n" for each in lines))
    return [str(folder / key) for key in runs]


def report(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["report.py", *map(str, words)])
    main()


@pytest.fixture
def classifiers(tmp_path):
    """Two noise shares, a method that wins 20 of the 40 points that noise costs at the highest one."""
    runs = {"clean": classifier_run("clean", 0.9, noise=0.0)}
    for noise, base, mine in ((0.2, 0.7, 0.8), (0.4, 0.5, 0.7)):
        for seed in (0, 1):
            runs[f"noisy{noise}{seed}"] = classifier_run("noisy", base, seed, noise)
            runs[f"mine{noise}{seed}"] = classifier_run("mine", mine, seed, noise, auroc=0.5 + noise)
        runs[f"other{noise}"] = classifier_run("other", base, 0, noise, auroc=0.6, weigh_by="chance")
    runs["clean1"] = classifier_run("clean", 0.9, 1, noise=0.0)
    return write_runs(tmp_path, runs, lambda run: {"loss": [0.5], "valid": run["test"]})


def test_a_classification_is_tabulated_drawn_and_judged(classifiers, tmp_path, monkeypatch, capsys):
    last = [folder for folder in classifiers if "0.2" not in folder]
    out = tmp_path / "out"
    report(monkeypatch, *classifiers, "--out", out, "--baseline", "noisy", "--clean", "clean")
    table = (out / "table.md").read_text()
    assert table.startswith("Last epoch (50 test images, percent):\n\n| run | noise | seeds | Accuracy ± sd | "
                            "Balanced accuracy ± sd | Δ Accuracy ± 95 % | Δ Balanced accuracy ± 95 % | "
                            "gap recovered, Accuracy / Balanced accuracy | AUROC |\n")
    assert "| mine | 40 | 2 | 75.00 ± 0.00 | 70.00 ± 0.00 | +20.00 ± 0.00 | +20.00 ± 0.00 | 50 / 50 | 0.900 |\n" in table
    by_class = table[table.index("Last epoch, by class:"):].splitlines()[2:]
    assert by_class[0].startswith("| Recall | clean | noisy, noise 20 | mine, noise 20 | other, noise 20 | noisy, noise 40 |")
    assert by_class[2].startswith("| class 0 | 90.0 | 70.0 | 80.0 | 70.0 | 50.0 |")
    assert by_class[4] == "| class 2" + 7 * " | -" + " |" and "mIoU" not in table and "BF" not in table
    assert {path.name for path in out.glob("*.png")} == {"noise.png", "gain.png", "learning_curves.png"}
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "<dt>Balanced accuracy</dt>" in page and "<dt>Recall</dt>" in page
    assert not re.search(r"mIoU|\bBF\b|mask", page)
    kept = json.loads((out / "table.json").read_text())
    assert kept["classes"] == ["class 0", "class 1", "class 2"]
    assert kept["runs"][classifiers[0]]["titles"] == CLASSES
    report(monkeypatch, *last, "--out", tmp_path / "one", "--baseline", "noisy", "--recommended", "mine")
    sentence = "Weights bring 20.0 points of Balanced accuracy here, 50 % of the gap to clean annotations: take `mine`."
    assert f"\n{sentence}\n" in (tmp_path / "one" / "table.md").read_text()
    lead = sentence.replace("`mine`", "<code>mine</code>")
    assert f'<p class="lead">{lead}</p>' in (tmp_path / "one" / "report.html").read_text()
    capsys.readouterr()
    report(monkeypatch, "--json", tmp_path / "one" / "table.json")
    assert sentence in capsys.readouterr().out


def test_one_compared_score_without_validation_is_drawn_and_judged(tmp_path, monkeypatch):
    """Average precision: counts, and scores that no run measured, have no column; their test rows are counted."""
    runs = {name: detector_run(name, ap, noise) for name, ap, noise in (
        ("noisy", 0.30, 0.4), ("mine", 0.31, 0.4), ("upper", 0.50, 0.0))}
    folders = write_runs(tmp_path, runs, lambda run: {"loss": [0.5], "valid": None})
    report(monkeypatch, *folders, "--out", tmp_path / "out", "--recommended", "mine", "--clean", "upper")
    assert (tmp_path / "out" / "table.md").read_text() == (
        "Last epoch (40 test images, percent):\n\n"
        "| run | noise | seeds | AP | Δ AP | gap recovered, AP |\n|---|---|---|---|---|---|\n"
        "| noisy | 40 | 1 | 30.00 | - | - |\n| mine | 40 | 1 | 31.00 | +1.00 | 5 |\n| upper | 0 | 1 | 50.00 | - | - |\n\n"
        "Weights bring 1.0 points of AP here, another seed can change as much: take no weights (`noisy`).\n")
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["learning_curves.png"]
    with pytest.raises(UserError, match="these runs have no scores of classes"):
        report(monkeypatch, *folders, "--out", tmp_path / "b", "--classes", "classes.json")


def test_a_score_that_one_seed_lacks_counts_where_it_was_measured():
    runs = {"n": detector_run("noisy", 0.25), "a": detector_run("a", None), "b": detector_run("b", 0.5)}
    runs["b1"] = {**runs["b"], "args": {**runs["b"]["args"], "seed": 1}, "test": [{"ap": None, "objects": 7}]}
    scores = {row["name"]: row["scores"]["ap"] for row in compare(runs)}
    assert scores["a"]["mean"] is None and scores["a"]["difference"] is None
    assert scores["b"]["mean"] == 0.5 and scores["b"]["difference"] == 0.25
    assert "ap_large_mean" not in number_frame(compare(runs)) and "ap_mean" in number_frame(compare(runs))


def test_a_score_called_auroc_is_not_taken_for_that_of_the_weights():
    runs = {name: {**classifier_run(name, 0.5, auroc=0.75), "compared": ["auroc"], "titles": {"auroc": "AUROC"},
                   "test": [{"auroc": 0.625}], "test_last": [{"auroc": 0.625}]} for name in ("noisy", "mine")}
    assert "| run | noise | seeds | AUROC | Δ AUROC | AUROC of the weights |" in result_tables(runs)
    assert "| mine | 40 | 1 | 62.50 | +0.00 | 0.750 |" in result_tables(runs)


def test_runs_of_two_tasks_are_not_put_into_one_table(tmp_path):
    runs = {"a": classifier_run("a", 0.5), "b": {**detector_run("b", 0.5), "test_set": "1"}}
    folders = write_runs(tmp_path, runs, lambda run: {})
    with pytest.raises(UserError, match="b: is compared by ap, .*a by accuracy, balanced_accuracy; tabulate them apart"):
        read_runs(folders)


def test_classes_that_one_run_counts_and_another_leaves_to_the_data_are_the_same(tmp_path):
    runs = {"a": classifier_run("a", 0.5), "b": classifier_run("b", 0.6, num_classes=3)}
    folders = write_runs(tmp_path, runs, lambda run: {})
    assert len(read_runs(folders)) == 2
    other = write_runs(tmp_path, {"c": {**classifier_run("c", 0.6), "test_set": "2"}}, lambda run: {})
    with pytest.raises(UserError, match="holds other rows"):
        read_runs([*folders, *other])


def test_a_result_without_titles_is_of_segmentation():
    named = {"compared": ["miou", "bf"], "titles": {"miou": "mIoU", "dice": "Dice", "bf": "BF", "boundary_iou": "Boundary IoU",
                                                    "iou_per_class": "IoU per class"}}
    old = {"a": run_of("a", 0.6, 0.4, classes=3), "b": run_of("b", 0.5, 0.7, classes=3)}
    assert result_tables({key: {**run, **named} for key, run in old.items()}) == result_tables(old)


def test_a_run_older_than_a_flag_is_a_seed_of_one_that_has_it_at_its_default():
    """--schedule and --disagree-below stand in engine/flags.py; --drop-worst is a script's own, and off."""
    new = {"schedule": "step", "warmup_steps": 0, "disagree_below": 0.9, "drop_worst": None, "weighted": False, "marker": 0}
    groups = group_runs({"old": run_of("kd", marker=0), "new": run_of("kd", seed=1, **new)})
    assert [(group["label"], group["runs"]) for group in groups] == [("kd", {0: "old", 1: "new"})]
    for flag, value, shown in (("schedule", "poly", "schedule step"), ("drop_worst", 0.1, "drop-worst None"),
                               ("warmup_steps", 5, "warmup-steps 0"), ("disagree_below", 0.5, "disagree-below 0.9"),
                               ("weighted", True, "weighted None")):
        other = group_runs({"old": run_of("kd", marker=0), "new": run_of("kd", seed=1, **{**new, flag: value})})
        assert [group["label"] for group in other] == [f"kd, {shown}", f"kd, {flag.replace('_', '-')} {value}"]


def test_a_page_explains_the_scores_that_its_tables_show():
    table = "| IoU / BF | x |\n|---|---|\n| a | 1 |\n\n| run | mIoU ± sd |\n|---|---|\n| a | 1 |"
    page = report_page("t", table, {})
    assert "<dt>BF</dt>" in page and "<dt>mIoU</dt>" in page and "<dt>Accuracy</dt>" not in page and "<dt>AUROC</dt>" in page


def test_no_report_knows_a_score_by_heart():
    """reports/page.py alone explains scores by their titles; the paper's figures are mIoU and BF."""
    names = re.compile(r"""["'](miou|bf|dice|boundary_iou|mIoU|BF|Dice|Boundary IoU)["']""")
    for name in ("comparison", "figures", "groups", "report_files", "scores", "verdict"):
        path = Path(__file__).resolve().parents[1] / "reports" / f"{name}.py"
        assert not names.findall(path.read_text(encoding="utf-8")), path
