"""The published RadGenome folders: ``train_parse.json`` and ``test_parse.json`` with abnormality, anatomy and report.

A JSON is ``{index: {"abnormality", "anatomy", "report", "image_file", "mask_file"}}``, paths from the folder.

Patients: a file name that holds a CT-RATE volume name, ``train_12_a_2`` (patient 12, scan a, reconstruction 2), is of
patient ``train_12``, and a number at its end is the slice; any other picture is its own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from unibiomed_core.errors import DataError
from unibiomed_core.tasks import NO_FINDINGS

from ..data.records import Record
from .annotations import Regions, target_name
from .names import Names
from .request import ConversionRequest, Summary
from .source_files import (
    made_or_refused,
    read_annotations,
    read_mask,
    read_picture,
    require,
    split_files,
)
from .volumes import frame_of, picture_record

_COLUMNS = ("abnormality", "anatomy", "report", "image_file", "mask_file")
_FILES = ("train_parse.json", "test_parse.json")
_VOLUME = re.compile(r"(?<![a-z])((?:train|valid|test)_\d+)_([a-z]+)_(\d+)(?:[_-]+(?:slice)?[_-]*(\d+)(?=\.\w+$))?")


def fits(source: Path) -> bool:
    """Whether a folder has one of the annotation files."""
    return any((source / name).is_file() for name in _FILES)


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record a picture; see ``Converter``. All entries of a picture are its regions, each with its report.

    What the source says is complete for it: a picture whose entries all say "no findings" is a normal one.
    """
    files = Names(job.source, summary)
    for split, path in split_files(job.source, *_FILES):
        for name, entries in _pictures(path).items():
            make = partial(_record, job, files, split, name, entries)
            yield from made_or_refused(summary, f"{job.dataset}/{name}", make)


def ct_rate_volume(name: str) -> tuple[str, str, int] | None:
    """(patient, volume, slice) of a file name that holds a CT-RATE volume name, else None.

    The slice is the number at the end of the name, or -1: ``train_12_a_2-33.png`` is slice 33 of ``train_12_a_2``.
    """
    match = _VOLUME.search(name)
    if not match:
        return None
    return match[1], f"{match[1]}_{match[2]}_{match[3]}", int(match[4]) if match[4] else -1


def _pictures(path: Path) -> dict[str, list[Mapping[str, Any]]]:
    document = read_annotations(path)
    if not isinstance(document, dict):
        raise DataError("Unknown annotation layout", f"{path.name} holds a list", "an object of numbered entries")
    found: dict[str, list[Mapping[str, Any]]] = {}
    for index, entry in document.items():
        require(entry, _COLUMNS, f"{path.name}, entry {index}")
        found.setdefault(str(entry["image_file"]), []).append(entry)
    return found


def _record(job: ConversionRequest, files: Names, split: str, name: str, entries: list[Mapping[str, Any]]) -> Record:
    modality = job.modality or "ct"
    rgb = read_picture(files.find(name, [job.source]), modality, files.summary)
    regions = Regions(job.side)
    reports: list[str] = []
    for entry in entries:
        report = str(entry["report"] or "").strip()
        if report and report not in reports:
            reports.append(report)
        abnormality = str(entry["abnormality"] or "")
        if not abnormality.strip():
            raise DataError("Entry without an abnormality", name, f"a name, or '{NO_FINDINGS}'")
        if NO_FINDINGS not in abnormality.lower():
            mask = read_mask(files.find(entry["mask_file"], [job.source], "mask"), rgb.shape, files.summary)
            if not mask.any():
                raise DataError("Empty mask", f"'{abnormality}' of {name} has no pixel", f"a mask, or '{NO_FINDINGS}'")
            anatomy = str(entry["anatomy"] or "").strip().lower()
            regions.add(target_name(abnormality, modality), mask, report, anatomy)
    place = ct_rate_volume(name)
    group, volume, index = place or (name, "", -1)
    split = job.split(split, group)
    frame = frame_of(job, name, group=group, split=split, modality=modality, targets=regions.asked(), source=name)
    return picture_record(
        frame, rgb, job.side,
        volume=f"{job.dataset}/{volume}" if volume else "",
        slice=index,
        regions=regions.present(),
        findings_known=regions.all_seen(),
        caption=" ".join(reports),
    )  # fmt: skip
