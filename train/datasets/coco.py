"""COCO instance files: ``images``, ``annotations`` with polygons or run lengths, and ``categories``.

Every JSON of the folder and of the folders one level down that holds these three lists is read, so both the usual tree
(``annotations/instances_train.json``, pictures in ``train/``) and the one with a ``_annotations.coco.json`` beside the
pictures fit. A word in the path tells the split, else pictures are divided 80 / 20.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from train.data.records import Record, RegionRecord, resize_picture
from train.datasets.annotations import Regions, scale_box, target_name
from train.datasets.job import Job, Summary
from train.datasets.slices import foreign_targets
from train.datasets.source_files import (
    decided_split,
    inside,
    made_or_refused,
    read_json,
    read_picture,
    rows_of,
    split_words,
)
from unibiomed_core.errors import DataError

_LISTS = ("images", "annotations", "categories")


def fits(source: Path) -> bool:
    """Whether a JSON of the folder has the three lists; the file is searched, not parsed."""
    return bool(_files(source))


def convert(job: Job, summary: Summary) -> Iterator[Record]:
    """One record an image; see ``Converter``.

    Annotations of one category are united into one region; one with a box and no segmentation is a region of its own.
    A category that is annotated somewhere in a file and not in an image of it is absent there.
    """
    files = _files(job.source)
    if not files:
        raise DataError("Unknown data layout", f"no JSON in {job.source.name}", f"one with {', '.join(_LISTS)}")
    splits = split_words([path.relative_to(job.source).as_posix() for path in files])
    done: set[str] = set()
    for split, path in zip(splits, files, strict=True):
        images, annotations, names = _contents(path)
        used = list(dict.fromkeys(names[a["category_id"]] for found in annotations.values() for a in found))
        for image in images:
            item = f"{job.dataset}/{path.stem}/{image['file_name']}"
            record = made_or_refused(
                summary, item, partial(_record, job, split, path, image, annotations[image["id"]], names, used)
            )
            if record and record.id in done:
                summary.refuse(item, f"{record.source} is described by another entry, too")
            elif record:
                done.add(record.id)
                yield record


def _files(source: Path) -> list[Path]:
    return [path for path in sorted((*source.glob("*.json"), *source.glob("*/*.json"))) if _has_lists(path)]


def _has_lists(path: Path) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return all(text.find(f'"{name}"'.encode()) >= 0 for name in _LISTS)


def _contents(
    path: Path,
) -> tuple[list[Mapping[str, Any]], defaultdict[Any, list[Mapping[str, Any]]], dict[Any, str]]:
    """Images, annotations by image id, and category names by id."""
    document = read_json(path)
    images = rows_of(document, "images", ("id", "file_name"), path)
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
    job: Job,
    split: str,
    path: Path,
    image: Mapping[str, Any],
    annotations: list[Mapping[str, Any]],
    names: Mapping[Any, str],
    used: list[str],
) -> Record:
    file = _picture(job.source, path, image["file_name"])
    rgb = read_picture(file, job.modality)
    told = (int(image.get("height", rgb.shape[0])), int(image.get("width", rgb.shape[1])))
    if told != rgb.shape[:2]:
        raise DataError("Mask of another size", f"{path.name} says {told}", f"{file.name} of {rgb.shape[:2]} (H, W)")
    regions = Regions(job.side)
    boxed: list[RegionRecord] = []
    for row in annotations:
        target = target_name(names[row["category_id"]], job.modality)
        if row.get("segmentation"):
            regions.add(target, _mask(row["segmentation"], told))
        else:
            boxed.append(RegionRecord(target, box=scale_box(row.get("bbox"), rgb.shape, job.side)))
    there = {target_name(names[row["category_id"]], job.modality) for row in annotations} - set(regions.empty())
    asked = dict.fromkeys(target_name(name, job.modality) for name in used)
    name = file.relative_to(job.source).as_posix()
    return Record(
        id=f"{job.dataset}/{name}",
        dataset=job.dataset,
        split=decided_split(split, job.dataset, name),
        group=name,
        modality=job.modality,
        licence=job.licence,
        image=resize_picture(rgb, job.side),
        size=(rgb.shape[0], rgb.shape[1]),
        regions=(*regions.present(), *boxed),
        absent=tuple(target for target in asked if target not in there),
        foreign=foreign_targets(job.modality, asked, job.body),
        findings_known=job.findings_known and regions.all_seen(),
        source=name,
    )


def _picture(source: Path, path: Path, name: Any) -> Path:
    """The picture of an entry: beside its JSON, below the source or images/, or in a folder that its JSON is named for.

    ``instances_val2017.json`` is named for ``val2017`` and ``val``.
    """
    words = path.stem.split("_")
    named = [w for word in words for w in (word, word.rstrip("0123456789")) if w]
    roots = (source, source / "images")
    for folder in (path.parent, *roots, *(root / word for word in named for root in roots)):
        if (file := inside(folder, name)).is_file():
            return file
    raise DataError(
        "Missing picture", f"no {name} for {path.name}", "the picture beside it, in images/ or in a split's"
    )


def _mask(segmentation: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool of polygons or of run lengths, compressed or not.

    Raises:
        DataError: The run lengths are of another size, or what stands there is neither.
    """
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        if tuple(segmentation["size"]) != shape:
            raise DataError("Mask of another size", f"run lengths of {segmentation['size']}", f"{list(shape)} (H, W)")
        runs = segmentation["counts"]
        counts = runs if isinstance(runs, list) else _counts(runs)
        if sum(counts) != shape[0] * shape[1] or min(counts) < 0:
            raise DataError("Damaged mask", f"run lengths of {sum(counts)} pixels", f"{shape[0] * shape[1]} pixels")
        packed = coco_mask.frPyObjects({"size": list(shape), "counts": counts}, *shape)
        return np.asarray(coco_mask.decode(packed)).astype(bool)
    polygons = segmentation if isinstance(segmentation, list) else []
    if not polygons or any(not isinstance(p, list) or len(p) < 6 or len(p) % 2 for p in polygons):
        raise DataError("Mask not usable", f"{str(segmentation)[:80]}", "polygons of 3 corners or more, or run lengths")
    return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape)))).astype(bool)


def _counts(packed: str | bytes) -> list[int]:
    """The run lengths of a COCO string, which its library decodes without checking that they fill the picture.

    Five bits a character, lowest first, bit 6 set where more follow, the last one's top bit as sign; from the fourth
    on each is the difference to the one two before. Format: ``rleToString`` of the COCO API.
    """
    counts: list[int] = []
    value = shift = 0
    for character in packed.encode() if isinstance(packed, str) else packed:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift or not counts:
        raise DataError("Damaged mask", "run lengths that end too early", "a whole COCO string")
    return counts
