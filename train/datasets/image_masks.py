"""Pictures with mask pictures: ``images/`` and ``masks/`` side by side, or masks beside their pictures.

A mask holds label values or colours, or there is one folder a target (``masks/<target>/``, or folders that are called
"<target> masks"). Targets come from the job's labels, from ``labels.json`` ({"name": value or [red, green, blue]}) or
``class_dict.csv`` (name, r, g, b) in the source; without any of these a mask with one value besides 0 shows the target
that the data set's folder is called. A label without values (``{"polyp": ()}``) is everything above 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError
from unibiomed_core.files import read_json
from unibiomed_core.io import FORMATS, picture, read

from ..data.records import Record
from . import tables, volumes
from .picture_pairs import Pair, find_pairs, unpaired
from .request import ConversionRequest, Summary
from .source_files import HALF, LOSSY, split_words

LEASTLOSSY_STEP = 32
"""JPEG changes values; label values of a JPEG mask that lie closer together cannot be told apart."""

_PICTURES = tuple(suffix for suffix, module in FORMATS.items() if module == "picture")


@dataclass(frozen=True)
class _Table:
    """What the values of a mask mean.

    Args:
        labels: Target -> values, or colours as one number each; empty where nothing names them.
        known: Everything that may stand in a mask.
        colours: Whether masks are colour-coded.
    """

    labels: Mapping[str, tuple[int, ...]]
    known: frozenset[int]
    colours: bool = False

    @property
    def binary(self) -> bool:
        """One target at most, of which the masks are black and white: it is everything above 0."""
        return len(self.labels) <= 1 and not self.colours and self.known <= {0, 1, 255}


def fits(source: Path) -> bool:
    """Whether a picture with a mask is there."""
    return any(pair.image and pair.masks for pair in find_pairs(_paths(source)))


def why_not(source: Path) -> str:
    """What of this layout is there and pairs nowhere, for a message; empty where nothing of it is."""
    return unpaired(_paths(source))


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """Records by the order of paths; folders "train", "val", "test" in a path divide the source.

    Pictures are grouped by folder where a folder's name has a number and begins all its pictures' names, else alone.

    Raises:
        DataError: There is no picture with a mask, a table of labels cannot be used, or the modality is not told.
    """
    pairs = find_pairs(_paths(job.source))
    if not any(pair.image and pair.masks for pair in pairs):
        found = why_not(job.source) or f"no picture with a mask in {job.source.name}"
        raise DataError("Unknown data layout", found, "images/ and masks/ with files of the same names")
    if not job.modality:
        raise DataError("Modality not told", f"pictures of {job.source.name}", "a modality for the job")
    table = _table(job, summary)
    groups, splits = _groups([p.path for p in pairs]), _splits([p.path for p in pairs])
    for pair, group, split in zip(pairs, groups, splits, strict=True):
        if pair.spelt:
            summary.note("mask_name", f"{pair.spelt} for {PurePosixPath(pair.image).stem}")
        if any(PurePosixPath(name).suffix.lower() in LOSSY for names in pair.masks.values() for name in names):
            summary.note("jpeg_mask", pair.path)
        try:
            yield _convert_pair(job, pair, table, group, job.split(split, group), summary)
        except volumes.UNREADABLE as cause:
            summary.refuse(f"{job.dataset}/{pair.path}", cause)


def _paths(source: Path) -> list[PurePosixPath]:
    """Pictures below the source, sorted; hidden ones left out."""
    found = []
    for folder, folders, files in os.walk(source):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(folder) / f for f in files if f.lower().endswith(_PICTURES) and not f.startswith(".")]
    return sorted(PurePosixPath(f.relative_to(source).as_posix()) for f in found)


def _splits(images: Sequence[str]) -> list[str]:
    words = split_words([str(PurePosixPath(image).parent) for image in images])
    return words if {"train", "test"} <= set(words) else [""] * len(words)


def _groups(images: Sequence[str]) -> list[str]:
    """A patient's folder where there is one, as in "TCGA_CS_4941/TCGA_CS_4941_1.tif", else the picture."""
    names: dict[PurePosixPath, list[str]] = {}
    for image in images:
        names.setdefault(PurePosixPath(image).parent, []).append(PurePosixPath(image).name)
    return [
        str(folder)
        if re.search(r"\d", folder.name) and all(name.startswith(folder.name) for name in names[folder])
        else str(PurePosixPath(image).with_suffix(""))
        for image in images
        for folder in [PurePosixPath(image).parent]
    ]


def _table(job: ConversionRequest, summary: Summary) -> _Table:
    labels, colours = dict(job.labels), False
    if not labels:
        labels, colours = _table_file(job.source, summary)
    targets, known = volumes.split_background(labels)
    if len(targets) > 1 and not all(targets.values()):
        raise DataError("Labels without values", ", ".join(t for t, v in targets.items() if not v), "values for each")
    return _Table(volumes.named_targets(targets, job.modality), known, colours)


def _table_file(source: Path, summary: Summary) -> tuple[dict[str, tuple[int, ...]], bool]:
    """The table of ``labels.json`` or ``class_dict.csv``, and whether it holds colours."""
    expected = '{"name": value} or {"name": [red, green, blue]}'
    try:
        if (source / "labels.json").is_file():
            entries = read_json(source / "labels.json", DataError, "Table of labels cannot be read", expected)
            rows = {str(name): np.atleast_1d(np.asarray(value, int)).tolist() for name, value in entries.items()}
        elif (source / "class_dict.csv").is_file():
            listed = tables.rows(source / "class_dict.csv", summary)
            rows = {str(r["name"]): [int(r["r"]), int(r["g"]), int(r["b"])] for r in listed}
        else:
            return {}, False
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise DataError("Table of labels cannot be read", f"{source.name}: {cause}", expected) from cause
    sizes = {len(value) for value in rows.values()}
    if sizes not in ({1}, {3}) or not all(0 <= v <= 255 for value in rows.values() for v in value):
        raise DataError("Table of labels cannot be read", f"{source.name}: {rows}"[:200], expected)
    if sizes == {1}:
        return {name: (value[0],) for name, value in rows.items()}, False
    return {name: (_code(*value),) for name, value in rows.items()}, True


def _code(red: int, green: int, blue: int) -> int:
    return red << 16 | green << 8 | blue


def _convert_pair(
    job: ConversionRequest, pair: Pair, table: _Table, group: str, split: str, summary: Summary
) -> Record:
    if not pair.image or not pair.masks:
        what = "Image without mask" if pair.image else "Mask without image"
        raise DataError(what, pair.path, "a picture and a mask of the same name")
    if pair.twin:
        raise DataError("Two pictures of one name", pair.image, "one picture for each mask")
    file = job.source / pair.image
    volume = read(file, job.modality)
    summary.note_reader(volume.notes, pair.image)
    masks: dict[str, volumes.MaskOf] = {}
    for folder_target, names in pair.masks.items():
        own = _Table({}, frozenset()) if folder_target else table
        target = volumes.target_name(folder_target or pair.home or job.source.resolve().name, job.modality)
        if folder_target and table.labels and target not in table.labels:
            continue  # the job's labels choose among the folders
        layers = [_layer(job.source / name, own, volume.stored.shape, summary) for name in names]
        labels = {next(iter(own.labels), target): (1,)} if own.binary else own.labels
        masks |= volumes.label_masks(layers, labels)
    name = str(PurePosixPath(pair.image).with_suffix(""))
    frame = volumes.frame_of(
        job, name, group=group, split=split, modality=job.modality, targets=masks, source=pair.image
    )
    return next(volumes.slice_records(volume, masks, frame, job.side))


def _layer(path: Path, table: _Table, shape: tuple[int, ...], summary: Summary) -> NDArray[Any]:
    """(1, H, W) of label values, colour numbers, or 0 and 1 where there is one target.

    JPEG changes values: there a pixel has the nearest of the table's values or colours.

    Raises:
        ReadError: The file cannot be read.
        DataError: It is of another size than the picture, or holds what nothing names.
    """
    lossy = path.suffix.lower() in LOSSY
    values = _colours(path, summary) if table.colours else volumes.picture_values(path, table.binary, summary)
    if values.shape[:2] != tuple(shape):
        raise DataError("Mask of another size", f"'{path.name}' is {values.shape[:2]}", f"the image's {tuple(shape)}")
    if values.dtype.kind == "f":
        values = volumes.whole_numbers(values, path.name, summary=summary)
    if table.binary:
        return _above_zero(values, table, lossy, path.name)[np.newaxis]
    if lossy:
        values = _nearest(values, table, path.name)
    elif table.colours:
        values = values @ _CODE
    layer = values[np.newaxis]
    volumes.check_labels(layer, table.known, path.name)
    return layer


def _colours(path: Path, summary: Summary) -> NDArray[np.int64]:
    """(H, W, 3)."""
    values, notes = picture.load_mask(path, colours=True)
    summary.note_reader(notes, path.name)
    return values.astype(np.int64)


_CODE = np.array([_code(1, 0, 0), _code(0, 1, 0), _code(0, 0, 1)])


def _above_zero(values: NDArray[Any], table: _Table, lossy: bool, name: str) -> NDArray[np.uint8]:
    if lossy:
        return (values >= HALF).astype(np.uint8)
    if table.known - {0}:
        volumes.check_labels(values[np.newaxis], (1, 255), name)
    elif not table.labels and (found := np.unique(values[values > 0])).size > 1:
        raise DataError(
            "Unknown label value",
            f"'{name}' holds {', '.join(str(v) for v in found[:8])} and nothing names them",
            "one value besides 0, or a table of labels",
            'Name the values, or give one target without values ({"polyp": []}) for everything above 0.',
        )
    return (values > 0).astype(np.uint8)


def _nearest(values: NDArray[Any], table: _Table, name: str) -> NDArray[np.int64]:
    codes = np.array(sorted({0, *table.known}))
    levels = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1) if table.colours else codes[:, np.newaxis]
    apart = np.abs(levels[:, np.newaxis] - levels).max(axis=2)[~np.eye(len(codes), dtype=bool)].min()
    if apart < LEASTLOSSY_STEP:
        raise DataError(
            "Label values too close for JPEG", f"'{name}' has values {apart} apart", f"at least {LEASTLOSSY_STEP}"
        )
    pixels = values.reshape(*values.shape[:2], -1).astype(np.int64)
    best = np.full(values.shape[:2], np.iinfo(np.int64).max)
    nearest = np.zeros(values.shape[:2], np.int64)
    for code, level in zip(codes, levels, strict=True):
        distance = ((pixels - level) ** 2).sum(axis=2)
        nearest[distance < best] = code
        best = np.minimum(best, distance)
    return nearest
