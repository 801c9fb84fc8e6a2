"""Enhanced DICOM objects: many frames in one file, whose places, sizes and scales stand in functional groups.

PS3.3 C.7.6.16. Enhanced CT, MR and PET and the legacy objects converted to them keep a frame's own values in
PerFrameFunctionalGroupsSequence and those common to all frames in SharedFunctionalGroupsSequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.io import decoding, guard, transfer_syntax

TAGS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")

_GROUP_OF: Mapping[str, str] = MappingProxyType(
    {
        "ImagePositionPatient": "PlanePositionSequence",
        "ImageOrientationPatient": "PlaneOrientationSequence",
        "PixelSpacing": "PixelMeasuresSequence",
        "SliceThickness": "PixelMeasuresSequence",
        "RescaleSlope": "PixelValueTransformationSequence",
        "RescaleIntercept": "PixelValueTransformationSequence",
        "RescaleType": "PixelValueTransformationSequence",
    }
)

_DIMENSIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "time point": ("FrameContentSequence", "TemporalPositionIndex"),
        "echo time": ("MREchoSequence", "EffectiveEchoTime"),
        "b-value": ("MRDiffusionSequence", "DiffusionBValue"),
        "kind of image": ("MRImageFrameTypeSequence", "FrameType"),
        "kind of picture": ("CTImageFrameTypeSequence", "FrameType"),
        "cardiac phase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    }
)
"""What frames at one place differ in: a word for people, and where it stands."""


def groups_of(tags: Any, path: Path) -> list[tuple[Any, ...]]:
    """For each frame the functional groups that hold its values, its own before the common ones; empty without any.

    Raises:
        ReadError: There are not as many groups as frames.
    """
    own = tags.get(TAGS[0]) or []
    if not own:
        return []
    frames = int(tags.get("NumberOfFrames") or 1)
    if len(own) != frames:
        raise guard.damaged(path, "a DICOM file", f"it has {frames} frames and functional groups for {len(own)}")
    return [(group, *(tags.get(TAGS[1]) or ())) for group in own]


def value(groups: Sequence[Any], name: str) -> Any:
    """A frame's value by the name that it has in files of one slice; None where no group has it."""
    return _find(groups, _GROUP_OF[name], name) if name in _GROUP_OF else None


def dimensions(frames: Sequence[Sequence[Any]]) -> str:
    """What frames differ in besides their place, in words with the number of values; empty where nothing is told."""
    counts = {
        word: len({str(_find(groups, sequence, name)) for groups in frames})
        for word, (sequence, name) in _DIMENSIONS.items()
    }
    return ", ".join(f"{count} values of {word}" for word, count in counts.items() if count > 1)


def stacks(frames: Sequence[Sequence[Any]]) -> int:
    """How many stacks the frames are of, where there are several; else 0."""
    count = len({str(_find(groups, "FrameContentSequence", "StackID")) for groups in frames})
    return count if count > 1 else 0


def _find(groups: Sequence[Any], sequence: str, name: str) -> Any:
    for group in groups:
        for item in group.get(sequence) or ():
            if item.get(name) is not None:
                return item.get(name)
    return None


def pixels(
    path: Path, scales: Sequence[tuple[float, float]], size: tuple[int, int, int, int], white_is_low: bool
) -> NDArray[Any]:
    """The frames of one file, rescaled each by its own slope and intercept: (frame, row, column, channel).

    Args:
        scales: Slope and intercept of each frame.
        size: Frames, rows, columns and channels as the header says.
        white_is_low: MONOCHROME1; values are inverted before they are rescaled.

    Raises:
        ReadError: The file is damaged, or its frames are compressed in a way that pydicom has no decoder for.
    """
    import pydicom

    with guard.BoundedFile(path) as file:
        tags = pydicom.dcmread(file, force=True)
    syntax = tags.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated and not pydicom.pixels.get_decoder(syntax).is_available:
        raise transfer_syntax.unsupported(str(syntax), path)
    if transfer_syntax.is_compressed(tags):
        bits = int(tags.get("BitsAllocated") or 16)
        expected = int(np.prod(size, dtype=object)) * max(1, bits // 8)
        _, stored = decoding.ask("dicom frames", path, "a DICOM file", expected)
    else:
        stored = pydicom.pixels.pixel_array(tags)
    stored = stored.reshape(size)
    if white_is_low and stored.dtype.kind in "iu":
        bits = int(tags.BitsStored)
        stored = (-1 if stored.dtype.kind == "i" else 2**bits - 1) - stored.astype(np.int64)
    whole = stored.dtype.kind in "iu" and all(s == 1.0 and float(i).is_integer() for s, i in scales)
    slopes, intercepts = (np.array(v).reshape(-1, 1, 1, 1) for v in zip(*scales, strict=True))
    if whole:
        return stored.astype(np.int32) + intercepts.astype(np.int32)
    return (stored.astype(np.float32) * slopes.astype(np.float32) + intercepts.astype(np.float32)).astype(np.float32)
