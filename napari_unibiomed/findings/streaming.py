"""The rows of a run as far as it is: by target while slices come in, then by finding; and answers about boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_unibiomed.findings.edits import History
from napari_unibiomed.findings.rows import PROVISIONAL, FindingRow, row_of, slices_cell
from unibiomed_core import vocabulary
from unibiomed_core.report import colour
from unibiomed_core.types import Phrase, Region

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run, RunAnswer


def provisional_rows(run: Run) -> tuple[FindingRow, ...]:
    """One row for each target with a mask so far, in the order met; sizes are known only once masks are linked."""
    volume, plane = run.job.volume, run.job.request.plane
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
            slices=slices_cell(by_slice, volume),
            score=scores[name],
            flags=(PROVISIONAL,),
            colour=colour(number),
            plane=plane,
            slice_largest=max(by_slice, key=lambda index: by_slice[index]),
            slice_indices=tuple(sorted(by_slice)),
            modality=volume.modality,
        )
        for number, (name, by_slice) in enumerate(areas.items(), start=1)
    )


def box_rows(run: Run, first: int) -> Iterator[FindingRow]:
    """One row for each box that was asked about, numbered from ``first``; it has a place but no mask."""
    by_box: dict[Region | None, list[RunAnswer]] = {}
    for answer in run.answers:
        by_box.setdefault(answer.region, []).append(answer)
    for number, answers in enumerate(by_box.values(), start=first):
        named = answers[0]
        yield FindingRow(
            number=number,
            phrase=named.text,
            slices=slices_cell([named.index], run.job.volume),
            score=named.score,
            colour=colour(number),
            plane=named.plane,
            slice_largest=named.index,
            slice_indices=(named.index,),
            answers=tuple(answers),
        )


@dataclass(slots=True)
class RunRows:
    """Rows and edits of one run, kept while another run is shown.

    Args:
        finished: The rows are the run's last word, and not what was gathered on the way.
    """

    rows: dict[int, FindingRow] = field(default_factory=dict)
    history: History = field(default_factory=History)
    finished: bool = False


def collect(run: Run) -> RunRows:
    """The rows of a run as far as it is."""
    found = run.report.findings if run.report is not None else tuple(run.findings)
    rows = [row_of(finding, run.job.volume) for finding in found]
    if run.job.kind == "roi":
        rows += box_rows(run, max((row.number for row in rows), default=0) + 1)
    elif not rows and run.report is None:
        rows = list(provisional_rows(run))
    ended = run.report is not None or (run.job.kind in ("ask", "roi") and bool(run.answers))
    return RunRows({row.number: row for row in rows}, finished=ended)


def target_name(phrase: Phrase, modality: str) -> str:
    """The vocabulary's name of what a phrase stands for, else its own words."""
    words = phrase.target or phrase.text
    entry = vocabulary.find(words, modality)
    return entry.name if entry else vocabulary.normalise(words)
