"""The published MedTrinity folder: ``train.json`` and ``test.json`` whose annotations have a file name and a caption.

File names are relative to the folder. An annotation may have a ``bbox`` (x, y, width, height in pixels of the picture)
and a ``modality``. A source with ``train.json`` alone is divided 80 / 20 by picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unibiomed_core.errors import DataError

from ..data.records import UNNAMED, Record, RegionRecord
from .annotations import modality_name, scale_box
from .names import Names
from .request import ConversionRequest, Summary
from .source_files import (
    made_or_refused,
    read_annotations,
    read_picture,
    rows_of,
    split_files,
)
from .volumes import frame_of, picture_record

_FILES = ("train.json", "test.json")
_COLUMNS = ("file_name", "caption")


def fits(source: Path) -> bool:
    """Whether a folder has such a JSON and no folder of masks."""
    paths = [source / name for name in _FILES if (source / name).is_file()]
    if not paths or any((source / f"{s}_mask").is_dir() for s in ("train", "test")):
        return False
    text = paths[0].read_bytes()
    told = all(f'"{word}"'.encode() in text for word in ("annotations", *_COLUMNS))
    return told and b'"categories"' not in text


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record a picture; see ``Converter``. Captions keep their letter case, and those of one picture follow on."""
    files = Names(job.source, summary)
    for split, path in split_files(job.source, *_FILES):
        pictures: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows_of(read_annotations(path), "annotations", _COLUMNS, path):
            pictures.setdefault(str(row["file_name"]), []).append(row)
        for name, rows in pictures.items():
            make = partial(_record, job, files, split, name, rows)
            yield from made_or_refused(summary, f"{job.dataset}/{name}", make)


def _record(job: ConversionRequest, files: Names, split: str, name: str, rows: list[Mapping[str, Any]]) -> Record:
    captions = list(dict.fromkeys(str(row["caption"] or "").strip() for row in rows))
    if "" in captions:
        raise DataError("Empty caption", name, "a caption")
    modality = next((m for row in rows if (m := modality_name(str(row.get("modality", ""))))), job.modality)
    rgb = read_picture(files.find(name, [job.source]), modality, files.summary)
    regions = tuple(
        RegionRecord(UNNAMED, box=scale_box(row["bbox"], rgb.shape, job.side), caption=str(row["caption"]).strip())
        for row in rows
        if row.get("bbox")
    )

    split = job.split(split, name)
    frame = frame_of(job, name, group=name, split=split, modality=modality, targets=None, source=name)
    return picture_record(frame, rgb, job.side, regions=regions, caption=" ".join(captions))
