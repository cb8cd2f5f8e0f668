"""The paper's tables: which runs they need, how they are laid out, and the paper's figures beside ours."""

import argparse

import numpy as np
import pytest

import tables
from cli.files import UserError, write_json, write_rows
from data.rows import read_rows
from data.splits import pair_folder, prepared_data_set
from reports.experiment import DRAWN, Cell, trainings
from reports.paper import TABLES as PUBLISHED
from reports.paper import published
from reports.plan import refuse_other_settings, with_needs
from reports.report_files import packed
from reports.rivals import seconds_spent
from reports.rows import TEACHER
from tests.conftest import ROOT, run_script
from tests.run_results import run_of
from tests.test_reference import flags_of


@pytest.fixture
def args(photos, tmp_path):
    """Settings of a small data set."""
    rows = pair_folder(photos).iloc[:6]
    for name in ("train", "test"):
        write_rows(tmp_path / "csv" / f"{name}.csv", rows)
    return argparse.Namespace(splits=tmp_path / "csv", home=tmp_path / "runs", seeds=[0, 1], shares=[0, 0.3, 0.6], share=0.6,
                              rows=None, size=[8, 8], theta=3.0, num_classes=2, noise="morphology", background=0,
                              encoder="mobilenet_v2", encoder_weights="none", folds=3, flip=True, lambda_warmup=2,
                              ramp_epochs=4, weak_judge="even", teacher="pointrend", training=["--epochs", 1])


def test_every_published_row_has_a_run():
    for table, rows in PUBLISHED.items():
        assert set(rows) <= {row.name for row in tables.TABLES[table][1]}, table


def test_each_table_has_its_controls():
    for title, rows in tables.TABLES.values():
        names = [row.name for row in rows]
        of = "half_" if title.startswith("Table 1") else ""
        assert names[0] == "noisy" and {f"{of}shuffled", f"{of}constant", "oracle", "clean"} <= set(names), title
        assert len(names) == len(set(names))


def test_table2_at_three_shares(args):
    jobs = tables.jobs_of("table2", args)
    at = {share: {name for name, its, seed in jobs if its == share and seed == 1} for share in args.shares}
    assert at[0] == {"bm_kd", "sharp", "pixels", "own", "own2", "own3"}  # without noise the baseline is the run on clean masks
    assert at[0.3] == {"noisy", "miou", "bf", "bf_kd", "bm", "bm_kd", "sharp", "pixels", "own", "own2", "own3"}
    assert at[0.6] == at[0.3] | {"shuffled", "constant", "pixels_shuffled", "oracle", "clean", "own_shuffled", "own_constant",
                                 "own3_shuffled", "own3_constant", "noisy3", "clean3"}
    assert len({job.result for job in jobs.values()}) == len(jobs)
    kd = jobs["bf_kd", 0.3, 1]
    assert kd.command[0] == "train_with_KDweight.py" and kd.needs[0].result.name == "train_noisy_pointrend_weight_bfscore.csv"
    assert "0.3" in kd.needs[0].needs[0].command and kd.result.parent == args.home / "noise30" / "seed1" / "bf_kd"
    assert not args.home.exists()  # planning writes nothing


def test_passes_and_their_controls_go_on_from_one_another(args):
    """own3 <- own2 <- own, and each control from its own earlier pass, so that none has learnt from true weights."""
    jobs = tables.jobs_of("table2", args)

    def chain(name):
        found, job = [], jobs[name, 0.6, 0]
        while job:
            found.append(job.result.parent.name)
            job = next((each for each in job.needs if "--train_csv" in each.command), None)
        return found

    assert chain("own3") == ["own3", "own2", "own"]
    assert chain("own3_shuffled") == ["own3_shuffled", "own2_shuffled", "own_shuffled"]
    assert chain("noisy3") == ["noisy3", "noisy2", "noisy"] and chain("clean3") == ["clean3", "clean2", "clean"]
    for name, flag in (("own3_shuffled", "--shuffle-weights"), ("own3_constant", "--mean-weights")):
        passes = with_needs([jobs[name, 0.6, 0]])
        assert [flag in job.command for job in passes if job.command[0] == "train_with_own_weight.py"] == [True] * 3
    last = jobs["noisy3", 0.6, 0].command
    assert last[last.index("--load") + 1] == str(args.home / "noise60" / "seed0" / "noisy2" / "last.ckpt")
    assert [trainings(jobs[name, 0.6, 0]) for name in ("own", "own3", "noisy3")] == [1, 3, 3]


def test_a_network_to_start_from_is_for_the_first_pass(args):
    args.training = ["--epochs", "3", "--load", "start.ckpt", "--workers", "0"]
    jobs = tables.jobs_of("table2", args)
    for name, last in (("own", "start.ckpt"), ("noisy", "start.ckpt"), ("noisy2", "noisy/last.ckpt"), ("own2", None)):
        job = jobs.get((name, 0.6, 0)) or jobs["noisy3", 0.6, 0].needs[-1]
        loads = [word for before, word in zip(job.command, job.command[1:]) if before == "--load"]
        assert len(loads) == (last is not None) and all(str(word).endswith(last) for word in loads)
        assert job.command[-4:] == ["--epochs", "3", "--workers", "0"] or last == "start.ckpt"


def test_tables_share_their_teachers(args):
    """Six rows of weights by one teacher: one job of the teacher, one of its second round."""
    jobs = tables.jobs_of("table2", args)
    here = with_needs([job for (_, share, seed), job in jobs.items() if (share, seed) == (0.6, 0)])
    teachers = [job for job in here if job.command[0] == "train_teacher.py"]
    assert [job.result.parent.name for job in teachers] == ["teacher_pointrend", "teacher_pointrend2"]
    theta = {job.result.name: job.command[job.command.index("--theta") + 1] for job in here
             if job.command[0] == "utils/get_weight.py" and "--theta" in job.command}
    assert theta["train_noisy_pointrend_sharp_bfscore.csv"] == "2" and theta["train_noisy_pointrend_weight_bfscore.csv"] == "3"
    assert "--weighted" in teachers[1].command and "--weighted" not in teachers[0].command
    assert teachers[1].needs[0].result.name == "train_noisy_pointrend_sharp_bfscore.csv"
    two = {job.result for job in with_needs(list(tables.jobs_of("table5", args).values()))}
    assert {job.result for job in here if job.result.parent.name in ("noisy", "teacher_pointrend", "clean")} <= two


def test_really_coarse_masks_are_taken_as_they_are(args):
    write_rows(args.splits / "train_truth.csv", pair_folder_of(args))
    jobs = tables.jobs_of("table3", args)
    assert {share for _, share, _ in jobs} == {0, DRAWN} and "oracle" not in {name for name, _, _ in jobs}
    every = with_needs(list(jobs.values()))
    noise = [job for job in every if job.command[0] == "utils/generate_noisy_label.py"]
    assert noise and all("--as-drawn" in job.command or job.settings["--ratio"] == "0" for job in noise)
    cell = Cell(args, DRAWN, 0)
    for job, level in ((cell.noisy, 1), (cell.clean, 0)):
        run_script(*job.command)
        written = read_rows(job.result)
        assert set(written["iterations"]) == {level} and written["mask"].tolist() == pair_folder_of(args)["mask"].tolist()


def pair_folder_of(args):
    return read_rows(args.splits / "train.csv")


def test_alternatives_judge_by_the_teacher_that_weighed(args):
    jobs = tables.jobs_of("alternatives", args)
    for name, script, flag in (("relabel", "benchmarks/alternatives.py", "--pred-dir"), ("pixels", TEACHER, "--pixels")):
        command = jobs[name, 0.6, 0].command
        assert command[0] == script and command[command.index(flag) + 1].endswith("teacher_pointrend2/pseudo")
    assert command[command.index("--train_csv") + 1].endswith("train_noisy_pointrend2_sharp_bfscore.csv")
    assert "alternatives" not in tables.PAPERS and len(tables.PAPERS) == 5


def test_each_rival_has_its_command(args):
    jobs = tables.jobs_of("rivals", args)
    commands = {name: job.command for (name, _, seed), job in jobs.items() if seed == 0}
    assert {"noisy", "sharp", "pixels", "oracle", "clean"} <= set(commands) and "rivals" not in tables.PAPERS
    by = {name: jobs[name, 0.6, 0].needs[0].command[0] for name in ("grabcut", "densecrf", "confident_rows", "drop_worst")}
    assert by == {"grabcut": "benchmarks/refine_masks.py", "densecrf": "benchmarks/refine_masks.py",
                  "confident_rows": "benchmarks/confident_filter.py", "drop_worst": "utils/get_weight.py"}
    assert commands["grabcut"][0] == "train_without_weight.py" and "csv/train_grabcut.csv" in " ".join(commands["grabcut"])
    assert commands["small_loss"][0] == "benchmarks/small_loss.py" and commands["adele"][0] == "benchmarks/adele.py"
    worst = commands["drop_worst"]
    assert worst[worst.index("--drop-worst") + 1] == "0.6"
    pixels = jobs["confident_pixels", 0.6, 0].needs[0].command
    assert pixels[pixels.index("--drop") + 1] == "pixels"
    assert pixels[pixels.index("--teacher") + 1].endswith("/teacher_pointrend")


@pytest.mark.parametrize("method", ["grabcut", "densecrf"])
def test_own_weights_may_follow_refined_masks(args, method):
    """Three passes, each after the one before, all on the masks that the row without weights learns."""
    jobs = tables.jobs_of("rivals", args)
    third = jobs[f"{method}_own3", 0.6, 0]
    passes = [third, (second := next(job for job in third.needs if job.result.parent.name == f"{method}_own2")),
              next(job for job in second.needs if job.result.parent.name == f"{method}_own")]
    assert [job.command[0] for job in passes] == ["train_with_own_weight.py"] * 3 and trainings(third) == 3
    refined, = jobs[method, 0.6, 0].needs
    for job in passes:
        assert refined in job.needs and job.command[job.command.index("--train_csv") + 1] == str(refined.result)
    for later, earlier in zip(passes, passes[1:]):
        assert later.command[later.command.index("--after") + 1] == str(earlier.result.parent)


def test_the_time_of_a_rival_counts_what_prepares_it(args):
    jobs = tables.jobs_of("rivals", args)
    filtered, refined = jobs["confident_rows", 0.6, 0], jobs["grabcut", 0.6, 0]
    for job in (filtered, refined):
        write_json(job.result, {"seconds": 100})
        write_json(job.needs[0].result.with_suffix(".json"), {"seconds": 5})
    for fold in range(3):
        write_json(filtered.needs[0].needs[1].result.parent / f"fold{fold}" / "result.json", {"seconds": 60})
    assert seconds_spent(refined) == 105 and seconds_spent(filtered) == 285


def test_commands_with_networks_are_those_whose_scripts_take_a_device(args, monkeypatch):
    jobs = with_needs([job for table in tables.TABLES for job in tables.jobs_of(table, args).values()])
    networks = {job.command[0]: job.networks for job in jobs}
    assert networks == {script: "--accelerator" in flags_of(ROOT / script, monkeypatch) for script in networks}
    assert len(networks) > 10 and set(networks.values()) == {True, False}


def test_published_figures():
    ours = "supervisely"
    assert published("table2", "bm_kd", 0.5, ours) == (86.80, 58.03) and published("table2", "bm_kd", 0.6, ours) is None
    assert published("table5", "decoupling", 0.6, ours) == (84.12, 43.41) and published("table5", "oracle", 0.6, ours) is None
    assert published("table3", "noisy", 0, ours) == (87.10, 60.01)
    assert published("table3", "noisy", 1, "cityscapes") == (59.79, 34.01)
    assert published("table5", "noisy", 0.6, "cityscapes") is None  # the paper has Table 3 alone of them
    assert published("table3", "noisy", 1, None) is None


def test_the_papers_column_appears_for_the_papers_data_sets_alone(args):
    """Other data sets with 21 classes or with street scenes get no column of the paper."""
    content = {"table": "table3", "rows": [("noisy", "baseline")], "shares": [1], "classes": ["a"] * 21,
               **packed({"n": run_of("noisy", noise=1.0, classes=21)})}
    assert "paper" not in tables.layout(content)
    assert "| paper |" in tables.layout({**content, "data_set": "cityscapes"})
    assert prepared_data_set(args.splits) is None
    write_json(args.splits / "prepared.json", {"folder": "SuperviselyPerson", "data_set": "supervisely"})
    assert prepared_data_set(args.splits) == "supervisely"


def test_a_share_of_few_masks_is_still_found():
    """0.3 of 11 masks is 3 of 11."""
    runs = {name: {**run_of(name, bf=bf, noise=noise), "rows": {"train": 11}}
            for name, bf, noise in (("noisy", 0.4, 3 / 11), ("bm_kd", 0.5, 3 / 11), ("clean", 0.6, 0.0))}
    content = {"table": "table2", "rows": [("noisy", "baseline"), ("bm_kd", "NLKD")], "shares": [0.3, 0.6],
               "classes": ["background", "foreground"], **packed(runs)}
    assert tables.layout(content).splitlines()[0] == "| mIoU / BF, % | 30 % noisy |"
    assert "| NLKD | 50.0 / 50.0 |" in tables.layout(content)


def test_layout_of_two_shares():
    runs = {"n": run_of("noisy", 0.80, 0.40, noise=0.3), "k0": run_of("bm_kd", 0.90, 0.75, noise=0.0),
            "k": run_of("bm_kd", 0.85, 0.50, noise=0.3), "k1": run_of("bm_kd", 0.87, 0.54, seed=1, noise=0.3),
            "c": run_of("clean", 0.88, 0.70)}
    content = {"table": "table2", "rows": [("noisy", "baseline"), ("bm_kd", "NLKD"), ("clean", "upper")], "shares": [0, 0.3],
               "data_set": "supervisely", "classes": ["background", "foreground"], **packed(runs)}
    spread = np.std([85, 87], ddof=1), np.std([50, 54], ddof=1)
    assert tables.layout(content).splitlines() == [
        "| mIoU ± sd / BF ± sd, % | clean masks | paper | 30 % noisy | paper |",
        "|---|---|---|---|---|",
        "| baseline | 88.0 / 70.0 | 87.10 / 60.01 | 80.0 / 40.0 | 84.64 / 48.62 |",
        f"| NLKD | 90.0 / 75.0 | 87.76 / 61.12 | 86.0 ± {spread[0]:.1f} / 52.0 ± {spread[1]:.1f} | 86.77 / 58.55 |",
        "| upper | 88.0 / 70.0 | - | 88.0 / 70.0 | - |"]
    assert tables.table_text(content).startswith("Table 2: weights over the share of noisy masks (2 seeds)\n\n| mIoU")


def test_another_call_never_takes_old_results_for_its_own(args):
    """Other flags of trainings or noise, or other rows, are refused by name; flags that change no result are accepted."""
    job = tables.jobs_of("table2", args)["bm_kd", 0.6, 0]
    for each in with_needs([job]):
        each.result.parent.mkdir(parents=True, exist_ok=True)
        each.result.touch()
        assert not each.finished()  # no record of its flags
        each.note_stamp()
        assert each.finished()

    def again(**changes):
        return tables.jobs_of("table2", argparse.Namespace(**{**vars(args), **changes}))["bm_kd", 0.6, 0]

    for changes, message in (({"training": ["--epochs", 2]}, "it was made with --epochs 1 and this call asks for 2"),
                             ({"noise": "markov"}, "train_noisy.csv: it was made with --noise morphology and this call"),
                             ({"size": [8, 16]}, "it was made with --size 8 8 and this call asks for 8 16; pass --name"),
                             ({"encoder": "resnet18"}, "with --encoder mobilenet_v2 and this call asks for resnet18"),
                             ({"training": ["--epochs", 1, "--augment"]}, "without --augment")):
        with pytest.raises(UserError, match=message):
            refuse_other_settings(with_needs([again(**changes)]))
        assert not again(**changes).finished()
    same = again(training=["--epochs", 1, "--workers", 3, "--cache"])
    refuse_other_settings(with_needs([same]))
    assert same.finished()
    weights = args.splits / "encoder.pth"
    stamps = set()
    for content in (b"one", b"two"):  # of equal name and size
        weights.write_bytes(content)
        stamps.add(again(encoder_weights=str(weights)).stamp)
    assert len(stamps) == 2
    args.home.rename(args.home.with_name("moved"))
    assert again(home=args.home.with_name("moved")).finished()

    write_rows(args.splits / "train.csv", read_rows(args.splits / "train.csv").iloc[:4])
    other = again(home=args.home.with_name("moved"))
    with pytest.raises(UserError, match="train_noisy.csv: .*train.csv held other files or rows; pass --name"):
        refuse_other_settings(with_needs([other]))
    assert not other.finished()
