"""A folder of data sets to records, with a saved summary of what was made and what was refused, and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from train.data import records as record_files
from train.datasets import shared_layout
from unibiomed_core.errors import DataError

MOST_REFUSED = 0.02
"""Share of items that may be refused before the conversion is an error."""


def prepare(root: Path, out: Path, side: int, say: Callable[[str], None]) -> None:
    """Write ``train.parquet``, ``test.parquet`` and ``summary.json``.

    Raises:
        DataError: Unknown layout, empty split, leakage between the splits, or too much refused.
    """
    summary = shared_layout.Summary()
    found = list(shared_layout.convert(root, side, summary))
    if len(summary.refused) > MOST_REFUSED * max(1, len(found)):
        raise DataError(
            "Too many items refused",
            f"{len(summary.refused)} of {len(found)}, first: {summary.refused[0][0]}: {summary.refused[0][1]}",
            f"at most {MOST_REFUSED:.0%}",
        )
    splits = {name: [r for r in found if r.split == name] for name in ("train", "test")}
    record_files.check_leakage(splits["train"], splits["test"])
    for name, rows in splits.items():
        record_files.save(rows, out / f"{name}.parquet")
    by_modality = Counter(f"{r.modality or 'unspecified'}/{r.split}" for r in found)
    by_target = Counter(f"{x.target}/{r.split}" for r in found for x in r.regions)
    (out / "summary.json").write_text(
        json.dumps(
            {
                "records": dict(summary.records),
                "by_modality": dict(by_modality),
                "by_target": dict(by_target),
                "refused": summary.refused,
            },
            indent=1,
        ),
        "utf-8",
    )
    say(f"{len(splits['train'])} training and {len(splits['test'])} test records, {len(summary.refused)} refused")
