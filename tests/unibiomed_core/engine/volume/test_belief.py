"""A report that its reader believes: open questions lead, checks decide, and nothing contradicts itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hand_volumes import cropped
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from train.evaluation.report_checks import contradictions
from unibiomed_core import report as reports
from unibiomed_core import vocabulary
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume import strategy
from unibiomed_core.engine.volume.checks import checked
from unibiomed_core.engine.volume.finish import finish_answered
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import MODALITIES, Window
from unibiomed_core.model.config import Fusion, Presence
from unibiomed_core.types import Phrase, Prediction, Prompt, Report, Slice, Volume
from unibiomed_core.updates import Done

SIZE = 48


def square(y: int, x: int, side: int = 8) -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def said(prompt: Prompt, piece: Slice, text: str, **fields: Any) -> Prediction:
    return Prediction(prompt, piece.plane, piece.index, text, text, **{"phrases": (), **fields})


Answer = Callable[[Prompt, Slice], Prediction]


def scripted(answer: Answer, **config: Any) -> tuple[Engine, list[tuple[str, int]]]:
    """An engine whose model says what a script says, and what it was asked: (task, slice)."""
    engine, asked = toy_engine(**config), []

    def predict(slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window) -> list[tuple[Prediction, ...]]:
        asked.extend((prompt.task, piece.index) for piece in slices for prompt in prompts)
        return [tuple(answer(prompt, piece) for prompt in prompts) for piece in slices]

    engine.predict = predict  # type: ignore[method-assign]
    return engine, asked


def report_of(engine: Engine, volume: Volume, request: RunRequest = RunRequest()) -> Report:
    *_, last = engine.run(volume, request)
    assert isinstance(last, Done)
    return last.report


def published(slices: Mapping[int, str]) -> Answer:
    """A model of free text: its wording, its [SEG] answers, and presence by its mask."""

    def answer(prompt: Prompt, piece: Slice) -> Prediction:
        if prompt.task == "part":
            return said(prompt, piece, "abdomen", shares=(("abdomen", 0.9), ("chest", 0.1)))
        name = slices.get(piece.index, "")
        if prompt.task == "roi_class":
            return said(prompt, piece, f"{name} in abdomen ct")
        if prompt.task == "roi_describe":
            return said(prompt, piece, f"a small {name}.")
        if not name:
            return said(prompt, piece, "No findings.", phrases=(Phrase("No findings", 0, 11, 0.0),))
        return said(
            prompt, piece, f"{name}.", phrases=(Phrase(name, 0, len(name), 0.8, cropped(square(10, 10)), name),)
        )

    return answer


def test_a_model_of_free_text_with_one_finding_gives_one_finding() -> None:
    engine, asked = scripted(published(dict.fromkeys((2, 3, 4), "liver tumour")), presence=Presence("mask", 0.0))
    report = report_of(engine, ct_volume(8))
    (finding,) = report.findings
    assert finding.slices == (2, 3, 4)
    assert finding.evidence is not None
    assert "disease" in finding.evidence.found_by
    assert finding.description == "a small liver tumour."
    assert [index for task, index in asked if task == "disease"] == list(range(8)), "every planned slice"
    assert len([1 for task, _ in asked if task == "report"]) <= 5 + 3, "a few key slices, and the words at the end"
    assert "segment" not in {task for task, _ in asked}, "nothing is searched because it is in the vocabulary"
    assert report.sentences
    assert contradictions(report) == {}


def test_an_image_that_the_model_calls_free_of_findings_gives_none() -> None:
    engine, _ = scripted(published({}), presence=Presence("mask", 0.0))
    report = report_of(engine, ct_volume(6))
    assert report.findings == ()
    assert [a.target for a in report.absences] == ["abnormality"]
    first = reports.sections(report)[0]
    told = " ".join(map(reports.line_text, first.lines))
    assert told == (
        "Nothing abnormal was found among what was searched: abnormality. This does not say that the image is normal."
    )


def learnt(parts: Mapping[int, str], found: Mapping[str, float], opened: Mapping[str, float]) -> Answer:
    """A model with a list of targets: the part of the body of each slice, what it outlines, what it names openly."""

    def answer(prompt: Prompt, piece: Slice) -> Prediction:
        if prompt.task == "roi_class":
            names = {"chest": "lung tumour", "abdomen": "kidney tumour"}
            whole = prompt.region is not None and prompt.region.x1 - prompt.region.x0 == SIZE - 1
            name = names[parts[piece.index]] if whole else max(opened, key=opened.__getitem__)
            return said(prompt, piece, name, shares=((name, 0.9), ("spleen", 0.1)))
        if prompt.task == "disease":
            return said(prompt, piece, "", shares=tuple(opened.items()))
        score = found.get(prompt.target, 0.0)
        mask = cropped(square(10, 10)) if score else None
        phrase = Phrase(prompt.target, 0, len(prompt.target), score, mask, prompt.target)
        return said(prompt, piece, prompt.target, phrases=(phrase,))

    return answer


TARGETS = {"ct": ("liver", "spleen", "lung tumour", "kidney tumour")}


def test_targets_are_searched_only_where_their_part_of_the_body_is_shown() -> None:
    parts = {index: "chest" if index < 12 else "abdomen" for index in range(24)}
    engine, _ = scripted(learnt(parts, {}, {"no findings": 1.0}), targets=TARGETS, presence=Presence("object", 0.5))
    report = report_of(engine, ct_volume(24), RunRequest(describe=False))
    assert report.shown is not None
    assert [band.parts[0][0] for band in report.shown.bands] == ["chest", "abdomen"]
    border = report.shown.bands[0].slice_last
    assert 8 <= border <= 15
    searched = {a.target: a.slices_searched for a in report.absences}
    assert searched["lung tumour"] < 24
    assert searched["kidney tumour"] < 24
    assert searched["lung tumour"] + searched["kidney tumour"] == 24
    assert len(report.slices_done) == 24


def test_what_the_user_names_is_searched_everywhere() -> None:
    parts = dict.fromkeys(range(6), "chest")
    engine, _ = scripted(learnt(parts, {}, {"no findings": 1.0}), targets=TARGETS, presence=Presence("object", 0.5))
    report = report_of(engine, ct_volume(6), RunRequest.segment("kidney tumour", describe=False))
    assert [(a.target, a.slices_searched) for a in report.absences] == [("kidney tumour", 6)]


@pytest.mark.parametrize(
    ("opened", "kept", "doubt"),
    [
        ({"lung tumour": 0.9, "no findings": 0.1}, True, ""),
        ({"no findings": 0.9, "lung tumour": 0.1}, False, "not_confirmed"),
    ],
)
def test_an_outline_that_no_other_task_confirms_is_no_row(opened: dict[str, float], kept: bool, doubt: str) -> None:
    answer = learnt(dict.fromkeys(range(3), "chest"), {"lung tumour": 0.97}, opened)
    engine, _ = scripted(answer, targets=TARGETS, presence=Presence("object", 0.5))
    report = report_of(engine, ct_volume(1), RunRequest(describe=False))
    assert bool([f for f in report.findings if f.target == "lung tumour"]) is kept
    assert [a.doubt for a in report.absences if a.target == "lung tumour"] == ([] if kept else [doubt])
    assert contradictions(report) == {}


def test_checks_cost_at_most_a_quarter_of_the_search() -> None:
    """Of a volume: pictures that the language side reads for checks against those for the search."""
    parts = dict.fromkeys(range(80), "chest")
    everywhere = learnt(parts, {"lung tumour": 0.9, "kidney tumour": 0.9}, {"lung tumour": 1.0})
    engine, asked = scripted(everywhere, targets=TARGETS, presence=Presence("object", 0.5))
    report_of(engine, ct_volume(80), RunRequest(describe=False))
    boxes = [index for task, index in asked if task == "roi_class"]
    assert len(boxes) <= 80 / 4


def test_a_fitted_rule_decides_by_its_weights() -> None:
    from tests.unibiomed_core.engine.volume.test_counting import things
    from unibiomed_core.engine.volume.aggregation import Aggregation

    volume = ct_volume(1)
    linked = things("lung tumour", volume, square(10, 10))
    rule = Fusion({"open": 2.0}, {"open": 0.0}, 0.0, threshold=0.5)
    for share, stands in ((0.9, True), (0.1, False)):
        aggregation = Aggregation(done=[0], open={0: {"lung tumour": share, "no findings": 1 - share}})
        found = checked(linked, aggregation, "ct", rule)
        assert bool(found.kept) is stands
        expected = 1 / (1 + np.exp(-2 * np.log(share / (1 - share))))
        told = found.kept[0].presence if stands else found.dismissed["lung tumour"]
        assert told == pytest.approx(expected)
    assert rule.probability(0.3, {"mask": 1.0}) == 0.3, "no check that it has a weight for"


def test_a_modality_that_the_picture_contradicts_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from unibiomed_core.engine.predictor import FirstLook

    answer = learnt(dict.fromkeys(range(3), "chest"), {}, {"no findings": 1.0})
    for seen, share, notes in (("mri", 0.97, ["modality_doubted"]), ("mri", 0.9, []), ("ct", 0.99, [])):
        engine, _ = scripted(answer, targets=TARGETS, presence=Presence("object", 0.5))
        look = FirstLook({seen: share, "pet": 1 - share}, {"chest": 1.0}, {})
        monkeypatch.setattr(engine, "first_look", lambda *_, look=look: look)
        report = report_of(engine, ct_volume(3), RunRequest(describe=False))
        assert [n.code for n in report.warnings if n.code == "modality_doubted"] == notes
        assert report.shown is not None
        assert report.shown.modality == "ct", "the word of file and user wins"


def test_a_more_special_name_speaks_for_its_own_outline_only() -> None:
    from tests.unibiomed_core.engine.volume.test_counting import things
    from unibiomed_core.engine.volume.aggregation import Aggregation

    volume = ct_volume(1)
    spot, sarcoma = things("lesion", volume, square(30, 30)), things("soft-tissue sarcoma", volume, square(5, 5, 15))
    opened = Aggregation(done=[0], open={0: {"soft-tissue sarcoma": 0.9, "no findings": 0.1}})
    alone = checked(spot, opened, "ct", None)
    assert [(c.code, c.agrees) for c in alone.evidence[0].checks if c.code == "open"] == [("open", True)]  # type: ignore[union-attr]
    beside = checked([*sarcoma, *spot], opened, "ct", None)
    told = {t.target: e for t, e in zip(beside.kept, beside.evidence, strict=True)}
    assert [c.agrees for c in told["soft-tissue sarcoma"].checks if c.code == "open"] == [True]  # type: ignore[union-attr]
    assert "lesion" not in told or [c.agrees for c in told["lesion"].checks if c.code == "open"] == [False]  # type: ignore[union-attr]


def test_every_kind_of_model_has_one_strategy() -> None:
    assert set(strategy.STRATEGIES) == {"learnt targets", "free text"}
    free, trained = toy_engine().config, toy_engine(targets=TARGETS).config
    assert [p.task for p in strategy.unasked(free, ct_volume(1))] == ["disease", "report"]
    assert {p.task for p in strategy.unasked(trained, ct_volume(1))} == {"segment"}


NAMES = (*(t.name for m in ("ct", "mri", "xray") for t in vocabulary.for_modality(m)), "unheard-of thing")
Boxes = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, dict[int, tuple[Prediction, ...]]]:
    """Anything that a model might say of six slices."""
    modality = draw(st.sampled_from(["ct", "mri", "xray"]))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    given: dict[int, tuple[Prediction, ...]] = {}
    for index in range(draw(st.integers(1, 6))):
        predictions = []
        for name in names:
            score = draw(st.floats(0, 1))
            boxes = draw(st.lists(Boxes, max_size=3))
            mask = np.any([square(*box) for box in boxes], axis=0) if boxes else None
            phrase = Phrase(name, 0, len(name), score, None if mask is None else cropped(mask), name)
            predictions.append(Prediction(Prompt("segment", name), "axial", index, name, name, (phrase,)))
        if draw(st.booleans()):
            share = draw(st.floats(0, 1))
            shares = ((names[0], share), ("no findings", 1 - share))
            predictions.append(
                Prediction(Prompt("disease", among=tuple(names)), "axial", index, "", "", (), shares=shares)
            )
        given[index] = tuple(predictions)
    return modality, given


@settings(max_examples=150, deadline=None)
@given(answers())
def test_no_report_contradicts_itself(said_of: tuple[str, dict[int, tuple[Prediction, ...]]]) -> None:
    modality, given_answers = said_of
    volume = replace(ct_volume(6), modality=modality, intensity_unit="intensity")
    assert modality in MODALITIES
    asked = list(dict.fromkeys(p.prompt for told in given_answers.values() for p in told if p.prompt.target))
    request = RunRequest(tuple(asked), describe=False)
    model = {"name": "toy", "presence_threshold": 0.5, "presence_thresholds": {}}
    report = finish_answered(volume, request, given_answers, ended="interrupted", model=model, seconds=1.0)

    assert contradictions(report) == {}
    found, absent = {f.target for f in report.findings}, {a.target for a in report.absences if not a.doubt}
    assert not found & {a.target for a in report.absences}
    assert all(a.presence < 0.5 for a in report.absences if not a.doubt)
    told = {section.code: section for section in reports.sections(report)}
    rows = [*told["abnormal"].findings, *told["structures"].findings]
    assert sorted(f.number for f in rows) == [f.number for f in report.findings] == list(range(1, len(rows) + 1))
    assert len(told["impression"].lines) <= 5
    linked = {span.finding for line in told["impression"].lines for span in line if span.finding is not None}
    assert linked <= {f.number for f in told["abnormal"].findings}, "no impression without its row"
    words = " ".join(map(reports.line_text, told["impression"].lines))
    assert not [name for name in absent if f"{name}, " in words.split("Not found")[0] and name in found]
    by_number = {f.number: f for f in report.findings}
    for f in report.findings:
        assert f.within is None or by_number[f.within].target in vocabulary.wholes(f.target)
        if f.within is not None:
            assert f.within < f.number, "a part stands behind its whole"
    again = reports.from_json(reports.to_json(report))
    assert reports.narrative(again) == report.narrative
