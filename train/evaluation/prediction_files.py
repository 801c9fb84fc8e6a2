"""Prediction files, the same for every system that is scored: one row a mask, one row a written answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError
from unibiomed_core.files import parse_json

from ..data.records import Record
from ..data.run_lengths import decode_mask, encode_mask

MASK_FILE, ANSWER_FILE = "masks.jsonl", "answers.jsonl"

ABOUT = ("id", "dataset", "modality", "group")
MASK_VALUES = (*ABOUT, "target", "volume", "slice", "spacing_mm", "present", "presence", "size", "mask", "truth")
ANSWER_VALUES = (*ABOUT, "task", "truths", "answer", "raw")

Row = dict[str, Any]


def mask_row(record: Record, target: str, mask: NDArray[np.bool_], presence: float) -> Row:
    """One row of ``masks.jsonl``; every system that is to be scored writes its masks with this.

    Args:
        mask: (H, W) bool at the record's picture size.
        presence: How sure the system is that the picture shows the target, any scale that grows with it.

    Raises:
        DataError: The record neither shows the target nor says that it is absent, or the mask has another size.
    """
    counts = {r.target: r.counts for r in record.regions if r.counts}
    if target not in counts and target not in record.absent:
        raise DataError("Target not annotated", f"{record.id} says nothing of '{target}'", ", ".join(counts) or "none")
    shown = record.pixels().shape[:2]
    if mask.shape != shown:
        raise DataError("Mask of another size", f"{mask.shape} for {record.id}", f"{shown}")
    return {
        **about(record),
        "target": target,
        "volume": record.volume,
        "slice": record.slice,
        # The picture was resized; its pixels are larger or smaller than those of the source.
        "spacing_mm": [mm * own / now for mm, own, now in zip(record.spacing_mm, record.size, shown, strict=True)],
        "present": target in counts,
        "presence": float(presence),
        "size": list(shown),
        "mask": encode_mask(mask).decode("ascii"),
        "truth": counts[target].decode("ascii") if target in counts else "",
    }


def about(record: Record) -> Row:
    """What every row says of its record."""
    return {"id": record.id, "dataset": record.dataset, "modality": record.modality, "group": record.group}


def decode(size: Sequence[int], counts: str) -> NDArray[np.bool_]:
    """(H, W) bool of a row's mask; empty counts are an empty mask."""
    if not counts:
        return np.zeros((size[0], size[1]), bool)
    return decode_mask(counts, size)


def rows(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """The rows of a prediction file, NaN for null.

    Raises:
        DataError: As :func:`objects`.
    """
    yield from (with_nan(row) for row in objects(path, needed))


def objects(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """The objects of a file of one a line, as they stand.

    Raises:
        DataError: The file is missing, is no such file, or a row lacks one of the ``needed`` values.
    """
    if not path.is_file():
        raise DataError("Predictions not found", f"there is no {path}", "a file written by the prediction step")
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            place = f"{path.name}, line {number}"
            row = parse_json(line, place, DataError, "Predictions cannot be read", "one JSON object a line")
            if not isinstance(row, dict):
                raise DataError("Predictions cannot be read", f"{place} is a {type(row).__name__}", "an object")
            if missing := [name for name in needed if name not in row]:
                raise DataError(
                    "Prediction row incomplete",
                    f"{place} lacks {', '.join(missing)}",
                    ", ".join(needed),
                    f"Write it with {__name__}.mask_row.",
                )
            yield row


def write_rows(path: Path, found: Iterable[Row]) -> None:
    """Write rows one a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(to_json(row) + "\n" for row in found)


def to_json(value: object, indent: int | None = None) -> str:
    """JSON that every reader takes: a NaN becomes null."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value: Any) -> Any:
    """A value from a JSON file as :func:`to_json` was given it: NaN for null."""
    if isinstance(value, dict):
        return {key: with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_nan(inner) for inner in value]
    return math.nan if value is None else value
