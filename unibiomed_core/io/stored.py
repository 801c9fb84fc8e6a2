"""From what a format's reader found to a checked :class:`Volume` in canonical axes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.io import geometry, guard, interpret
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.types import Note, Volume


@dataclass(frozen=True, slots=True)
class Stored:
    """An image in the order of its file.

    Args:
        values: A volume (i, j, k), or a picture (H, W) or (H, W, 3) uint8 where ``affine`` is None.
        affine: 4x4, stored (i, j, k) index to RAS+ mm; None for a picture.
        spacing: Row and column spacing of a picture in ``spatial_unit``.
        spatial_unit: "mm", or "px" where the file tells no size.
        orientation_known: Whether the file says where the patient's left is.
        modality: A name of ``MODALITIES`` where the file tells it, else empty.
        unit: "HU", "SUV" or another unit's name where the file tells it, else empty.
        notes: What the reader assumed, in whole sentences.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64] | None
    spacing: tuple[float, float] = (1.0, 1.0)
    spatial_unit: Literal["mm", "px"] = "mm"
    orientation_known: bool = True
    modality: str = ""
    unit: str = ""
    notes: tuple[Note, ...] = ()


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """The same values in a compact dtype: uint8 stays, whole numbers become int16 or uint16, the rest float32.

    Whole numbers beyond 16 bits become float32, which is exact up to 2^24.
    """
    if values.dtype in {np.dtype(np.uint8), np.dtype(np.int16)}:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        for kind in (np.int16, np.uint16):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return values.astype(kind, copy=False)
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is refused with its count
        return values.astype(np.float32, copy=False)


def rescale(values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """``values * slope + intercept``; whole numbers stay whole where slope is 1 and the intercept is whole."""
    if slope == 1.0 and intercept == 0.0:
        return values
    if slope == 1.0 and values.dtype.kind in "iu" and float(intercept).is_integer():
        return values.astype(np.int64) + int(intercept)
    with np.errstate(over="ignore", invalid="ignore"):
        return (values.astype(np.float64) * slope + intercept).astype(np.float32)


def to_volume(stored: Stored, path: Path, modality: str, undecided: bool = False) -> Volume:
    """Check an image and bring it to canonical axes, as a view of the stored values where their dtype is kept.

    Args:
        path: Where it came from.
        modality: What the caller says it is, or empty.
        undecided: A picture whose modality nothing tells has an empty one, instead of being refused.

    Raises:
        ReadError: The geometry, the size or the values cannot be used, or the modality is not told.
        ConfigError: ``modality`` is unknown.
    """
    notes = list(stored.notes)
    values = compact(stored.values)
    if stored.affine is None:
        rows, columns = values.shape[:2]
        geometry.check_spacing(stored.spacing, path.name)
        order, affine = geometry.picture_order((rows, columns), stored.spacing)
        guard.check_sides(rows, columns, path)
    else:
        geometry.check_affine(stored.affine, path.name)
        shape = (values.shape[0], values.shape[1], values.shape[2])
        order, affine = geometry.canonical_order(stored.affine, shape)
        slices, rows, columns = (shape[axis] for axis in order.axes)
        guard.check_sides(rows, columns, path, "An axial slice")
        if slices == 1:
            notes.append(
                Note(
                    "one_slice",
                    "The volume has one slice; volumes and lengths across slices rest on its thickness alone.",
                )
            )
        if stored.orientation_known:
            notes.extend(geometry.tilt_note(affine))
    guard.check_values(values, path)
    left_open = undecided and stored.affine is None
    name, told_by, why = interpret.decide_modality(values, path.name, stored.modality, modality, left_open)
    notes.extend(why)
    values, why = interpret.without_padding(values, name, stored.unit)
    notes.extend(why)
    is_grey_rgb = values.ndim == 3 and stored.affine is None and not (name and MODALITIES[name].colour)
    if is_grey_rgb and (values == values[..., :1]).all():
        values = values[..., 0]
        notes.append(Note("grey_from_colour", "The three colour channels are equal and are read as one grey channel."))
    volume = Volume(
        voxels=order.to_canonical(values),
        affine=affine,
        modality=name,
        modality_by=told_by,
        intensity_unit="intensity",
        spatial_unit=stored.spatial_unit,
        orientation_known=stored.orientation_known,
        stored=order,
        name=_shown(_short_name(path)),
        source=_shown(str(path)),
    )
    unit, why = interpret.decide_unit(volume, stored.unit)
    return replace(volume, intensity_unit=unit, notes=(*notes, *why))


def _short_name(path: Path) -> str:
    """The name without its suffixes; folders keep their dots."""
    if path.is_dir():
        return path.resolve().name
    return Path(path.stem).stem if path.name.lower().endswith(".nii.gz") else path.stem


def _shown(name: str) -> str:
    """A file's name as text; bytes that are none show as ``\\xff``, so that reports can be written."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
