"""Wrong class labels of instances: published maps, what never changes in a COCO JSON, the doors, and classes that are kept."""

import json

import numpy as np
import pandas as pd
import pytest

from cli.files import UserError
from data.coco_text import CocoText
from tests.conftest import run_script
from tests.script_calls import run
from utils.class_maps import CITYSCAPES, DIGITS, VOC, fitting_map, published_lists, within_groups
from utils.transition import drawn_from, embedded, symmetric

TOOL = "utils/class_noise.py"
IDS = dict(zip(("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"), (24, 25, 26, 27, 28, 31, 32, 33)))
ROUND = {name: "human" if name in ("person", "rider") else "vehicle" for name in IDS}


def write_streets(path, count=400, **changed):
    """A COCO JSON of odd spelling: escapes, spaces, numbers that a JSON library would write otherwise, keys in any order."""
    dice = np.random.default_rng(3)
    names = dice.choice(list(IDS), count)
    shapes = '[[0, 0, 4.50, 0, 4, 4e0]]'
    note = r'"\u00e9 \"category_id\": 7"'
    lines = [f'{{"bbox": [0,0, 4.0, 4], "category_id" : {IDS[name]},\t"id": {number}, "image_id": 1, "note": {note}, '
             f'"segmentation": {shapes}, "extra": {{"category_id": 99}}}}' for number, name in enumerate(names, 1)]
    listed = ", ".join(json.dumps({"id": IDS[name], "name": name, "supercategory": ROUND[name]}) for name in reversed(IDS))
    text = '{"info": {"annotations": [{"category_id": 24}]},\n "annotations": [' + ",\n".join(lines) + (
        '], "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],\r\n  "categories": [' + listed + "]}\n")
    path.write_bytes(text.encode())
    return names


def test_only_the_classes_of_annotations_change(tmp_path):
    source, out = tmp_path / "streets.json", tmp_path / "noisy.json"
    write_streets(source)
    run_script(TOOL, "--csv", source, "--noise", "symmetric", "--rate", 0.5, "--out", out, "--seed", 1)
    before, after = json.loads(source.read_text()), json.loads(out.read_text())
    flips = pd.read_csv(tmp_path / "noisy_flips.csv").set_index("annotation")
    changed = {}
    for one, other in zip(before["annotations"], after["annotations"]):
        if one["category_id"] != other["category_id"]:
            changed[one["id"]] = (one["category_id"], other["category_id"])
        other["category_id"] = one["category_id"]
    assert before == after and 150 < len(changed) < 250
    assert changed == {number: (row.true, row.given) for number, row in flips.iterrows()}
    told = json.loads((tmp_path / "noisy_noise.json").read_text())
    assert told["wrong"] == len(changed) and told["rows"] == 400 and told["classes"] == list(IDS)
    pieces = source.read_bytes().split(b'"category_id" : ')  # the same bytes but for the two digits behind each of these
    for one, other in zip(pieces, out.read_bytes().split(b'"category_id" : '), strict=True):
        assert one[2:] == other[2:]


def test_what_each_class_becomes(tmp_path):
    """Asymmetric: the map's partner alone, never of car and train. Symmetric: every other class, the last one too."""
    names = write_streets(tmp_path / "a.json", 4000)
    for kind, *more in (("AN",), ("SN", "--run", 2)):
        run_script(f"related/nlis/noisy_labels_{kind}_Cityscapes.py", "--r", 0.4, "--p_a", tmp_path / "a.json", "--p_g",
                   tmp_path / f"{kind.lower()}.json", *more)
    number, order = {str(value): name for name, value in IDS.items()}, list(IDS)
    given = {kind: np.array([number[label] for label in CocoText(tmp_path / f"{kind}.json").labels]) for kind in ("an", "sn")}
    for name in IDS:
        mine = names == name
        assert set(given["an"][mine]) == {name, CITYSCAPES.get(name, name)}
        assert set(given["sn"][mine]) == set(order)
        for kind in ("an", "sn"):
            expected = 0.4 if kind == "sn" or name in CITYSCAPES else 0
            assert (given[kind][mine] != name).mean() == pytest.approx(expected, abs=0.08)
    assert json.loads((tmp_path / "sn_noise.json").read_text())["seed"] == 1


def test_published_sampling_of_cityscapes():
    """K 8, r .4: true class .657, last .6, others .057, last as target 0; the true noise is r (K - 2) / (K - 1)."""
    matrix = symmetric(8, 0.4, original_sampling=True)
    assert matrix[0, 0] == pytest.approx(0.657, abs=5e-4) and matrix[7, 7] == pytest.approx(0.6)
    assert matrix[0, 1] == pytest.approx(0.057, abs=5e-4) and not matrix[:7, 7].any()
    assert 1 - matrix[0, 0] == pytest.approx(0.4 * 6 / 7) == pytest.approx(0.343, abs=5e-4)


def test_published_sampling_within_super_categories():
    """By hand, r .4. Humans (0, 1): 0 alone is drawn. Vehicles 2..5 but for 5: each .4/3, itself too. 6 is alone.
    COCO: a person counts as a vehicle; sports are 2, 3, 3 and 5, drawn without the last: 3 twice, 4 (skis) never."""
    names, groups = list("abcdefg"), ["human", "human", *["vehicle"] * 4, "animal"]
    matrix = drawn_from(7, 0.4, published_lists(names, groups))
    assert matrix[0].tolist() == [1, 0, 0, 0, 0, 0, 0] and matrix[1].tolist() == pytest.approx([.4, .6, 0, 0, 0, 0, 0])
    assert matrix[2].tolist() == pytest.approx([0, 0, .6 + .4 / 3, .4 / 3, .4 / 3, 0, 0])
    assert matrix[5].tolist() == pytest.approx([0, 0, .4 / 3, .4 / 3, .4 / 3, .6, 0]) and matrix[6].tolist() == [0] * 6 + [1]
    found = published_lists(["person", "bicycle", "frisbee", "skis", "snowboard", "kite", "car"],
                            ["person", "vehicle", "sports", "sports", "sports", "sports", "vehicle"])
    assert found == {0: [0, 1], 1: [0, 1], 6: [0, 1], 2: [2, 4, 4], 4: [2, 4, 4], 5: [2, 4, 4]}


def test_asymmetric_noise_as_published_leaves_out_the_last_of_a_group(tmp_path):
    path, flags = tmp_path / "a.json", ("--noise", "asymmetric", "--original-sampling", "--rate", 1.0)
    names = write_streets(path, 1000)
    run_script(TOOL, "--csv", path, *flags, "--out", tmp_path / "pairs.json")  # of Cityscapes: pairs, nothing to draw
    told = json.loads((tmp_path / "pairs_noise.json").read_text())
    assert told["original_sampling"] and told["matrix"][0] == [0, 1, 0, 0, 0, 0, 0, 0]
    path.write_text(path.read_text().replace('"rider"', '"cyclist"'))
    run_script(TOOL, "--csv", path, *flags, "--out", tmp_path / "groups.json")
    given = np.array(CocoText(tmp_path / "groups.json").labels, int)
    assert set(given[names == "rider"]) == set(given[names == "person"]) == {24}
    assert set(given[names == "bicycle"]) == set(given[names == "car"]) == {26, 27, 28, 31, 32}


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_no_noise_at_rate_0(kind, tmp_path):
    write_streets(tmp_path / "a.json", 50)
    run_script(TOOL, "--csv", tmp_path / "a.json", "--noise", kind, "--rate", 0, "--out", tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()
    assert json.loads((tmp_path / "b_noise.json").read_text())["wrong"] == 0


def test_super_categories_are_the_map_where_none_is_published(tmp_path):
    path = tmp_path / "a.json"
    names = write_streets(path, 1000)
    path.write_text(path.read_text().replace('"rider"', '"cyclist"').replace('"truck"', '"lorry"'))
    run_script(TOOL, "--csv", path, "--noise", "asymmetric", "--rate", 1.0, "--out", tmp_path / "an.json")
    matrix = np.array(json.loads((tmp_path / "an_noise.json").read_text())["matrix"])
    assert matrix[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert matrix[2].tolist() == [0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.2] and len(names) == 1000


def test_maps():
    assert within_groups(["a", "b", "a", "c", "a"]) == {0: [2, 4], 2: [0, 4], 4: [0, 2]}
    assert fitting_map(IDS) is CITYSCAPES and fitting_map(map(str, range(10))) is DIGITS and fitting_map(["person"]) is None
    assert VOC["bird"] == "aeroplane" and VOC["motorbike"] == "bicycle" and "aeroplane" not in VOC and len(VOC) == 8
    assert CITYSCAPES == {"person": "rider", "rider": "person", "truck": "bus", "bus": "truck", "motorcycle": "bicycle",
                          "bicycle": "motorcycle"}


def test_kept_classes_are_never_wrong_and_never_drawn(tmp_path):
    (tmp_path / "classes.json").write_text('{"names": ["background", "a", "b", "c"]}')
    labels = ["background", "a", "b", "c"] * 300
    (tmp_path / "x.csv").write_text("image,label\n" + "".join(f"{n}.png,{label}\n" for n, label in enumerate(labels)))
    run_script(TOOL, "--csv", tmp_path / "x.csv", "--noise", "symmetric", "--rate", 0.6, "--keep", "background", "--out",
               tmp_path / "y.csv")
    given = pd.read_csv(tmp_path / "y.csv")["label"].to_numpy()
    kept = np.array(labels) == "background"
    assert (given[kept] == "background").all() and not (given[~kept] == "background").any()
    assert (given[~kept] != np.array(labels)[~kept]).mean() == pytest.approx(0.6, abs=0.06)
    assert embedded(symmetric(2, 0.5), [0, 2], 3).tolist() == [[.5, 0, .5], [0, 1, 0], [.5, 0, .5]]


@pytest.mark.parametrize("change, flags, message", [
    ({}, ["--num-classes", 8], "--num-classes: goes with a class CSV"),
    ({}, ["--keep", "sheep"], "--keep sheep: "),
    ({}, ["--keep", *list(IDS)[:7]], "leaves 1 of 8 classes; two are needed"),
    ({'"category_id" : 24': '"category_id" : 5'}, [], "and a `category_id` that is one of `categories`"),
    ({'"name": "rider"': '"name": "person"'}, [], "two categories have the same name"),
    ({'"id": 25': '"id": 26'}, [], "two categories have the same id"),
    ({'\t"id": 1,': '\t"category_id": 24, "id": 1,'}, [], "a key stands twice"),
    ({'"categories"': '"kinds"'}, [], "`categories` must be a list"),
    ({'], "images"': ', "images"'}, [], "not a JSON")])
def test_what_cannot_be_made_noisy_is_refused(change, flags, message, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.json"
    write_streets(path, 40)
    text = path.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    code, error = run(monkeypatch, capsys, tmp_path, TOOL, "--csv", path, "--noise", "symmetric", "--rate", 0.4, "--out",
                      tmp_path / "b.json", *flags)
    assert code == 2 and message in error, error
    assert not (tmp_path / "b.json").exists()


def test_the_copy_must_be_of_the_same_kind(tmp_path, monkeypatch, capsys):
    write_streets(tmp_path / "a.json", 10)
    code, error = run(monkeypatch, capsys, tmp_path, TOOL, "--csv", tmp_path / "a.json", "--noise", "symmetric", "--rate", 0.4,
                      "--out", tmp_path / "b.csv")
    assert code == 2 and "the names of both must end alike" in error
    (tmp_path / "c.json").write_text(json.dumps({"images": [], "annotations": [], "categories": [
        {"id": 1, "name": "a"}, {"id": 2, "name": "b"}]}))
    with pytest.raises(UserError, match="has no `annotations`"):
        CocoText(tmp_path / "c.json")


def test_a_repetition_is_a_seed_and_not_given_beside_one(tmp_path, monkeypatch, capsys):
    write_streets(tmp_path / "a.json", 40)
    door = ("related/nlis/noisy_labels_SN_Cityscapes.py", "--p_a", tmp_path / "a.json", "--overwrite", "--p_g")
    for flags, name in ((("--run", 3), "run.json"), (("--seed", 2), "seed.json"), ((), "none.json"),
                        (("--run", 1), "one.json")):
        run_script(*door, tmp_path / name, *flags)
    texts = {name: (tmp_path / f"{name}.json").read_text() for name in ("run", "seed", "none", "one")}
    assert texts["run"] == texts["seed"] != texts["none"] == texts["one"]
    code, error = run(monkeypatch, capsys, tmp_path, *door, tmp_path / "x.json", "--run", 3, "--seed", 0)
    assert code == 2 and "--run 3: is the seed 2, --seed says 0; pass one of them" in error


def test_the_door_of_asymmetric_noise_takes_cityscapes_alone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.json"
    write_streets(path, 10)
    path.write_text(path.read_text().replace('"rider"', '"cyclist"'))
    code, error = run(monkeypatch, capsys, tmp_path, "related/nlis/noisy_labels_AN_Cityscapes.py", "--p_a", path, "--p_g",
                      tmp_path / "b.json")
    assert code == 2 and "names other classes than Cityscapes" in error
