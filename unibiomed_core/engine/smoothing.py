"""Smoothing of linked things in 3D, where it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from unibiomed_core.engine.linking import LinkedMask
from unibiomed_core.errors import PromptError
from unibiomed_core.types import CroppedMask, Volume

REACH = 3.0
"""The Gaussian is cut off beyond this many standard deviations."""


def check(smooth_mm: float, volume: Volume) -> None:
    """Refuse a width that cannot be used.

    Raises:
        PromptError: It is negative or not a number, or the image has no third dimension or no size in mm.
    """
    if not 0 <= smooth_mm < float("inf"):
        raise PromptError("Smoothing out of range", f"{smooth_mm} mm", "0 or more millimetres")
    if smooth_mm and (volume.is_2d or volume.spatial_unit != "mm"):
        what = "a 2D picture" if volume.is_2d else "an image without a size in millimetres"
        raise PromptError("Nothing to smooth", f"{smooth_mm} mm was asked for {what}", "a volume in millimetres")


def smooth_all(linked: Sequence[LinkedMask], volume: Volume, smooth_mm: float) -> tuple[LinkedMask, ...]:
    """Things smoothed one by one, largest first; as they are where ``smooth_mm`` is 0."""
    if not smooth_mm:
        return tuple(linked)
    things = [smooth(thing, volume, smooth_mm) for thing in linked]
    return tuple(sorted(things, key=lambda thing: (-thing.mask.count, thing.mask.offset, thing.target)))


def smooth(thing: LinkedMask, volume: Volume, smooth_mm: float) -> LinkedMask:
    """A thing after a 3D Gaussian on its mask, cut where its size stays the same; flagged "smoothed".

    A flat outline stays where it is, corners and single-slice steps get round. Cut at one half, a ball of 18 mm would
    lose a seventh of its volume to 4 mm of smoothing. Voxels of equal value at the cut are all kept.

    Args:
        smooth_mm: Standard deviation in mm, the same in all directions of the grid.
    """
    sigma = smooth_mm / np.asarray(volume.spacing_mm)
    margin = np.ceil(REACH * sigma).astype(int)
    low = np.maximum(np.subtract(thing.mask.offset, margin), 0)
    high = np.minimum(np.add(thing.mask.offset, thing.mask.crop.shape) + margin, volume.shape)
    room = np.zeros(high - low, np.float32)
    room[
        tuple(slice(o - a, o - a + n) for o, a, n in zip(thing.mask.offset, low, thing.mask.crop.shape, strict=True))
    ] = thing.mask.crop
    # What the image cuts off goes on outside of it: "nearest" does not round a thing off at the edge.
    blurred = ndimage.gaussian_filter(room, sigma, mode="nearest", truncate=REACH)
    crop = CroppedMask.from_full(blurred >= np.partition(blurred, -thing.mask.count, axis=None)[-thing.mask.count])
    mask = CroppedMask(crop.crop, tuple(int(a + o) for a, o in zip(low, crop.offset, strict=True)), volume.shape)
    axis = volume.plane_axis(thing.plane)
    carrying = np.flatnonzero(mask.crop.any(axis=tuple(i for i in range(3) if i != axis))) + mask.offset[axis]
    return replace(thing, mask=mask, slices=tuple(int(i) for i in carrying), flags=(*thing.flags, "smoothed"))
