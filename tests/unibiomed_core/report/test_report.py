"""The report: built, told in words, written as JSON and read back."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.hand_volumes import canonical_affine, cropped, volume_of
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.errors import ReadError
from unibiomed_core.json_schema import mismatch
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.types import NOTICE, Absence, Band, Check, Evidence, Report, Shown, Tally, Volume


def small_volume(reverse: bool = False) -> Volume:
    """CT, Z = 12; stored with slices growing towards Superior where ``reverse``."""
    rng = np.random.default_rng(3)
    stored = rng.normal(40, 10, (12, 40, 48)).astype(np.int16)
    affine = canonical_affine((3.0, 1.0, 1.0))
    if reverse:
        affine[2, 0] = 3.0
    return volume_of(stored, affine)


def things(volume: Volume) -> tuple[LinkedMask, ...]:
    large, small = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    large[3:8, 10:30, 2:20] = True
    small[5:6, 15:20, 10:14] = True
    return (
        LinkedMask("liver", "liver in abdomen CT", 0.97, cropped(large), "axial", (3, 4, 5, 6, 7), ((3, 0.97),)),
        LinkedMask("lesion", "liver tumour", 0.41, cropped(small), "axial", (5,), ((5, 0.41),), ("one_slice",)),
    )


def a_report(volume: Volume, **changes: Any) -> Report:
    given: dict[str, Any] = {
        "volume": volume,
        "window": CT_WINDOWS["soft tissue"],
        "plane": "axial",
        "findings": findings(things(volume), volume),
        "absences": [Absence("spleen", 0.041, 9), Absence("aorta", 0.2, 9)],
        "model": {"name": "mini", "parameters": np.int64(12), "path": Path("weights"), "sizes": (1, 2)},
        "settings": {"every": 1, "threshold": 0.5},
        "slices_done": range(1, 10),
        "slices_skipped": [0],
        "seconds": 12.5,
        "sentences": [(5, "One lesion, right, small.")],
    }
    return reports.build(**(given | changes))


def test_json_fits_its_schema_and_comes_back_exactly() -> None:
    report = a_report(small_volume())
    text = json.dumps(reports.to_json(report), allow_nan=False)
    schema = reports.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    back = reports.from_json(json.loads(text))
    for field in fields(Report):
        if field.name != "findings":
            assert getattr(back, field.name) == getattr(report, field.name), field.name
    for ours, theirs in zip(report.findings, back.findings, strict=True):
        assert replace(ours, mask=theirs.mask) == theirs
        assert np.array_equal(ours.mask.full(), theirs.mask.full())
        assert ours.mask.offset == theirs.mask.offset
    assert json.dumps(reports.to_json(back)) == text


def test_schema_refuses_a_report_with_a_missing_or_surplus_field() -> None:
    data = reports.to_json(a_report(small_volume()))
    validator = jsonschema.Draft202012Validator(reports.schema())
    assert not validator.is_valid({k: v for k, v in data.items() if k != "notice"})
    assert not validator.is_valid(data | {"more": 1})
    data["findings"][0]["presence_0_to_1"] = 1.2
    assert not validator.is_valid(data)


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"schema": "other"}, "Not a UniBiomed report"),
        ({"version": 3}, "Report of another version"),
        ({"findings": [{"number": 1}]}, "Damaged report"),
        ({"slices": None}, "Damaged report"),
    ],
)
def test_other_json_is_refused(change: dict[str, Any], title: str) -> None:
    with pytest.raises(ReadError) as caught:
        reports.from_json(reports.to_json(a_report(small_volume())) | change)
    assert caught.value.title == title


@pytest.mark.parametrize(
    "change",
    [
        {"data": "!"},
        {"data": "AAAA"},
        {"offset_voxels": [40, 0, 0]},
        {"crop_shape_voxels": [1, 1, 1]},
        {"encoding": "rle"},
    ],
)
def test_damaged_masks_are_refused(change: dict[str, Any]) -> None:
    data = reports.to_json(a_report(small_volume()))
    data["findings"][0]["mask"] |= change
    with pytest.raises(ReadError, match="Damaged report"):
        reports.from_json(data)


def test_the_independent_validator_agrees_on_damaged_reports() -> None:
    """One value of a report is replaced by one of another kind, dropped or doubled."""
    report = json.loads(json.dumps(reports.to_json(a_report(small_volume()))))
    schema = reports.schema()
    validator = jsonschema.Draft202012Validator(schema)
    rng, refused = random.Random(3), 0
    for _ in range(400):
        damaged = copy.deepcopy(report)
        place: Any = damaged
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.2:
                break
            place = place[key]
        if rng.random() < 0.2:
            del place[key]
        elif isinstance(place, dict) and rng.random() < 0.2:
            place[f"{key}s"] = place[key]
        else:
            place[key] = rng.choice((None, True, 2, -3, 0.5, "text", [], {}, [1], {"a": 1}, 1 << 40))
        assert bool(mismatch(damaged, schema)) == (not validator.is_valid(damaged)), damaged
        refused += not validator.is_valid(damaged)
    assert 100 < refused < 400


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("image", "plane"), "oblique", "image.plane is none of"),
        (("image", "modality"), "sonar", "image.modality is none of"),
        (("image", "shape_voxels_zyx"), [12, 40, 47], "the mask of finding 1"),
        (("slices", "total_count"), 1 << 40, "slices.total_count"),
        (("settings", "every"), "2", "settings.every is of type string"),
        (("model", "deep"), json.loads("[" * 300 + "]" * 300), "nested too deeply"),
        (("findings", 0, "slice_indices"), [], "findings[0].slice_indices has 0 items"),
        (("findings", 0, "presence_0_to_1"), float("nan"), "findings[0].presence_0_to_1"),
        (("findings", 0, "measurements", "volume_ml"), 1e300, "findings[0].measurements.volume_ml"),
        (("findings", 0, "mask", "data"), "\u00e9", "a mask cannot be unpacked"),
        (("findings", 0, "mask", "crop_shape_voxels"), [1 << 20, 1 << 20, 1 << 20], "a mask of"),
    ],
)
def test_a_report_is_read_only_as_its_schema_says(where: tuple[str | int, ...], value: Any, told: str) -> None:
    data: Any = reports.to_json(a_report(small_volume()))
    inner = data
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(ReadError, match=r"Damaged report\.") as caught:
        reports.from_json(data)
    assert told in caught.value.found


def test_narrative_tells_every_number_once_and_claims_no_more() -> None:
    text = a_report(small_volume()).narrative
    assert "9 of 12 axial slices, the plane of the acquisition, were examined" in text
    assert "1. Liver: right, axial slices 3\u20137 (largest 3), volume 5.40 mL" in text
    assert "presence 0.97 (high)" in text
    assert "2. Lesion: right, axial slice 5, " in text
    assert "presence 0.41 (low); seen on one slice only; low score." in text
    assert "Structures: spleen (presence 0.04), aorta (presence 0.20); searched on up to 9 slices." in text
    assert "Skipped because they show no body: axial slice 0." in text
    assert "Not examined (not in the plan): axial slices 10\u201311." in text
    assert "Axial slice 5: \u201cOne lesion, right, small.\u201d" in text
    assert "Stopped" not in text
    assert text.endswith(NOTICE)


def test_what_is_seen_but_not_outlined_is_not_called_absent() -> None:
    """A fundus picture was told as "No findings: optic disc (presence 1.00)"."""
    absences = (
        Absence("spleen", 0.04, 9),
        Absence("aorta", 1.0, 9, "no_outline"),
        Absence("cyst", 0.9, 9, "not_confirmed"),
    )
    text = a_report(small_volume(), absences=absences).narrative
    assert "Seen but not outlined, so neither found nor absent: aorta (presence 1.00)." in text
    assert "Outlined but not confirmed by the other checks, so neither found nor absent: cyst (presence 0.90)." in text
    assert "Structures: spleen (presence 0.04); searched on up to 9 slices." in text
    assert "Neither found nor absent, as the checks do not agree: cyst." in text, "the aorta is no abnormality"


def test_abnormal_rows_whose_checks_do_not_agree_are_called_unsure() -> None:
    """A normal chest film had opacities at presence 0.97 and, further down, the words "no findings"."""
    report = a_report(small_volume())
    checks = (Check("mask", True, 0.97), Check("open", False, 0.1), Check("region", False, 0.2))
    doubted = replace(report.findings[1], flags=("unsure",), evidence=Evidence(("segment",), checks))
    told = reports.narrative(replace(report, findings=(report.findings[0], doubted)))
    assert "Unsure: lesion, right, axial slice 5, " in told
    assert "presence 0.41 (low), 1 of 3 checks agree." in told
    assert "found by name; asked openly, the model does not name it; its box is given another name" in told
    assert "Unsure" not in report.narrative


def test_an_impression_has_no_more_sentences_than_are_read_at_a_glance() -> None:
    report = a_report(small_volume())
    many = tuple(
        replace(report.findings[1], number=n, target=f"unknown thing {n}", presence=1 - n / 100) for n in range(1, 20)
    )
    crowded = replace(report, findings=many, ended="cancelled", absences=(Absence("cyst", 0.1, 9),))
    first = reports.sections(crowded)[0]
    assert first.code == "impression"
    assert len(first.lines) == 5
    told = [reports.line_text(line) for line in first.lines]
    assert told[0].startswith("Stopped by the user")
    assert told[1].startswith("Unknown thing 1,"), "the surest first"
    assert told[-2].startswith("Further rows below: unknown thing 3, ")
    assert told[-1] == "Not found: cyst."


def test_sections_hold_every_row_and_absence_once() -> None:
    report = a_report(small_volume())
    told = {section.code: section for section in reports.sections(report)}
    assert list(told) == ["impression", "abnormal", "structures", "not_found", "shown", "limits", "words"]
    assert [f.target for f in told["abnormal"].findings] == ["lesion"]
    assert [f.target for f in told["structures"].findings] == ["liver"]
    assert told["not_found"].absences == report.absences
    linked = [span.finding for section in told.values() for line in section.lines for span in line if span.finding]
    assert sorted(set(linked)) == [1, 2]
    written = reports.to_json(report)
    assert [s["code"] for s in written["sections"]] == list(told)
    assert [f["section"] for f in written["findings"]] == ["structures", "abnormal"]


def test_parts_stand_below_their_wholes() -> None:
    report = a_report(small_volume())
    liver = report.findings[0]
    rows = (replace(liver, number=1, within=3), replace(liver, number=2), replace(liver, number=3, within=2))
    assert [f.number for f in reports.nested(rows)] == [2, 3, 1]
    text = reports.narrative(replace(report, findings=rows))
    assert "\n2. Liver" in text
    assert "\n   3. Liver" in text
    assert "\n      1. Liver" in text
    kept = replace(report, findings=rows).renumbered(rows[1:])
    assert [(f.number, f.within) for f in kept.findings] == [(1, None), (2, 1)]


def test_what_the_model_says_of_what_is_not_shown_is_marked() -> None:
    shown = Shown("ct", "header", (), (Band(0, 11, (("abdomen", 0.97),)),), (6,))
    words = [(5, "One polyp beside the liver.")]
    text = a_report(small_volume(), sentences=words, shown=shown).narrative
    assert "\u201cOne polyp beside the liver.\u201d (outside of what is shown: polyp)" in text
    assert "Part of the body: abdomen (0.97), as the model sees it." in text
    assert "Modality: CT, as the file says." in text


def test_a_report_of_the_first_version_is_read() -> None:
    written = reports.to_json(a_report(small_volume(), absences=(Absence("spleen", 0.04, 9), Absence("aorta", 1.0, 9))))
    first = {name: value for name, value in written.items() if name not in ("shown", "sections")} | {"version": 1}
    first["warnings"] = [note["text"] for note in written["warnings"]]
    own = ("section", "within_number", "evidence", "description")
    first["findings"] = [{k: v for k, v in f.items() if k not in own} for f in written["findings"]]
    first["absences"] = [{k: v for k, v in a.items() if k != "doubt"} for a in written["absences"]]
    read = reports.from_json(json.loads(json.dumps(first)))
    assert [f.target for f in read.findings] == ["liver", "lesion"]
    assert [a.doubt for a in read.absences] == ["", "no_outline"]
    assert [note.text for note in read.warnings] == first["warnings"]
    assert reports.from_json(reports.to_json(read)).findings[0].mask.count == read.findings[0].mask.count
    del first["findings"][0]["target"]
    with pytest.raises(ReadError, match=r"Damaged report\."):
        reports.from_json(first)


def test_a_row_that_stands_for_many_says_for_how_many() -> None:
    report = a_report(small_volume())
    cells = Tally(28, 85.2, 20.1, 12.34, 0.141, None, "px", 100)
    vessels = Tally(None, None, None, None, 0.07, 2340.0, "mm", 1)
    findings = tuple(replace(f, tally=t) for f, t in zip(report.findings[:2], (cells, vessels), strict=True))
    told = replace(report, findings=findings)
    text = reports.narrative(told)
    assert "28 counted (12.3 a 100 \u00d7 100 px), mean area 85.2 \u00b1 20.1 px\u00b2, 14.1 % of the picture" in text
    assert "7.00 % of the picture, 2340 mm of centre line" in text
    assert reports.from_json(reports.to_json(told)).findings[0].tally == cells


@pytest.mark.parametrize("reverse", [False, True])
def test_slices_are_numbered_as_they_are_shown_whatever_the_order_of_the_file(reverse: bool) -> None:
    """ux 5."""
    report = a_report(small_volume(reverse=reverse))
    assert "axial slices 3\u20137 (largest 3)" in report.narrative
    assert "Skipped because they show no body: axial slice 0." in report.narrative
    assert "slice numbers are those of napari's slider, 0 to 11, from superior to inferior." in report.narrative
    assert report.findings[0].slices == (3, 4, 5, 6, 7)
    assert (report.image["slice_axis_stored"], report.image["slice_numbers_reversed"]) == (0, reverse)


def test_cancelled_truncated_and_empty_runs_say_so() -> None:
    report = a_report(
        small_volume(), findings=(), absences=(), ended="cancelled", truncated=[3], specks_dropped=2, sentences=()
    )
    assert "Stopped by the user after 9 of 12 slices" in report.narrative
    assert "Nothing abnormal was searched for; this does not say" in report.narrative
    assert "this does not say that the image is normal" in report.narrative
    assert "cut at the length limit on axial slice 3" in report.narrative
    assert "2 mask pieces were too small to be kept as a finding." in [note.text for note in report.warnings]
    assert "Abnormal\n" not in report.narrative


@pytest.mark.parametrize(("cancelled", "ended"), [(True, "cancelled"), (False, "finished")])
def test_a_report_from_before_there_were_codes_for_the_end_is_read(cancelled: bool, ended: str) -> None:
    written = reports.to_json(a_report(small_volume(), ended=ended))
    assert written["cancelled"] is cancelled
    del written["ended"]
    assert reports.from_json(written).ended == ended


def test_sides_of_a_cut_body_carry_a_warning() -> None:
    assert "midline_uncertain" in [note.code for note in a_report(small_volume()).warnings]
    volume = small_volume()
    unknown = replace(volume, orientation_known=False)
    report = a_report(unknown, findings=findings(things(unknown), unknown))
    assert "midline_uncertain" not in [note.code for note in report.warnings]
    assert "right" not in report.findings[0].measurements.side


def test_narrative_follows_changed_findings() -> None:
    report = a_report(small_volume())
    changed = report.renumbered(report.findings[1:])
    assert "1. Lesion" in reports.narrative(changed)
    assert "Liver:" not in reports.narrative(changed)


def test_smaller_findings_lie_on_top() -> None:
    volume = small_volume()
    report = a_report(volume)
    picture = reports.labels(report, volume)
    assert picture.dtype == np.uint16
    assert picture.shape == volume.shape
    assert (picture == 2).sum() == 20
    assert (picture == 1).sum() == 5 * 20 * 18 - 20


def test_only_plain_values_go_into_a_report() -> None:
    with pytest.raises(TypeError, match="object"):
        a_report(small_volume(), settings={"bad": object()})
    with pytest.raises(TypeError, match="finite"):
        a_report(small_volume(), settings={"bad": float("nan")})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\u2013"),
        (0.0, "0"),
        (1043.1, "1043"),
        (99.25, "99.2"),
        (9.36, "9.36"),
        (-8.391, "\u22128.39"),
        (0.0421, "0.0421"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert reports.number_text(value) == text


def test_ranges_ascend() -> None:
    assert reports.ranges_text([5, 0, 1, 2, 1]) == "0\u20132, 5"
