"""What an audit says of masks in words and tables, by hand."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from data.legend import Legend
from reports.audit_page import audit_page, group_table, histogram
from reports.audit_tables import component_table, lead_of, page_row, ranking, sentence
from utils.faults import Finding
from utils.verdict import Verdict

STREET = Legend(3, ["sky", "car", "bus"])


def found(kind, offset=math.nan, label=1, other=None, doubt=1.0, severity=0.5):
    return Finding(kind, label, other, offset, doubt, 100, (3, 4, 20, 10), 1, 0.5, severity)


@pytest.mark.parametrize("finding, binary, street", [
    (found("loose", 4.04), "4.0 px too loose", "car: 4.0 px too loose"),
    (found("tight", -2.5), "2.5 px too tight", "car: 2.5 px too tight"),
    (found("hasty", 1, doubt=0.456), "hasty outline, 46 % of it in doubt", "car: hasty outline, 46 % of it in doubt"),
    (found("swapped", other=0), "class swapped: annotated as foreground, the judge sees background",
     "class swapped: annotated as car, the judge sees sky"),
    (found("missing"), "object missing", "car: object missing"), (found("fine", 0.2), "fine", "fine; most doubt at car"),
    (None, "nothing annotated, nothing seen", "nothing annotated, nothing seen")])
def test_sentences(finding, binary, street):
    assert (sentence(finding, Legend(2)), sentence(finding, STREET)) == (binary, street)


def table():
    rows = pd.DataFrame({"image": list("abcd"), "mask": list("ABCD"), "annotator": ["x", "y", "x", ""]})
    verdicts = [Verdict(0.9, found("fine", 0.1), 0.1, [], [found("fine", 0.1)], 500.0),
                Verdict(0.2, found("loose", 3.96), 0.8, [(1, 2, 3, 4), (5, 6, 7, 8)],
                        [found("fine", 0.1, severity=0.1), found("loose", 3.96)], 500.0),
                Verdict(0.5, found("tight", -2.0, label=2), 0.4, [], [found("tight", -2.0, label=2)], 500.0),
                Verdict(1.0, None, 0.0, [], [], 500.0)]
    return rows, verdicts, ranking(rows, verdicts, STREET, ["", "moved in", "", ""])


def test_the_ranking_holds_the_worst_first():
    rows, verdicts, lines = table()
    assert lines["mask"].tolist() == list("BCAD") and lines["position"].tolist() == [1, 2, 0, 3]
    first = lines.iloc[0]
    assert (first["score"], first["kind"], first["offset"], first["class"], first["doubt"]) == (0.2, "loose", 4.0, "car", 0.8)
    assert first["boxes"] == "1 2 3 4; 5 6 7 8" and first["mend"] == "moved in" and first["annotator"] == "y"
    assert lines["class"].tolist() == ["car", "bus", "car", ""] and lines["kind"].tolist()[3] == "fine"
    parts = component_table(rows, verdicts, STREET, lines["position"].tolist())
    assert parts["mask"].tolist() == ["B", "B", "C", "A"] and parts["kind"].tolist()[:2] == ["loose", "fine"]
    assert parts["judge"].tolist()[2] == "bus" and parts["box"][0] == "3 4 20 10"


def test_the_sentence_on_top_counts_and_warns_of_a_weak_judge():
    lines = table()[2]
    assert lead_of(lines) == ("2 of 4 masks look wrong: 1 too loose (by 4.0 px, the median), 1 too tight (by 2.0 px, the "
                              "median). 2 agree with the judge.")
    assert lead_of(lines, ["bus"]).endswith(" It does not see bus: masks of these classes are not judged.")
    assert " of half of the masks it doubts 60 % of the outlines or more." in lead_of(lines.assign(doubt=0.6))
    assert lead_of(lines.assign(kind="loose")).endswith("px, the median). None agrees with the judge.")
    blind = lead_of(lines.assign(kind="fine", doubt=1.0), ["car", "bus"])
    assert blind.startswith("No mask is judged: the judge does not see car, bus. Train it longer") and "agree" not in blind
    assert lead_of(lines.assign(kind="fine")).startswith("All 4 masks agree with the judge.")


def test_a_row_of_the_page():
    _, verdicts, lines = table()
    line = next(lines.rename(columns={"class": "label"}).itertuples())
    row = page_row(line, verdicts[1], STREET, (30, 50))
    assert row["verdict"] == "car: 4.0 px too loose" and row["shape"] == [50, 30] and row["annotator"] == "y"
    assert row["parts"] == ["car: 4.0 px too loose (20 x 10 px at 3, 4, 100 % of its outline in doubt)"]
    assert page_row(line, verdicts[3], STREET, (3, 5))["parts"] == []


def test_ticks_are_kept_by_the_names_of_pictures_and_masks_alone():
    """So that an audit with another judge, which changes scores and order, keeps them."""
    row = {"image": "a", "mask": "A", "score": 0.5, "kind": "fine"}
    rows = [row, {**row, "image": "b", "score": 0.7}]

    def key(rows):
        return re.search(r'"id":"(\w+)"', "".join(audit_page(rows, iter([]), "", "", "", [])))[1]

    assert key(rows) == key([{**row, "image": "b", "score": 0.1}, {**row, "kind": "loose"}]) != key(rows[:1])
    assert key(rows) != key([row, {**row, "mask": "B"}])


def test_groups_and_histogram_by_hand():
    lines = table()[2]
    groups = group_table(lines.assign(annotator=["y", "x", "x", "z"]), "annotator", "By annotator")
    assert groups["heading"] == ["annotator", "masks", "mean score", "median offset, px", "too loose", "too tight", "fine"]
    assert groups["lines"] == [["y", "1", "0.20", "+4.0", "100 %", "0 %", "0 %"],
                               ["x", "2", "0.70", "-2.0", "0 %", "50 %", "50 %"],
                               ["z", "1", "1.00", "-", "0 %", "0 %", "100 %"]]
    bars = histogram([0.0, 0.04, 0.5, 1.0], ["loose", "fine", "fine", "fine"], bars=10, height=10)
    assert [(bar["fine"], bar["wrong"]) for bar in bars] == [(5, 5), *[(0, 0)] * 4, (5, 0), *[(0, 0)] * 3, (5, 0)]
    assert np.isnan(found("missing").offset)
