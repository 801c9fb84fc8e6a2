"""Where a report contradicts itself: found by its own values alone, whatever is true of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from unibiomed_core import vocabulary
from unibiomed_core.report import finding_text, narrative, told_apart
from unibiomed_core.report.text import MOST_SENTENCES
from unibiomed_core.types import Report

from .report_cases import wholes


def _names(report: Report) -> set[str]:
    return {f.target or f.phrase for f in report.findings}


def _found_and_absent(report: Report) -> Iterator[str]:
    names = _names(report)
    yield from (a.target for a in report.absences if a.target in names)


def _part_of_absent(report: Report) -> Iterator[str]:
    found = {whole for name in _names(report) for whole in wholes(name)} - _names(report)
    yield from (a.target for a in told_apart(report)[0] if a.target in found)


def _absent_but_scored(report: Report) -> Iterator[str]:
    threshold = float({**report.settings, **report.model}.get("presence_threshold", 0.5))
    yield from (a.target for a in told_apart(report)[0] if a.presence >= threshold)


def _row_without_sentence(report: Report) -> Iterator[str]:
    lines = set(report.narrative.split("\n"))
    for finding in report.findings[:MOST_SENTENCES]:
        if f"{finding.number}. {finding_text(finding, report)}" not in lines:
            yield f"{finding.number}. {finding.target}"


def _side(report: Report) -> Iterator[str]:
    for finding in report.findings:
        entry = vocabulary.find(finding.target or finding.phrase, str(report.image["modality"]))
        said, measured = entry.side if entry else None, finding.measurements.side
        if said and measured in ("left", "right") and measured != said:
            yield f"{finding.number}. {finding.target}"


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
            "a target told as not found has a presence at or above its threshold",
            _absent_but_scored,
        ),
        "row_without_sentence": ("a row has no sentence of its own in the text", _row_without_sentence),
        "side": ("a target's name says one side, its measured place is on the other", _side),
        "text_of_other_rows": ("the text, its counts and numbers are not those of the rows", _text_of_other_rows),
    }
)
"""Code -> what it means, and what of a report it is about."""


def contradictions(report: Report) -> dict[str, list[str]]:
    """Code of ``CHECKS`` -> what it is about; only those that there are."""
    found = {code: list(check(report)) for code, (_, check) in CHECKS.items()}
    return {code: about for code, about in found.items() if about}
