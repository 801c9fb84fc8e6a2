"""A report in plain English, and how its numbers are written for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from unibiomed_core.errors import PromptError
from unibiomed_core.phrases import Unknown
from unibiomed_core.types import (
    Caution,
    CheckCode,
    Ended,
    Evidence,
    Finding,
    Plane,
    ReaderEdit,
    Report,
    Tally,
    Volume,
)

PRESENCE_WORDS = ((0.85, "high"), (0.6, "moderate"), (0.0, "low"))
"""Lower limits of the words for a presence score; the score is the model's own and not a calibrated probability."""

FLAG_WORDS = {
    "one_slice": "seen on one slice only",
    "touches_edge": "reaches the edge of the image, so its size is a lower bound",
    "low_score": "low score",
    "interpolated": "partly interpolated, between the slices examined",
    "smoothed": "outline smoothed in 3D",
    "told_together": "too many to be told one by one",
    "unsure": "unsure, as the checks do not agree",
}
"""What a flag means; the words before the comma also stand alone."""

ENDING_WORDS: dict[Ended, str] = {
    "finished": "Finished",
    "cancelled": "Stopped by the user",
    "failed": "Ended by an error",
    "interrupted": "Interrupted",
}

FOUND_WORDS = {
    "segment": "by name",
    "disease": "by the open question",
    "report": "in the model's own report",
    "grounded_vqa": "by a question about an anatomy",
    "vqa": "in an answer",
    "ground": "in the text that was given",
}
"""Task -> how it found something."""

CHECK_WORDS: dict[tuple[CheckCode, bool], str] = {
    ("mask", True): "the mask's own score is high",
    ("mask", False): "the mask's own score is low",
    ("picture", True): "the whole picture looks like it",
    ("picture", False): "the whole picture does not look like it",
    ("open", True): "asked openly, the model names it",
    ("open", False): "asked openly, the model does not name it",
    ("region", True): "its box is given the same name",
    ("region", False): "its box is given another name",
    ("neighbours", True): "next slices show it too",
    ("neighbours", False): "next slices do not show it",
}

ABSOLUTE_UNITS = ("HU", "SUV")
"""Units of intensities that mean the same in every image."""

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

_EDITS = {
    "rejected": "rejected and left out",
    "renamed": "renamed",
    "redrawn": "painted on and measured again",
}

_SIDES = {"both": "both sides", "midline": "midline"}


def ending_text(report: Report) -> str:
    """How a run that did not come to its end was ended, and after how much; without a full stop."""
    return f"{ENDING_WORDS[report.ended]} after {len(report.slices_done)} of {report.slices_total} slices"


def size_text(finding: Finding, report: Report) -> str:
    """Side, slices and sizes of a finding, and its intensity where that means something (HU, SUV)."""
    m = finding.measurements
    flat = bool(report.image["is_2d"])
    name = finding.target or finding.phrase
    parts = []
    if m.side != "unknown" and m.side not in name.lower():
        parts.append(_SIDES.get(m.side, m.side))
    if not flat:
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
        parts.append(f"longest {'' if flat else 'axial '}diameter {longest} mm \u00d7 {across} mm")
    if m.intensity_unit in ABSOLUTE_UNITS and m.intensity_mean is not None and m.intensity_sd is not None:
        parts.append(f"mean {number_text(m.intensity_mean)} \u00b1 {number_text(m.intensity_sd)} {m.intensity_unit}")
    return ", ".join(parts)


def presence_text(finding: Finding) -> str:
    """The presence of a finding as number and word."""
    return f"presence {finding.presence:.2f} ({presence_words(finding.presence)})"


def flags_text(finding: Finding) -> str:
    """What has to be known of a finding; empty where there is nothing."""
    return "; ".join(FLAG_WORDS.get(flag, flag) for flag in finding.flags)


def evidence_text(evidence: Evidence) -> str:
    """How a finding was found, and what else speaks for or against it."""
    found = " and ".join(FOUND_WORDS.get(task, task) for task in evidence.found_by)
    checks = [CHECK_WORDS[check.code, check.agrees] for check in evidence.checks if check.code != "mask"]
    return "; ".join([f"found {found}"] * bool(found) + checks)


def likely_text(shares: Iterable[tuple[str, float]]) -> str:
    """Names with their shares: "chest (0.93), abdomen (0.05)"."""
    return ", ".join(f"{name} ({share:.2f})" for name, share in shares)


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


def ordinal(number: int) -> str:
    """2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def count_text(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it has to be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def capitalised(text: str) -> str:
    """The text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]
