"""Tables over seeds, noise shares and classes, by hand."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from cli.files import UserError, write_json
from data.legend import Legend
from report import main
from reports.comparison import check_comparable, compare, group_runs, paired_difference, read_runs, recovered
from reports.figures import plot_gain, plot_noise
from reports.page import report_page
from reports.report_files import packed, report_text, result_tables, unpacked, weight_table
from reports.verdict import lowest_weights
from tests.run_results import run_of


def test_runs_that_differ_in_their_seed_are_one_method():
    runs = {"seed0/kd": run_of("kd", 0.80, 0.50), "seed1/kd": run_of("kd", 0.84, 0.60, seed=1),
            "other": run_of("other", 0.7, 0.4)}
    table = result_tables(runs)
    spread = np.std([80, 84], ddof=1)
    assert f"| kd | 2 | 82.00 ± {spread:.2f} | 55.00 ± 7.07 |" in table
    assert "| other | 1 | 70.00 | 40.00 | 70.00 | 50.00 |" in table
    two = result_tables({"a/x": run_of("x", 0.8, 0.5, networks=2), "b/x": run_of("x", 0.8, 0.7, seed=1, networks=2)})
    assert "| x | 2 | 80.00 ± 0.00 | 60.00 ± 14.14 |" in two and "| x, network 2 | 2 | 80.00 ± 0.00 | 50.00 ± 14.14 |" in two


def test_runs_of_one_name_are_told_apart_by_the_flags_that_differ():
    runs = {"a": run_of("kd", epochs=5, lr=1), "b": run_of("kd", epochs=9, lr=1), "c": run_of("kd", epochs=9, lr=1, seed=1)}
    groups = group_runs(runs)
    assert [group["label"] for group in groups] == ["kd, epochs 5", "kd, epochs 9"]
    assert groups[1]["runs"] == {0: "b", 1: "c"}
    by_file = group_runs({"a": run_of("kd", pixels="s0/p"), "b": run_of("kd", pixels="s1/p", seed=1),
                          "c": run_of("kd", pixels=None)})
    assert [group["runs"] for group in by_file] == [{0: "a", 1: "b"}, {0: "c"}]
    by_pass = group_runs({"a": run_of("own2", after="s0/own"), "b": run_of("own2", after="s1/own", seed=1),
                          "c": run_of("own3", after="s0/own2")})  # each seed goes on from a run of its own
    assert [(group["name"], group["runs"]) for group in by_pass] == [("own2", {0: "a", 1: "b"}), ("own3", {0: "c"})]
    by_csv = group_runs({"a": run_of("kd", train_csv="x/bf.csv"), "b": run_of("kd", train_csv="x/miou.csv")})
    assert [group["label"] for group in by_csv] == ["kd, bf", "kd, miou"]
    by_noise = group_runs({"a": run_of("kd", noise=0.3), "b": run_of("kd", noise=0.6)})
    assert [(group["label"], group["noise_share"]) for group in by_noise] == [("kd", 0.3), ("kd", 0.6)]
    with pytest.raises(UserError, match="b and a are the same method with the same seed"):
        group_runs({"a": run_of("kd"), "b": run_of("kd")})


def test_runs_of_unlike_precision_are_named(capsys):
    """--fast decides on each machine: bf16 on one, float32 on another."""
    check_comparable({"a": run_of("kd", precision="bf16-mixed"), "b": run_of("kd", precision="bf16-mixed"), "c": run_of("old")})
    assert capsys.readouterr().err == ""
    check_comparable({"a": run_of("kd", precision="bf16-mixed"), "b": run_of("noisy", precision="32-true")})
    assert "unlike --precision: 32-true (b), bf16-mixed (a);" in capsys.readouterr().err


def test_names_are_seeds_unless_the_seeds_are_the_same():
    """kd_s0 and kd_s1 are one method; two edited copies of a script with equal flags are two."""
    one = group_runs({"a": run_of("kd_s0", marker=0), "b": run_of("kd_s1", seed=1, marker=0)})
    assert [group["runs"] for group in one] == [{0: "a", 1: "b"}]
    two = group_runs({"a": run_of("mine", marker=0), "b": run_of("other", marker=0), "c": run_of("other", seed=1, marker=0)})
    assert [(group["label"], group["runs"]) for group in two] == [("mine", {0: "a"}), ("other", {0: "b", 1: "c"})]


def test_both_epochs_are_shown_where_they_differ():
    table = result_tables({"a": run_of("x", 0.8, last=0.6), "b": run_of("y", 0.7)})
    best, last = table.split("Last epoch")
    assert "| x | 1 | 80.00 |" in best and "| x | 1 | 60.00 |" in last
    assert "Best epoch" not in result_tables({"a": run_of("x", 0.8)})


def test_differences_are_taken_seed_by_seed():
    # 1, 2 and 6 above: mean 3, deviation sqrt(7); t of 2 degrees of freedom is 4.303
    mean, half, n = paired_difference({0: 1.0, 1: 4.0, 2: 9.0, 7: 5}, {0: 0.0, 1: 2.0, 2: 3.0})
    assert (mean, n) == (3, 3) and half == pytest.approx(4.302653 * 7**0.5 / 3**0.5, rel=1e-5)
    assert paired_difference({0: 0.5}, {0: 0.25}) == (0.25, None, 1)
    assert paired_difference({0: 0.5}, {1: 0.25}) == (None, None, None)


def test_fewer_pairs_than_seeds_are_told():
    runs = {"a": run_of("noisy", 0.5), "b": run_of("kd", 0.6), "c": run_of("kd", 0.7, seed=1)}
    assert "+10.00 (n = 1)" in result_tables(runs)
    assert "(n =" not in result_tables({**runs, "d": run_of("noisy", 0.5, seed=1)})


def test_recovered_gap_by_hand():
    assert recovered(0.9, 0.8, 1.0) == pytest.approx(0.5) and recovered(0.7, 0.8, 1.0) == pytest.approx(-0.5)
    assert recovered(0.9, 0.8, 0.8) is None
    # the paper at 50 % noise, Table 2: NLKD 86.80 / 58.03, baseline 84.74 / 43.96, clean 87.10 / 60.01
    assert round(recovered(0.8680, 0.8474, 0.8710), 2) == 0.87 and round(recovered(0.5803, 0.4396, 0.6001), 2) == 0.88


def test_each_noise_share_has_its_own_baseline_and_clean_serves_all():
    runs = {"n3": run_of("noisy", bf=0.6, noise=0.3), "n6": run_of("noisy", bf=0.4, noise=0.6),
            "k3": run_of("kd", bf=0.7, noise=0.3), "k6": run_of("kd", bf=0.7, noise=0.6, auroc=0.9),
            "k0": run_of("kd", bf=0.9, noise=0.0), "clean": run_of("clean", bf=0.8)}
    rows = {(row["name"], row["noise_share"]): row for row in compare(runs)}
    for share, difference, gap in ((0.3, 0.1, 0.5), (0.6, 0.3, 0.75), (0.0, 0.1, None)):
        found = rows["kd", share]["scores"]["bf"]  # without noise the baseline is the clean run
        assert found["difference"] == pytest.approx(difference) and found["recovered"] == (gap and pytest.approx(gap))
    assert rows["noisy", 0.3]["scores"]["bf"]["difference"] is None
    table = result_tables(runs)
    assert "| kd | 60 | 1 |" in table and "| +30.00 | - / 75 | 0.900 |" in table


def test_of_two_baselines_the_one_of_the_same_flags_counts():
    """Trainings of 12 and of 24 epochs; where the run agrees with neither, nothing is compared."""
    names = ("noisy", "kd", "clean")
    runs = {f"{name}{epochs}": run_of(name, bf=bf, noise=0 if name == "clean" else 0.6, epochs=epochs)
            for epochs, scores in ((12, (0.4, 0.5, 0.6)), (24, (0.5, 0.8, 0.9))) for name, bf in zip(names, scores)}
    runs["kd36"] = run_of("kd", bf=0.9, noise=0.6, epochs=36)
    for name, run in runs.items():  # each has files of its own
        run["args"].update(valid_csv=f"{name}/valid.csv", after=f"{name}/before")
    rows = {row["label"]: row["scores"]["bf"] for row in compare(runs)}
    for epochs, difference, gap in ((12, 0.1, 0.5), (24, 0.3, 0.75), (36, None, None)):
        found = rows[f"kd, epochs {epochs}"]
        assert found["difference"] == (difference and pytest.approx(difference)), epochs
        assert found["recovered"] == (gap and pytest.approx(gap)), epochs


def test_runs_with_and_without_validation_are_two_methods():
    """One is tested at its best epoch, the other at its last; another file for each seed is one method."""
    runs = {"a": run_of("x", marker=0, valid_csv="v0.csv"), "b": run_of("x", marker=0, seed=1, valid_csv="v1.csv"),
            "c": run_of("x", marker=0, seed=2)}
    groups = group_runs(runs)
    assert [group["runs"] for group in groups] == [{0: "a", 1: "b"}, {2: "c"}]
    assert [group["label"] for group in groups] == ["x, with valid-csv", "x, without valid-csv"]


def test_each_network_is_measured_against_its_own_kind():
    """A DeepLab that wins 5 on DeepLab's baseline has not lost 5 to the U-Net's; network B of a pair is a DeepLab."""
    unet, deep = {"model": "smp_unet"}, {"model": "deeplab"}
    runs = {"n": run_of("noisy", bf=0.6, noise=0.6, marker=0, **unet),
            "d": run_of("deeplab", bf=0.5, noise=0.6, marker=0, **deep),
            "k": run_of("kd", bf=0.65, noise=0.6, **unet), "dk": run_of("deeplab_kd", bf=0.55, noise=0.6, **deep),
            "c": run_of("clean", bf=0.8, noise=0.0, marker=0, **unet),
            "dc": run_of("deep_clean", bf=0.7, noise=0.0, marker=0, **deep),
            "two": run_of("co", bf=0.7, noise=0.6, networks=2, model_a="smp_unet", model_b="deeplab")}
    rows = {row["label"]: row["scores"]["bf"] for row in compare(runs)}
    for label, difference, gap in (("kd", 0.05, 0.25), ("deeplab_kd", 0.05, 0.25), ("co", 0.1, 0.5),
                                   ("co, network 2", 0.1, 0.5)):
        assert rows[label]["difference"] == pytest.approx(difference) and rows[label]["recovered"] == pytest.approx(gap), label
    for label in ("noisy", "deeplab"):
        assert rows[label]["difference"] is None
    rows = {row["label"]: row["scores"]["bf"] for row in compare({key: run for key, run in runs.items() if key != "d"})}
    assert rows["deeplab_kd"]["difference"] is None and rows["kd"]["difference"] == pytest.approx(0.05)
    other_noise = {**runs, "d": run_of("deeplab", bf=0.5, noise=0.3, marker=0, **deep)}
    assert {row["label"]: row["scores"]["bf"] for row in compare(other_noise)}["deeplab_kd"]["difference"] is None


def test_another_forget_rate_is_another_method():
    runs = {"a": run_of("co", forget_rate=0.2, marker=0), "b": run_of("co", forget_rate=0.8, seed=1, marker=0)}
    assert [group["label"] for group in group_runs(runs)] == ["co, forget-rate 0.2", "co, forget-rate 0.8"]
    by_csv = {"a": run_of("co", forget_rate=0.6039, noise=0.6039, marker=0),
              "b": run_of("co", forget_rate=0.6019, noise=0.6019, seed=1, marker=0)}
    assert len(group_runs(by_csv)) == 1


def test_each_spread_says_what_it_is():
    runs = {f"{name}{seed}": run_of(name, bf=bf + 0.1 * seed * (name == "kd"), seed=seed)
            for name, bf in (("no", 0.4), ("kd", 0.6)) for seed in (0, 1)}
    table = result_tables(runs)
    assert "| run | seeds | mIoU ± sd | BF ± sd | Dice ± sd | Boundary IoU ± sd | Δ mIoU ± 95 % | Δ BF ± 95 % |" in table
    assert "±" not in result_tables({"a": run_of("a")})


def test_recovery_counts_only_seeds_that_all_three_have():
    runs = {"n0": run_of("noisy", bf=0.4), "n1": run_of("noisy", bf=0.0, seed=1), "k0": run_of("kd", bf=0.5),
            "c0": run_of("clean", bf=0.6)}
    assert compare(runs)[1]["scores"]["bf"]["recovered"] == pytest.approx(0.5)


def test_many_classes_get_a_table_of_their_own():
    runs = {"a/x": run_of("x", 0.8, 0.5, classes=3), "b/x": run_of("x", 0.6, 0.7, classes=3, seed=1),
            "y": run_of("y", 0.9, 0.2, classes=3)}
    table = result_tables(runs, Legend(3, ["sky", "road", "car"]))
    assert "| IoU / BF | x | y |" in table
    assert "| road | 70.0 / 60.0 | 90.0 / 20.0 |" in table and "| car | 70.0 / - | 90.0 / - |" in table
    assert "IoU / BF" not in result_tables({"z": run_of("z", 0.5, 0.5)})


@pytest.mark.parametrize("flag, value", [("test_csv", "u.csv"), ("size", [8, 8]), ("theta", 2), ("num_classes", 3)])
def test_runs_of_other_test_rows_are_not_tabulated_together(tmp_path, flag, value):
    write_json(tmp_path / "a" / "result.json", run_of("a", 0.5, 0.5))
    write_json(tmp_path / "b" / "result.json", run_of("b", 0.5, 0.5, **{flag: value}))
    named = {"test_csv": "tested on u.csv"}.get(flag, f"--{flag.replace('_', '-')}")
    with pytest.raises(UserError, match=named):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_equal_paths_do_not_hide_other_test_rows(tmp_path):
    for name, digest in (("a", "1"), ("b", "2")):
        write_json(tmp_path / name / "result.json", {**run_of(name), "test_set": digest})
    with pytest.raises(UserError, match="holds other rows"):
        read_runs([tmp_path / "a", tmp_path / "b"])


def test_packing_loses_nothing():
    runs = {"a": {**run_of("a", epochs=5), "machine": "m"}, "b": {**run_of("b", seed=1, epochs=5), "machine": "m"}}
    content = json.loads(json.dumps({"classes": ["background", "foreground"], **packed(runs)}))
    assert content["args"]["epochs"] == 5 and "epochs" not in content["runs"]["a"]["args"] and content["machine"] == "m"
    assert report_text(content) == result_tables(runs)
    assert {run: each["args"] for run, each in unpacked(content).items()} == {run: each["args"] for run, each in runs.items()}


def test_a_report_of_several_noise_shares_as_a_user_makes_it(tmp_path, monkeypatch, capsys):
    folders = []
    for noise in (0.3, 0.6):
        for name, bf in (("noisy", 0.7 - noise), ("kd", 0.8 - noise)):
            folders.append(tmp_path / str(noise) / name)
            write_json(folders[-1] / "result.json", run_of(name, bf=bf, noise=noise, auroc=0.9 if name == "kd" else None))
            (folders[-1] / "log.jsonl").write_text('{"epoch": 0, "loss": [0.5], "weight": [1.0], "valid": null}\n')
    monkeypatch.setattr("sys.argv", ["report.py", *map(str, folders), "--out", str(tmp_path / "out")])
    main()
    printed = capsys.readouterr().out
    assert "| kd | 60 | 1 | 50.00 | 20.00 |" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>20.00</td>" in page and page.count("data:image/png;base64,") == 2  # two points of gain show no relation
    assert "<figcaption>Test scores against the share" in page and "<dt>gap recovered</dt>" in page
    assert f"<h1>{tmp_path.name}: noisy, kd</h1>" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # the page needs no other file
    numbers = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert len(numbers) == 5 and numbers[4].startswith("kd,0.6,0.9,1,0.5,")
    monkeypatch.setattr("sys.argv", ["report.py", "--json", str(tmp_path / "out" / "table.json")])
    main()
    assert capsys.readouterr().out.strip() in printed


def test_nothing_is_drawn_where_there_is_nothing_to_see(tmp_path):
    rows = compare({"a": run_of("noisy", noise=0.6), "b": run_of("kd", noise=0.6, auroc=0.9),
                    "c": run_of("t", noise=0.6, auroc=0.8)})
    assert not plot_noise(rows, tmp_path / "noise.png") and not plot_gain(rows, tmp_path / "gain.png")
    assert not list(tmp_path.iterdir())


def test_a_page_takes_text_as_text():
    page = report_page("a < b", "| x | y |\n|---|---|\n| <script> | 1 |", {})
    assert "<script>" not in page and "<td>&lt;script&gt;</td><td>1</td>" in page and "<h1>a &lt; b</h1>" in page


def test_three_points_of_gain_are_drawn(tmp_path):
    runs = {name: run_of(name, noise=0.6, auroc=auroc) for name, auroc in (("noisy", None), ("a", 0.9), ("b", 0.8), ("c", 0.7))}
    assert plot_gain(compare(runs), tmp_path / "gain.png") and (tmp_path / "gain.png").exists()


def test_the_lowest_weights_lead_to_their_files():
    rows = pd.DataFrame({"image": [f"i{n}.jpg" for n in range(30)], "mask": [f"m/{n}|.png" for n in range(30)],
                         "weight": np.linspace(1, 0, 30)})
    text = lowest_weights({"w": rows, "even": rows.assign(weight=1.0)})
    assert text.startswith("Lowest weights of w, 20 of 30 annotations:") and "| 0.000 | m/29\\|.png | i29.jpg |" in text
    assert len(text.splitlines()) == 2 + 2 + 20 and lowest_weights({"even": rows.assign(weight=1.0)}) == ""
    assert "<td>m/29|.png</td>" in report_page("t", text, {})


def test_the_weight_table_shows_what_is_known():
    level = {"mean": 0.25}
    noise = weight_table({"w": {"auroc": 0.75, "auprc": 0.5, "levels": {"0": {"mean": 0.9}, "6": level}}})
    assert noise.splitlines()[0] == "| weights | AUROC | AUPRC | mean at level 0 | mean at level 6 |"
    assert noise.splitlines()[2] == "| w | 0.750 | 0.500 | 0.900 | 0.250 |"
    truth = weight_table({"w": {"spearman": -0.5, "levels": {"all": level}}})
    assert truth.splitlines()[0] == "| weights | Spearman | mean at level all |" and "| w | -0.500 | 0.250 |" in truth
