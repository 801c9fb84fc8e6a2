"""The findings table as CSV."""

from __future__ import annotations

import csv
from dataclasses import asdict
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
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()

        for finding in report.findings:
            own = {name: getattr(finding, name) for name in ("number", "target", "phrase", "plane")}
            own |= {"presence_0_to_1": finding.presence, "slice_count": len(finding.slices)}
            table.writerow({**own, **asdict(finding.measurements), "flags": " ".join(finding.flags)})
