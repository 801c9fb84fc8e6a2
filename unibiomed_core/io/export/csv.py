"""The findings table as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

from unibiomed_core.types import Report

COLUMNS = (
    "number",
    "target",
    "phrase",
    "presence_0_to_1",
    "side",
    "plane",
    "slice_first",
    "slice_last",
    "slice_largest",
    "slice_count",
    "voxel_count",
    "volume_ml",
    "area_mm2",
    "longest_axial_diameter_mm",
    "perpendicular_diameter_mm",
    "intensity_mean",
    "intensity_sd",
    "intensity_unit",
    "flags",
)


def write_findings(report: Report, path: Path) -> None:
    """Write one row a finding; slices are numbered as everywhere (``report.COUNTING``), unknown values are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for f in report.findings:
            m = f.measurements
            row = (
                f.number,
                f.target,
                f.phrase,
                f.presence,
                m.side,
                f.plane,
                m.slice_first,
                m.slice_last,
                m.slice_largest,
                len(f.slices),
                m.voxel_count,
                m.volume_ml,
                m.area_mm2,
                m.longest_axial_diameter_mm,
                m.perpendicular_diameter_mm,
                m.intensity_mean,
                m.intensity_sd,
                m.intensity_unit,
                " ".join(f.flags),
            )
            table.writerow(["" if value is None else value for value in row])
