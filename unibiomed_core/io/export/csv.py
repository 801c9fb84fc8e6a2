"""The findings table as CSV."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

from unibiomed_core.report import is_abnormal
from unibiomed_core.types import Report

COLUMNS = (
    "number",
    "section",
    "within_number",
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
    "instances_count",
    "mean_area",
    "sd_area",
    "density",
    "fraction_0_to_1",
    "length",
    "tally_unit",
    "checks_count",
    "checks_agreeing_count",
    "flags",
    "description",
)


def write_findings(report: Report, path: Path) -> None:
    """Write one row a finding; slices are numbered as everywhere (``report.COUNTING``), unknown values are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        table.writeheader()

        for finding in report.findings:
            abnormal = is_abnormal(finding.target or finding.phrase, report.image["modality"])
            own = {name: getattr(finding, name) for name in ("number", "target", "phrase", "plane", "description")}
            own |= {
                "section": "abnormal" if abnormal else "structures",
                "within_number": finding.within,
                "presence_0_to_1": finding.presence,
                "slice_count": len(finding.slices),
                "flags": " ".join(finding.flags),
            }
            if finding.tally is not None:
                tally = asdict(finding.tally)
                own |= {**tally, "instances_count": tally["instances"], "fraction_0_to_1": tally["fraction"]}
                own["tally_unit"] = tally["unit"]
            if finding.evidence is not None:
                own |= {
                    "checks_count": len(finding.evidence.checks),
                    "checks_agreeing_count": finding.evidence.agreeing,
                }
            table.writerow({**own, **asdict(finding.measurements)})
