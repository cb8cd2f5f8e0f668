"""One run of several tables: `report.py --json A B --rows NAME`."""

import pytest

from cli.files import UserError, write_json
from reports.across import across_text, rows_of, share_title
from tests.run_results import run_of
from tests.script_calls import answer


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
    lines = across_text({"streets": rows_of(STREETS), "faces": rows_of(FACES)}, ["kd", "kd"]).splitlines()
    assert lines[2:] == ["| streets | 60 % noisy | kd | 3 | 26.5 ± 1.3 / 53.0 ± 2.6 | +1.50 ± 3.29 | +3.00 ± 6.57 | 10 / 10 |",
                         "| faces | coarse as drawn | kd | 1 | 50.0 / 60.0 | +0.00 | -10.00 | - / -50 |"]


def test_a_table_may_lack_a_run_but_not_all_of_them_may():
    tables = {"streets": rows_of(STREETS), "faces": rows_of(FACES)}
    lines = across_text(tables, ["own", "kd"]).splitlines()[2:]
    assert [line.split(" | ")[:3] for line in lines] == [
        ["| streets", "60 % noisy", "kd"], ["| faces", "coarse as drawn", "own"], ["| faces", "coarse as drawn", "kd"]]
    with pytest.raises(UserError, match="--rows pixels: no table has runs of this name"):
        across_text(tables, ["kd", "pixels"])


def test_settings_networks_and_unknown_noise_are_told_apart():
    """A run of two networks, one of which has its baseline's architecture; two runs of one name, at other learning rates."""
    base = run_of("noisy", bf=0.5, marker=0, model="a")
    pair = run_of("co", bf=0.6, networks=2, model_a="a", model_b="b")
    lines = across_text({"x": rows_of(content_of(base, pair))}, ["co"]).splitlines()[2:]
    assert lines == ["| x | - | co | 1 | 50.0 / 60.0 | +0.00 | +10.00 | - / - |",
                     "| x | - | co, network 2 | 1 | 50.0 / 50.0 | - | - | - / - |"]
    rates = [run_of("kd", learning_rate=rate) for rate in (1, 2)]
    lines = across_text({"x": rows_of(content_of(run_of("noisy"), *rates))}, ["kd"]).splitlines()[2:]
    assert "learning-rate 1" in lines[0] and "learning-rate 2" in lines[1]


def test_tables_of_other_scores_are_refused():
    other = run_of("noisy", noise=0.6)
    other.update(compared=["accuracy"], titles={"accuracy": "Accuracy"})
    other["test_last"][0]["accuracy"] = 0.5
    with pytest.raises(UserError, match="labels: is compared by Accuracy, streets by mIoU, BF"):
        across_text({"streets": rows_of(STREETS), "labels": rows_of(content_of(other))}, ["noisy"])


@pytest.mark.parametrize("share, folder, title", [
    (1, "t/noise100/seed0", "100 % noisy"), (1.0, "t/drawn/seed0", "coarse as drawn"), (1.0, "drawn/seed0", "coarse as drawn"),
    (1, "data/drawn/noise100/seed0", "100 % noisy"), (0.0, "t/drawn/seed0", "clean masks"),
    (0, "t/noise0/seed0", "clean masks"), (0.3, "t/noise30/seed0", "30 % noisy"), (0.004, "t/noise0.4/seed0", "0.4 % noisy")])
def test_masks_that_were_all_made_coarse_are_not_called_as_drawn(share, folder, title):
    assert share_title(share, content_of(run_of("noisy"), folder=folder)) == title


def test_the_names_of_the_files_stand_before_their_rows(tmp_path, monkeypatch, capsys):
    for name, content in (("streets", STREETS), ("faces", FACES)):
        write_json(tmp_path / name / "table.json", content)
    monkeypatch.chdir(tmp_path)
    code, said, _ = answer(monkeypatch, capsys, "report.py", "--json", "faces/table.json", "streets/table.json", "--rows", "kd")
    lines = said.splitlines()[2:]
    assert code == 0 and [line.split(" | ")[:2] for line in lines] == [["| faces/table", "coarse as drawn"],
                                                                      ["| streets/table", "60 % noisy"]]
