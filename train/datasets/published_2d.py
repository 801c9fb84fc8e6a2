"""The published 2D folders: ``train/``, ``train_mask/``, ``train.json`` and the same for ``test``.

One JSON has ``images`` and ``annotations`` that are joined on ``file_name``; an annotation is one mask with one or more
sentences that name it, of which the first is used, and may have a ``caption``. The segmentation, disease, region,
region description and "NoFindings" sets all look like this.

Patients: where every file name of a set is ``A-B-number`` and there is more than one ``A-B``, that is the volume of a
slice and its group; else every picture is its own group.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from unibiomed_core import vocabulary
from unibiomed_core.errors import DataError

from ..data.counts import is_abnormality
from ..data.records import Record
from .annotations import Regions, SourcePhrase, parse_phrase
from .names import Names
from .request import ConversionRequest, Summary
from .source_files import (
    made_or_refused,
    read_annotations,
    read_mask,
    read_picture,
    rows_of,
    split_files,
)
from .volumes import frame_of, picture_record

_SLICE_NAME = re.compile(r"([^-]+-[^-]+)-(\d+)$")


def fits(source: Path) -> bool:
    """Whether a folder has an annotation file with its folder of masks."""
    return any((source / f"{s}.json").is_file() and (source / f"{s}_mask").is_dir() for s in ("train", "test"))


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record a picture; see ``Converter``.

    A mask of zeros means that its target is not there, and a picture without any target and without a known organ among
    those asked is a normal one. A picture is taken with all of its masks or not at all.
    """
    files = split_files(job.source, "train.json", "test.json")
    names = Names(job.source, summary)
    pictures = {path: _pictures(path, job.dataset, summary) for _, path in files}
    slices = _slices(name for found in pictures.values() for name in found)
    for split, path in files:
        for name, rows in pictures[path].items():
            item = f"{job.dataset}/{path.stem}/{name}"
            place = slices.get(name, (f"{path.stem}/{name}", -1))
            yield from made_or_refused(summary, item, partial(_record, job, names, path.stem, split, name, place, rows))


def _pictures(path: Path, dataset: str, summary: Summary) -> dict[str, list[Mapping[str, Any]]]:
    """File name -> annotations, in the order of the images."""
    document = read_annotations(path)
    images = rows_of(document, "images", ("file_name",), path)
    found: dict[str, list[Mapping[str, Any]]] = {str(image["file_name"]): [] for image in images}
    for number, row in enumerate(rows_of(document, "annotations", ("file_name", "sentences"), path)):
        if row["file_name"] in found:
            found[row["file_name"]].append(row)
        else:
            summary.refuse(f"{dataset}/{path.stem}/annotation {number}", f"No image is called {row['file_name']}")
    return found


def _slices(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """File name -> (volume, slice), or nothing where the names do not tell volumes."""
    found = {name: _SLICE_NAME.match(PurePosixPath(name).stem) for name in names}
    places = {name: (match[1], int(match[2])) for name, match in found.items() if match}
    tells = len(places) == len(found) and len({volume for volume, _ in places.values()}) > 1
    return places if tells else {}


def _record(
    job: ConversionRequest,
    names: Names,
    folder: str,
    split: str,
    name: str,
    place: tuple[str, int],
    annotations: list[Mapping[str, Any]],
) -> Record:
    if not annotations:
        raise DataError("Image without annotation", name, "at least one annotation with its file name")
    phrases = [_phrase(row, job.modality) for row in annotations]
    modality = next((p.modality for p in phrases if p.modality), job.modality)
    rgb = read_picture(names.find(name, [job.source / folder]), modality, names.summary)
    regions = Regions(job.side)
    for row, phrase in zip(annotations, phrases, strict=True):
        if phrase.says_nothing:
            continue
        if not row.get("mask_file"):
            raise DataError("Image without mask", f"the annotation '{phrase.target}' of {name}", "a mask_file")
        mask = read_mask(
            names.find(row["mask_file"], [job.source / f"{folder}_mask"], "mask"), rgb.shape, names.summary
        )
        # A region's anatomy is asked for abnormalities; for an organ it would be the wrong question.
        anatomy = phrase.anatomy if is_abnormality(phrase.target, modality) else ""
        regions.add(phrase.target, mask, str(row.get("caption") or "").strip(), anatomy)

    group, index = place
    split, source, asked = job.split(split, group), f"{folder}/{name}", regions.asked()
    known = _is_normal(phrases, regions, modality, name) or (job.findings_known and regions.all_seen())
    frame = frame_of(job, source, group=group, split=split, modality=modality, targets=asked, source=source)
    return picture_record(
        frame, rgb, job.side,
        volume=f"{job.dataset}/{group}" if index >= 0 else "",
        slice=index,
        regions=regions.present(),
        absent=regions.empty(),
        findings_known=known,
    )  # fmt: skip


def _phrase(row: Mapping[str, Any], modality: str) -> SourcePhrase:
    sentences = row["sentences"]
    first = sentences[0] if isinstance(sentences, list) and sentences and isinstance(sentences[0], dict) else {}
    text = str(first.get("sent") or first.get("raw") or "").strip()
    if not text:
        raise DataError("Annotation without a sentence", f"{row['file_name']}", "a sentence that names the mask")
    return parse_phrase(text, modality)


def _is_normal(phrases: list[SourcePhrase], regions: Regions, modality: str, name: str) -> bool:
    """Whether the annotations say that nothing is wrong."""
    asked = [p.target for p in phrases if not p.says_nothing]
    empty = regions.empty()
    present = [target for target in asked if target not in empty]
    if any(p.says_nothing for p in phrases):
        wrong = [target for target in present if is_abnormality(target, modality)]
        if wrong:
            raise DataError("Contradicting annotations", f"{name} shows '{wrong[0]}' and no findings", "one of the two")
        return True
    known = [vocabulary.find(target, modality) for target in empty]
    return not present and all(target is None or target.kind == "finding" for target in known)
