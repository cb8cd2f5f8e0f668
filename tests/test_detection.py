"""Detections as drawings and their file names; report.py on a detector's run; what no detector's training reads."""

import json
import shutil

import numpy as np
import torch

from data.legend import Legend
from engine.detection import drawn, overlay_names, readable, written
from tests.conftest import run_script
from tests.script_calls import run
from tests.test_nlis import weights_in
from tests.test_nlis_detector import SCRIPT, flags_of, shapes, trained  # noqa: F401 (fixtures)


def test_no_two_drawings_share_a_name():
    names = overlay_names(["a/x.png", "b/x.png", "x_1.png", "y.jpg", "Z.png", "z.png", "z_5.png", "z_5_.png"])
    assert names == ["x_1_.jpg", "x_2.jpg", "x_1.jpg", "y.jpg", "Z_5__.jpg", "z_6.jpg", "z_5.jpg", "z_5_.jpg"]
    assert len({name.lower() for name in names}) == 8 and overlay_names(["a/b.png"]) == ["b.jpg"]


def test_names_of_any_alphabet_are_drawn_or_replaced():
    """Each letter has its own form, unlike the `?` of a font that knows ASCII alone; what the font lacks becomes a number."""
    blank = np.zeros((40, 60, 3), np.uint8)
    forms = {written(blank, [((5, 30), letter)]).tobytes() for letter in "éèçжяß?"}
    assert len(forms) == 7 and blank.tobytes() not in forms and not blank.any()
    assert readable("Straße", 3) == "Straße" and readable("рысь", 3) == "рысь" and readable("猫", 3) == "class 3"
    found = {"masks": np.ones((1, 40, 60), bool), "labels": np.array([2]), "scores": np.array([.9]),
             "boxes": np.array([[5., 30, 20, 38]])}
    one, other, number = (drawn(blank, found, 0.5, Legend(2, ["cat", name])) for name in ("é", "è", "猫"))
    assert (one != other).any() and np.array_equal(number, drawn(blank, found, 0.5, Legend(2, ["cat", "class 2"])))
    assert np.array_equal(drawn(blank, found, 0.95, Legend(2, ["a", "b"])), blank)


def test_a_report_on_detectors(shapes, trained, tmp_path):  # noqa: F811
    run_script("report.py", trained, "--out", tmp_path / "report")
    result = json.loads((trained / "result.json").read_text())
    told = (tmp_path / "report" / "table.md").read_text()
    assert "AP50" in told and f"{100 * result['test_last'][0]['ap']:.2f}" in told
    assert (tmp_path / "report" / "learning_curves.png").stat().st_size


def test_scrambling_the_side_files_of_a_json_changes_nothing(shapes, trained, tmp_path):  # noqa: F811
    """A run beside flips and a record that are nonsense, and one with neither: the weights of the run beside the true ones."""
    folder = tmp_path / "shapes"
    shutil.copytree(shapes, folder)
    (folder / "noisy_flips.csv").write_text("annotation,true,given\nnonsense\n")
    (folder / "noisy_noise.json").unlink()
    run_script(SCRIPT, *flags_of(folder, tmp_path, "--image-dir", shapes / "images", "--epochs", 2))
    again = weights_in(tmp_path / "run")
    assert all(torch.equal(value, again[name]) for name, value in weights_in(trained).items())


def test_anchors_go_with_the_loaded_weights(shapes, trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    flags = flags_of(shapes, tmp_path, "--load", trained / "last.ckpt", "--anchor", 8)
    code, error = run(monkeypatch, capsys, tmp_path, SCRIPT, *flags)
    assert code == 2 and "--anchor 8: " in error and "was trained with 32; leave the flag out" in error, error
