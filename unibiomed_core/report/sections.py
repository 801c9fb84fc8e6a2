"""The parts that a report is told in, each as lines of spans, so that every face shows the same.

A span knows the finding or slice that it is about; text alone is made of them only where it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from unibiomed_core import modalities, vocabulary
from unibiomed_core.phrases import spellings
from unibiomed_core.report.text import (
    MOST_RANGES,
    capitalised,
    count_text,
    counting_text,
    edit_text,
    ending_text,
    evidence_text,
    flags_text,
    likely_text,
    number_text,
    ordinal,
    presence_text,
    ranges_text,
    size_text,
    slices_text,
)
from unibiomed_core.types import Absence, Doubt, Finding, Report

SectionCode = Literal["impression", "abnormal", "structures", "not_found", "shown", "limits", "words"]

TITLES: dict[SectionCode, str] = {
    "impression": "Impression",
    "abnormal": "Abnormal",
    "structures": "Structures measured",
    "not_found": "Looked for and not found",
    "shown": "What was shown and how it was read",
    "limits": "Limits",
    "words": "The model's own words, unedited",
}

DOUBTS: dict[Doubt, str] = {
    "no_outline": "Seen but not outlined, so neither found nor absent",
    "not_confirmed": "Outlined but not confirmed by the other checks, so neither found nor absent",
}

MOST_SENTENCES = 5
"""An impression is read at a glance."""

MOST_ROWS = 40
"""Rows of a section that are told in text; the list has all of them."""

SURE_MODALITY = 0.9
SURE_PART = 0.8
"""What has a smaller share than this is told as uncertain."""


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A piece of a line.

    Args:
        finding: Number of the finding that it names; None for plain text.
        index: Canonical index of the slice that it is about; None where it is about none.
        quoted: Whether these are the model's words and not ours.
    """

    text: str
    finding: int | None = None
    index: int | None = None
    quoted: bool = False


Line = tuple[TextSpan, ...]


@dataclass(frozen=True, slots=True)
class ReportSection:
    """One part of a report.

    Args:
        lines: In order; a line that tells a row of ``findings`` begins with its number.
        findings: The rows of the section, parts after their wholes.
        absences: What was looked for, in the section on that.
    """

    code: SectionCode
    title: str
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...] = ()
    absences: tuple[Absence, ...] = ()


def is_abnormal(target: str, modality: str) -> bool:
    """Whether a target is no anatomy: a lesion, or a tube or line."""
    return vocabulary.kind_of(target, modality) != "anatomy"


def sections(report: Report) -> tuple[ReportSection, ...]:
    """All parts of a report in their order; the model's own words only where there are some."""
    name = str(report.image["modality"])
    abnormal = nested([f for f in report.findings if is_abnormal(f.target or f.phrase, name)])
    structures = nested([f for f in report.findings if not is_abnormal(f.target or f.phrase, name)])
    parts = [
        ReportSection("impression", TITLES["impression"], tuple(_impression(report, abnormal))),
        ReportSection("abnormal", TITLES["abnormal"], tuple(_rows(report, abnormal)), abnormal),
        ReportSection("structures", TITLES["structures"], tuple(_rows(report, structures)), structures),
        ReportSection("not_found", TITLES["not_found"], tuple(_not_found(report)), absences=report.absences),
        ReportSection("shown", TITLES["shown"], tuple(_shown(report))),
        ReportSection("limits", TITLES["limits"], tuple(_limits(report))),
    ]
    if report.sentences:
        parts.append(ReportSection("words", TITLES["words"], tuple(_words(report))))
    return tuple(parts)


def narrative(report: Report) -> str:
    """Plain English text of a report, from its numbers alone; call it again after findings were changed."""
    what = capitalised(modalities.modality(report.image["modality"]).label)
    flat = bool(report.image["is_2d"])
    lines = [f"{what} {'picture' if flat else 'volume'} '{report.image['name']}'."]
    for section in sections(report):
        if section.lines:
            lines += ["", section.title, *map(line_text, section.lines)]
    return "\n".join([*lines, "", report.notice])


def line_text(line: Line) -> str:
    """The words of a line."""
    return "".join(span.text for span in line)


def nested(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings in their order, the parts of each behind it."""
    numbers = {f.number for f in findings}
    below: dict[int | None, list[Finding]] = {}
    for f in findings:
        below.setdefault(f.within if f.within in numbers else None, []).append(f)
    ordered: list[Finding] = []

    def take(whole: int | None) -> None:
        for f in below.get(whole, []):
            ordered.append(f)
            take(f.number)

    take(None)
    return tuple(ordered)


def depth(finding: Finding, findings: Sequence[Finding]) -> int:
    """How many wholes among ``findings`` a finding lies within."""
    by_number = {f.number: f for f in findings}
    steps = 0
    while finding.within in by_number and steps < len(by_number):
        finding = by_number[finding.within]
        steps += 1
    return steps


def _impression(report: Report, abnormal: Sequence[Finding]) -> list[Line]:
    """At most ``MOST_SENTENCES`` sentences, from rows and absences alone."""
    lines: list[Line] = []
    if not report.complete:
        lines.append((TextSpan(f"{ending_text(report)}; what follows covers those only."),))
    missing = [a for a in report.absences if is_abnormal(a.target, report.image["modality"])]
    searched = [a.target for a in missing if not a.doubt]
    closing: list[Line] = []
    if doubted := [a.target for a in missing if a.doubt]:
        closing.append((TextSpan(f"Neither found nor absent, as the checks do not agree: {_listed(doubted)}."),))
    if abnormal:
        if searched:
            closing.append((TextSpan(f"Not found: {_listed(searched)}."),))
    elif searched:
        nothing = "Nothing abnormal was found among what was searched"
        closing.append((TextSpan(f"{nothing}: {_listed(searched)}."),))
        closing.append((TextSpan("This does not say that the image is normal."),))
    elif not doubted:
        closing.append((TextSpan("Nothing abnormal was searched for; this does not say that the image is normal."),))

    groups: dict[tuple[bool, str], list[Finding]] = {}
    for f in abnormal:
        groups.setdefault(("unsure" in f.flags, f.target or f.phrase), []).append(f)
    told = sorted(groups.items(), key=lambda item: (item[0][0], -max(f.presence for f in item[1])))
    room = MOST_SENTENCES - len(lines) - len(closing)
    shown = told if len(told) <= room else told[: room - 1]
    lines += [_group_line(name, group, unsure, report) for (unsure, name), group in shown]
    if rest := [f for _, group in told[len(shown) :] for f in group]:
        names = dict.fromkeys(f.target or f.phrase for f in rest)
        lines.append((TextSpan(f"Further rows below: {', '.join(names)}."),))
    return lines + closing


def _group_line(name: str, group: Sequence[Finding], unsure: bool, report: Report) -> Line:
    """All rows of one abnormal target in one sentence."""
    lead = (TextSpan("Unsure: "),) if unsure else ()
    word = name if unsure else capitalised(name)
    if len(group) == 1:
        one = group[0]
        return (
            *lead,
            TextSpan(word, one.number),
            TextSpan(f", {size_text(one, report)}, {presence_text(one)}{_checks(one)}."),
        )
    numbers = [TextSpan(str(f.number), f.number) for f in group[:MOST_RANGES]]
    joined = [numbers[0], *(span for number in numbers[1:] for span in (TextSpan(", "), number))]
    volumes = [f.measurements.volume_ml for f in group]
    total = sum(v for v in volumes if v is not None)
    size = f", {number_text(total)} mL in all" if volumes and None not in volumes else ""
    highest = max(f.presence for f in group)
    more = f" and {len(group) - MOST_RANGES} more" if len(group) > MOST_RANGES else ""
    return (
        *lead,
        TextSpan(f"{word}: {count_text(len(group), 'row')} ("),
        *joined,
        TextSpan(f"{more}){size}, presence up to {highest:.2f}."),
    )


def _checks(finding: Finding) -> str:
    evidence = finding.evidence
    if evidence is None or len(evidence.checks) < 2:
        return ""
    return f", {evidence.agreeing} of {len(evidence.checks)} checks agree"


def _listed(names: Sequence[str], most: int = 8) -> str:
    """Names with commas; many are cut short, as the section on them has all."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def _rows(report: Report, findings: Sequence[Finding]) -> Iterator[Line]:
    """One line a finding, with a second one for its description."""
    for f in findings[:MOST_ROWS]:
        name = f.target or f.phrase
        parts = [size_text(f, report), presence_text(f), *([evidence_text(f.evidence)] if f.evidence else [])]
        indent = "   " * depth(f, findings)
        flags = flags_text(f)
        tail = f"; {flags}." if flags else "."
        yield (
            TextSpan(f"{indent}{f.number}. "),
            TextSpan(capitalised(name), f.number),
            TextSpan(f": {', '.join(parts)}{tail}"),
        )
        if f.description:
            said = TextSpan(f"\u201c{f.description}\u201d", quoted=True)
            yield TextSpan(f"{indent}   The model on this region: "), said, *_marked(f.description, report)
    if len(findings) > MOST_ROWS:
        yield (TextSpan(f"{count_text(len(findings) - MOST_ROWS, 'further row')} in the list only."),)


def _not_found(report: Report) -> Iterator[Line]:
    """Findings before anatomy; what was seen without an outline is neither."""
    name = str(report.image["modality"])
    missing = [a for a in report.absences if not a.doubt]
    for title, wanted in (("Abnormal", True), ("Structures", False)):
        group = [a for a in missing if is_abnormal(a.target, name) is wanted]
        if group:
            listed = ", ".join(f"{a.target} (presence {a.presence:.2f})" for a in group)
            searched = max(a.slices_searched for a in group)
            where = "" if report.image["is_2d"] else f"; searched on up to {count_text(searched, 'slice')}"
            yield (TextSpan(f"{title}: {listed}{where}."),)
    for doubt, words in DOUBTS.items():
        if group := [a for a in report.absences if a.doubt == doubt]:
            listed = ", ".join(f"{a.target} (presence {a.presence:.2f})" for a in group)
            yield (TextSpan(f"{words}: {listed}."),)


_TOLD_BY = {"header": "as the file says", "user": "as the user says", "model": "as the model sees it"}


def _shown(report: Report) -> Iterator[Line]:
    """Modality, part of the body, slices, window and model."""
    image, shown = report.image, report.shown
    flat, plane = bool(image["is_2d"]), str(image["plane"])
    label = modalities.modality(image["modality"]).label
    if shown is not None:
        told = _TOLD_BY[shown.modality_by]
        shares = likely_text([(modalities.modality(n).label, s) for n, s in shown.modality_shares])
        if shown.modality_by == "model":
            sure = "" if shown.modality_shares[0][1] >= SURE_MODALITY else "not certain, "
            yield (TextSpan(f"Modality: {sure}{label if sure else capitalised(label)}, {told} ({shares})."),)
        else:
            yield (TextSpan(f"Modality: {capitalised(label)}, {told}."),)
        yield from _bands(report)
    if not flat:
        done, total = len(report.slices_done), report.slices_total
        acquired = image.get("acquisition_plane")
        same = ", the plane of the acquisition," if acquired == plane else f" (the acquisition is {acquired})"
        where = f"{plane} slices{same if acquired else ''}"
        yield (TextSpan(f"{done} of {total} {where} were examined; {counting_text(report)}."),)
        yield from ((TextSpan(line),) for line in _plan(report))
    window = image.get("window")
    if window:
        unit = str(image.get("window_unit", ""))
        low, high = number_text(window["low"]), number_text(window["high"])
        yield (TextSpan(f"Window: {window['name']}, {low} to {high} {unit}".rstrip() + "."),)
    if report.model.get("name"):
        yield (TextSpan(f"Model: {report.model['name']}."),)


def _bands(report: Report) -> Iterator[Line]:
    """Which parts of the body are shown, and how surely."""
    shown, plane = report.shown, report.image["plane"]
    assert shown is not None
    bands = [band for band in shown.bands if band.parts]
    if not bands:
        return
    if len(bands) == 1:
        band = bands[0]
        if band.parts[0][1] >= SURE_PART:
            yield (TextSpan(f"Part of the body: {likely_text(band.parts[:1])}, as the model sees it."),)
        else:
            likely = likely_text(band.parts[:3])
            yield (TextSpan(f"Part of the body: not certain, {likely}; what belongs to a likely part was searched."),)
        return
    told = [
        f"{ranges_text(range(band.slice_first, band.slice_last + 1))} {likely_text(band.parts[:1])}" for band in bands
    ]
    yield (TextSpan(f"Parts of the body along the {plane} slices, as the model sees them: {'; '.join(told)}."),)


def _plan(report: Report) -> list[str]:
    """How the slices were chosen, where it was not simply all of them."""
    name, step = report.settings.get("plan", "all"), report.settings.get("every", 1)
    if report.settings.get("indices") is not None:
        return ["The slices were named one by one."]
    if step > 1 and name == "all":
        return [f"Plan: every {ordinal(step)} slice."]
    if step > 1:
        return [f"Plan: {name}, with a first pass over every {ordinal(step)} slice."]
    return [] if name == "all" else [f"Plan: {name}."]


def _limits(report: Report) -> Iterator[Line]:
    """What was not examined, what readers changed, and what has to be known."""
    if not report.image["is_2d"]:
        yield from ((TextSpan(line),) for line in _not_examined(report))
    for edit in report.edits:
        yield (TextSpan(f"Edited by the reader: {edit_text(edit)}"),)
    for note in report.warnings:
        yield (TextSpan(note.text),)


def _not_examined(report: Report) -> Iterator[str]:
    """Which slices were left out, and why."""
    plane, total = str(report.image["plane"]), report.slices_total
    if report.slices_skipped:
        yield f"Skipped because they show no body: {slices_text(plane, report.slices_skipped)}."
    rest = sorted(set(range(total)) - set(report.slices_done) - set(report.slices_skipped))
    if rest:
        why = "not reached, or not in the plan" if not report.complete else "not in the plan"
        where = slices_text(plane, rest)
        if where.count(",") >= MOST_RANGES:
            where = f"{len(rest)} {plane} slices from {rest[0]} to {rest[-1]}"
        yield f"Not examined ({why}): {where}."


def _words(report: Report) -> Iterator[Line]:
    """What the model wrote, slice by slice; what it names that cannot be shown here is marked."""
    plane, flat = str(report.image["plane"]), bool(report.image["is_2d"])
    for index, text in report.sentences:
        place = () if flat else (TextSpan(f"{plane.capitalize()} slice {index}: ", index=index),)
        yield *place, TextSpan(f"\u201c{text}\u201d", index=index, quoted=True), *_marked(text, report)


def _marked(text: str, report: Report) -> tuple[TextSpan, ...]:
    """A remark on what a text names that cannot be shown here; none where it names no such thing."""
    strange = outside(text, report)
    return (TextSpan(f" (outside of what is shown: {', '.join(strange)})"),) if strange else ()


def outside(text: str, report: Report) -> tuple[str, ...]:
    """Targets that a text names although they belong to another modality or part of the body."""
    modality, parts = str(report.image["modality"]), report.shown.parts if report.shown else ()
    spelt = spellings(vocabulary.targets())
    pattern = "|".join(re.escape(name) for name in sorted(spelt, key=len, reverse=True))
    named = dict.fromkeys(spelt[match] for match in re.findall(rf"\b({pattern})\b", vocabulary.normalise(text)))
    return tuple(name for name in named if not vocabulary.can_be_shown(name, modality, parts))
