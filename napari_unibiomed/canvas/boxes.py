"""From a drawn rectangle to a region of a canonical slice, and from its answer to a phrase prompt. No Qt, no viewer.

A slice keeps the canonical order of its two axes whatever way round the viewer shows it, so the plane, the index and
the box follow from the corners alone: rolled and transposed axes need no case of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas.volumes import placement_of
from unibiomed_core.errors import PromptError
from unibiomed_core.types import PLANES, Prompt, Region, Volume

if TYPE_CHECKING:
    from napari.layers import Image, Shapes

MIN_SIDE_PX = 8
"""The engine refuses a smaller box; it is said here, before a run."""

BOX_TASKS = ("roi_class", "roi_describe")
"""What is asked of a box: its class, then a description."""

ROTATED = "The box was turned; its bounding rectangle is used."
CLIPPED = "The box reached over the edge of the image; the part inside is used."


@dataclass(frozen=True, slots=True)
class Box:
    """A region that can be asked about, with what was done to the drawn shape, in whole sentences."""

    region: Region
    notes: tuple[str, ...] = ()


def drawn_corners(shapes: Shapes, source: Image, volume: Volume) -> list[NDArray[np.float64]]:
    """(N, 3) corners of every shape as canonical (z, y, x) voxels of the image, whatever layer they were drawn on.

    Args:
        source: The image layer that ``volume`` was taken of.
    """
    placement = placement_of(source, volume)
    world = (np.array([shapes.data_to_world(corner) for corner in shape]) for shape in shapes.data)
    return [np.array([placement.to_voxel(source.world_to_data(point)) for point in points]) for points in world]


def box_of(corners: NDArray[Any], volume: Volume) -> Box:
    """The region of one drawn shape.

    Pixel ``i`` covers ``i - 0.5 .. i + 0.5``; the box takes every pixel that the shape meets with more than its edge.
    The hidden axis of a volume is the one along which all corners agree.

    Args:
        corners: (N, 3) canonical (z, y, x) voxels; a rectangle has four.

    Raises:
        PromptError: The shape lies in no plane of slices, outside of the image, or is under ``MIN_SIDE_PX`` a side.
    """
    points = np.asarray(corners, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    hidden = 0 if volume.is_2d else int(np.argmin(high - low))
    if high[hidden] - low[hidden] > 0.5:
        raise PromptError(
            "Box across slices", "its corners lie on several slices", "all corners on one slice", "Draw it in 2D view."
        )
    index = int(np.clip(np.rint(low[hidden]), 0, volume.shape[hidden] - 1))
    rows, columns = (axis for axis in range(3) if axis != hidden)
    first = np.floor(low + 0.5).astype(int)
    last = np.ceil(high - 0.5).astype(int)
    inside_first = np.maximum(first, 0)
    inside_last = np.minimum(last, np.array(volume.shape) - 1)
    _check_size(inside_first[columns], inside_last[columns], inside_first[rows], inside_last[rows])
    notes = []
    if _is_turned(points[:, (rows, columns)]):
        notes.append(ROTATED)
    if any(inside_first[a] != first[a] or inside_last[a] != last[a] for a in (rows, columns)):
        notes.append(CLIPPED)
    region = Region(
        x0=int(inside_first[columns]),
        y0=int(inside_first[rows]),
        x1=int(inside_last[columns]),
        y1=int(inside_last[rows]),
        plane=PLANES[hidden],
        index=index,
    )
    return Box(region, tuple(notes))


def _check_size(x0: int, x1: int, y0: int, y1: int) -> None:
    width, height = int(x1 - x0) + 1, int(y1 - y0) + 1
    if width <= 0 or height <= 0:
        raise PromptError("Box outside the image", "no part of it lies on the image", "a box on the image")
    if min(width, height) < MIN_SIDE_PX:
        raise PromptError(
            "Box too small",
            f"the current box is {width} × {height}",
            f"at least {MIN_SIDE_PX} × {MIN_SIDE_PX} pixels",
            "Draw a larger one.",
            code="box_too_small",
            values={"width_px": width, "height_px": height},
        )


def _is_turned(points: NDArray[np.float64]) -> bool:
    """Whether some corner of a shape is no corner of its bounding rectangle, by more than a tenth of a pixel."""
    low, high = points.min(axis=0), points.max(axis=0)
    away = np.minimum(np.abs(points - low), np.abs(points - high))
    return bool(away.max() > 0.1)


def box_prompts(region: Region) -> tuple[Prompt, ...]:
    """What is asked of a box."""
    return tuple(Prompt(task, region=region) for task in BOX_TASKS)


def outline_of(region: Region) -> NDArray[np.float64]:
    """(4, 3) corners of a region as canonical (z, y, x) voxels; the inverse of :func:`box_of`."""
    hidden = PLANES.index(region.plane)
    rows, columns = (axis for axis in range(3) if axis != hidden)
    corners = np.empty((4, 3))
    corners[:, hidden] = region.index
    top, bottom, left, right = region.y0 - 0.5, region.y1 + 0.5, region.x0 - 0.5, region.x1 + 0.5
    corners[:, rows] = top, top, bottom, bottom
    corners[:, columns] = left, right, right, left
    return corners


def phrase_of(answer: str) -> str:
    """The phrase to segment that a class answer gives: "liver in abdomen CT" -> "liver"; empty where it gives none."""
    words = answer.strip().splitlines()[0] if answer.strip() else ""
    return words.split(" in ", 1)[0].strip(" .?!\"'").lower()
