"""The published 3D folders: ``meta_train.json`` and ``meta_test.json`` with slices and the masks of each phrase.

A JSON is ``{"volumes": {volume: {"slices": [file], "expressions": {id: {"exp", "mask_file": [path], "img_file"}}}}}``;
pictures lie in ``<volume>/<slice>``, masks where ``mask_file`` says. A mask belongs to the slice whose name it has, or
has before an underscore (``case-1_spleen.png`` to ``case-1.png``). The published loader compares beginnings instead, so
that slice ``case-1`` also gets the masks of ``case-10``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unibiomed_core import vocabulary

from ..data.records import Record
from .annotations import Regions, SourcePhrase, parse_phrase
from .names import Names, folded
from .request import ConversionRequest, Summary
from .source_files import (
    list_of,
    made_or_refused,
    object_of,
    read_annotations,
    read_mask,
    read_picture,
    require,
    split_files,
)
from .volumes import frame_of, picture_record

_FILES = ("meta_train.json", "meta_test.json")


def fits(source: Path) -> bool:
    """Whether a folder has one of the annotation files."""
    return any((source / name).is_file() for name in _FILES)


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """One record a slice with all phrases that have a mask there; see ``Converter``.

    A phrase that is annotated in the volume and has no mask in a slice is absent there. The volume is the group.
    """
    files = Names(job.source, summary)
    for split, path in split_files(job.source, *_FILES):
        for volume, about in object_of(read_annotations(path), "volumes", path.name).items():
            where = f"{path.name}, volume {volume}"
            names = [str(name) for name in list_of(about, "slices", where)]
            phrases = _phrases(job, volume, names, object_of(about, "expressions", where), where, summary)
            ordered = sorted(names, key=_number)
            for position, name in list(enumerate(ordered))[:: job.step]:
                make = partial(_record, job, files, split, volume, position, name, phrases)
                yield from made_or_refused(summary, f"{job.dataset}/{volume}/{name}", make)


def _number(name: str) -> tuple[int, str]:
    """Slices in the order of the number at the end of their name."""
    match = re.search(r"(\d+)$", PurePosixPath(name).stem)
    return (int(match[1]) if match else -1), name


def _phrases(
    job: ConversionRequest,
    volume: str,
    names: Sequence[str],
    expressions: Mapping[str, Any],
    where: str,
    summary: Summary,
) -> list[tuple[SourcePhrase, dict[str, list[str]]]]:
    """Each phrase with slice stem -> masks. Phrases without a name and masks of no slice are refused."""
    stems = {_stem(name) for name in names}
    found = []
    for number, expression in expressions.items():
        require(expression, ("exp", "mask_file"), f"{where}, expression {number}")
        text = str(expression["exp"])
        name = _asked(text) if "?" in text else text
        if not name.strip():
            summary.refuse(f"{job.dataset}/{volume}/expression {number}", f"'{text[:80]}' names no known target")
            continue
        masks: dict[str, list[str]] = {}
        for mask in list_of(expression, "mask_file", f"{where}, expression {number}"):
            stem = _slice_of(_stem(str(mask)), stems)
            if stem:
                masks.setdefault(stem, []).append(str(mask))
            else:
                summary.refuse(f"{job.dataset}/{volume}/{mask}", "No slice has the name of this mask")
        found.append((parse_phrase(name, job.modality), masks))
    return found


def _stem(name: str) -> str:
    """A file's name without folders and suffix, spelt alike for slices and masks."""
    return folded(PurePosixPath(name.replace("\\", "/")).stem)


def _slice_of(mask: str, slices: set[str]) -> str:
    """The slice whose whole name a mask's name is or has before an underscore; the longest such name."""
    while mask not in slices:
        mask, underscore, _ = mask.rpartition("_")
        if not underscore:
            return ""
    return mask


def _asked(question: str) -> str:
    """The longest name or synonym of the vocabulary that stands in a question, or empty."""
    words = f" {re.sub(r'[^a-z]+', ' ', vocabulary.normalise(question))} "
    names = (vocabulary.normalise(n) for t in vocabulary.targets().values() for n in (t.name, *t.synonyms))
    return max((name for name in names if f" {name} " in words), key=len, default="")


def _record(
    job: ConversionRequest,
    files: Names,
    split: str,
    volume: str,
    position: int,
    name: str,
    phrases: Sequence[tuple[SourcePhrase, Mapping[str, Sequence[str]]]],
) -> Record:
    modality = next((p.modality for p, _ in phrases if p.modality), job.modality)
    place = f"{volume}/{name}"
    rgb = read_picture(files.find(place, [job.source]), modality, files.summary)
    regions = Regions(job.side)
    for phrase, masks in phrases:
        regions.add(phrase.target, np.zeros(rgb.shape[:2], bool))
        for file in masks.get(_stem(name), ()):
            regions.add(phrase.target, read_mask(files.find(file, [job.source], "mask"), rgb.shape, files.summary))
    split = job.split(split, volume)
    frame = frame_of(job, place, group=volume, split=split, modality=modality, targets=regions.asked(), source=place)
    return picture_record(
        frame, rgb, job.side,
        volume=f"{job.dataset}/{volume}",
        slice=position,
        regions=regions.present(),
        absent=regions.empty(),
        findings_known=job.findings_known and regions.all_seen(),
    )  # fmt: skip
