"""The report as one self-contained HTML file; the layout stands in ``report.html.j2`` beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from unibiomed_core.io.export import pictures
from unibiomed_core.modalities import AS_IS, Window, modality
from unibiomed_core.report import (
    ENDING_WORDS,
    FLAG_WORDS,
    ReportSection,
    colour,
    counting_text,
    ending_text,
    evidence_text,
    line_text,
    number_text,
    presence_words,
    ranges_text,
    sections,
    tally_text,
)
from unibiomed_core.report.sections import depth, outside
from unibiomed_core.types import Finding, Report, Volume

MOST_KEY_FINDINGS = 24
"""Key slices are drawn for this many findings, largest first, so that the file stays small; the table has all."""

MOST_NUMBERS = 80
"""Up to this many findings are numbered on the picture of a 2D image."""


def render(report: Report, volume: Volume, window: Window | None) -> str:
    """The HTML of a report: no scripts and nothing from outside, pictures embedded.

    Args:
        volume: The image the report is about; its slices are the pictures.
        window: The intensity window the model was given.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("unibiomed_core.io.export", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("report.html.j2")
    flat = volume.is_2d
    plane = report.image["plane"]
    drawn = sorted(report.findings, key=lambda f: (-f.mask.count, f.number))[:MOST_KEY_FINDINGS]
    return template.render(
        report=report,
        flat=flat,
        plane=plane,
        counting="" if flat else counting_text(report),
        modality=modality(volume.modality).label,
        window_text=_window_text(report, window),
        sections=[_section(section, report) for section in sections(report)],
        counted={code: len(rows) for code, rows in _rows_of(report).items()},
        has_side=any(f.measurements.side != "unknown" for f in report.findings),
        has_lengths=any(f.measurements.longest_axial_diameter_mm is not None for f in report.findings),
        number=number_text,
        presence_words=presence_words,
        ending_words=ENDING_WORDS[report.ended],
        ending=ending_text(report),
        done_text=ranges_text(report.slices_done),
        key_figures=[_whole_picture(report, volume, window)] if flat else [],
        key_slices=[] if flat else [_key_slices(f, report, volume, window) for f in sorted(drawn, key=_number)],
        key_left_out=0 if flat else len(report.findings) - len(drawn),
        seen=_seen(report, volume, window),
        tables=[
            ("Image", _flat_items({k: v for k, v in report.image.items() if k not in _HIDDEN and v not in ("", None)})),
            ("Model", _flat_items(report.model)),
            # Unknown targets are told in the warnings.
            ("Settings", _flat_items({k: v for k, v in report.settings.items() if k != "unknown_targets"})),
        ],
    )


_HIDDEN = ("affine_canonical_zyx_to_ras", "is_rgb", "is_2d", "slice_axis_stored", "slice_numbers_reversed",
           "window_unit")  # fmt: skip
"""Facts of the image that stand elsewhere on the page, or in the JSON only."""


def _number(finding: Finding) -> int:
    return finding.number


def _window_text(report: Report, window: Window | None) -> str:
    if window is None or window == AS_IS:
        return "values as they are"
    unit = report.image["window_unit"]
    return f"{window.name}: {number_text(window.low)} to {number_text(window.high)} {unit}"


def _chip(finding: Finding) -> dict[str, Any]:
    background = colour(finding.number)
    red, green, blue = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
    # Relative luminance (WCAG 2); black beats white on it above 0.179.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    bright = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179
    return {"number": finding.number, "colour": background, "ink": "#000" if bright else "#fff"}


def _rows_of(report: Report) -> dict[str, tuple[Finding, ...]]:
    return {section.code: section.findings for section in sections(report)}


def _section(section: ReportSection, report: Report) -> dict[str, Any]:
    """A part of the report for the page: rows as a table, everything else as lines."""
    return {
        "code": section.code,
        "title": section.title,
        "rows": [_row(f, report) for f in section.findings],
        "lines": [line_text(line) for line in section.lines],
        "absences": section.absences,
        "folded": section.code == "words",
    }


def _row(finding: Finding, report: Report) -> dict[str, Any]:
    m = finding.measurements
    flat = report.image["is_2d"]
    pair = m.longest_axial_diameter_mm is not None
    return {
        **_chip(finding),
        "target": finding.target or finding.phrase,
        "phrase": finding.phrase if finding.phrase.lower() != finding.target.lower() else "",
        "slices": "" if flat else ranges_text(finding.slices),
        "side": "\u2013" if m.side == "unknown" else m.side,
        "volume": number_text(m.volume_ml),
        "area": number_text(m.area_mm2),
        "voxels": m.voxel_count,
        "diameters": f"{number_text(m.longest_axial_diameter_mm)} \u00d7 {number_text(m.perpendicular_diameter_mm)}"
        if pair
        else "\u2013",
        "intensity": f"{number_text(m.intensity_mean)} \u00b1 {number_text(m.intensity_sd)}",
        "presence": f"{finding.presence:.2f}",
        "word": presence_words(finding.presence),
        "depth": depth(finding, report.findings),
        "tally": "" if finding.tally is None else tally_text(finding.tally),
        "evidence": "" if finding.evidence is None else evidence_text(finding.evidence),
        "unsure": "unsure" in finding.flags,
        "description": finding.description,
        "strange": ", ".join(outside(finding.description, report)),
        "flags": [FLAG_WORDS.get(flag, flag).split(",")[0] for flag in finding.flags],
    }


def _outlines(report: Report, axis: int, index: int, main: int | None) -> list[pictures.Outline]:
    found = []
    for f in report.findings:
        if f.mask.offset[axis] <= index < f.mask.offset[axis] + f.mask.crop.shape[axis]:
            mask = pictures.slice_mask(f.mask, axis, index)
            found.append((mask, colour(f.number), main is None or f.number == main))
    return found


def _key_slices(finding: Finding, report: Report, volume: Volume, window: Window | None) -> dict[str, Any]:
    """First, largest and last slice of a finding, and a close-up of the largest where the finding is small."""
    axis = volume.plane_axis(finding.plane)
    m = finding.measurements
    about = f"{finding.target or finding.phrase}, finding {finding.number}, {finding.plane} "
    letters = pictures.letters(volume, finding.plane)
    places: dict[int, list[str]] = {}
    for word, index in (("first", m.slice_first), ("largest", m.slice_largest), ("last", m.slice_last)):
        places.setdefault(index, []).append(word)
    figures = []
    for index, words in places.items():
        view = volume.slice(index, finding.plane)
        outlines = _outlines(report, axis, index, finding.number)
        name = f"slice {index}"
        what = "the only slice" if len(places) == 1 else " and ".join(words)
        figures.append(_figure(pictures.draw(view, window, outlines), f"{name} ({what})", about, letters))
        if index == m.slice_largest:
            crop = pictures.close_up(pictures.slice_mask(finding.mask, axis, index), view.spacing_mm)
            if crop:
                near = pictures.draw(view, window, outlines, crop=crop)
                figures.append(_figure(near, f"{name}, close-up", about, letters))
    return {"row": _row(finding, report), "plane": finding.plane, "figures": figures}


def _figure(picture: np.ndarray, caption: str, about: str, letters: tuple[str, ...] | None) -> dict[str, Any]:
    height, width = picture.shape[:2]
    uri = pictures.data_uri(picture)
    return {
        "uri": uri, "caption": caption, "alt": about + caption, "letters": letters, "width": width, "height": height,
    }  # fmt: skip


def _whole_picture(report: Report, volume: Volume, window: Window | None) -> dict[str, Any]:
    """A 2D image with every finding outlined, and numbered while there are few."""
    outlines = _outlines(report, 0, 0, None)
    numbers = []
    if len(report.findings) <= MOST_NUMBERS:
        for f in report.findings:
            row, column = np.argwhere(f.mask.crop[0]).mean(axis=0) + f.mask.offset[1:]
            numbers.append((str(f.number), (float(row), float(column))))
    picture = pictures.draw(volume.slice(0), window, outlines, numbers, long_side_px=pictures.WHOLE_PX)
    many = len(report.findings)
    caption = f"{many} row{'' if many == 1 else 's'} of the tables outlined" if many else "nothing to outline"
    return _figure(picture, caption, "The whole picture, ", None)


def _seen(report: Report, volume: Volume, window: Window | None) -> dict[str, Any]:
    """The exact picture that went to the model: of the largest finding's largest slice, else of the middle one."""
    plane = report.image["plane"]
    if report.findings:
        index = max(report.findings, key=lambda f: f.mask.count).measurements.slice_largest
    elif report.slices_done:
        index = report.slices_done[len(report.slices_done) // 2]
    else:
        index = report.slices_total // 2
    picture = pictures.model_picture(volume.slice(index, plane), window)
    return {
        "uri": pictures.data_uri(picture, lossless=True),
        "height": picture.shape[0],
        "width": picture.shape[1],
        "index": index,
        "letters": pictures.letters(volume, plane),
        "examined": index in report.slices_done,
    }


def _flat_items(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested plain values as (words, text) rows."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat_items(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(_text(item) for item in value) or "\u2013"))
        else:
            rows.append((name, _text(value)))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
