"""Findings become a report: structure, plain English text, label image. No model inside.

The JSON side stands in ``report_json.py``; its three functions are named here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.errors import WriteError
from unibiomed_core.measure import body_is_cut
from unibiomed_core.modalities import Window, modality
from unibiomed_core.report_json import from_json, schema, to_json
from unibiomed_core.types import Absence, CroppedMask, Finding, Plane, Report, Volume

__all__ = [
    "build",
    "colour",
    "from_json",
    "labels",
    "narrative",
    "number_text",
    "presence_words",
    "ranges_text",
    "schema",
    "slice_number",
    "to_json",
]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#F0E442")

PRESENCE_WORDS = ((0.85, "high"), (0.6, "moderate"), (0.0, "low"))
"""Lower limits of the words for a presence score; the score is the model's own and not a calibrated probability."""

FLAG_WORDS = {
    "one_slice": "seen on one slice only",
    "touches_edge": "reaches the edge of the image, so its size is a lower bound",
    "low_score": "low score",
    "interpolated": "partly interpolated, between the slices examined",
}
"""What a flag means; the words before the comma also stand alone."""

MOST_SENTENCES = 40
"""Findings beyond this number are counted in the text, not told one by one; the list has all of them."""

MOST_RANGES = 12
"""Longer lists of slices that were not examined are summed up."""


def build(
    *,
    volume: Volume,
    window: Window | None,
    plane: Plane,
    findings: Sequence[Finding],
    absences: Sequence[Absence],
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    slices_done: Iterable[int],
    slices_skipped: Iterable[int],
    seconds: float,
    sentences: Iterable[tuple[int, str]] = (),
    truncated: Iterable[int] = (),
    specks_dropped: int = 0,
    warnings: Iterable[str] = (),
    cancelled: bool = False,
) -> Report:
    """The report of one run over one volume, narrative included.

    Args:
        window: The intensity window the model was given, None where the picture went in as it is.
        plane: Plane of all slice indices here.
        absences: Targets looked for and not found.
        model: Provenance: name, licence, size, hash, device and the like; plain values.
        settings: The user's choices; plain values.
        slices_done: Canonical indices of the slices the model answered for.
        slices_skipped: Canonical indices left out because they show no body.
        seconds: Wall time of the run.
        sentences: (canonical slice index, the model's own text).
        truncated: Slices on which the length limit cut the answer.
        specks_dropped: Mask pieces that linking left out as too small.

    Raises:
        TypeError: ``model`` or ``settings`` hold a value that JSON cannot.
    """
    stated = [*volume.notes, *warnings]
    cut = sorted(set(truncated))
    axis = volume.plane_axis(plane)
    reversed_in_file = not volume.is_2d and volume.stored.flips[axis]
    image = {
        "name": volume.name,
        "source": volume.source,
        "modality": volume.modality,
        "shape_voxels_zyx": list(volume.shape),
        f"spacing_{volume.spatial_unit}_zyx": list(volume.spacing_mm),
        "spatial_unit": volume.spatial_unit,
        "intensity_unit": volume.intensity_unit,
        "is_rgb": volume.is_rgb,
        "is_2d": volume.is_2d,
        "orientation_known": volume.orientation_known,
        "affine_canonical_zyx_to_ras": volume.affine.tolist(),
        "stored_shape_voxels": list(volume.stored.shape),
        "plane": plane,
        "slice_numbers_reversed": bool(reversed_in_file),
        "window": None if window is None else {"name": window.name, "low": window.low, "high": window.high},
        "window_unit": "intensity" if volume.is_rgb else volume.intensity_unit,
    }
    total = volume.slice_count(plane)
    if cut:
        where = "" if volume.is_2d else f" on {_slices(plane, cut, total, bool(reversed_in_file))}"
        stated.append(f"The answer was cut at the length limit{where}; its last sentence may be missing.")
    if specks_dropped:
        pieces = "1 mask piece was" if specks_dropped == 1 else f"{specks_dropped} mask pieces were"
        stated.append(f"{pieces} too small to be kept as a finding.")
    if volume.is_2d or not volume.orientation_known:
        relative = False
    else:
        relative = any(f.measurements.side not in ("unknown", _named_side(f)) for f in findings) and body_is_cut(volume)
    if relative:
        stated.append(
            "The body reaches the left or right edge of the image, so the midline that sides are told by may not be "
            "the patient's: read left and right as left and right of what is shown."
        )
    report = Report(
        findings=tuple(findings),
        absences=tuple(absences),
        narrative="",
        sentences=tuple((int(i), str(text)) for i, text in sentences),
        image=_plain(image),
        model=_plain(model),
        settings=_plain(settings),
        warnings=tuple(stated),
        slices_done=tuple(sorted(set(slices_done))),
        slices_skipped=tuple(sorted(set(slices_skipped))),
        slices_total=total,
        seconds=float(seconds),
        cancelled=cancelled,
    )
    return replace(report, narrative=narrative(report))


def narrative(report: Report) -> str:
    """Plain English text of a report, from its numbers alone; call it again after findings were changed."""
    image = report.image
    plane, flat = str(image["plane"]), bool(image["is_2d"])
    what = modality(image["modality"]).label
    done, total = len(report.slices_done), report.slices_total
    turned = bool(image["slice_numbers_reversed"])
    what = what[:1].upper() + what[1:]
    lines = [f"{what} {'picture' if flat else 'volume'} '{image['name']}'."]
    if not flat:
        lines[0] += f" {done} of {total} {plane} slices were examined; slice numbers count from 1 in the file's order."
    if report.cancelled:
        lines.append(f"Stopped by the user after {done} of {total} slices; what follows covers those only.")
    if report.findings:
        lines.append("Findings:")
        lines += [f"{f.number}. {finding_text(f, report)}" for f in report.findings[:MOST_SENTENCES]]
        more = len(report.findings) - MOST_SENTENCES
        if more > 0:
            lines.append(f"In the list of findings only: {_count(more, 'further finding')}.")
    elif not report.absences:
        lines.append(f"No finding was produced{'' if flat else f' on the {done} slices examined'}.")
    if report.absences:
        names = ", ".join(f"{a.target} (presence {a.presence:.2f})" for a in report.absences)
        searched = max(a.slices_searched for a in report.absences)
        where = "" if flat else f", searched on {_count(searched, 'slice')}"
        lines.append(f"No findings: {names}{where}.")
    if not report.findings:
        lines.append("This is what the model produced; it does not say that the image is normal.")
    if not flat:
        lines += _not_examined(report, total, turned, plane)
    if report.sentences:
        lines.append("The model's own words, unedited:")
        for index, text in report.sentences:
            place = "" if flat else f"{plane.capitalize()} slice {slice_number(index, total, turned)}: "
            lines.append(f"{place}\u201c{text}\u201d")
    if report.warnings:
        lines.append("Warnings:")
        lines += [f"- {warning}" for warning in report.warnings]
    lines.append(report.notice)
    return "\n".join(lines)


def finding_text(finding: Finding, report: Report) -> str:
    """One finding in one sentence."""
    m = finding.measurements
    name = finding.target or finding.phrase
    parts = []
    if m.side != "unknown" and m.side not in name.lower():
        parts.append({"both": "both sides", "midline": "midline"}.get(m.side, m.side))
    if not report.image["is_2d"]:
        total, turned = report.slices_total, bool(report.image["slice_numbers_reversed"])
        many = len(finding.slices) > 1
        largest = f" (largest {slice_number(m.slice_largest, total, turned)})" if many else ""
        parts.append(f"{_slices(finding.plane, finding.slices, total, turned)}{largest}")
    if m.volume_ml is not None:
        parts.append(f"volume {number_text(m.volume_ml)} mL")
    elif m.area_mm2 is not None:
        parts.append(f"area {number_text(m.area_mm2)} mm\u00b2")
    else:
        parts.append(f"{m.voxel_count} pixels")
    if m.longest_axial_diameter_mm is not None and m.perpendicular_diameter_mm is not None:
        longest, across = number_text(m.longest_axial_diameter_mm), number_text(m.perpendicular_diameter_mm)
        parts.append(f"longest {'' if report.image['is_2d'] else 'axial '}diameter {longest} mm \u00d7 {across} mm")
    if m.intensity_mean is not None and m.intensity_sd is not None:
        parts.append(f"mean {number_text(m.intensity_mean)} \u00b1 {number_text(m.intensity_sd)} {m.intensity_unit}")
    parts.append(f"presence {finding.presence:.2f} ({presence_words(finding.presence)})")
    text = f"{name[:1].upper()}{name[1:]}: {', '.join(parts)}"
    notes = [FLAG_WORDS.get(flag, flag) for flag in finding.flags]
    return f"{text}; {'; '.join(notes)}." if notes else f"{text}."


def _not_examined(report: Report, total: int, turned: bool, plane: str) -> list[str]:
    """Which slices were left out, and why."""
    lines = []
    if report.slices_skipped:
        where = _slices(plane, report.slices_skipped, total, turned)
        lines.append(f"Skipped because they show no body: {where}.")
    rest = sorted(set(range(total)) - set(report.slices_done) - set(report.slices_skipped))
    if rest:
        why = "not reached, or not in the plan" if report.cancelled else "not in the plan"
        where = _slices(plane, rest, total, turned)
        if where.count(",") >= MOST_RANGES:
            numbers = sorted(slice_number(i, total, turned) for i in rest)
            where = f"{len(rest)} {plane} slices from {numbers[0]} to {numbers[-1]}"
        lines.append(f"Not examined ({why}): {where}.")
    return lines


def _named_side(finding: Finding) -> str | None:
    entry = vocabulary.find(finding.target)
    return entry.side if entry else None


def _slices(plane: str, indices: Sequence[int], total: int, turned: bool) -> str:
    noun = "slice" if len(indices) == 1 else "slices"
    return f"{plane} {noun} {ranges_text(indices, total, turned)}"


def labels(report: Report, volume: Volume) -> NDArray[np.uint16]:
    """(Z, Y, X) label image in canonical order: 0 background, else the finding's number; smaller ones lie on top.

    Raises:
        WriteError: A number does not fit into 16 bits.
        ValueError: A mask lies on another grid than the volume's.
    """
    picture = np.zeros(volume.shape, np.uint16)
    for finding in sorted(report.findings, key=lambda f: -f.mask.count):
        if finding.number > np.iinfo(np.uint16).max:
            raise WriteError("Too many findings", f"finding number {finding.number}", "at most 65535 in a label image")
        if finding.mask.shape != volume.shape:
            raise ValueError(f"mask of shape {finding.mask.shape} on a volume of shape {volume.shape}")
        paint(picture, finding.mask, finding.number)
    return picture


def paint(picture: NDArray[Any], mask: CroppedMask, value: int) -> None:
    """Set the voxels of a mask in place."""
    picture[mask.box][mask.crop] = value


def colour(finding: Finding, modality_name: str = "") -> str:
    """#RRGGBB: the vocabulary's colour of the target, else the Okabe-Ito colour of the number."""
    entry = vocabulary.find(finding.target, modality_name) if finding.target else None
    return entry.colour if entry else OKABE_ITO[(finding.number - 1) % len(OKABE_ITO)]


def presence_words(presence: float) -> str:
    """The word for a presence score."""
    return next(word for limit, word in PRESENCE_WORDS if presence >= limit)


def slice_number(index: int, total: int, reversed_in_file: bool) -> int:
    """The number people see, from 1 in the file's own order, of a canonical slice index."""
    return total - index if reversed_in_file else index + 1


def ranges_text(indices: Iterable[int], total: int, reversed_in_file: bool) -> str:
    """Slice numbers as "3, 5\u201312", ascending in the file's own order."""
    numbers = sorted({slice_number(i, total, reversed_in_file) for i in indices})
    pieces: list[list[int]] = []
    for number in numbers:
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(value: Any) -> Any:
    """A copy of plain values only, so that a report survives its JSON unchanged.

    Raises:
        TypeError: A value is of another kind, or a number is not finite.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} is not a finite number")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a report cannot hold a {type(value).__name__}")
