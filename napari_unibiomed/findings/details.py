"""What the detail card says about one row: measurements, the raw answer, how it was asked; and its key slices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.findings.export import window_of
from napari_unibiomed.findings.rows import COLUMNS, DASH, Column, FindingRow, cell_text, told_as
from napari_unibiomed.jobs import moment_text
from unibiomed_core.report import FLAG_WORDS, evidence_text, number_text, tally_text

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run

_END_MARK = re.compile(r"(\s*<\|\w+\|>)+\s*$")
"""Of any model family: <|end|>, <|im_end|>."""

THUMBNAIL_PX = (96, 192)
"""Smallest and largest long side of a thumbnail."""

Fact = tuple[str, str]


def facts_of(run: Run, row: FindingRow) -> list[Fact]:
    """Name and value of all that is known about a row and how it came about; what is unknown is left out."""
    facts = [(column.value, cell_text(row, column)) for column in COLUMNS[2:] if column is not Column.FLAGS]
    facts = [(name, text) for name, text in facts if text not in ("", DASH)]
    own = [FLAG_WORDS.get(flag, flag) for flag in row.flags]
    facts += [("Note", "; ".join((*own, *(word for word in row.all_flags[len(row.flags) :]))))] if row.all_flags else []
    facts += _finding_facts(row)
    if raw := raw_answer(run, row):
        facts.append(("Raw answer", raw))
    return [*facts, *_run_facts(run)]


def _finding_facts(row: FindingRow) -> list[Fact]:
    """What the report tells of a finding beside its measurements."""
    if row.finding is None:
        return []
    told = told_as(row, row.finding)
    facts = []
    if told.tally is not None:
        facts.append(("Counted", tally_text(told.tally)))
    if told.within is not None:
        facts.append(("Part of", f"No. {told.within}"))
    if told.evidence is not None:
        checks = told.evidence.checks
        count = f"{told.evidence.agreeing} of {len(checks)} checks agree" if len(checks) > 1 else ""
        words = "; ".join(words for words in (count, evidence_text(told.evidence)) if words)
        facts.append(("Evidence", words))
    if told.description:
        facts.append(("The model on this region", f"\u201c{told.description}\u201d"))
    if told.phrase != row.phrase:
        facts.append(("Model's words", told.phrase))
    return facts


def _run_facts(run: Run) -> list[Fact]:
    asked = [prompt.target or prompt.question or prompt.task for prompt in run.job.request.prompts]
    facts = [("Task", run.job.name)]
    if run.began is not None:
        facts.append(("Begun", moment_text(run.began)))
    if asked:
        facts.append(("Asked", ", ".join(dict.fromkeys(asked))))
    if not run.volume.is_rgb:
        window = window_of(run)
        facts.append(("Window", f"{window.name}, {number_text(window.low)} to {number_text(window.high)}"))
    model = run.report.model if run.report is not None else run.model
    placed = ", ".join(str(model[key]) for key in ("name", "device", "dtype") if model.get(key))
    if placed:
        facts.append(("Model", placed))
    facts.append(("Run time", f"{number_text(run.seconds)} s"))
    return facts


def raw_answer(run: Run, row: FindingRow) -> str:
    """The model's answer as generated, its marks of phrases and regions kept and the end mark left out.

    It is the answer on the slice with the largest area; empty if unknown.
    """
    if row.answers:
        return "\n".join(_without_end(answer.raw) for answer in row.answers)
    target = row.finding.target if row.finding is not None else row.phrase
    there = run.predictions.get(row.slice_largest, ()) if row.slice_largest is not None else ()
    raw = [
        _without_end(p.raw_text) for p in there if any(target in (phrase.target, phrase.text) for phrase in p.phrases)
    ]
    return "\n".join(dict.fromkeys(raw))


def _without_end(raw: str) -> str:
    return _END_MARK.sub("", raw)


def key_slices(run: Run, row: FindingRow) -> list[tuple[int, str]]:
    """(canonical index, words) of the first, the largest and the last slice of a row, each once."""
    if not row.slice_indices or row.slice_largest is None:
        return []
    places: dict[int, list[str]] = {}
    order = row.slice_indices
    for word, index in zip(("first", "largest", "last"), (order[0], row.slice_largest, order[-1]), strict=True):
        places.setdefault(index, []).append(word)
    if len(places) == 1:
        return [(row.slice_largest, "only slice")]
    return [(index, ", ".join(words)) for index, words in places.items()]


def slice_beside(row: FindingRow, index: int, step: int) -> int | None:
    """The slice of a row that comes next (1) or before (-1); gaps are skipped."""
    if step > 0:
        return next((i for i in row.slice_indices if i > index), None)
    return next((i for i in reversed(row.slice_indices) if i < index), None)


def caption_of(run: Run, index: int, words: str) -> str:
    """What stands below a thumbnail."""
    return "" if run.volume.is_2d else f"{index} {words}"


def thumbnail(
    run: Run,
    row: FindingRow,
    index: int,
    others: Sequence[FindingRow] = (),
    long_side_px: tuple[int, int] = THUMBNAIL_PX,
) -> NDArray[np.uint8]:
    """One slice in the window that the model was given, with the outline of a finding or its box; (h, w, 3) uint8.

    Args:
        others: Rows whose outlines are drawn thinner.
    """
    from unibiomed_core.io.export import pictures

    axis = run.volume.plane_axis(row.plane)
    outlines: list[pictures.Outline] = [
        (pictures.slice_mask(other.finding.mask, axis, index), other.colour, other.number == row.number)
        for other in (*others, row)
        if other.finding is not None
    ]
    if row.answer is not None and (box := row.answer.region) is not None:
        drawn = np.zeros(run.volume.slice(index, row.plane).shape, bool)
        drawn[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = True
        outlines.append((drawn, row.colour, True))
    window = None if run.volume.is_rgb else window_of(run)
    return pictures.draw(run.volume.slice(index, row.plane), window, outlines, long_side_px=long_side_px)


def place_text(run: Run, row: FindingRow, index: int | None, slider: int | None = None) -> str:
    """Where the slice shown stands among those of a row: "axial slice 7 · 3 of 4", or that it is not among them.

    Args:
        slider: What the viewer's slider shows for the slice; told where another layer gives it other steps.
    """
    if index is None or run.volume.is_2d:
        return ""
    told = f"{row.plane} slice {index}" + ("" if slider in (None, index) else f" (slider {slider})")
    if index not in row.slice_indices:
        return f"{told} · not here"
    return f"{told} · {row.slice_indices.index(index) + 1} of {len(row.slice_indices)}"
