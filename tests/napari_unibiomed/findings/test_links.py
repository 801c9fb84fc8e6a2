"""Text of a run: which words lead to which finding, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_unibiomed.autosave.run_files import read_slices, write_slice
from napari_unibiomed.findings.export import edited_report
from napari_unibiomed.findings.linked_text import NO_REGION, Line, answer_lines, report_lines
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.jobs import RunAnswer
from tests.hand_volumes import cropped
from tests.napari_unibiomed.hand_runs import a_report, a_run, an_answer, masks, small_volume
from unibiomed_core.types import Caution, Phrase, Prediction, Prompt, Region


def lines_of(run: Any, model: FindingsModel | None = None) -> list[Line]:
    rows = (model or FindingsModel()).rows_of(run)
    return report_lines(run, edited_report(run, rows) if run.report else None, rows)


def text_of(line: Line) -> str:
    return "".join(span.text for span in line)


def links_of(lines: list[Line]) -> list[tuple[str, int]]:
    return [(span.text, span.number) for line in lines for span in line if span.number is not None]


def test_names_of_findings_are_links_and_no_word_is_lost() -> None:
    run = a_run()
    lines = lines_of(run)
    texts = [text_of(line) for line in lines]
    first, *rest = run.report.narrative.split("\n")
    assert first == "CT volume 'phantom'.", "the title of the text tells more"
    for told in filter(None, rest):
        assert any(told == text.replace(f" ({NO_REGION})", "") for text in texts), told
    assert ("Liver", 1) in links_of(lines)
    assert ("Liver tumour", 2) in links_of(lines)
    assert texts[0] == "phantom · model mini · soft tissue −160 to 240 HU · axial"
    assert "Examined and without a finding: axial slices 1–2, 5, 8–10." in texts


def test_a_quoted_sentence_links_to_the_finding_on_its_slice() -> None:
    quote = next(line for line in lines_of(a_run()) if "pancreas" in text_of(line))
    assert [(span.text, span.number) for span in quote if span.number] == [("Liver tumour", 2)]
    assert text_of(quote).endswith(f"pancreas ({NO_REGION}).”")
    elsewhere = a_run(report=a_report(small_volume(), sentences=[(3, "Liver tumour.")]))
    quote = next(line for line in lines_of(elsewhere) if "“" in text_of(line))
    assert links_of([quote]) == []
    assert f"Liver tumour ({NO_REGION})" in text_of(quote)


def test_rejected_findings_leave_the_text_and_new_names_stand_in_it() -> None:
    run, model = a_run(), FindingsModel()
    model.set_run(run)
    model.reject(1)
    model.rename(2, "metastasis")
    lines = lines_of(run, model)
    assert ("Metastasis", 2) in links_of(lines)
    assert not [number for _, number in links_of(lines) if number == 1]
    assert any("rejected and left out" in text_of(line) for line in lines)


def prediction(volume: Any, *phrases: Phrase, text: str, raw: str, truncated: bool = False) -> Prediction:
    return Prediction(Prompt("vqa"), "axial", 6, text, raw, phrases, truncated)


def test_phrases_of_an_answer_lead_to_the_finding_that_took_their_region() -> None:
    volume = small_volume()
    large, small = (cropped(mask[6]) for mask in masks(volume))
    text = "A liver with a liver tumour, and a cyst."
    answer = prediction(
        volume,
        Phrase("liver", 2, 7, 0.9, large, "liver"),
        Phrase("liver tumour", 15, 27, 0.9, small, "liver tumour"),
        Phrase("cyst", 35, 39, 0.1, None, "cyst"),
        text=text,
        raw="<p> liver </p> [SEG] <p> tumour </p> [SEG] <p> cyst </p>",
    )
    rows = FindingsModel().rows_of(a_run(volume))
    (line,) = answer_lines(answer, rows, volume)
    assert text_of(line) == f"Axial slice 6: A liver with a liver tumour, and a cyst ({NO_REGION})."
    assert links_of([line]) == [("liver", 1), ("liver tumour", 2)]
    run = a_run(volume, kind="ask")
    run.predictions[6] = (answer,)
    assert text_of(report_lines(run, run.report, rows)[1]) == text_of(line)


def test_a_region_that_became_no_finding_is_no_link() -> None:
    volume = small_volume()
    apart = masks(volume)[1][6]
    apart[:], apart[0:3, 0:3] = False, True
    answer = prediction(volume, Phrase("liver", 0, 5, 0.9, cropped(apart), "liver"), text="liver", raw="liver [SEG]")
    (line,) = answer_lines(answer, FindingsModel().rows_of(a_run(volume)), volume)
    assert links_of([line]) == []
    assert NO_REGION in text_of(line)


def test_surplus_regions_and_cut_answers_are_said() -> None:
    volume = small_volume()
    answer = prediction(volume, text="A liver", raw="A liver [SEG] [SEG]", truncated=True)
    texts = [text_of(line) for line in answer_lines(answer, (), volume)]
    assert texts[1:] == [
        "2 region marks of the answer gave no mask.",
        "Answer truncated: the length limit was reached.",
    ]
    one = replace(answer, raw_text="A liver [SEG]", truncated=False)
    assert text_of(answer_lines(one, (), volume)[-1]) == "1 region mark of the answer gave no mask."


def test_answers_about_boxes_are_listed_with_their_place() -> None:
    run = a_run(report=None, kind="roi")
    box = Region(1, 2, 20, 22, "axial", 4)
    run.answers += [an_answer("cyst", box), an_answer("a dark round thing", box)]
    line = lines_of(run)[1]
    assert text_of(line) == "Box 1 on axial slice 4: cyst · a dark round thing (score 0.80, 2.50 s)"
    assert links_of([line]) == [("cyst", 1)]


def test_an_answer_outside_what_the_model_learnt_says_so_with_its_score() -> None:
    """ux 7."""
    volume = a_run().volume
    caution = Caution("subject_not_learnt", ("fracture",))
    given = Prediction(
        Prompt("vqa", question="Is there a fracture?"), "axial", 6, "no", "no", (), likelihood=0.614, caution=caution
    )
    first, second = answer_lines(given, (), volume)
    assert text_of(first) == "Axial slice 6: no (score 0.61)"
    assert text_of(second).startswith("“fracture” is not among the targets")
    pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    from napari_unibiomed.widgets.running import answer_words

    assert answer_words([RunAnswer.of(given)]).startswith("no (score 0.61). “fracture” is not among")


def test_score_and_caution_of_an_answer_are_kept_beside_it(tmp_path: Path) -> None:
    caution = Caution("subject_not_learnt", ("fracture",))
    given = Prediction(Prompt("vqa", question="?"), "axial", 6, "no", "no", (), likelihood=0.614, caution=caution)
    write_slice(tmp_path, 0, (given,))
    (back,) = read_slices(tmp_path)[0][6]
    assert (back.likelihood, back.caution) == (0.614, caution)
