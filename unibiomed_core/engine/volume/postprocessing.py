"""Which linked things are kept as findings, and whether slices are linked at all, where it was asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from scipy import ndimage

from unibiomed_core.engine.volume.linking import LinkedMask, SliceMask, link
from unibiomed_core.errors import PromptError
from unibiomed_core.types import CroppedMask, Note, Plane, Volume


@dataclass(frozen=True, slots=True)
class Selection:
    """The defaults keep what linking keeps.

    Args:
        least_presence: Things with a lower presence are left out, 0..1.
        min_area_mm2: Pieces of a slice with a smaller area are left out, in place of the usual rule for specks.
        link_slices: Join pieces of neighbouring slices; else the pieces of each slice stay things of their own.
    """

    least_presence: float = 0.0
    min_area_mm2: float | None = None
    link_slices: bool = True

    def check(self, volume: Volume) -> None:
        """Refuse numbers that cannot be used.

        Raises:
            PromptError: A number is out of range, or an area in mm\u00b2 is asked for where pixels have no size in mm.
        """
        if not 0 <= self.least_presence <= 1:
            raise PromptError("Presence out of range", f"{self.least_presence}", "0 to 1")
        if self.min_area_mm2 is None:
            return
        if not 0 <= self.min_area_mm2 < math.inf:
            raise PromptError("Area out of range", f"{self.min_area_mm2} mm\u00b2", "0 or more square millimetres")
        if volume.spatial_unit != "mm":
            found = f"{self.min_area_mm2:g} mm\u00b2 was asked for an image without a size in millimetres"
            raise PromptError("Area without a size", found, "an image in millimetres", "Leave the smallest area out.")

    def stated(self) -> dict[str, Any]:
        """What differs from the defaults, for the settings of a report."""
        return {f.name: asdict(self)[f.name] for f in fields(self) if asdict(self)[f.name] != f.default}

    def link(
        self, masks: Iterable[SliceMask], volume: Volume, plane: Plane, *, visited: Sequence[int], every: int
    ) -> tuple[tuple[LinkedMask, ...], int]:
        """As :func:`linking.link`; things of low presence are still among them."""
        across = self.link_slices
        if self.min_area_mm2 is None:
            return link(masks, volume, plane, visited=visited, every=every, link_slices=across)
        area = self.min_area_mm2
        return link(
            masks, volume, plane, visited=visited, every=every, link_slices=across, min_area_mm2=area,
            min_area_px=math.inf,
        )  # fmt: skip

    def keep(self, linked: Sequence[LinkedMask]) -> tuple[tuple[LinkedMask, ...], list[Note]]:
        """The things that are present enough, and a note on the others where there are any."""
        kept = tuple(thing for thing in linked if thing.presence >= self.least_presence)
        out = Counter(thing.target for thing in linked if thing.presence < self.least_presence)
        if not out:
            return kept, []
        count = out.total()
        those = "1 finding was" if count == 1 else f"{count} findings were"
        names = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in out.items())
        text = f"{those} left out for a presence below {self.least_presence:g}: {names}."
        return kept, [Note("below_least_presence", text, {"targets": dict(out)})]


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
