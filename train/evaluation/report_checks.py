"""Where a report contradicts itself: found by its own values alone, whatever is true of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from unibiomed_core import vocabulary
from unibiomed_core.report import Line, line_text, narrative, sections
from unibiomed_core.report.sections import MOST_ROWS
from unibiomed_core.types import Absence, Report

from .report_cases import wholes


def _names(report: Report) -> set[str]:
    return {f.target or f.phrase for f in report.findings}


def _absent(report: Report) -> list[Absence]:
    """What is told as not found; what is doubted is neither found nor absent."""
    return [absence for absence in report.absences if not absence.doubt]


def _found_and_absent(report: Report) -> Iterator[str]:
    names = _names(report)
    yield from (a.target for a in report.absences if a.target in names)


def _part_of_absent(report: Report) -> Iterator[str]:
    found = {whole for name in _names(report) for whole in wholes(name)} - _names(report)
    yield from (a.target for a in _absent(report) if a.target in found)


def _absent_but_scored(report: Report) -> Iterator[str]:
    threshold, own = float(report.model.get("presence_threshold", 0.5)), report.model.get("presence_thresholds", {})
    yield from (a.target for a in _absent(report) if a.presence >= own.get(a.target, threshold))


def _named(lines: Iterable[Line]) -> set[int]:
    """Numbers of the findings that some lines name."""
    return {span.finding for line in lines for span in line if span.finding is not None}


def _row_without_sentence(report: Report) -> Iterator[str]:
    written = set(report.narrative.split("\n"))
    parts = [section for section in sections(report) if section.code in ("abnormal", "structures")]
    for section in parts:
        told = _named(line for line in section.lines if line_text(line) in written)
        yield from (f"{f.number}. {f.target}" for f in section.findings[:MOST_ROWS] if f.number not in told)
    listed = {f.number for section in parts for f in section.findings}
    yield from (f"{f.number}. {f.target}" for f in report.findings if f.number not in listed)


def _sentence_without_row(report: Report) -> Iterator[str]:
    rows = {f.number for f in report.findings}
    for section in sections(report):
        yield from (f"{section.code}: {number}" for number in sorted(_named(section.lines) - rows))


def _side(report: Report) -> Iterator[str]:
    for finding in report.findings:
        entry = vocabulary.find(finding.target or finding.phrase, str(report.image["modality"]))
        said, measured = entry.side if entry else None, finding.measurements.side
        if said and measured in ("left", "right") and measured != said:
            yield f"{finding.number}. {finding.target}"


def _part_without_whole(report: Report) -> Iterator[str]:
    rows = {f.number: f for f in report.findings}
    for f in report.findings:
        if f.within is not None and (f.within not in rows or rows[f.within].target not in wholes(f.target)):
            yield f"{f.number}. {f.target}"


def _text_of_other_rows(report: Report) -> Iterator[str]:
    if replace(report, narrative=narrative(report)) != report:
        yield "narrative"
    if [f.number for f in report.findings] != list(range(1, len(report.findings) + 1)):
        yield "numbers"


CHECKS: Mapping[str, tuple[str, Callable[[Report], Iterator[str]]]] = MappingProxyType(
    {
        "found_and_absent": ("a target is found and listed as absent", _found_and_absent),
        "part_of_absent": ("a part or kind is found of what is told as not found", _part_of_absent),
        "absent_but_scored": (
            "a target told as not found has a presence at or above its threshold", _absent_but_scored
        ),
        "row_without_sentence": ("a row has no sentence of its own in the text", _row_without_sentence),
        "sentence_without_row": ("a sentence names a row that there is not", _sentence_without_row),
        "side": ("a target's name says one side, its measured place is on the other", _side),
        "part_without_whole": ("a row is told as a part of a row that is not its whole", _part_without_whole),
        "text_of_other_rows": ("the text, its counts and numbers are not those of the rows", _text_of_other_rows),
    }
)  # fmt: skip
"""Code -> what it means, and what of a report it is about."""


def contradictions(report: Report) -> dict[str, list[str]]:
    """Code of ``CHECKS`` -> what it is about; only those that there are."""
    found = {code: list(check(report)) for code, (_, check) in CHECKS.items()}
    return {code: about for code, about in found.items() if about}
