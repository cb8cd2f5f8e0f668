"""Several metrics in one pass: the weights of one by one, every file read once, and one command for all rows of a table."""

import numpy as np
import pytest

import tables
from cli.files import write_rows
from data.pictures import read_mask, write_mask
from data.rows import pseudo_label_names
from data.splits import pair_folder
from reports.plan import command_of, groups_of, with_needs
from tests.script_calls import run
from tests.test_tables import args
from utils import scoring
from utils.add_noise import add_noise
from utils.agreement import METRICS

args = args  # the fixture
SCRIPT = "utils/get_weight.py"
LEVELS = (0, 1, 0, 9, 10, 12)  # of noise


@pytest.fixture
def scored(photos, tmp_path):
    """Folder of train.csv with six masks, three of which are good and three ever coarser; of pseudo-labels that differ a little
    from all of them, and of truth.csv, which differs more from row to row."""
    rows = pair_folder(photos).iloc[:6].reset_index(drop=True)
    masks, truths = [], []
    names = pseudo_label_names(rows)
    for number, row in enumerate(rows.itertuples()):
        labels = read_mask(row.mask)
        masks.append(str(tmp_path / "masks" / f"{number}.png"))
        truths.append(str(tmp_path / "truth" / f"{number}.png"))
        write_mask(masks[-1], add_noise(labels, LEVELS[number], inward=True) if LEVELS[number] else labels)
        write_mask(truths[-1], np.roll(labels, 5 - number, 1))
        write_mask(tmp_path / "pseudo" / names[number], np.roll(labels, number % 2, 0))
    write_rows(tmp_path / "train.csv", rows.assign(mask=masks, iterations=LEVELS), "iterations")
    write_rows(tmp_path / "truth.csv", rows.assign(mask=truths))
    return tmp_path


def flags(*metrics):
    return ["--csv", "train.csv", "--pred-dir", "pseudo", "--truth", "truth.csv", "--size", 80, 56, "--metric", *metrics,
            "--out", *(f"w_{metric}.csv" for metric in metrics)]


@pytest.mark.parametrize("more", [[], ["--sharpen", "--weak-judge", "use"]])
def test_one_pass_leaves_the_bytes_of_one_by_one(scored, monkeypatch, capsys, more):
    names = [f"w_{metric}.{kind}" for metric in METRICS for kind in ("csv", "json")]
    found = []
    for calls in ([[metric] for metric in METRICS], [METRICS]):
        for metrics in calls:
            code, error = run(monkeypatch, capsys, scored, SCRIPT, *flags(*metrics), *more)
            assert code == 0, error
        found.append([(scored / name).read_bytes() for name in names])
        for name in names:
            (scored / name).unlink()
    assert found[0] == found[1] and len(set(found[0])) == (5 if more else 6)  # sharpened, BF and bm doubt the same three


def test_one_pass_reads_each_pair_once(scored, monkeypatch, capsys):
    read, own = [], scoring.decode_mask

    def noting(path, num_classes):
        read.append(str(path))
        return own(path, num_classes)

    monkeypatch.setattr(scoring, "decode_mask", noting)
    code, error = run(monkeypatch, capsys, scored, SCRIPT, *flags(*METRICS))
    assert code == 0, error
    assert len(read) == 24 and len(set(read)) == 18  # six masks with pseudo-labels, and with better masks


def test_parts_of_several_metrics_join_one_by_one(scored, monkeypatch, capsys):
    plain = ["--csv", "train.csv", "--pred-dir", "pseudo", "--metric", "bf", "bm", "--out"]
    for words in ([*plain, "whole_bf.csv", "whole_bm.csv"], *([*plain, "bf.csv", "bm.csv", "--shard", f"{part}/2"]
                                                             for part in (1, 2)),
                  ["--join", "--out", "bf.csv"], ["--join", "--out", "bm.csv"]):
        code, error = run(monkeypatch, capsys, scored, SCRIPT, *words)
        assert code == 0, error
    for metric in ("bf", "bm"):
        assert (scored / f"{metric}.csv").read_bytes() == (scored / f"whole_{metric}.csv").read_bytes()
    assert (scored / "bf.csv").read_bytes() != (scored / "bm.csv").read_bytes()


@pytest.mark.parametrize("words, message", [
    (["--pred-dir", "pseudo", "--metric", "bf", "bm", "--out", "a.csv"],
     "--metric bf bm: needs an --out for each, in the same order; there is 1"),
    (["--pred-dir", "pseudo", "--out", "a.csv", "b.csv"], "--metric bm: needs an --out for each, in the same order; there are"),
    (["--pred-dir", "pseudo", "--metric", "bf", "bm", "--out", "a.csv", "a.csv"], "a.csv: 2 outputs have this name"),
    (["--pred-dir", "pseudo", "--metric", "bf", "bm", "--out", "a.csv", "train.csv", "--overwrite"], "train.csv is read here"),
    (["--known", 0, "--metric", "bf", "bm", "--out", "a.csv", "b.csv"], "several go with --csv and --pred-dir"),
    (["--join", "--metric", "bf", "bm", "--out", "a.csv", "b.csv"], "several go with --csv and --pred-dir")])
def test_outputs_that_do_not_fit_are_refused(scored, monkeypatch, capsys, words, message):
    before = (scored / "train.csv").read_bytes()
    code, error = run(monkeypatch, capsys, scored, SCRIPT, "--csv", "train.csv", *words)
    assert code == 2 and message in error and "Traceback" not in error
    assert not list(scored.glob("[ab].*")) and (scored / "train.csv").read_bytes() == before


def test_a_table_scores_each_folder_of_pseudo_labels_in_one_pass(args):
    def scorings():
        planned = tables.jobs_of("table2", args).items()
        jobs = with_needs([job for (_, share, seed), job in planned if (share, seed) == (0.6, 0)])
        return [(command_of(group), group) for group in groups_of(job for job in jobs if not job.finished())
                if "--pred-dir" in group[0].command and group[0].command[0] == SCRIPT]

    def metrics(command):
        first, last = command.words.index("--metric") + 1, command.words.index("--truth")
        return command.words[first:last]

    assert [metrics(command) for command, _ in scorings()] == [["miou", "bf", "bm"], ["bf"], ["bf"]]  # then sharpened, 2 rounds
    command, group = scorings()[0]
    place = command.words.index("--out") + 1
    outs = command.words[place:place + 3]
    assert outs == [output.path for output in command.outputs] == [str(job.result) for job in group]
    assert [out.rpartition("_")[2] for out in outs] == [f"{metric}score.csv" for metric in METRICS]
    done = group[1]  # BF, by an earlier table
    done.result.parent.mkdir(parents=True)
    done.result.touch()
    done.note_stamp()
    assert [metrics(command) for command, _ in scorings()] == [["miou", "bm"], ["bf"], ["bf"]]
