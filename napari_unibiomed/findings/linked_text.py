"""The text of a run as lines of spans, each linked to the finding whose name it is. No widget, no HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.findings.rows import FindingRow
from napari_unibiomed.findings.streaming import target_name
from unibiomed_core import vocabulary
from unibiomed_core.modalities import with_labels
from unibiomed_core.report import caution_text, line_text, number_text, ranges_text, sections
from unibiomed_core.types import CroppedMask, Phrase, Plane, Prediction, Report, Volume

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run

NO_REGION = "no region"

Kind = Literal["text", "title", "note"]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line.

    Args:
        number: The finding it names, None for plain text.
        kind: "title" opens a part of the text; a "note" is ours and not the model's.
        fold: Code of a part that its title opens and closes; of the title and of all that stands below it.
    """

    text: str
    number: int | None = None
    kind: Kind = "text"
    fold: str = ""


Line = tuple[Span, ...]


def report_lines(run: Run, report: Report | None, rows: Sequence[FindingRow]) -> list[Line]:
    """What a run says, line by line.

    Args:
        report: The report with the user's edits; None where the run has none.
        rows: The rows of the run.
    """
    lines = [_header(run, report)]
    if run.job.kind == "roi":
        lines += [_box_line(row, run.job.volume) for row in rows if row.answers]
    elif run.job.kind == "ask" and run.predictions:
        for _, predictions in sorted(run.predictions.items()):
            lines += [line for prediction in predictions for line in answer_lines(prediction, rows, run.job.volume)]
    elif report is not None:
        lines += _report_lines(report, rows, run.job.volume)
    return lines


def answer_lines(prediction: Prediction, rows: Sequence[FindingRow], volume: Volume) -> list[Line]:
    """An answer with its phrases linked to findings.

    The engine pairs the n-th region of an answer with the n-th phrase that asks for one; here that region is looked up
    among the findings. A phrase without a region says so, and regions that no phrase claims are counted.
    """
    spans: list[Span] = []
    end = 0
    text = with_labels(prediction.text)
    if not volume.is_2d:
        plane = prediction.plane.capitalize()
        spans.append(Span(f"{plane} slice {prediction.index}: ", kind="note"))
    for phrase in sorted(prediction.phrases, key=lambda p: (p.start, p.end)):
        if phrase.start < end:
            continue  # it lies inside the phrase before it, whose words show it already
        spans.append(Span(text[end : phrase.start]))
        number = finding_of(phrase, prediction, rows, volume)
        spans.append(Span(text[phrase.start : phrase.end], number))
        if number is None:
            spans.append(Span(f" ({NO_REGION})", kind="note"))
        end = phrase.end
    spans.append(Span(text[end:]))
    lines = [tuple(span for span in spans if span.text)]
    surplus = prediction.raw_text.count("[SEG]") - sum(phrase.mask is not None for phrase in prediction.phrases)
    if surplus > 0:
        words = "1 region mark of the answer gave" if surplus == 1 else f"{surplus} region marks of the answer gave"
        lines.append((Span(f"{words} no mask.", kind="note"),))
    if prediction.likelihood is not None:
        lines[0] += (Span(f" (score {prediction.likelihood:.2f})", kind="note"),)
    if prediction.caution is not None:
        lines.append((Span(caution_text(prediction.caution), kind="note"),))
    if prediction.truncated:
        lines.append((Span("Answer truncated: the length limit was reached.", kind="note"),))
    return lines


def finding_of(phrase: Phrase, prediction: Prediction, rows: Sequence[FindingRow], volume: Volume) -> int | None:
    """The finding that took up the region of a phrase: of its target, with the largest overlap on the slice."""
    if phrase.mask is None:
        return None
    name = target_name(phrase, volume.modality)
    best: tuple[int, int] | None = None
    for row in rows:
        if row.finding is None or row.finding.target != name:
            continue
        shared = _shared(row.finding.mask, phrase.mask, volume.plane_axis(prediction.plane), prediction.index)
        if shared and (best is None or shared > best[0]):
            best = shared, row.number
    return best[1] if best else None


def _shared(mask: CroppedMask, flat: CroppedMask, axis: int, index: int) -> int:
    """Pixels that a 3D mask and a 2D one have in common on a slice."""
    inside = index - mask.offset[axis]
    if not 0 <= inside < mask.crop.shape[axis] or not flat.count:
        return 0
    section: NDArray[np.bool_] = np.take(mask.crop, inside, axis=axis)
    offset = [o for i, o in enumerate(mask.offset) if i != axis]
    low = [max(a, b) for a, b in zip(offset, flat.offset, strict=True)]
    high = [min(a + n, b + m) for a, n, b, m in zip(offset, section.shape, flat.offset, flat.crop.shape, strict=True)]
    ours = section[tuple(slice(a - o, max(a, b) - o) for a, b, o in zip(low, high, offset, strict=True))]
    theirs = flat.crop[tuple(slice(a - o, max(a, b) - o) for a, b, o in zip(low, high, flat.offset, strict=True))]
    return int((ours & theirs).sum())


def _header(run: Run, report: Report | None) -> Line:
    """Image, model, window and plane in one line."""
    parts = [run.job.volume.name]
    model = run.model if report is None else report.model
    if model.get("name"):
        parts.append(f"model {model['name']}")
    if report is not None:
        window = report.image.get("window")
        if window:
            low, high = number_text(window["low"]), number_text(window["high"])
            parts.append(f"{window['name']} {low} to {high} {report.image.get('window_unit', '')}".rstrip())
    if not run.job.volume.is_2d and run.job.kind != "roi":
        parts.append(run.job.request.plane)
    return (Span(" · ".join(parts), kind="title"),)


def _box_line(row: FindingRow, volume: Volume) -> Line:
    where = "" if volume.is_2d else f" on {row.plane} slice {row.slices}"
    named, *more = row.answers
    score = "" if row.score is None else f"score {row.score:.2f}, "
    seconds = number_text(sum(answer.seconds for answer in row.answers))
    told = Span("".join(f" \u00b7 {answer.text}" for answer in more))
    spans = (Span(f"Box {row.number}{where}: ", kind="note"), Span(named.text, row.number), told)
    return (*(span for span in spans if span.text), Span(f" ({score}{seconds} s)", kind="note"))


def _report_lines(report: Report, rows: Sequence[FindingRow], volume: Volume) -> Iterator[Line]:
    """The sections of the report; the names of findings and what the model's sentences name are links.

    The model's own words are evidence and no statement, so they are folded.
    """
    for section in sections(report):
        if not section.lines:
            continue
        fold = section.code if section.code == "words" else ""
        yield (Span(section.title, kind="title", fold=fold),)
        for line in section.lines:
            if section.code == "words":
                index = next((span.index for span in line if span.index is not None), 0)
                quoted = _quote_line(line_text(line), index, rows, volume)
                yield tuple(replace(span, fold=fold) for span in quoted)
            else:
                yield tuple(Span(span.text, span.finding) for span in line)
        if section.code == "shown":
            yield from _free_slices(report, volume)
    yield (Span(report.notice),)


def _free_slices(report: Report, volume: Volume) -> Iterator[Line]:
    """Which of the slices examined carry no finding."""
    plane: Plane = report.image["plane"]
    free = set(report.slices_done) - {index for f in report.findings for index in f.slices}
    if report.findings and free and not volume.is_2d:
        yield (Span(f"Examined and without a finding: {plane} slices {ranges_text(free)}.", kind="note"),)


def _quote_line(text: str, index: int, rows: Sequence[FindingRow], volume: Volume) -> Line:
    """A sentence of the model about one slice; names of findings on that slice are links, other targets say so."""
    names = _names_on_slice(index, rows, volume)
    targets = vocabulary.for_modality(volume.modality)
    others = (name.casefold() for target in targets for name in (target.name, *target.synonyms))
    elsewhere = (name for row in rows for name in _names(row, volume))
    # Names without a finding here come in too, so that the "liver" in "liver tumour" is not taken for the liver.
    wanted: Mapping[str, int | None] = {**dict.fromkeys([*others, *elsewhere]), **names}
    words = "|".join(re.escape(name) for name in sorted(wanted, key=len, reverse=True) if name)
    if not words:
        return (Span(text),)
    spans: list[Span] = []
    end = 0
    for match in re.finditer(rf"(?i)(?<!\w)({words})(?!\w)", text):
        number = wanted[match[1].casefold()]
        spans += [Span(text[end : match.start()]), Span(match[1], number)]
        if number is None:
            spans.append(Span(f" ({NO_REGION})", kind="note"))
        end = match.end()
    spans.append(Span(text[end:]))
    return tuple(span for span in spans if span.text)


def _names_on_slice(index: int, rows: Sequence[FindingRow], volume: Volume) -> dict[str, int]:
    """Names of the findings that a slice shows; the largest finding of a name stands for it."""
    there = [row for row in rows if row.finding is not None and index in row.slice_indices and not row.rejected]
    there.sort(key=lambda row: row.voxel_count or 0)
    return {name: row.number for row in there for name in _names(row, volume)}


def _names(row: FindingRow, volume: Volume) -> set[str]:
    """All names of a finding, in lower case."""
    if row.finding is None:
        return set()
    entry = vocabulary.find(row.finding.target, volume.modality)
    synonyms = (entry.name, *entry.synonyms) if entry else ()
    return {name.casefold() for name in (row.phrase, row.finding.target, row.finding.phrase, *synonyms)}
