"""nnU-Net's raw data, versions 1 and 2, and the Medical Segmentation Decathlon: ``imagesTr`` and ``labelsTr``.

Labels and channels come from ``dataset.json`` ("modality" and {"1": "liver"} in version 1, "channel_names" and
{"liver": 1 or [1, 2]} in version 2) unless the job has labels. Every channel of a case, in its own file (``_0000``,
``_0001``) or in a 4D file, becomes a series of records with the same regions. ``imagesTs`` is converted, as the test
split, where there is a ``labelsTs``; else the cases of ``imagesTr`` are divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.files import read_json
from unibiomed_core.io import FORMATS, nifti, read
from unibiomed_core.io.interpret import modality_of_name
from unibiomed_core.io.stored import to_volume
from unibiomed_core.modalities import modality
from unibiomed_core.types import Volume

from ..data.records import Record
from . import volumes
from .names import folded, respelt
from .request import ConversionRequest, Summary

IGNORE = "ignore"
"""nnU-Net's name of the label of voxels that nobody annotated."""


@dataclass(frozen=True)
class _Plan:
    """What ``dataset.json`` and the job say.

    Args:
        labels: Target -> values, as the source names them.
        known: Every value that may stand in a mask.
        ignore: Values of voxels that nobody annotated.
        channels: Names by number; empty where nothing names them.
        ending: Of image and mask files.
    """

    labels: Mapping[str, tuple[int, ...]]
    known: frozenset[int]
    ignore: tuple[int, ...]
    channels: tuple[str, ...]
    ending: str


def fits(source: Path) -> bool:
    """Whether there are ``imagesTr`` and ``labelsTr``."""
    return (source / "imagesTr").is_dir() and (source / "labelsTr").is_dir()


def why_not(source: Path) -> str:
    """Which of the two folders is there without the other, for a message; empty for none."""
    there = [name for name in ("imagesTr", "labelsTr") if (source / name).is_dir()]
    return f"there is {there[0]} and not the other of imagesTr and labelsTr" if len(there) == 1 else ""


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """Records of every channel of every case, by the order of names.

    Raises:
        DataError: A folder is missing, ``dataset.json`` cannot be used, or nothing names labels or modality.
    """
    if not fits(job.source):
        raise DataError("Unknown data layout", f"no imagesTr and labelsTr in {job.source.name}", "both folders")
    plan = _plan(job)
    parts = ["Tr", *(["Ts"] if (job.source / "imagesTs").is_dir() and (job.source / "labelsTs").is_dir() else [])]
    for part in parts:
        images, labels = job.source / f"images{part}", job.source / f"labels{part}"
        masks = {_stem(f, plan.ending): f for f in _files(labels, plan.ending)}
        cases: dict[str, dict[int, Path]] = {case: {} for case in masks}
        for file in _files(images, plan.ending):
            case, channel = _case_of(_stem(file, plan.ending), masks)
            cases.setdefault(case, {})[channel] = file
        for case, own in respelt((c for c, files in cases.items() if files), masks, folded).items():
            cases[own] = cases.pop(case)
            summary.note("mask_name", f"{masks[own].name} for {case}")
        for case, files in sorted(cases.items()):
            split = job.split("" if len(parts) == 1 else "train" if part == "Tr" else "test", case)
            try:
                yield from _convert_case(job, plan, case, files, masks.get(case), split, summary)
            except volumes.UNREADABLE as cause:
                summary.refuse(f"{job.dataset}/{case}", cause)


def _plan(job: ConversionRequest) -> _Plan:
    about = _about(job.source / "dataset.json")
    own = _labels_of(about.get("labels", {}))
    ignore = own.pop(IGNORE, ())
    labels, known = volumes.split_background(job.labels or {k: v for k, v in own.items() if v != (0,)})
    if not labels:
        raise DataError("Labels without names", f"no dataset.json names the labels of {job.source.name}", "labels")
    own_known = frozenset(v for values in own.values() for v in values)
    channels = about.get("channel_names", about.get("modality", {}))
    names = tuple(str(channels[key]) for key in sorted(channels, key=int))
    for name in names or ("",):
        _modality(name, job)  # told before the first of a thousand files is read
    ending = about.get("file_ending") or _ending(job.source / "labelsTr")
    return _Plan(labels, known | own_known | set(ignore), ignore, names, ending)


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    about = read_json(path, DataError, "Data set description cannot be read")
    if isinstance(about, dict) and all(isinstance(about.get(k, {}), dict) for k in ("labels", "channel_names")):
        return about
    raise DataError("Data set description cannot be read", path.name, "an object with labels and channel_names")


def _labels_of(table: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Either version's table as name -> values."""
    try:
        if all(str(key).isdigit() for key in table):
            return {str(name): (int(value),) for value, name in table.items()}
        return {k: tuple(int(x) for x in v) if isinstance(v, list) else (int(v),) for k, v in table.items()}
    except (TypeError, ValueError) as cause:
        raise DataError("Labels cannot be read", f"{table}"[:200], '{"liver": 1} or {"1": "liver"}') from cause


def _ending(folder: Path) -> str:
    for file in sorted(folder.iterdir()):
        for ending in FORMATS:
            if file.name.lower().endswith(ending) and not file.name.startswith("."):
                return file.name[-len(ending) :]
    raise DataError("Unknown data layout", f"no mask in {folder.name}", f"files with one of {' '.join(FORMATS)}")


def _files(folder: Path, ending: str) -> list[Path]:
    # The Decathlon's archives hold a "._" file beside each real one.
    own = ending.lower()
    return [f for f in sorted(folder.iterdir()) if f.name.lower().endswith(own) and not f.name.startswith(".")]


def _stem(file: Path, ending: str) -> str:
    return file.name[: -len(ending)]


def _case_of(stem: str, masks: Mapping[str, Path]) -> tuple[str, int]:
    """Case and channel; the Decathlon's images carry no channel number."""
    found = re.fullmatch(r"(.+)_(\d{4})", stem)
    if stem in masks or not found:
        return stem, 0
    return found[1], int(found[2])


def _modality(channel: str, job: ConversionRequest) -> str:
    """What the channel's name tells ("T1w", "cine-MRI"), else the job's modality.

    Raises:
        DataError: Neither tells.
    """
    try:
        return modality(channel).name
    except ConfigError:
        if found := modality_of_name(channel)[0] or job.modality:
            return found
    raise DataError(
        "Modality not told", f"channel '{channel}' of {job.dataset} is none that is known", "a modality for the job"
    )


def _convert_case(
    job: ConversionRequest,
    plan: _Plan,
    case: str,
    files: Mapping[int, Path],
    mask: Path | None,
    split: str,
    summary: Summary,
) -> Iterator[Record]:
    if mask is None or not files:
        what = "Image without mask" if mask is None else "Mask without image"
        raise DataError(what, f"case '{case}'", "an image and a mask of the same name")
    layer: NDArray[Any] | None = None
    for name, kind, volume, file in _series(job, plan, files):
        summary.note_reader(volume.notes, file.name)
        if layer is None:
            layer = volumes.read_labels(mask, volume.stored, summary)
            first = volume.stored
            volumes.check_labels(layer, plan.known, mask.name)
        if volume.stored.shape != first.shape or not np.allclose(volume.stored.affine, first.affine, atol=1e-2):
            raise DataError("Channels on different grids", f"'{file.name}'", "one grid for all channels of a case")
        labels = volumes.named_targets(plan.labels, kind)
        frame = volumes.frame_of(
            job, f"{case}/{name}" if name else case, group=case, split=split, modality=kind, targets=labels,
            source=file.relative_to(job.source).as_posix(),
        )  # fmt: skip
        unsure = volumes.label_masks([layer], {IGNORE: plan.ignore})[IGNORE] if plan.ignore else None
        yield from volumes.slice_records(
            volume, volumes.label_masks([layer], labels), frame, job.side, job.step, unsure=unsure
        )


def _series(job: ConversionRequest, plan: _Plan, files: Mapping[int, Path]) -> Iterator[tuple[str, str, Volume, Path]]:
    """(name, modality, volume, file) of each channel; one that is alone needs no name."""
    for number, file in sorted(files.items()):
        stored = nifti.load_series(file) if file.name.endswith((".nii", ".nii.gz")) else []
        if len(stored) <= 1:
            kind = _modality(_channel(plan, number, file) if plan.channels else "", job)
            volume = to_volume(stored[0], file, kind) if stored else read(file, kind)
            yield _series_name(plan, number) if len(files) > 1 else "", kind, volume, file
            continue

        if plan.channels and len(stored) != len(plan.channels):
            raise DataError("Unknown channels", f"'{file.name}' has {len(stored)}", f"{', '.join(plan.channels)}")
        for inner, one in enumerate(stored):
            kind = _modality(plan.channels[inner] if plan.channels else "", job)
            yield _series_name(plan, inner), kind, to_volume(one, file, kind), file


def _channel(plan: _Plan, number: int, file: Path) -> str:
    if number >= len(plan.channels):
        raise DataError("Unknown channels", f"'{file.name}' is channel {number}", f"{', '.join(plan.channels)}")
    return plan.channels[number]


def _series_name(plan: _Plan, number: int) -> str:
    name = plan.channels[number] if number < len(plan.channels) else ""
    return name.replace(" ", "-") if name and plan.channels.count(name) == 1 else f"{name or 'channel'}-{number}"
