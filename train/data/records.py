"""The uniform record: one picture with its regions, what is known to be absent, and its text material.

Records are kept as Parquet through ``datasets``: pictures as PNG bytes, regions as COCO run lengths.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from unibiomed_core.errors import DataError


@dataclass(frozen=True)
class RegionRecord:
    """One annotated target: COCO run lengths at the record's picture size."""

    target: str
    counts: bytes


@dataclass(frozen=True)
class QuestionRecord:
    """One question with its answer, both as the source has them."""

    question: str
    answer: str
    closed: bool


@dataclass(frozen=True)
class Record:
    """One picture.

    Args:
        id: Unique over all data sets.
        image: PNG bytes, grey or RGB; ``side`` x ``side`` pixels, aspect ratio not kept, as both towers see it.
        group: Patient, video or cluster; a split never cuts a group.
        volume: Id of the volume a slice came from; empty for a picture.
        slice: Canonical axial index in its volume, or -1.
        size: Height and width before resizing.
        spacing_mm: Row and column spacing before resizing; 0 where unknown.
        regions: What is there.
        absent: Annotated targets of the source that are not in this picture.
        foreign: Targets of other body parts or modalities that cannot be in this picture.
        findings_known: Whether every finding in the source's scope is annotated, so that none means none.
        image_class: Label of the whole picture, empty where none.
    """

    id: str
    dataset: str
    split: str
    group: str
    modality: str
    licence: str
    image: bytes
    size: tuple[int, int]
    spacing_mm: tuple[float, float] = (0.0, 0.0)
    volume: str = ""
    slice: int = -1
    regions: tuple[RegionRecord, ...] = ()
    absent: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    findings_known: bool = False
    image_class: str = ""
    questions: tuple[QuestionRecord, ...] = field(default=())

    def pixels(self) -> NDArray[np.uint8]:
        """(side, side, 3) uint8."""
        return np.asarray(Image.open(io.BytesIO(self.image)).convert("RGB"))

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Target -> (side, side) bool."""
        side = Image.open(io.BytesIO(self.image)).size[0]
        return {
            r.target: coco_mask.decode({"size": [side, side], "counts": r.counts}).astype(bool) for r in self.regions
        }


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """(H, W) bool -> COCO run lengths."""
    return bytes(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"])


def resize_picture(rgb: NDArray[np.uint8], side: int) -> bytes:
    """(H, W, 3) -> PNG bytes of ``side`` x ``side``; grey pictures are stored with one channel."""
    image = Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def resize_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """(H, W) bool -> (side, side) bool: the area that a pixel covers decides, half or more is foreground."""
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image) >= 128


def save(records: Iterable[Record], path: Path) -> int:
    """Write records as Parquet; returns how many."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    rows = [asdict(r) for r in records]
    if not rows:
        raise DataError("Empty split", f"no record to write to {path.name}", "at least one record")
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(str(path))
    return len(rows)


def load(path: Path) -> list[Record]:
    """Read records.

    Raises:
        DataError: The file is missing or is not one of ours.
    """
    import pyarrow.parquet as parquet

    if not path.is_file():
        raise DataError("Records not found", f"there is no {path}", "a file made by train/prepare.py")
    try:
        return [_from_row(row) for row in parquet.read_table(path).to_pylist()]
    except (KeyError, TypeError, ValueError) as cause:
        raise DataError("Records cannot be read", f"{path.name}: {cause}", "a file made by train/prepare.py") from cause


def _from_row(row: dict[str, Any]) -> Record:
    row["regions"] = tuple(RegionRecord(**r) for r in row["regions"])
    row["questions"] = tuple(QuestionRecord(**q) for q in row["questions"])
    for key in ("size", "spacing_mm", "absent", "foreign"):
        row[key] = tuple(row[key])
    return Record(**row)


def check_leakage(train: Sequence[Record], test: Sequence[Record]) -> None:
    """Raise where a group, an id or a picture stands in both splits.

    Raises:
        DataError: Names what is in both.
    """
    for what, a, b in (
        ("ids", {r.id for r in train}, {r.id for r in test}),
        ("groups", {(r.dataset, r.group) for r in train}, {(r.dataset, r.group) for r in test}),
        ("pictures", {r.image for r in train}, {r.image for r in test}),
    ):
        if both := a & b:
            raise DataError("Leakage between splits", f"{len(both)} {what} stand in both", "none", "Split by patient.")
