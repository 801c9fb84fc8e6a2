"""A report in plain English, and how its numbers are written for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from unibiomed_core import vocabulary
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import modality
from unibiomed_core.phrases import Unknown
from unibiomed_core.tasks import NO_FINDINGS
from unibiomed_core.types import Absence, Caution, Ended, Finding, Plane, ReaderEdit, Report, Tally, Volume

PRESENCE_WORDS = ((0.85, "high"), (0.6, "moderate"), (0.0, "low"))
"""Lower limits of the words for a presence score; the score is the model's own and not a calibrated probability."""

FLAG_WORDS = {
    "one_slice": "seen on one slice only",
    "touches_edge": "reaches the edge of the image, so its size is a lower bound",
    "low_score": "low score",
    "interpolated": "partly interpolated, between the slices examined",
    "smoothed": "outline smoothed in 3D",
}
"""What a flag means; the words before the comma also stand alone."""

ENDING_WORDS: dict[Ended, str] = {
    "finished": "Finished",
    "cancelled": "Stopped by the user",
    "failed": "Ended by an error",
    "interrupted": "Interrupted",
}

MOST_SENTENCES = 40
"""Findings beyond this number are counted in the text, not told one by one; the list has all of them."""

MOST_RANGES = 12
"""Longer lists of slices that were not examined are summed up."""

COUNTING = "from 0, as on napari's slider"
"""How slices are numbered wherever people read or type a number: by their canonical index.

Our reader opens a volume in napari in canonical order, so this is the number that its slider shows and takes.
"""

_ENDS: dict[str, tuple[str, str]] = {
    "axial": ("superior", "inferior"),
    "coronal": ("anterior", "posterior"),
    "sagittal": ("right", "left"),
}
"""Where the first and the last slice of a plane lie."""

EDITED = "Edited by the reader:"
"""Heading of what the reader did, in texts, pages and PDF."""

_EDITS = {
    "rejected": "rejected and left out",
    "renamed": "renamed",
    "redrawn": "painted on and measured again",
}

_SIDES = {"both": "both sides", "midline": "midline"}


def narrative(report: Report) -> str:
    """Plain English text of a report, from its numbers alone; call it again after findings were changed."""
    image = report.image
    plane, flat = str(image["plane"]), bool(image["is_2d"])
    what = modality(image["modality"]).label
    done, total = len(report.slices_done), report.slices_total
    what = what[:1].upper() + what[1:]
    lines = [f"{what} {'picture' if flat else 'volume'} '{image['name']}'."]
    if not flat:
        lines[0] += f" {done} of {total} {plane} slices{_acquired(report)} were examined; {counting_text(report)}."
        lines += _plan(report)
    if not report.complete:
        lines.append(f"{ending_text(report)}; what follows covers those only.")
    if report.findings:
        lines.append("Findings:")
        lines += [f"{f.number}. {finding_text(f, report)}" for f in report.findings[:MOST_SENTENCES]]
        more = len(report.findings) - MOST_SENTENCES
        if more > 0:
            lines.append(f"In the list of findings only: {_count(more, 'further finding')}.")
        lines += _together(report)
        lines += _disagreements(report)
    elif not report.absences:
        lines.append(f"No finding was produced{'' if flat else f' on the {done} slices examined'}.")
    missing, seen = told_apart(report)
    if seen:
        names = ", ".join(f"{a.target} (presence {a.presence:.2f})" for a in seen)
        lines.append(f"Seen but not outlined, so neither found nor absent: {names}.")
    if missing:
        names = ", ".join(f"{a.target} (presence {a.presence:.2f})" for a in missing)
        searched = max(a.slices_searched for a in missing)
        where = "" if flat else f", searched on {_count(searched, 'slice')}"
        lines.append(f"No findings: {names}{where}.")
    if not report.findings:
        lines.append("This is what the model produced; it does not say that the image is normal.")
    if not flat:
        lines += _not_examined(report, total, plane)
    if report.sentences:
        lines.append("The model's own words, unedited:")
        for index, text in report.sentences:
            place = "" if flat else f"{plane.capitalize()} slice {index}: "
            lines.append(f"{place}\u201c{text}\u201d")
    if report.edits:
        lines.append(EDITED)
        lines += [f"- {edit_text(edit)}" for edit in report.edits]
    if report.warnings:
        lines.append("Warnings:")
        lines += [f"- {warning}" for warning in report.warnings]
    lines.append(report.notice)
    return "\n".join(lines)


def told_apart(report: Report) -> tuple[tuple[Absence, ...], tuple[Absence, ...]]:
    """(not found, seen but not outlined): a target that scores as present without a mask is not called absent."""
    threshold = float({**report.settings, **report.model}.get("presence_threshold", 0.5))
    seen = tuple(absence for absence in report.absences if absence.presence >= threshold)
    return tuple(absence for absence in report.absences if absence.presence < threshold), seen


def ending_text(report: Report) -> str:
    """How a run that did not come to its end was ended, and after how much; without a full stop."""
    return f"{ENDING_WORDS[report.ended]} after {len(report.slices_done)} of {report.slices_total} slices"


def finding_text(finding: Finding, report: Report) -> str:
    """One finding in one sentence."""
    m = finding.measurements
    name = finding.target or finding.phrase
    parts = []
    if m.side != "unknown" and m.side not in name.lower():
        parts.append(_SIDES.get(m.side, m.side))
    if not report.image["is_2d"]:
        largest = f" (largest {m.slice_largest})" if len(finding.slices) > 1 else ""
        parts.append(f"{slices_text(finding.plane, finding.slices)}{largest}")
    if m.volume_ml is not None:
        parts.append(f"volume {number_text(m.volume_ml)} mL")
    elif m.area_mm2 is not None:
        parts.append(f"area {number_text(m.area_mm2)} mm\u00b2")
    else:
        parts.append(f"{m.voxel_count} pixels")
    if finding.tally is not None:
        parts.append(tally_text(finding.tally))
    elif m.longest_axial_diameter_mm is not None and m.perpendicular_diameter_mm is not None:
        longest, across = number_text(m.longest_axial_diameter_mm), number_text(m.perpendicular_diameter_mm)
        parts.append(f"longest {'' if report.image['is_2d'] else 'axial '}diameter {longest} mm \u00d7 {across} mm")
    if m.intensity_mean is not None and m.intensity_sd is not None:
        parts.append(f"mean {number_text(m.intensity_mean)} \u00b1 {number_text(m.intensity_sd)} {m.intensity_unit}")
    parts.append(f"presence {finding.presence:.2f} ({presence_words(finding.presence)})")
    text = f"{name[:1].upper()}{name[1:]}: {', '.join(parts)}"
    notes = [FLAG_WORDS.get(flag, flag) for flag in finding.flags]
    return f"{text}; {'; '.join(notes)}." if notes else f"{text}."


def tally_text(tally: Tally) -> str:
    """What a row that stands for many stands for, without a full stop."""
    share = f"{number_text(100 * tally.fraction)} % of the picture"
    if tally.instances is None:
        return f"{share}, {number_text(tally.length)} {tally.unit} of centre line"
    mean, spread = number_text(tally.mean_area), number_text(tally.sd_area)
    field = "mm\u00b2" if tally.unit == "mm" else f"{tally.density_side} \u00d7 {tally.density_side} px"
    return (
        f"{tally.instances} counted ({number_text(tally.density)} a {field}), mean area {mean} \u00b1 {spread} "
        f"{tally.unit}\u00b2, {share}"
    )


def _plan(report: Report) -> list[str]:
    """How the slices were chosen, where it was not simply all of them."""
    name, step = report.settings.get("plan", "all"), report.settings.get("every", 1)
    if report.settings.get("indices") is not None:
        return ["The slices were named one by one."]
    if step > 1 and name == "all":
        return [f"Plan: every {_ordinal(step)} slice."]
    if step > 1:
        return [f"Plan: {name}, with a first pass over every {_ordinal(step)} slice."]
    return [] if name == "all" else [f"Plan: {name}."]


def _together(report: Report) -> list[str]:
    """Targets that were found more than once, each summed up in a sentence."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault(finding.target or finding.phrase, []).append(finding)
    lines = []
    for name, group in groups.items():
        if len(group) < 2:
            continue
        parts = [_count(len(group), "finding")]
        sides = Counter(f.measurements.side for f in group if f.measurements.side != "unknown")
        if sides and not any(side in name.lower() for side in ("left", "right")):
            parts[0] += f" ({', '.join(f'{number} {_SIDES.get(side, side)}' for side, number in sides.items())})"
        volumes = [f.measurements.volume_ml for f in group]
        if all(volume is not None for volume in volumes):
            parts.append(f"{number_text(sum(v for v in volumes if v is not None))} mL")
        if not report.image["is_2d"]:
            carrying = {index for f in group for index in f.slices}
            parts.append(f"between {group[0].plane} slices {min(carrying)} and {max(carrying)}")
        lines.append(f"{name[:1].upper()}{name[1:]} in all: {', '.join(parts)}.")
    return lines


def _disagreements(report: Report) -> list[str]:
    """Slices of which the model's own description names nothing, though abnormal findings were outlined on them."""
    image, lines = report.image, []
    for index, words in report.sentences:
        if NO_FINDINGS not in words.lower():
            continue
        numbers = [f.number for f in report.findings if index in f.slices and _is_abnormal(f, str(image["modality"]))]
        if numbers:
            where = "the picture" if image["is_2d"] else f"{image['plane']} slice {index}"
            which = f"finding{'s'[: len(numbers) > 1]} {ranges_text(numbers)}"
            lines.append(f"Unsure: {which}. Asked openly about {where}, the model says that there is nothing abnormal.")
    return lines


def _is_abnormal(finding: Finding, modality_name: str) -> bool:
    """Whether a finding is no anatomy, tube or line; what the vocabulary does not know may be abnormal."""
    entry = vocabulary.find(finding.target or finding.phrase, modality_name)
    return entry is None or entry.kind == "finding"


def _acquired(report: Report) -> str:
    """Whether the slices are those of the acquisition, where that is known."""
    acquired = report.image.get("acquisition_plane")
    if acquired is None:
        return ""
    same = acquired == report.image["plane"]
    return ", the plane of the acquisition," if same else f" (the acquisition is {acquired})"


def _not_examined(report: Report, total: int, plane: str) -> list[str]:
    """Which slices were left out, and why."""
    lines = []
    if report.slices_skipped:
        where = slices_text(plane, report.slices_skipped)
        lines.append(f"Skipped because they show no body: {where}.")
    rest = sorted(set(range(total)) - set(report.slices_done) - set(report.slices_skipped))
    if rest:
        why = "not reached, or not in the plan" if not report.complete else "not in the plan"
        where = slices_text(plane, rest)
        if where.count(",") >= MOST_RANGES:
            where = f"{len(rest)} {plane} slices from {rest[0]} to {rest[-1]}"
        lines.append(f"Not examined ({why}): {where}.")
    return lines


def slices_text(plane: str, indices: Sequence[int]) -> str:
    """As :func:`ranges_text`, with the plane and the noun."""
    noun = "slice" if len(indices) == 1 else "slices"
    return f"{plane} {noun} {ranges_text(indices)}"


def presence_words(presence: float) -> str:
    """The word for a presence score."""
    return next(word for limit, word in PRESENCE_WORDS if presence >= limit)


def edit_text(edit: ReaderEdit) -> str:
    """What the reader did with some findings, in one sentence."""
    listed = ", ".join(map(str, edit.numbers))
    return f"{f'Finding {listed} was' if len(edit.numbers) == 1 else f'Findings {listed} were'} {_EDITS[edit.code]}."


def unknown_text(unknown: Sequence[Unknown]) -> str:
    """What is said where some of several targets could not be looked for."""
    said = []
    for one in unknown:
        near = f" (nearest: {', '.join(one.nearest)})" if one.nearest else ""
        said.append(f"\u201c{one.name[:80]}\u201d{near}")
    return f"Not looked for, as the model has no such target here: {', '.join(said)}."


def answer_text(text: str, likelihood: float | None, caution: Caution | None) -> str:
    """An answer in words with its score, and why it should not be relied on where there is a reason."""
    if likelihood is not None:
        text = f"{text.rstrip('. ')} (score {likelihood:.2f})."
    return " ".join(part for part in (text, caution_text(caution)) if part)


def caution_text(caution: Caution | None) -> str:
    """Why an answer should not be relied on; empty for None."""
    if caution is None:
        return ""
    if caution.code == "no_target_named":
        return "The question names none of the targets that this model has learnt; do not rely on this answer."
    listed = ", ".join(f"\u201c{subject[:60]}\u201d" for subject in caution.subjects)
    among = "is not among the targets" if len(caution.subjects) == 1 else "are not among the targets"
    return f"{listed} {among} that this model has learnt; do not rely on this answer."


def counting_text(report: Report) -> str:
    """How the slice numbers of a volume's report count, as a part of a sentence."""
    text = f"slice numbers are those of napari's slider, 0 to {report.slices_total - 1}"
    if not report.image.get("orientation_known"):
        return text
    return f"{text}, from {' to '.join(_ENDS[str(report.image['plane'])])}"


def checked_slice(volume: Volume, plane: Plane, number: int) -> int:
    """The canonical index of a slice number that a person gave.

    Raises:
        PromptError: There is no such slice.
    """
    last = volume.slice_count(plane) - 1
    if not 0 <= number <= last:
        raise PromptError(
            "No such slice",
            f"{plane} slice {number} was asked for",
            f"0 to {last}, counted {COUNTING}",
            "Choose another slice, or another plane.",
        )
    return number


def ranges_text(indices: Iterable[int]) -> str:
    """Slice numbers as "3, 5\u201312", ascending."""
    pieces: list[list[int]] = []
    for number in sorted(set(indices)):
        if pieces and number == pieces[-1][1] + 1:
            pieces[-1][1] = number
        else:
            pieces.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}\u2013{b}" for a, b in pieces)


def number_text(value: float | None) -> str:
    """Three significant digits without exponent, whole numbers from 100 on; a dash for None."""
    if value is None:
        return "\u2013"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.replace("-", "\u2212")


def _ordinal(number: int) -> str:
    """2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
