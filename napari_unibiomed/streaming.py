"""Rows before the findings are linked: what the slices answered so far say by target, and answers about boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unibiomed.painting import colour_of
from napari_unibiomed.rows import PROVISIONAL, FindingRow, slices_cell
from unibiomed_core import vocabulary
from unibiomed_core.types import Phrase

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Answer, Run


def provisional_rows(run: Run) -> tuple[FindingRow, ...]:
    """One row for each target with a mask so far, in the order met; sizes are known only once masks are linked."""
    volume, plane = run.job.volume, run.job.plane
    areas: dict[str, dict[int, int]] = {}
    scores: dict[str, float] = {}
    # In the order of arrival, as the labels are painted, so that a row has the number of its label.
    for index, predictions in run.predictions.items():
        for phrase in (p for prediction in predictions for p in prediction.phrases):
            if phrase.mask is None or not phrase.mask.count:
                continue
            name = phrase.target or phrase.text
            by_slice = areas.setdefault(name, {})
            by_slice[index] = by_slice.get(index, 0) + phrase.mask.count
            scores[name] = max(scores.get(name, 0.0), phrase.score)
    return tuple(
        FindingRow(
            number=number,
            phrase=name,
            slices=slices_cell(by_slice, volume, plane),
            score=scores[name],
            flags=(PROVISIONAL,),
            colour=colour_of(number),
            plane=plane,
            slice_largest=max(by_slice, key=lambda index: by_slice[index]),
            slice_indices=tuple(sorted(by_slice)),
        )
        for number, (name, by_slice) in enumerate(areas.items(), start=1)
    )


def answer_row(answer: Answer, number: int, run: Run) -> FindingRow:
    """The row of an answer about a box; it has a place but no mask."""
    return FindingRow(
        number=number,
        phrase=answer.text,
        slices=slices_cell([answer.index], run.job.volume, answer.plane),
        score=answer.score,
        colour=colour_of(number),
        plane=answer.plane,
        slice_largest=answer.index,
        slice_indices=(answer.index,),
        answer=answer,
    )


def target_name(phrase: Phrase, modality: str) -> str:
    """The vocabulary's name of what a phrase stands for, else its own words."""
    words = phrase.target or phrase.text
    entry = vocabulary.find(words, modality)
    return entry.name if entry else vocabulary.normalise(words)
