"""JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibiomed_core.files import staged
from unibiomed_core.report import colour
from unibiomed_core.types import Report


def dump(data: Mapping[str, Any], path: Path) -> None:
    """Write JSON in UTF-8; for files inside a ``staged`` block.

    Raises:
        ValueError: A number is not finite.
    """
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def write_json(data: Mapping[str, Any], path: Path | str, *, overwrite: bool = False) -> Path:
    """Write one JSON file, whole or not at all.

    Raises:
        WriteError: The file exists and ``overwrite`` is False, or it cannot be written.
    """
    path = Path(path)
    with staged(path.parent, [path.name], overwrite=overwrite) as folder:
        dump(data, folder / path.name)
    return path


def label_table(report: Report) -> dict[str, Any]:
    """What the numbers of the label image mean; the voxel count is that of the finding's own mask."""
    return {
        "schema": "unibiomed.labels",
        "version": 1,
        "notice": report.notice,
        "labels": {
            str(f.number): {
                "target": f.target,
                "phrase": f.phrase,
                "presence_0_to_1": f.presence,
                "colour": colour(f.number),
                "voxel_count": f.mask.count,
            }
            for f in report.findings
        },
    }
