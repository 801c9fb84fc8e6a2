"""Volumes with masks beside them, as data sets publish them: one folder a case, or images and labels side by side.

A data set is a row of ``case_patterns.PATTERNS``; all rows are read by the same code. The job's labels win over the
row's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError
from unibiomed_core.io import guard, read
from unibiomed_core.types import CroppedMask, Volume

from ..data.records import Record
from . import tables, volumes
from .case_patterns import PATTERNS, Pattern
from .names import Names
from .request import ConversionRequest, Summary
from .source_files import split_words

VOLUMES = (".nii.gz", ".nii", ".mhd")
_HELD_OUT = MappingProxyType({"Tr": "train", "Va": "val", "Val": "val", "Ts": "test"})
"""Ends of "imagesTr" and the like."""


def fits(source: Path) -> bool:
    """Whether an image of one of the layouts is there with its mask."""
    return _layout_of(_paths(source), source) is not None


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """Records of every slice of every case, by the order of paths.

    Where the source has training and held-out folders, or a ``meta.csv`` with a column "split", they divide it.

    Raises:
        DataError: No layout has an image with its mask here, or nothing names the label values.
    """
    paths = _paths(job.source)
    name = _layout_of(paths, job.source)
    if name is None:
        raise DataError("Unknown data layout", f"no volume with its mask in {job.source.name}", ", ".join(PATTERNS))
    found = [
        (pattern, match) for path in paths if (hit := _first_match(PATTERNS[name], path)) for pattern, match in [hit]
    ]
    if any(not (job.labels or pattern.labels or "*" in pattern.mask) for pattern, _ in found):
        raise DataError("Labels without names", f"the layout '{name}' names none", "labels for the job")
    files = Names(job.source, summary)
    taken: dict[str, str] = {}
    for (pattern, match), split in zip(found, _splits(job.source, [m for _, m in found], summary), strict=True):
        try:
            first = taken.setdefault(_name(match), match.string)
            if first != match.string:
                raise DataError("Two images of one case", f"'{first}' has the same name", "a name of its own")
            yield from _convert_image(job, files, pattern, match, split, summary)
        except volumes.UNREADABLE as cause:
            summary.refuse(f"{job.dataset}/{match.string}", cause)


def _paths(source: Path) -> list[str]:
    """Every volume and folder below the source, sorted; hidden ones left out."""
    found = []
    for folder, folders, files in os.walk(source):
        folders[:] = [f for f in folders if not f.startswith(".")]
        # A path object for each of a million files would take longer than the disk.
        below = "" if Path(folder) == source else f"{Path(folder).relative_to(source).as_posix()}/"
        found += [below + f for f in folders]
        found += [below + f for f in files if f.endswith(VOLUMES) and not f.startswith(".")]
    return sorted(found)


def _layout_of(paths: Sequence[str], source: Path) -> str | None:
    """The first layout that has an image with its mask."""
    files = Names(source)
    for name, patterns in PATTERNS.items():
        hits = (_first_match(patterns, path) for path in paths)
        if any(hit and files.look(_mask_path(*hit), [source], "mask") for hit in hits):
            return name
    return None


def why_not(source: Path) -> str:
    """What of these layouts is there and has no mask, for a message; empty where nothing of them is."""
    for name, patterns in PATTERNS.items():
        for path in _paths(source):
            if hit := _first_match(patterns, path):
                return f"{path} is named as an image of the layout '{name}', and there is no {_mask_path(*hit)}"
    return ""


def _first_match(patterns: Sequence[Pattern], path: str) -> tuple[Pattern, re.Match[str]] | None:
    return next(((p, match) for p in patterns if (match := p.match(path))), None)


def _mask_path(pattern: Pattern, match: re.Match[str]) -> str:
    """The mask file, from the source; the folder where there is one file a target."""
    folder = Path(match.string).parent.as_posix()
    path = PurePosixPath(pattern.mask.format(**match.groupdict(), folder=folder))
    return str(path.parent if "*" in path.name else path)


def _group(match: re.Match[str], name: str, default: str = "") -> str:
    return match.groupdict().get(name) or default


def _name(match: re.Match[str]) -> str:
    """What tells an image from all others of its data set."""
    sequence = _group(match, "sequence")
    return f"{_group(match, 'case')}/{sequence}" if sequence else _group(match, "case")


def _splits(source: Path, matches: Sequence[re.Match[str]], summary: Summary) -> list[str]:
    """The source's own split of each image; empty where it has none."""
    table = source / "meta.csv"
    if table.is_file():
        rows = tables.rows(table, summary)
        told = {str(row["image_id"]): str(row["split"]) for row in rows if row.get("image_id") and row.get("split")}
        words = split_words([told.get(_group(m, "case"), "") for m in matches])
    else:
        places = [f"{Path(m.string).parent} {_HELD_OUT.get(_group(m, 'part'), '')}" for m in matches]
        words = split_words(places)
    # A folder that is called "training" and nothing else divides nothing.
    return words if {"train", "test"} <= set(words) else [""] * len(words)


def _convert_image(
    job: ConversionRequest, files: Names, pattern: Pattern, match: re.Match[str], split: str, summary: Summary
) -> Iterator[Record]:
    file, named = job.source / match.string, _mask_path(pattern, match)
    mask = files.look(named, [job.source], "mask")
    if mask is None:
        raise DataError("Image without mask", f"there is no '{named}'", "a mask for each image")
    volume = read(file, pattern.modality or job.modality)
    summary.note_reader(volume.notes, match.string)
    masks = (
        _files_as_masks(job, mask, volume, summary)
        if "*" in pattern.mask
        else _labels_as_masks(job, pattern, mask, file, volume, summary)
    )
    group = _group(match, "patient", _group(match, "case"))
    split = job.split(split, group)
    frame = volumes.frame_of(
        job, _name(match), group=group, split=split, modality=volume.modality, targets=masks, source=match.string
    )
    yield from volumes.slice_records(volume, masks, frame, job.side, job.step)


def _labels_as_masks(
    job: ConversionRequest, pattern: Pattern, mask: Path, image: Path, volume: Volume, summary: Summary
) -> dict[str, volumes.MaskOf]:
    stack = mask.is_dir()
    layer = _picture_stack(mask, image, volume) if stack else volumes.read_labels(mask, volume.stored, summary)
    labels, known = volumes.split_background(job.labels or pattern.labels)
    volumes.check_labels(layer, known.union(*pattern.labels.values()), mask.name)
    return volumes.label_masks([layer], volumes.named_targets(labels, volume.modality))


def _files_as_masks(
    job: ConversionRequest, folder: Path, volume: Volume, summary: Summary
) -> dict[str, volumes.MaskOf]:
    """One file a target, kept as its bounding box: a hundred whole masks would not fit into memory.

    The job's labels, where there are any, choose among the targets.
    """
    wanted = {volumes.target_name(name, volume.modality) for name in job.labels}
    masks: dict[str, volumes.MaskOf] = {}
    for file in sorted(f for f in folder.iterdir() if not f.name.startswith(".")):
        target = volumes.target_name(file.name.split(".")[0], volume.modality)
        if wanted and target not in wanted:
            continue
        layer = volumes.read_labels(file, volume.stored, summary)
        volumes.check_labels(layer, (1, 255), file.name)
        masks[target] = _box_mask(CroppedMask.from_full(layer > 0))
    if not masks:
        raise DataError("Image without mask", f"no mask in '{folder.name}' of {folder.parent.name}", "one a target")
    return masks


def _box_mask(mask: CroppedMask) -> volumes.MaskOf:
    def at(index: int) -> NDArray[np.bool_]:
        plane = np.zeros(mask.shape[1:], bool)
        if mask.crop.size and mask.box[0].start <= index < mask.box[0].stop:
            plane[mask.box[1:]] = mask.crop[index - mask.offset[0]]
        return plane

    return at


def _picture_stack(folder: Path, series: Path, volume: Volume) -> NDArray[Any]:
    """One picture a DICOM file, paired by the order of names, put where the file's position says.

    Raises:
        DataError: There are fewer or more pictures than slices, or one is of another size.
    """
    import pydicom

    pictures = sorted(f for f in folder.iterdir() if f.suffix.lower() == ".png")
    files = sorted(f for f in series.iterdir() if f.is_file() and not f.name.startswith("."))
    columns, rows, count = volume.stored.shape
    if not len(pictures) == len(files) == count:
        raise DataError("Mask of another size", f"{len(pictures)} pictures in '{folder.name}'", f"{count} slices")
    to_index = np.linalg.inv(volume.stored.affine)
    layer = np.zeros((columns, rows, count), np.int32)
    for picture, file in zip(pictures, files, strict=True):
        values = volumes.picture_values(picture)
        if values.shape != (rows, columns):
            raise DataError("Mask of another size", f"'{picture.name}' is {values.shape}", f"{(rows, columns)}")
        with guard.reading(file, "a DICOM file"):
            x, y, z = (float(v) for v in pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient)
        layer[..., round(float((to_index @ (-x, -y, z, 1.0))[2]))] = values.T
    return volume.stored.to_canonical(layer)
