"""Rows are those of the report, in its order, whatever the reader does with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unibiomed.findings import saved_edits
from napari_unibiomed.findings.details import facts_of
from napari_unibiomed.findings.export import edited_report
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import depths, same_target
from napari_unibiomed.jobs import Run
from tests.hand_volumes import cropped
from tests.napari_unibiomed.hand_runs import masks, nested_run
from unibiomed_core import report as reports

NAMES = ("lung tumour", "hepar", "liver", "spleen", "pleural effusion", "something that nobody knows")
PAINTED = [cropped(mask) for mask in masks(nested_run().volume)] + [cropped(np.zeros(nested_run().volume.shape, bool))]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["reject", "restore", "rename", "paint", "undo"]),
        st.integers(1, 6),
        st.integers(0, len(NAMES) - 1),
    ),
    max_size=12,
)


def shown(run: Run) -> FindingsModel:
    model = FindingsModel()
    model.set_run(run)
    return model


def edit(model: FindingsModel, what: str, number: int, choice: int) -> None:
    if what == "paint":
        model.remeasure(number, PAINTED[choice % len(PAINTED)])
    elif what == "rename":
        model.rename(number, NAMES[choice])
    elif what == "undo":
        model.undo()
    else:
        getattr(model, what)(number)


@settings(max_examples=60, deadline=None)
@given(edits=EDITS)
def test_an_edited_report_holds_every_row_once_in_the_order_of_the_panel(edits: list[tuple[str, int, int]]) -> None:
    run = nested_run()
    model = shown(run)
    for what, number, choice in edits:
        edit(model, what, number, choice)
    report = edited_report(run, model.rows_of(run))

    kept = [row for row in model.rows if not row.rejected]
    parts = {section.code: section.findings for section in reports.sections(report)}
    told = [finding.number for findings in parts.values() for finding in findings]
    assert told == [row.number for row in kept], "each once, in one order"
    assert {row.number for row in kept} == {finding.number for finding in report.findings}
    kinds = {row.number: row.kind for row in kept}
    assert all(kinds[finding.number] == "structure" for finding in parts["structures"])
    for finding in parts["abnormal"]:
        assert kinds[finding.number] == ("unsure" if "unsure" in finding.flags else "abnormal")

    by_number = {finding.number: finding for finding in report.findings}
    for finding in report.findings:
        if finding.within is not None:
            assert finding.within in by_number
            assert told.index(finding.within) < told.index(finding.number), "a part comes after its whole"
        original = run.report.findings[finding.number - 1]
        if not same_target(finding.target, original.target, "ct"):
            assert finding.evidence is None, "nobody checked the reader's name"
            assert "unsure" not in finding.flags
        else:
            assert finding.evidence == original.evidence
        assert finding.description == original.description
    for section in ("abnormal", "structures"):
        rows = [finding for finding in by_number.values() if finding in parts[section]]
        nested = {f.number: steps for f in rows if (steps := reports.depth(f, rows))}
        assert nested == {n: steps for n, steps in depths(model.rows).items() if n in {f.number for f in rows}}
    found = [finding.target for finding in report.findings]
    assert not [a for a in report.absences if any(same_target(a.target, name, "ct") for name in found)]
    assert report.narrative == reports.narrative(report)
    again = reports.from_json(json.loads(json.dumps(reports.to_json(report))))
    assert [f.within for f in again.findings] == [f.within for f in report.findings]
    assert [f.evidence for f in again.findings] == [f.evidence for f in report.findings]


@settings(max_examples=20, deadline=None)
@given(edits=EDITS)
def test_kept_edits_bring_back_the_same_report(edits: list[tuple[str, int, int]]) -> None:
    run = nested_run()
    model = shown(run)
    for what, number, choice in edits:
        edit(model, what, number, choice)
    again = FindingsModel()
    again.kept_edits = {run.number: saved_edits.edits_of(run, model.rows_of(run))}
    again.set_run(run)
    assert [(row.number, row.kind, row.flags) for row in again.rows] == [
        (row.number, row.kind, row.flags) for row in model.rows
    ]
    assert edited_report(run, again.rows).narrative == edited_report(run, model.rows).narrative


@pytest.mark.parametrize(("name", "checks_hold"), [("hepatic nodule", False), ("lung mass", True)])
def test_what_was_checked_goes_with_the_models_name_and_its_synonyms(name: str, checks_hold: bool) -> None:
    run = nested_run()
    model = shown(run)
    model.rename(1, name)
    facts = dict(facts_of(run, model.row(1)))
    assert ("Evidence" in facts) is checks_hold
    finding = edited_report(run, model.rows).findings[0]
    assert (finding.target, finding.phrase) == (name, "lung tumour")
    assert (finding.evidence is not None) is checks_hold
    assert ("Model's words" in facts) is True


def test_kinds_are_counted_apart() -> None:
    model = shown(nested_run())
    assert model.counts_text == "1 abnormal, 1 unsure, 4 structures"
    model.reject(3)
    assert model.counts_text == "1 abnormal, 1 unsure, 4 structures, 1 rejected"


def test_the_card_tells_evidence_words_and_whole() -> None:
    run = nested_run()
    model = shown(run)
    facts = dict(facts_of(run, model.row(1)))
    assert facts["Kind"] == "abnormal"
    assert facts["Evidence"].startswith("2 of 3 checks agree; found by name; ")
    assert facts["The model on this region"] == "\u201ca small round opacity\u201d"
    assert dict(facts_of(run, model.row(5)))["Part of"] == "No. 4"
    unsure = dict(facts_of(run, model.row(2)))
    assert unsure["Kind"] == "unsure"
    assert unsure["Note"].startswith("unsure, as the checks do not agree")
    model.rename(2, "something else")
    assert dict(facts_of(run, model.row(2)))["Kind"] == "abnormal"


def test_a_target_that_a_row_is_renamed_to_is_not_absent_any_more() -> None:
    run = nested_run()
    model = shown(run)
    assert [a.target for a in run.report.absences] == ["pleural effusion"]
    model.rename(2, "pleural effusion")
    report = edited_report(run, model.rows)
    assert report.absences == ()
    assert "Pleural effusion" in report.narrative
