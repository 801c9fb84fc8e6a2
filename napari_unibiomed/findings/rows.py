"""A finding as the panel lists it: one frozen row, its cells as text and as values to sort by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.report import colour, depth, is_abnormal, nested, number_text, ranges_text
from unibiomed_core.types import PLANES, Finding, Plane, Volume

if TYPE_CHECKING:
    from napari_unibiomed.jobs import RunAnswer

DASH = "–"
PROVISIONAL = "in work"
BOX_REMOVED = "box removed"

FLAGS = {
    "touches_edge": "edge-cut",
    "one_slice": "one slice",
    "low_score": "low score",
    "interpolated": "interpolated",
    "unsure": "unsure",
}
"""Flags of a finding in the two words that a cell has room for."""

RowKind = Literal["", "abnormal", "unsure", "structure"]
"""The section of the report that a row stands in; "unsure" rows are abnormal ones whose checks do not agree."""


class Column(Enum):
    """Columns of the table, in their order."""

    NUMBER = "No."
    FINDING = "Finding"
    KIND = "Kind"
    SLICES = "Slices"
    SIDE = "Side"
    SIZE = "Size"
    DIAMETERS = "Max Ø × perp. (mm)"
    INTENSITY = "Mean ± SD"
    SCORE = "Score"
    FLAGS = "Flags"


COLUMNS = tuple(Column)
TEXT_COLUMNS = frozenset({Column.FINDING, Column.KIND, Column.SIDE, Column.FLAGS})


@dataclass(frozen=True, slots=True, eq=False)
class FindingRow:
    """One line of the panel.

    Args:
        number: The value in the labels layer; for rows without a mask a number that no label has.
        phrase: The name shown; a user may have changed it.
        slices: Slice numbers as napari's slider shows them while no other layer changes its steps.
        side: Patient side, or a dash where it is the midline or unknown.
        volume_ml: None for pictures and where the file tells no size.
        area_mm2: On the largest slice; None where the file tells no size.
        longest_mm: Longest axial diameter.
        perpendicular_mm: Extent at right angles to it.
        mean: Of the voxels' own values, in ``unit``.
        score: 0..1, the model's own and not a calibrated probability; None where an answer has none.
        slice_largest: Canonical index of the slice with the largest area, None where there is none.
        slice_indices: Canonical indices of all slices that contain it, ascending.
        finding: The measured finding; None for an answer without a region and while the run goes on.
        answers: The answers about the box that this row stands for: its class, then its description.
        modality: Of the image; empty for answers, which stand in no section of a report.
    """

    number: int
    phrase: str
    slices: str
    side: str = DASH
    volume_ml: float | None = None
    area_mm2: float | None = None
    voxel_count: int | None = None
    longest_mm: float | None = None
    perpendicular_mm: float | None = None
    mean: float | None = None
    sd: float | None = None
    unit: str = "intensity"
    score: float | None = None
    flags: tuple[str, ...] = ()
    colour: str = "#808080"
    plane: Plane = "axial"
    slice_largest: int | None = None
    slice_indices: tuple[int, ...] = ()
    finding: Finding | None = None
    answers: tuple[RunAnswer, ...] = ()
    rejected: bool = False
    hidden: bool = False
    edited: bool = False
    modality: str = ""

    @property
    def has_mask(self) -> bool:
        return self.finding is not None

    @property
    def kind(self) -> RowKind:
        """The section of the report that its name belongs to; empty for answers."""
        if not self.modality:
            return ""
        if not _is_abnormal(self.phrase, self.modality):
            return "structure"
        return "unsure" if "unsure" in self.flags else "abnormal"

    @property
    def answer(self) -> RunAnswer | None:
        """The answer that names the box of this row, None for findings."""
        return self.answers[0] if self.answers else None

    @property
    def size(self) -> float | None:
        """The first of volume, area and voxel count that is known."""
        known = (self.volume_ml, self.area_mm2, self.voxel_count)
        return next((float(value) for value in known if value is not None), None)

    @property
    def size_unit(self) -> str:
        return "mL" if self.volume_ml is not None else "mm²" if self.area_mm2 is not None else "px"

    @property
    def all_flags(self) -> tuple[str, ...]:
        """The flags of the finding and what the user did with it, in words."""
        own = (("edited", self.edited), ("hidden", self.hidden), ("rejected", self.rejected))
        return (*(FLAGS.get(flag, flag) for flag in self.flags), *(word for word, on in own if on))


def row_of(finding: Finding, volume: Volume) -> FindingRow:
    """The row of a measured finding."""
    m = finding.measurements
    return FindingRow(
        number=finding.number,
        phrase=finding.target or finding.phrase,
        slices=slices_cell(finding.slices, volume),
        side=m.side if m.side in ("left", "right", "both") else DASH,
        volume_ml=m.volume_ml,
        area_mm2=m.area_mm2,
        voxel_count=m.voxel_count,
        longest_mm=m.longest_axial_diameter_mm,
        perpendicular_mm=m.perpendicular_diameter_mm,
        mean=m.intensity_mean,
        sd=m.intensity_sd,
        unit=m.intensity_unit,
        score=finding.presence,
        flags=finding.flags,
        colour=colour(finding.number),
        plane=finding.plane,
        slice_largest=m.slice_largest,
        slice_indices=finding.slices,
        finding=finding,
        modality=volume.modality,
    )


def named(row: FindingRow, phrase: str) -> FindingRow:
    """The row under another name, with the flags that hold under it."""
    renamed = replace(row, phrase=phrase)
    return renamed if row.finding is None else replace(renamed, flags=told_as(renamed, row.finding).flags)


def told_as(row: FindingRow, finding: Finding) -> Finding:
    """A finding under the name of its row, which the user may have changed.

    The model's checks are about its own name: another one than that or a synonym of it was never checked, and is no
    part of what the model's name is a part of.
    """
    if row.phrase == (finding.target or finding.phrase):
        return finding
    if not _has_other_name(row):
        return replace(finding, target=row.phrase)
    flags = tuple(flag for flag in finding.flags if flag != "unsure")
    return replace(finding, target=row.phrase, evidence=None, within=None, flags=flags)


def edited_findings(rows: Iterable[FindingRow]) -> tuple[Finding, ...]:
    """The findings of rows as the user left them, rejected ones too; none is a part of one that the user took away."""
    listed = [row for row in rows if row.finding is not None]
    no_whole = {row.number for row in listed if row.rejected or _has_other_name(row)}
    told = [told_as(row, row.finding) for row in listed if row.finding is not None]
    return tuple(replace(finding, within=None) if finding.within in no_whole else finding for finding in told)


def arranged(rows: Mapping[int, FindingRow]) -> tuple[FindingRow, ...]:
    """Rows in the order of the report: abnormal ones, then structures, parts behind their wholes, then answers.

    Args:
        rows: By number, as the user left them.
    """
    abnormal, structures = _by_section(rows.values())
    told = [rows[finding.number] for finding in (*nested(abnormal), *nested(structures))]
    others = [row for row in rows.values() if row.finding is None]
    return (*told, *sorted(others, key=lambda row: row.kind == "structure"))


def depths(rows: Iterable[FindingRow]) -> dict[int, int]:
    """Number of each row that lies within a whole -> how many wholes of its section it lies within."""
    found = {f.number: depth(f, section) for section in _by_section(rows) for f in section if f.within is not None}
    return {number: steps for number, steps in found.items() if steps}


def _by_section(rows: Iterable[FindingRow]) -> tuple[list[Finding], list[Finding]]:
    """The findings of abnormal rows, and those of structures."""
    listed = list(rows)
    structures = {row.number for row in listed if row.kind == "structure"}
    findings = edited_findings(listed)
    return [f for f in findings if f.number not in structures], [f for f in findings if f.number in structures]


def same_target(one: str, other: str, modality: str) -> bool:
    """Whether two names are those of one target."""
    return _target_name(one, modality) == _target_name(other, modality)


@lru_cache(maxsize=4096)
def _target_name(name: str, modality: str) -> str:
    entry = vocabulary.find(name, modality)
    return entry.name if entry else vocabulary.normalise(name)


def _has_other_name(row: FindingRow) -> bool:
    """Whether the user gave a finding a name that is not the model's own or a synonym of it."""
    finding = row.finding
    return finding is not None and not same_target(row.phrase, finding.target or finding.phrase, row.modality)


@lru_cache(maxsize=4096)
def _is_abnormal(name: str, modality: str) -> bool:
    return is_abnormal(name, modality)


def slices_cell(indices: Iterable[int], volume: Volume) -> str:
    """Slice numbers; a dash for a picture, which has none."""
    return DASH if volume.is_2d else ranges_text(indices) or DASH


def centre_of(row: FindingRow, index: int) -> tuple[float, float, float] | None:
    """Canonical (z, y, x) centre of what a row has on one slice, or of its box; None where it has neither."""
    axis = PLANES.index(row.plane)
    if row.finding is not None:
        mask = row.finding.mask
        points = np.argwhere(np.take(mask.crop, index - mask.offset[axis], axis=axis))
        middle = points.mean(axis=0) + [o for i, o in enumerate(mask.offset) if i != axis]
    elif row.answer is not None and (box := row.answer.region) is not None:
        middle = np.array([(box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2])
    else:
        return None
    z, y, x = np.insert(middle, axis, index)
    return float(z), float(y), float(x)


def cell_text(row: FindingRow, column: Column) -> str:
    """What a cell shows; numbers have three significant digits."""
    if column is Column.NUMBER:
        return str(row.number)
    if column is Column.FINDING:
        return row.phrase
    if column is Column.KIND:
        return row.kind
    if column is Column.SLICES:
        return row.slices
    if column is Column.SIDE:
        return row.side
    if column is Column.SIZE:
        return size_text(row)
    if column is Column.DIAMETERS:
        return pair_text(row.longest_mm, row.perpendicular_mm, "×")
    if column is Column.INTENSITY:
        pair = pair_text(row.mean, row.sd, "±")
        return pair if pair == DASH else f"{pair} {row.unit}"
    if column is Column.SCORE:
        return DASH if row.score is None else f"{row.score:.2f}"
    return ", ".join(row.all_flags)


def common_units(rows: Iterable[FindingRow]) -> dict[Column, str]:
    """The units of those columns where all rows that have a value have one unit."""
    listed = list(rows)
    units = {
        Column.SIZE: {row.size_unit for row in listed if row.size is not None},
        Column.INTENSITY: {row.unit for row in listed if row.mean is not None},
    }
    return {column: found.pop() for column, found in units.items() if len(found) == 1}


def column_title(column: Column, unit: str = "") -> str:
    """The title of a column in few letters, with the unit that its rows have in common."""
    if column is Column.DIAMETERS:
        return "Ø mm"
    if column is Column.SIZE and unit:
        return f"{_SIZE_WORDS[unit]} {unit}"
    return f"Mean {unit}" if column is Column.INTENSITY and unit not in ("", "intensity") else column.value


def short_text(row: FindingRow, column: Column, unit: str = "") -> str:
    """As :func:`cell_text`, without the unit that the column's title tells for all rows."""
    text = cell_text(row, column)
    return text.removesuffix(f" {unit}") if unit else text


_SIZE_WORDS = {"mL": "Vol.", "mm²": "Area", "px": "Size"}


def size_text(row: FindingRow) -> str:
    """Volume, area or pixels, with the unit; pixels are counted and not rounded."""
    if row.size is None:
        return DASH
    return f"{row.size:.0f} px" if row.size_unit == "px" else f"{number_text(row.size)} {row.size_unit}"


def pair_text(first: float | None, second: float | None, sign: str) -> str:
    """Two numbers with a sign between them; a dash where one is unknown."""
    return DASH if first is None or second is None else f"{number_text(first)} {sign} {number_text(second)}"


def cell_value(row: FindingRow, column: Column) -> float | str | None:
    """What a column is sorted by: the value and not its text; None where it is unknown."""
    if column in TEXT_COLUMNS:
        return cell_text(row, column).casefold()
    values: dict[Column, float | None] = {
        Column.NUMBER: float(row.number),
        Column.SLICES: float(row.slice_indices[0]) if row.slice_indices else None,
        Column.SIZE: row.size,
        Column.DIAMETERS: row.longest_mm,
        Column.INTENSITY: row.mean,
        Column.SCORE: row.score,
    }
    return values[column]


def measurements_text(row: FindingRow) -> str:
    """All cells of a row as lines of "name: value", for the clipboard."""
    return "\n".join(f"{column.value}: {cell_text(row, column) or DASH}" for column in COLUMNS)
