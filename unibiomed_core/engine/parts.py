"""The 2D pieces that linking joins: connected parts of slice masks, how near they are, and what lies between two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from unibiomed_core.types import CroppedMask, Plane, Volume

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A 2D connected piece: ``crop`` (H, W) with its box (y0, x0, y1, x1) on the slice, ends excluded."""

    index: int
    target: str
    phrase: str
    score: float
    crop: NDArray[np.bool_]
    box: tuple[int, int, int, int]


def in_plane_mm(volume: Volume, plane: Plane) -> NDArray[np.float64]:
    """2x2 matrix: (row, column) index steps to mm within the plane, right for oblique and sheared grids."""
    axes = [i for i in range(3) if i != volume.plane_axis(plane)]
    steps = volume.affine[:3, axes]
    return np.linalg.cholesky(steps.T @ steps).astype(np.float64)


def split(
    mask: CroppedMask, smallest_px: float
) -> tuple[list[tuple[NDArray[np.bool_], tuple[int, int, int, int]]], int]:
    """The 8-connected parts of a 2D mask as (crop, box), and how many smaller than ``smallest_px`` were left out."""
    labels, _ = ndimage.label(mask.crop, _EIGHT_NEIGHBOURS)
    parts = []
    specks = 0
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        crop = labels[box] == value
        if crop.sum() < smallest_px:
            specks += 1
            continue
        y, x = (s.start + o for s, o in zip(box, mask.offset, strict=True))
        parts.append((crop, (y, x, y + crop.shape[0], x + crop.shape[1])))
    return parts, specks


def overlap(a: Part, b: Part) -> bool:
    """Whether two parts share a pixel when their slices are laid on each other."""
    y0, x0 = max(a.box[0], b.box[0]), max(a.box[1], b.box[1])
    y1, x1 = min(a.box[2], b.box[2]), min(a.box[3], b.box[3])
    if y0 >= y1 or x0 >= x1:
        return False
    views = [p.crop[y0 - p.box[0] : y1 - p.box[0], x0 - p.box[1] : x1 - p.box[1]] for p in (a, b)]
    return bool((views[0] & views[1]).any())


def distance_mm(i: int, j: int, parts: list[Part], pixel: NDArray[np.float64], outlines: dict[int, KDTree]) -> float:
    """Smallest in-plane distance between the pixel centres of two parts that do not overlap, in mm."""
    for k in (i, j):
        if k not in outlines:
            crop = np.pad(parts[k].crop, 1)
            edge = np.argwhere(crop & ~ndimage.binary_erosion(crop)) - 1 + parts[k].box[:2]
            outlines[k] = KDTree(edge @ pixel)
    small, large = sorted((outlines[i], outlines[j]), key=lambda tree: tree.n)
    return float(large.query(small.data)[0].min())


def between(a: NDArray[np.bool_], b: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """``count`` masks between two, (count, H, W)."""
    weights = np.arange(1, count + 1) / (count + 1)
    if not (a & b).any():
        return np.stack([a if w <= 0.5 else b for w in weights])
    signed = []
    for mask in (a, b):
        framed = np.pad(mask, 1)  # the box may be full of foreground, which has no distance to background
        inside, outside = ndimage.distance_transform_edt(framed), ndimage.distance_transform_edt(~framed)
        distance = (inside - outside)[1:-1, 1:-1]
        signed.append(distance - np.sign(distance) / 2)  # from the outline, not from the next pixel's centre
    return np.stack([(1 - w) * signed[0] + w * signed[1] > 0 for w in weights])
