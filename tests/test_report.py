"""Tables over seeds and classes, by hand."""

import numpy as np
import pytest

from data.files import UserError, write_json
from data.legend import Legend
from report import collect, result_tables, weight_table


def run_of(name, miou, bf, epoch=0, classes=2, networks=1, **args):
    """A result.json of a run with these scores."""
    scores = {"miou": miou, "dice": miou, "bf": bf, "boundary_iou": 0.5, "iou_per_class": [miou] * classes, "images": 4}
    if classes > 2:
        scores.update(bf_per_class=[bf] * (classes - 1) + [None])
    args = {"test_csv": "t.csv", "size": [4, 4], "theta": 3, "num_classes": classes, **args}
    tests = [{**scores, "bf": bf - 0.1 * k} for k in range(networks)]
    return {"name": name, "best_epoch": epoch, "epochs": 5, "test": tests, "test_last": tests, "args": args}


def test_runs_of_one_name_are_seeds_of_one_method():
    runs = {"seed0/kd": run_of("kd", 0.80, 0.50, epoch=1), "seed1/kd": run_of("kd", 0.84, 0.60, epoch=4),
            "other": run_of("other", 0.7, 0.4, epoch=2)}
    table = result_tables(runs)
    spread = np.std([80, 84], ddof=1)
    assert f"| kd, 2 seeds | 82.00 ± {spread:.2f} |" in table and "| 55.00 ± 7.07 |" in table
    assert "| other, epoch 3 of 5 | 70.00 | 70.00 | 40.00 | 50.00 | 70.0 70.0 |" in table
    assert "| 82.0 82.0 |" in table
    two = result_tables({"a/x": run_of("x", 0.8, 0.5, networks=2), "b/x": run_of("x", 0.8, 0.7, networks=2)})
    assert "| x, 2 seeds | 80.00 ± 0.00 | 80.00 ± 0.00 | 60.00 ± 14.14 |" in two
    assert "| x, 2 seeds, network 2 | 80.00 ± 0.00 | 80.00 ± 0.00 | 50.00 ± 14.14 |" in two


def test_many_classes_get_a_table_of_their_own():
    runs = {"a/x": run_of("x", 0.8, 0.5, classes=3), "b/x": run_of("x", 0.6, 0.7, classes=3),
            "y": run_of("y", 0.9, 0.2, classes=3)}
    table = result_tables(runs, Legend(3, ["sky", "road", "car"]))
    assert "| IoU / BF | x, 2 seeds | y, epoch 1 of 5 |" in table
    assert "| road | 70.0 / 60.0 | 90.0 / 20.0 |" in table and "| car | 70.0 / - | 90.0 / - |" in table
    assert "IoU / BF" not in result_tables({"z": run_of("z", 0.5, 0.5)})


@pytest.mark.parametrize("flag, value", [("test_csv", "u.csv"), ("size", [8, 8]), ("theta", 2), ("num_classes", 3)])
def test_runs_of_other_test_rows_are_not_tabulated_together(tmp_path, flag, value):
    write_json(tmp_path / "a" / "result.json", run_of("a", 0.5, 0.5))
    write_json(tmp_path / "b" / "result.json", run_of("b", 0.5, 0.5, **{flag: value}))
    with pytest.raises(UserError, match=f"--{flag}"):
        collect([tmp_path / "a", tmp_path / "b"])


def test_runs_of_one_name_must_be_one_method(tmp_path):
    for folder, flags in (("a", {"seed": 0, "epochs": 5}), ("b", {"seed": 1, "epochs": 5}), ("c", {"seed": 1, "epochs": 9})):
        write_json(tmp_path / folder / "kd" / "result.json", run_of("kd", 0.5, 0.5, **flags))
    assert len(collect([tmp_path / "a" / "kd", tmp_path / "b" / "kd"])) == 2
    with pytest.raises(UserError, match="--epochs.*not seeds of one method"):
        collect([tmp_path / "a" / "kd", tmp_path / "c" / "kd"])


def test_the_weight_table_shows_what_is_known():
    level = {"mean": 0.25}
    noise = weight_table({"w": {"auroc": 0.75, "levels": {"0": {"mean": 0.9}, "6": level}}})
    assert noise.splitlines()[0] == "| weights | AUROC | mean at level 0 | mean at level 6 |"
    assert noise.splitlines()[2] == "| w | 0.750 | 0.900 | 0.250 |"
    truth = weight_table({"w": {"spearman": -0.5, "levels": {"all": level}}})
    assert truth.splitlines()[0] == "| weights | Spearman | mean at level all |" and "| w | -0.500 | 0.250 |" in truth
