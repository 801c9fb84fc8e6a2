"""Whole reports against their truth: every number by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.train.evaluation.drawn_reports import NOTHING, case_of, drawn, square, told, truth
from train.evaluation import report_checks
from train.evaluation.report_cases import Count
from train.evaluation.report_checks import contradictions
from train.evaluation.report_scores import ReportScore, failed, score
from train.evaluation.report_summary import MEASURES, measures, summary
from train.evaluation.report_table import markdown
from unibiomed_core.report import narrative, sections
from unibiomed_core.types import Band, Finding, Report, Shown


def value(name: str, *scores: ReportScore) -> Any:
    return measures(scores)[name]["value"]


def test_precision_and_recall_are_over_what_is_annotated() -> None:
    report = told(
        "ct", ("liver", 0.9, square(0, 0)), ("spleen", 0.8, square(20, 20)), ("colon", 0.7, square(40, 40)),
        absent={"pancreas": 0.1, "stomach": 0.2},
    )  # fmt: skip
    known = truth({"liver": square(0, 0), "spleen": NOTHING, "pancreas": square(5, 30), "stomach": NOTHING})
    found = score(report, known, case_of("ct"))
    assert {t.target: (t.present, t.found, t.presence) for t in found.targets} == {
        "liver": (True, True, 0.9), "spleen": (False, True, 0.8), "pancreas": (True, False, 0.1),
        "stomach": (False, False, 0.2),
    }  # fmt: skip
    # The colon is not annotated: of two told two are judged, of two there one is told.
    assert (value("precision", found), value("recall", found), value("f1", found)) == (0.5, 0.5, 0.5)
    never = score(told("ct"), truth({"liver": square(0, 0)}), case_of("ct"))
    assert (value("recall", found, never), value("recall_asked", found, never)) == (1 / 3, 0.5)
    assert value("dice", found) == 0.5  # liver 1, pancreas 0
    assert value("brier", found) == pytest.approx((0.1**2 + 0.8**2 + 0.9**2 + 0.2**2) / 4)


def test_a_part_tells_its_whole_and_a_whole_no_part() -> None:
    report = told("xray", ("left lung", 0.9, square(0, 40)), ("right lung", 0.9, square(0, 0)))
    found = score(report, truth({"lung fields": square(0, 0) | square(0, 40)}), case_of("xray"))
    assert [(t.found, t.dice) for t in found.targets] == [(True, 1.0)]
    assert math.isnan(found.targets[0].presence)  # nothing was said of the lung fields themselves

    report = told("xray", ("lung fields", 0.9, square(0, 0)))
    found = score(report, truth({"left lung": square(0, 40)}), case_of("xray"))
    assert [t.found for t in found.targets] == [False]


def test_false_rows_of_a_picture_that_its_set_calls_normal_are_all_abnormal_ones() -> None:
    report = told(
        "xray", ("lung fields", 0.9, square(0, 0)), ("consolidation", 0.8, square(0, 0, 5)),
        ("pleural effusion", 0.7, square(20, 0)), ("nasogastric tube", 0.7, square(40, 0)),
    )  # fmt: skip
    unsure = replace(report.findings[1], flags=("unsure",))
    assert unsure.target == "consolidation"
    report = replace(report, findings=(report.findings[0], unsure, *report.findings[2:]))
    found = score(report, truth({"lung fields": square(0, 0)}, normal="class"), case_of("xray"))
    assert (found.false_rows, found.unsure_rows) == (3, 1)  # all but the anatomy

    sick = score(report, truth({"lung fields": square(0, 0)}), case_of("xray"))
    assert (sick.normal, sick.false_rows) == ("", 0)
    assert (value("false_rows", found, sick), value("false_sure_rows", found, sick)) == (3, 2)


def test_false_rows_where_the_annotation_is_empty_are_those_it_would_show() -> None:
    rows = ("pleural effusion", 0.7, square(0, 0)), ("consolidation", 0.7, square(20, 0))
    known = truth({"pneumothorax": NOTHING, "consolidation": NOTHING}, normal="annotation")
    assert score(told("xray", *rows), known, case_of("xray")).false_rows == 1


def test_rows_of_another_part_of_the_body_are_foreign() -> None:
    report = told("mri", ("hippocampus", 0.9, square(0, 0)), ("soft-tissue sarcoma", 0.9, square(20, 0)))
    known = truth({"soft-tissue sarcoma": square(20, 0)}, foreign=("hippocampus", "liver"))
    found = score(report, known, case_of("mri"))
    assert (found.foreign_rows, found.foreign) == (1, (0.9,))
    calibration = summary([found])["calibration"]
    assert (calibration["annotated"]["cases"], calibration["annotated"]["error"]) == (1, pytest.approx(0.1))
    both = calibration["with_foreign"]  # of two told with 0.9 one is there
    assert (both["cases"], both["present"]) == (2, 1)
    assert (both["error"], both["brier"]) == (pytest.approx(0.4), pytest.approx((0.1**2 + 0.9**2) / 2))


def test_rows_of_the_modality_that_a_picture_was_mistaken_for_are_foreign() -> None:
    report = told("mri", ("hippocampus", 0.9, square(0, 0)), ("aorta", 0.9, square(20, 0)))
    assert score(report, truth({}), case_of("ct")).foreign_rows == 1  # CT shows an aorta, too
    assert score(report, truth({}), case_of("mri")).foreign_rows == 0
    assert score(report, truth({}), case_of("")).foreign_rows == 0  # nobody knows


def sided(finding: Finding, side: Any) -> Finding:
    return replace(finding, measurements=replace(finding.measurements, side=side))


@pytest.mark.parametrize(
    ("sides", "rows", "structures"),
    [
        (("left", "right"), 2, 2), (("left", "left", "right"), 3, 2), (("unknown", "unknown"), 2, 2),
        (("unknown",) * 4, 4, 2), (("both",), 1, 1),
    ],
)  # fmt: skip
def test_rows_of_a_pair_are_about_its_sides(sides: tuple[str, ...], rows: int, structures: int) -> None:
    report = told("ct", *(("kidney", 0.9, square(12 * n, 0)) for n in range(len(sides))))
    findings = tuple(sided(f, side) for f, side in zip(report.findings, sides, strict=True))
    found = score(replace(report, findings=findings), truth({}), case_of("ct"))
    assert (found.single_rows, found.single_structures) == (rows, structures)


def test_rows_of_one_organ_are_about_one_structure_and_lesions_do_not_count() -> None:
    rows = ("liver", 0.9, square(0, 0)), ("liver", 0.9, square(20, 0)), ("lung tumour", 0.9, square(40, 0))
    found = score(told("ct", *rows, rows[2]), truth({}), case_of("ct"))
    assert (found.single_rows, found.single_structures) == (2, 1)
    assert value("single_rows", found) == 2


def test_rows_are_matched_to_lesions_by_overlap_surest_first() -> None:
    lesions = square(0, 0) | square(30, 30) | square(50, 50, 3)  # the last has 9 pixels: too small
    report = told(
        "endoscopy", ("polyp", 0.6, square(0, 0)), ("polyp", 0.9, square(0, 2)), ("polyp", 0.8, square(38, 38)),
    )  # fmt: skip
    found = score(report, truth({"polyp": lesions}, lesions=("polyp",)), case_of("endoscopy")).lesions
    assert found is not None
    # 0.9 overlaps the first lesion by 80 of 120; 0.6 lies on one that is taken; 0.8 overlaps by 4 of 196.
    assert (found.count, sorted(found.rows)) == (2, [(0.6, False), (0.8, False), (0.9, True)])


def test_kinds_of_a_lesion_lie_on_it_and_its_parts_are_no_further_rows() -> None:
    kinds = told("mri", ("meningioma", 0.7, square(0, 0)))
    known = truth({"brain tumour": square(0, 0)}, lesions=("brain tumour",))
    found = score(kinds, known, case_of("mri")).lesions
    assert found is not None
    assert found.rows == ((0.7, True),)

    nested = told("mri", ("brain tumour", 0.9, square(0, 0)), ("tumour core", 0.8, square(2, 2, 5)))
    found = score(nested, known, case_of("mri")).lesions
    assert found is not None
    assert found.rows == ((0.9, True),)


def test_populations_are_counted() -> None:
    nuclei = square(0, 0) | square(20, 0) | square(40, 0)
    report = told("pathology", ("cell nucleus", 0.9, nuclei))
    known = truth({"cell nucleus": nuclei}, counts={"cell nucleus": Count(4, "source")})
    found = score(report, known, case_of("pathology"))
    assert [(c.true, c.found, c.error) for c in found.counts] == [(4, 3, 0.25)]
    none = score(told("pathology"), known, case_of("pathology"))
    assert value("count_error", found, none) == (0.25 + 1) / 2
    assert math.isnan(value("count_error_outlines", found))


def test_a_sound_report_does_not_contradict_itself() -> None:
    report = told("ct", ("liver", 0.9, square(0, 0)), ("left kidney", 0.8, square(30, 0)), absent={"spleen": 0.1})
    assert contradictions(report) == {}


def doubted(report: Report) -> Report:
    """Its absences are told as neither found nor absent."""
    return replace_told(report, absences=tuple(replace(a, doubt="no_outline") for a in report.absences))


def replace_told(report: Report, **changes: Any) -> Report:
    """The report with other values and the text of these."""
    changed = replace(report, **changes)
    return replace(changed, narrative=narrative(changed))


@pytest.mark.parametrize(
    ("report", "found"),
    [
        (told("ct", ("liver", 0.9, square(0, 0)), absent={"liver": 0.2}), {"found_and_absent": ["liver"]}),
        (told("ct", ("left kidney", 0.9, square(0, 0)), absent={"kidney": 0.2}), {"part_of_absent": ["kidney"]}),
        (told("ct", ("kidney", 0.9, square(0, 0)), absent={"left kidney": 0.2}), {}),
        (told("ct", absent={"liver": 0.5}), {"absent_but_scored": ["liver"]}),
        (doubted(told("ct", absent={"liver": 0.5})), {}),
        (doubted(told("ct", ("left kidney", 0.9, square(0, 0)), absent={"kidney": 0.2})), {}),
        (
            replace(told("ct", ("liver", 0.9, square(0, 0))), narrative="Nothing."),
            {"row_without_sentence": ["1. liver"], "text_of_other_rows": ["narrative"]},
        ),
    ],
)
def test_contradictions(report: Report, found: dict[str, list[str]]) -> None:
    assert contradictions(report) == found


def test_a_name_on_the_other_side_is_a_contradiction() -> None:
    report = told("xray", ("left lung", 0.9, square(0, 0)))
    report = replace(report, findings=tuple(sided(f, "right") for f in report.findings))
    assert contradictions(report)["side"] == ["1. left lung"]
    report = replace(report, findings=tuple(sided(f, "both") for f in report.findings))
    assert "side" not in contradictions(report)


def test_sentences_and_rows_name_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told("ct", ("liver", 0.9, square(0, 0)), ("kidney tumour", 0.9, square(20, 0)))
    parts = sections(report)
    silent = tuple(replace(part, lines=()) for part in parts)
    monkeypatch.setattr(report_checks, "sections", lambda _: silent)
    assert contradictions(report) == {"row_without_sentence": ["2. kidney tumour", "1. liver"]}
    without = tuple(replace(part, findings=()) for part in parts)
    monkeypatch.setattr(report_checks, "sections", lambda _: without)
    assert contradictions(report) == {"row_without_sentence": ["1. liver", "2. kidney tumour"]}
    monkeypatch.setattr(report_checks, "sections", lambda _: parts)
    fewer = replace_told(report, findings=report.findings[:1])
    assert contradictions(fewer)["sentence_without_row"] == ["impression: 2", "abnormal: 2"]


def test_a_part_lies_within_its_own_whole() -> None:
    report = told("xray", ("lung fields", 0.9, square(0, 0)), ("left lung", 0.9, square(0, 0)))
    whole, part = report.findings
    assert contradictions(replace_told(report, findings=(whole, replace(part, within=1)))) == {}
    other = replace(whole, target="airways", phrase="airways")
    found = contradictions(replace_told(report, findings=(other, replace(part, within=1))))
    assert found == {"part_without_whole": ["2. left lung"]}


def test_targets_have_thresholds_of_their_own() -> None:
    report = told("ct", absent={"liver": 0.6, "spleen": 0.4, "colon": 0.4})
    own = replace(report, model={**report.model, "presence_thresholds": {"liver": 0.7, "spleen": 0.3}})
    assert contradictions(own) == {"absent_but_scored": ["spleen"]}


def test_rows_that_the_text_does_not_know_are_a_contradiction() -> None:
    report = told("ct", ("liver", 0.9, square(0, 0)), ("spleen", 0.9, square(20, 0)))
    fewer = replace(report, findings=report.findings[1:])
    assert contradictions(fewer) == {"text_of_other_rows": ["narrative", "numbers"]}


def test_an_item_without_report_misses_all_that_is_there() -> None:
    known = truth({"polyp": square(0, 0), "lesion": NOTHING}, lesions=("polyp",), normal="")
    found = failed(known, case_of("endoscopy"), volume=False)
    assert (value("recall", found), value("dice", found)) == (0, 0)
    assert found.lesions is not None
    assert (found.lesions.count, found.lesions.rows) == (1, ())


def polyps(number: int, presence: float, hit: bool, dataset: str = "a") -> ReportScore:
    """A picture with one polyp and one row, on it or beside it."""
    report = told("endoscopy", ("polyp", presence, square(0, 0) if hit else square(40, 40)))
    known = truth({"polyp": square(0, 0)}, lesions=("polyp",))
    return score(report, known, case_of("endoscopy", f"{dataset}/{number}", group=str(number)))


def test_the_summary_has_every_number_of_its_groups() -> None:
    scores = [polyps(1, 0.9, True), polyps(2, 0.8, False), polyps(3, 0.7, True), polyps(4, 0.6, True, "b")]
    absent = told("endoscopy", absent={"polyp": 0.2})
    scores.append(score(absent, truth({"polyp": square(0, 0)}, lesions=("polyp",)), case_of("endoscopy", "b/5")))
    table = summary(scores)
    assert list(table["groups"]) == ["all", "pictures", "modality endoscopy", "set a", "set b"]
    assert table["groups"]["all"]["recall"]["value"] == 0.8
    assert table["groups"]["set b"]["recall"]["value"] == 0.5
    assert table["macro_f1"]["value"] == pytest.approx((1 + 2 / 3) / 2)
    low, high = table["groups"]["all"]["recall"]["interval"]
    assert 0 < low < 0.8 < high <= 1

    lesions = table["lesions"]["all"]
    # From the surest row on: found 1, 1, 2, 3 of 5 at 0, 1, 1, 1 false rows of 5 reports.
    assert (lesions["lesions"], lesions["all_rows"], lesions["false_rows"]) == (5, 0.6, 0.2)
    assert list(lesions["sensitivity"].values()) == [0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    assert lesions["mean"] == pytest.approx((0.2 + 6 * 0.6) / 7)

    calibration = table["calibration"]
    assert (calibration["annotated"]["cases"], calibration["not_mentioned"]) == (5, 0)
    assert calibration["annotated"]["error"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.8) / 5)


def test_the_table_tells_every_measure_and_rule() -> None:
    scores = [polyps(1, 0.9, True), polyps(2, 0.8, False)]
    bad = told("ct", ("liver", 0.9, square(0, 0)), absent={"liver": 0.2})
    scores.append(score(bad, truth({}), case_of("ct", "c/6")))
    run = {"command": "evaluate", "model": "drawn", "version": "1", "limit": 2, "modality": "told"}
    text = markdown({**summary(scores), "failures": {"c/7": "Damaged."}, "left_out": {"Gone.": 2}}, run)
    for words, _ in MEASURES.values():
        assert f"| {words} |" in text
    assert "**At most 2 evenly spaced items of each data set.**" in text
    assert "| a target is found and listed as absent | 1 | 1 | c/6 |" in text
    assert "No report on c/7: Damaged." in text
    assert "2 items left out: Gone." in text
    assert "| a (endoscopy) | polyp | 2 of 2 | 0 of 0 | 0.50 |" in text


def test_modality_and_part_of_the_body() -> None:
    bands = (Band(0, 5, (("chest", 0.9), ("neck", 0.1))), Band(6, 7, (("neck", 0.6),)), Band(8, 9, ()))
    shown = Shown("ct", "model", (("ct", 0.8),), bands)
    report = replace(told("ct"), shown=shown)
    found = score(report, truth({}), case_of("ct", body=("chest",)))
    assert (found.modality_right, found.part_right) == (True, 0.6)
    assert score(report, truth({}), case_of("mri")).modality_right is False
    unknown = score(report, truth({}), case_of(""))
    assert unknown.modality_right is None
    assert math.isnan(unknown.part_right)
    user = replace(report, shown=replace(shown, modality_by="user"))
    assert score(user, truth({}), case_of("ct", body=("neck",))).modality_right is None
    assert score(user, truth({}), case_of("ct", body=("neck",))).part_right == 0.2


def test_modality_and_part_are_not_judged_where_nothing_was_recognised() -> None:
    found = score(told("ct"), truth({}), case_of("ct", body=("head",)))
    assert found.modality_right is None
    assert math.isnan(found.part_right)


def test_masks_of_both_lie_on_one_grid() -> None:
    volume = drawn("ct")
    report = told("ct", ("liver", 0.9, square(0, 0)), volume=volume)
    with pytest.raises((ValueError, IndexError)):
        score(report, truth({"liver": np.ones((1, 5, 5), bool)}), case_of("ct"))
