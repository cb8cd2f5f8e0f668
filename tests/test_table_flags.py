"""What tables.py refuses before anything runs."""

import sys

import pytest

import tables
from cli.files import UserError, write_rows
from reports.experiment import splits_folder
from tests.conftest import run_script
from tests.test_tables import args, pair_folder_of

args = args  # the fixture


@pytest.mark.parametrize("flags, message", [
    (["--learnig-rate", "1"], "unrecognized arguments: --learnig-rate 1"),
    (["--precision", "8"], "--precision: invalid choice"),
    (["--rows", "nlkd"], "--rows nlkd: no such row; there are adele, band, bf"),
    (["--rows", "clean"], "`noisy`, is not finished or not among --rows"),
    (["--finished"], "table2: the baseline"),
    (["--shares", "60"], "'60' is not a number in 0..1"),
    (["--shares", "0"], "table2: without noise there is no baseline")])
def test_faults_are_found_before_anything_runs(args, flags, message):
    done = run_script("tables.py", "table2", "--data", args.splits, "--out", args.home, *flags, check=False)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(args.home.rglob("*result.json"))


@pytest.mark.parametrize("words, message", [
    (["table2", "--share", "0.3"], "--share: table2 does not read it"),
    (["table4", "--shares", "0.3"], "--shares: table4 does not read it"),
    (["table3", "--shares", "0.3"], "--shares: table3 does not read it"),
    (["table1", "--share", "0.3"], "--share: table1 does not read it"),
    (["figure3", "--rows", "noisy"], "--rows: figure3 does not read it"),
    (["table2", "--rows", "noisy", "grabcut"], "--rows grabcut: table2 has no such row; there are noisy, miou"),
    (["table2", "--shares", "0.5", "0.6", "0.67"], "--shares 0.6 0.67: are the same percentage of the 6 rows"),
    (["all", "--shares", "0.5", "0.52"], "--shares 0.5 0.52: are the same")])
def test_flags_that_a_table_does_not_read_are_refused(args, monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["tables.py", *words, "--data", str(args.splits)])
    with pytest.raises(UserError, match=message):
        tables.parse()


@pytest.mark.parametrize("flag", [["--share", "0.6"], ["--noise", "morphology"]])
def test_flags_of_noise_are_refused_where_masks_are_taken_as_they_are(args, monkeypatch, flag):
    write_rows(args.splits / "train_truth.csv", pair_folder_of(args))
    monkeypatch.setattr(sys, "argv", ["tables.py", "table3", "--data", str(args.splits), *flag])
    with pytest.raises(UserError, match=f"{flag[0]}: .*holds train_truth.csv"):
        tables.parse()
    monkeypatch.setattr(sys, "argv", ["tables.py", "table3", "--data", str(args.splits)])
    assert tables.parse().noise == "morphology"


def test_data_that_is_not_prepared_is_refused(tmp_path):
    with pytest.raises(UserError, match="--data .*nowhere.*prepare_folder.py"):
        splits_folder(str(tmp_path / "nowhere"))
