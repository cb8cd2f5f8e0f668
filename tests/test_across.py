"""One run of several tables: `report.py --json A B --rows NAME`."""

import pytest

from cli.files import UserError
from reports.across import across_rows, across_text, share_title
from tests.run_results import run_of


def content_of(*runs, folder="t/noise60/seed0", **more):
    return {"classes": ["a", "b"], "args": {}, "baseline": "noisy", "clean": "clean", **more,
            "runs": {f"{folder}/{number}": run for number, run in enumerate(runs)}}


def seeds_of(name, scores, noise):
    return [run_of(name, miou=score / 2, bf=score, seed=seed, noise=noise) for seed, score in enumerate(scores)]


STREETS = content_of(*seeds_of("noisy", (0.5, 0.5, 0.5), 0.6), *seeds_of("kd", (0.51, 0.52, 0.56), 0.6),
                     *seeds_of("clean", (0.8, 0.8, 0.8), 0.0))
FACES = content_of(run_of("first", bf=0.7, noise=1.0), run_of("kd", bf=0.6, noise=1.0), run_of("own", bf=0.7, noise=1.0),
                   run_of("good", bf=0.9, noise=0.0), folder="t/drawn/seed0", baseline="first", clean="good")


def test_each_table_is_measured_against_its_own_baseline():
    """1, 2 and 6 points above: mean 3, half width 4.303 * sqrt(7 / 3); of gaps of 30 and 20 points, +3 and -10."""
    lines = across_text({"streets": STREETS, "faces": FACES}, ["kd"]).splitlines()
    assert lines[2:] == ["| streets | 60 % noisy | kd | 3 | 26.5 ± 1.3 / 53.0 ± 2.6 | +1.50 ± 3.29 | +3.00 ± 6.57 | 10 / 10 |",
                         "| faces | coarse as drawn | kd | 1 | 50.0 / 60.0 | +0.00 | -10.00 | - / -50 |"]


def test_a_table_may_lack_a_run_but_not_all_of_them_may():
    assert [row["table"] for row in across_rows({"streets": STREETS, "faces": FACES}, ["own", "kd"])] == ["streets", "faces",
                                                                                                        "faces"]
    with pytest.raises(UserError, match="--rows pixels: no table has runs of this name"):
        across_rows({"streets": STREETS, "faces": FACES}, ["kd", "pixels"])


def test_tables_of_other_scores_are_refused():
    other = run_of("noisy", noise=0.6)
    other.update(compared=["accuracy"], titles={"accuracy": "Accuracy"})
    other["test_last"][0]["accuracy"] = 0.5
    with pytest.raises(UserError, match="labels: is compared by Accuracy, streets by mIoU, BF"):
        across_rows({"streets": STREETS, "labels": content_of(other)}, ["noisy"])


def test_masks_that_were_all_made_coarse_are_not_called_as_drawn():
    assert share_title(1, content_of(run_of("noisy"), folder="t/noise100/seed0")) == "100 % noisy"
    assert share_title(1.0, FACES) == "coarse as drawn"
    assert share_title(0.0, FACES) == share_title(0, STREETS) == "clean masks" and share_title(0.3, STREETS) == "30 % noisy"
