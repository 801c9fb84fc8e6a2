"""COCO instance files: ``images``, ``annotations`` with polygons or run lengths, and ``categories``.

Every JSON of the folder and of the folders one level down that holds these three lists is read, so both the usual tree
(``annotations/instances_train.json``, pictures in ``train/``) and the one with a ``_annotations.coco.json`` beside the
pictures fit. A word in the path tells the split, else pictures are divided 80 / 20.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import DataError

from ..data.records import Record, RegionRecord
from .annotations import Regions, scale_box, target_name
from .names import Names
from .outlines import outline
from .request import ConversionRequest, Summary
from .source_files import (
    made_or_refused,
    read_annotations,
    read_picture,
    rows_of,
    split_words,
)
from .volumes import frame_of, picture_record

MOST_DROPPED = 0.5
"""Share of the annotations that may have no usable place before the conversion is an error."""

_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class _Work:
    """What all pictures of a conversion share."""

    job: ConversionRequest
    files: Names
    summary: Summary


def fits(source: Path) -> bool:
    """Whether a JSON of the folder has the three lists; the file is searched, not parsed."""
    return bool(_files(source))


def why_not(source: Path) -> str:
    """A JSON that has some of the three lists, for a message; empty for none."""
    for path in sorted((*source.glob("*.json"), *source.glob("*/*.json"))):
        lacking = [name for name in _LISTS if not _has(path, (name,))]
        if len(lacking) == 1:
            return f"{path.relative_to(source).as_posix()} has no list '{lacking[0]}'"
    return ""


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record an image; see ``Converter``.

    An annotation with neither a usable outline nor a box is left out and counted; its target is then neither there nor
    absent in its picture.

    Annotations of one category are united into one region; one with a box and no segmentation is a region of its own.
    A category that is annotated somewhere in a file and not in an image of it is absent there.
    """
    files = _files(job.source)
    if not files:
        raise DataError("Unknown data layout", f"no JSON in {job.source.name}", f"one with {', '.join(_LISTS)}")
    splits = split_words([path.relative_to(job.source).as_posix() for path in files])
    done: set[str] = set()
    work = _Work(job, Names(job.source, summary), summary)
    total = 0
    for split, path in zip(splits, files, strict=True):
        images, annotations, names = _contents(path)
        total += sum(map(len, annotations.values()))
        used = list(dict.fromkeys(names[a["category_id"]] for found in annotations.values() for a in found))
        for image in images:
            item = f"{job.dataset}/{path.stem}/{image['file_name']}"
            make = partial(_record, work, split, path, image, annotations[image["id"]], names, used)
            for record in made_or_refused(summary, item, make):
                if record.id in done:
                    summary.refuse(item, f"{record.source} is described by another entry, too")
                else:
                    done.add(record.id)
                    yield record
    key = "annotation_dropped", ""
    if summary.notes[key] > MOST_DROPPED * total:
        raise DataError(
            "Annotations without a place",
            f"{summary.notes[key]} of {total} have neither an outline nor a box, e.g. {summary.examples[key]}",
            "a segmentation or a bbox for most of them",
        )


def _files(source: Path) -> list[Path]:
    return [path for path in sorted((*source.glob("*.json"), *source.glob("*/*.json"))) if _has(path, _LISTS)]


def _has(path: Path, names: Sequence[str]) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(f'"{name}"'.encode()) >= 0 for name in names)


def _contents(
    path: Path,
) -> tuple[list[Mapping[str, Any]], defaultdict[Any, list[Mapping[str, Any]]], dict[Any, str]]:
    """Images, annotations by image id, and category names by id."""
    document = read_annotations(path)
    images = rows_of(document, "images", ("id", "file_name"), path)
    for key in ("images", "annotations", "categories"):
        for number, row in enumerate(rows_of(document, key, (), path)):
            if not all(isinstance(row.get(k, 0), int | str) for k in ("id", "image_id", "category_id")):
                raise DataError("Unknown annotation layout", f"{path.name}, {key}[{number}]", "ids of numbers or text")
    names = {row["id"]: str(row["name"]) for row in rows_of(document, "categories", ("id", "name"), path)}
    annotations: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    known = {image["id"] for image in images}
    for row in rows_of(document, "annotations", ("image_id", "category_id"), path):
        for value, there, what in ((row["category_id"], names, "category"), (row["image_id"], known, "image")):
            if value not in there:
                raise DataError("Unknown label", f"{path.name}: an annotation of {what} {value}", f"a listed {what}")
        annotations[row["image_id"]].append(row)
    return images, annotations, names


def _record(
    work: _Work,
    split: str,
    path: Path,
    image: Mapping[str, Any],
    annotations: list[Mapping[str, Any]],
    names: Mapping[Any, str],
    used: list[str],
) -> Record:
    job = work.job
    file = _picture(work, path, image["file_name"])
    rgb = read_picture(file, job.modality, work.summary)
    shape = (rgb.shape[0], rgb.shape[1])
    told = (image.get("height") or shape[0], image.get("width") or shape[1])
    if told != shape and [str(n) for n in told] != [str(n) for n in shape]:
        raise DataError("Mask of another size", f"{path.name} says {told}", f"{file.name} of {shape} (H, W)")
    regions = Regions(job.side)
    boxed: list[RegionRecord] = []
    sure = True
    for number, row in enumerate(annotations):
        target = target_name(names[row["category_id"]], job.modality)
        mask = _mask(work, row, shape, image["file_name"])
        if mask is not None:
            regions.add(target, mask)
        elif not row.get("segmentation") and _has_area(row.get("bbox")):
            boxed.append(RegionRecord(target, box=scale_box(row["bbox"], rgb.shape, job.side)))
        else:
            work.summary.note("annotation_dropped", f"number {number} of {image['file_name']}")
            sure = False
    there = {target_name(names[row["category_id"]], job.modality) for row in annotations} - set(regions.empty())
    asked = dict.fromkeys(target_name(name, job.modality) for name in used)
    name = file.relative_to(job.source).as_posix()
    split = job.split(split, name)
    frame = frame_of(job, name, group=name, split=split, modality=job.modality, targets=asked, source=name)
    return picture_record(
        frame, rgb, job.side,
        regions=(*regions.present(), *boxed),
        absent=tuple(target for target in asked if target not in there),
        findings_known=job.findings_known and sure and regions.all_seen(),
    )  # fmt: skip


def _picture(work: _Work, path: Path, name: Any) -> Path:
    """The picture of an entry: beside its JSON, below the source or images/, or in a folder that its JSON is named for.

    ``instances_val2017.json`` is named for ``val2017`` and ``val``.
    """
    words = path.stem.split("_")
    named = [w for word in words for w in (word, word.rstrip("0123456789")) if w]
    roots = (work.job.source, work.job.source / "images")
    return work.files.find(name, [path.parent, *roots, *(root / word for word in named for root in roots)])


def _mask(work: _Work, row: Mapping[str, Any], shape: tuple[int, int], name: str) -> NDArray[np.bool_] | None:
    """(H, W) bool of an annotation's outline; None where it has none that covers a pixel."""
    if not row.get("segmentation"):
        return None
    found = outline(row["segmentation"], shape)
    for code, count in (("polygon_dropped", found.dropped), ("polygon_cut", found.cut)):
        if count:
            work.summary.note(code, str(name), count=count)
    return found.mask


def _has_area(box: Any) -> bool:
    """Whether there is a box and it is not empty; one that is wrong in another way is refused with its picture."""
    return bool(box) and not (isinstance(box, list | tuple) and len(box) == 4 and 0 in (box[2], box[3]))
