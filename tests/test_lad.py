"""Label-assisted distillation: objectives by hand, what teachers and students see, runs, and teachers that are refused."""

import json
import pickle
import runpy
from argparse import Namespace

import pytest
import torch

from cli.files import write_rows
from data.dataset import sample_seed
from data.pictures import write_mask
from data.rows import read_rows
from engine import checkpoint
from models import build_model
from related.lad.assisted import LabelledImages, RandomShare, assisted, load_teacher, teacher_task
from related.lad.distillation import cwd
from related.lad.train_lad_student import Distilled, student_task
from related.lad.train_lad_teacher import DualPath, teacher_parser
from tests.conftest import ROOT
from tests.script_calls import run
from tests.small_runs import arguments
from utils.losses import per_sample_loss

TEACHER, STUDENT = "related/lad/train_lad_teacher.py", "related/lad/train_lad_student.py"


def flags_of(csvs, home, name, *flags):
    return ["--train_csv", csvs / "train_noisy_60.csv", "--test_csv", csvs / "test.csv", "--name", name, "--out-dir", home,
            "--accelerator", "cpu", "--size", 48, 32, "--width", 4, "--batch-size", 4, "--epochs", 2, "--optimizer", "adamw",
            "--learning-rate", 0.004, "--clip", 0, *flags, "--kd-stride", 4]


def dual_path(**changed):
    return DualPath(Namespace(**{"consistency": .3, "consistency_from": 1, "kd_stride": 2, "aux_weight": .4, **changed}))


# --- objectives -------------------------------------------------------------------------------------------------


def test_the_teacher_s_objective_by_hand():
    """CE(a) + CE(b) + .3 [D(a, b) + D(b, a)], D on means of 2 x 2 px; before --consistency-from without D."""
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    mask = torch.randint(0, 3, (2, 4, 4))
    mask[0, 0] = 255
    ce = sum(per_sample_loss(logits, mask).mean() for logits in (a, b))
    small = [logits.view(2, 3, 2, 2, 2, 2).mean((3, 5)) for logits in (a, b)]
    whole = ce + .3 * (cwd(*small) + cwd(*small[::-1]))
    batch, both = {"mask": mask}, torch.cat([a, b])
    torch.testing.assert_close(dual_path()([both], batch, 1)[0], whole)
    torch.testing.assert_close(dual_path()([both], batch, 0)[0], ce)
    torch.testing.assert_close(dual_path(consistency=0.0)([both], batch, 1)[0], ce)
    auxiliary = {"logits": both, "auxiliary": both}
    torch.testing.assert_close(dual_path(aux_weight=.5)([auxiliary], batch, 0)[0], 1.5 * ce)


def test_the_student_s_objective_by_hand():
    student, teacher = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 1, 4, 4)
    mask = torch.randint(0, 2, (2, 4, 4))
    args = Namespace(kd="cwd", kd_weight=3.0, kd_stride=1, aux_weight=.4)
    found = Distilled(args)([student, teacher], {"mask": mask}, 0)
    torch.testing.assert_close(found, [per_sample_loss(student, mask).mean() + 3 * cwd(student, teacher)])
    args.kd_weight = 0.0
    torch.testing.assert_close(Distilled(args)([student, teacher], {"mask": mask}, 0), [per_sample_loss(student, mask).mean()])


LN2, HIGH = 0.693147, 4.394449  # CE of a logit 0; 4 ln 3, at temperature 4 a softmax of (.75, .25) over two squares
SQUARES = torch.tensor([[HIGH + 2, HIGH - 2, 0, 0], [HIGH + 1, HIGH - 1, 3, -3]]).view(1, 1, 2, 4)  # means: HIGH, 0


def test_strides_and_auxiliary_weights_by_hand():
    """D of the squares' means is 2.092993, and 2.301457 the other way; where a pixel counts, every logit is 0."""
    zeros, mask = torch.zeros(1, 1, 2, 4), torch.full((1, 2, 4), 255)
    mask[0, 0, 2] = 1
    args = Namespace(kd="cwd", kd_weight=3.0, kd_stride=2, aux_weight=.02)
    found = Distilled(args)([{"logits": zeros, "auxiliary": zeros}, SQUARES], {"mask": mask}, 0)[0]
    assert found.item() == pytest.approx(1.02 * LN2 + 3 * 2.092993, abs=1e-5)
    both = torch.cat([zeros, SQUARES])
    found = dual_path(aux_weight=.1)([{"logits": both, "auxiliary": both}], {"mask": mask}, 1)[0]
    assert found.item() == pytest.approx(2 * 1.1 * LN2 + .3 * (2.092993 + 2.301457), abs=1e-5)


def test_the_share_of_random_codes():
    assert [RandomShare(.5, 8)(epoch) for epoch in range(8)] == [0, .25, .5, .75, 1, 1, 1, 1]
    assert [RandomShare(0, 4)(epoch) for epoch in range(4)] == [1] * 4


# --- what networks see ------------------------------------------------------------------------------------------


def test_draws_depend_on_seed_epoch_and_row_alone(csvs, tmp_path):
    args = arguments(csvs, tmp_path)
    images = LabelledImages(read_rows(args.train_csv), args, True, 2, RandomShare(.5, 4), shuffled=True)
    first, alone = images.__getitems__([3, 5]), images.__getitems__([5])
    assert [draw[1] for draw in first["seeds"]] == [draw[0] for draw in alone["seeds"]]
    assert len({seed for draw in first["seeds"] for seed in draw}) == 4 and first["random_share"] == 0
    images.epoch = 1
    again = images.__getitems__([3, 5])
    assert not set(again["seeds"][0]) & set(first["seeds"][0]) and again["random_share"] == .5
    assert torch.equal(first["other"][0], images.__getitems__([3 + 6])["mask"][0])  # of 12 rows, the one half of them further


class Recorder(torch.nn.Module):
    def forward(self, x):
        self.seen = x
        return x[:, :1]


def test_a_teacher_sees_two_draws_while_training_and_one_label_after(csvs, tmp_path):
    args = arguments(csvs, tmp_path)
    vars(args).update(codes="random", codes_ramp=0.0, eval_codes=["own", "zero", "shuffled"])
    task, network = teacher_task(args), Recorder()
    rows = read_rows(args.train_csv)
    batch = task.prepare(task.dataset(rows, args, True).__getitems__([0, 1, 2]))
    assert len(task.forward(network, batch)) == 6
    a, b = network.seen.chunk(2)
    assert torch.equal(a[:, :3], batch["image"]) and torch.equal(a[:, :3], b[:, :3])
    foreground = batch["mask"] == 1
    for draw in (a, b):  # two codes that differ, and noise of 1.4 x .03
        inside, outside = draw[0, 3][foreground[0]], draw[0, 3][~foreground[0]]
        assert inside.std() < .08 and outside.std() < .08 and abs(inside.mean() - outside.mean()) > .08
    assert not torch.allclose(a[:, 3].mean((1, 2)), b[:, 3].mean((1, 2)), atol=.05)
    batch = task.prepare(task.dataset(rows, args, False).__getitems__([0, 1, 2]))
    output = task.forward(network.eval(), batch)
    assert list(output) == ["own", "zero", "shuffled"] and len(output["own"]) == 3
    assert assisted(batch, 2, "random", "zero")[:, 3].abs().max() == 0
    own, other = (assisted(batch, 2, "fixed", which)[:, 3] for which in ("own", "shuffled"))
    assert ((own > -.14) == (batch["mask"] == 1)).float().mean() > .99  # codes 1.4 x -.15 and 1.4 x -.05
    assert ((other > -.14) == (batch["other"] == 1)).float().mean() > .99


@pytest.mark.parametrize("epoch, share", [(0, 0), (1, .5), (3, 1)])
def test_the_channel_is_what_its_seed_draws(epoch, share, csvs, tmp_path):
    """Codes first, then a number for each pixel: 1.4 ((1 - r) fixed + r v + .03 eps), of (seed, epoch, row, draw)."""
    args = arguments(csvs, tmp_path, "--seed", "5", "--epochs", "4")
    vars(args).update(codes="random", codes_ramp=.5, eval_codes=["own"])
    task, network = teacher_task(args), Recorder()
    images = task.dataset(read_rows(args.train_csv), args, True)
    images.epoch = epoch
    batch = task.prepare(images.__getitems__([4, 2]))
    task.forward(network, batch)
    for place, (draw, row) in enumerate([(0, 4), (0, 2), (1, 4), (1, 2)]):
        drawn = torch.randn(3 + 48 * 32, generator=torch.Generator().manual_seed(sample_seed(5, epoch, row, 1 + draw)))
        codes = (1 - share) * torch.tensor([-.15, -.05, .05]) + share * drawn[:3]
        codes = codes[torch.where(batch["mask"][place % 2] == 255, 2, batch["mask"][place % 2])]
        torch.testing.assert_close(network.seen[place, 3], 1.4 * (codes + .03 * drawn[3:].view(48, 32)))


def test_a_student_never_sees_a_label_and_its_teacher_does(csvs, tmp_path):
    args = arguments(csvs, tmp_path)
    args.teacher_kind = "lad"
    student, teacher = Recorder(), Recorder()
    frozen = Namespace(network=teacher, codes="random")
    task = student_task(args, frozen)
    batch = task.prepare(task.dataset(read_rows(args.train_csv), args, True).__getitems__([0, 1]))
    for network in (student, teacher):
        task.forward(network, batch)
    assert torch.equal(student.seen, batch["image"]) and teacher.seen.shape[1] == 4
    args.teacher_kind = "plain"
    plain = student_task(args, frozen)
    plain.forward(teacher, batch)
    assert torch.equal(teacher.seen, batch["image"])


# --- runs -------------------------------------------------------------------------------------------------------


def call(script, *flags):
    """Run a script in this process; it must not refuse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [script, *map(str, flags)])
        runpy.run_path(str(ROOT / script), run_name="__main__")


@pytest.fixture(scope="module")
def trained(csvs, tmp_path_factory):
    """Folder of an image-only network, a teacher that starts from it, and a student."""
    home = tmp_path_factory.mktemp("lad")
    call("train_without_weight.py", *flags_of(csvs, home, "image")[:-2])
    call(TEACHER, *flags_of(csvs, home, "teacher"), "--load", home / "image" / "last.ckpt", "--eval-codes", "own", "zero",
         "shuffled")
    call(STUDENT, *flags_of(csvs, home, "student"), "--teacher", home / "teacher" / "last.ckpt")
    return home


def test_a_run_from_an_image_net_to_a_student(csvs, trained, tmp_path, monkeypatch, capsys):
    config = checkpoint.load(trained / "teacher" / "last.ckpt")["networks"][0]["config"]
    assert config["channels"] == 4
    scores = json.loads((trained / "teacher" / "result.json").read_text())["test_last"][0]
    assert {"miou", "bf", "miou_zero", "bf_zero", "miou_shuffled", "bf_shuffled"} <= scores.keys()
    student = checkpoint.load(trained / "student" / "last.ckpt")["networks"]
    assert len(student) == 1 and "channels" not in student[0]["config"]  # the teacher is not saved
    assert student[0]["state"]["down.0.0.weight"].shape[1] == 3
    call("evaluate.py", "--checkpoint", trained / "student" / "last.ckpt", "--csv", csvs / "test.csv", "--accelerator", "cpu",
         "--json", tmp_path / "scores.json")
    told = json.loads((trained / "student" / "result.json").read_text())["test_last"][0]
    assert json.loads((tmp_path / "scores.json").read_text())["miou"] == pytest.approx(told["miou"], abs=1e-6)
    for script, flags in (("evaluate.py", []), ("predict.py", ["--out-dir", "out"])):
        code, error = run(monkeypatch, capsys, tmp_path, script, "--checkpoint", trained / "teacher" / "last.ckpt", "--csv",
                          csvs / "test.csv", *flags)
        assert code == 2 and "holds a label-assisted teacher, which needs each image's label" in error


def test_a_teacher_starts_as_the_network_that_it_loads(trained):
    """A widened network that gets zeros as label is the image-only one."""
    image, _ = checkpoint.load_network(trained / "image" / "last.ckpt")
    wide = checkpoint.build_from({**checkpoint.load(trained / "image" / "last.ckpt")["networks"][0]["config"], "channels": 4})
    checkpoint.start_from(wide, trained / "image" / "last.ckpt")
    pictures = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        torch.testing.assert_close(wide.eval()(torch.cat([pictures, torch.zeros(2, 1, 48, 32)], 1)), image(pictures))


def test_the_teacher_does_not_change_while_it_teaches(csvs, trained, tmp_path, monkeypatch, capsys):
    import related.lad.train_lad_student as script

    (teacher, _), own = load_teacher(str(trained / "teacher" / "last.ckpt"), 2, "lad"), script.run
    before, kept = {name: value.clone() for name, value in teacher.state_dict().items()}, []

    def spying(*args, frozen=(), **more):
        result = own(*args, frozen=frozen, **more)
        kept.append(frozen.network)
        return result

    monkeypatch.setattr(script, "run", spying)
    monkeypatch.setattr("sys.argv", list(map(str, [STUDENT, *flags_of(csvs, tmp_path, "x"), "--teacher",
                                                  trained / "teacher" / "last.ckpt"])))
    script.main()
    assert all(torch.equal(value, kept[0].state_dict()[name]) for name, value in before.items())


def test_loader_processes_can_be_given_the_dataset(csvs):
    args = teacher_parser().parse_args(["--train_csv", "x", "--name", "x"])
    pickle.loads(pickle.dumps(LabelledImages(read_rows(csvs / "test.csv"), args, False)))


def test_several_classes_and_ignored_pixels(tmp_path, trained, csvs):
    """Teacher and student on masks of 3 classes and 255."""
    rows = read_rows(csvs / "train_noisy_60.csv")
    paths = []
    for number, _ in enumerate(rows["mask"]):
        labels = torch.randint(0, 3, (48, 32), generator=torch.Generator().manual_seed(number)).numpy()
        labels[:8], labels[8, 0] = 255, 2
        paths.append(str(tmp_path / f"{number}.png"))
        write_mask(paths[-1], labels, 3)
    write_rows(tmp_path / "train.csv", rows.assign(mask=paths))
    small = [*flags_of(csvs, tmp_path, "teacher"), "--num-classes", 3, "--epochs", 1, "--train_csv", tmp_path / "train.csv",
             "--test_csv", tmp_path / "train.csv"]
    small = [flag for number, flag in enumerate(small) if flag != "--test_csv" and small[number - 1] != "--test_csv"]
    call(TEACHER, *small, "--model", "deeplabv3", "--encoder", "resnet18", "--codes-ramp", 0)
    call(STUDENT, *small, "--name", "student", "--teacher", tmp_path / "teacher" / "last.ckpt", "--kd", "dist")
    log = json.loads((tmp_path / "student" / "log.jsonl").read_text().splitlines()[0])
    assert 0 < log["loss"][0] < 20
    state = checkpoint.load(tmp_path / "teacher" / "last.ckpt")["networks"][0]["state"]
    network = build_model("deeplabv3", "resnet18", None, 3)
    assert state.keys() == network.state_dict().keys()
