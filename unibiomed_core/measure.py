"""Size, intensity and side of a mask, in millimetres of the patient, from the exact index-to-world matrix."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

from unibiomed_core.types import CroppedMask, Measurements, Plane, Volume

Side = Literal["left", "right", "both", "midline", "unknown"]

AIR_HU = -500.0
"""CT voxels above this belong to the body (or to what it lies on); between air and fat, as usual for body masks."""

AIR_FRACTION = 0.1
"""Elsewhere a voxel belongs to the body above this fraction of the 99th percentile."""

SIDE_FRACTION = 0.2
"""A mask with less than this on the other side of the midline belongs to one side only."""

MIDLINE_TOLERANCE_MM = 15.0
"""A mask on both sides whose centroid is this near to the midline, and which stays near it, is a midline mask."""

LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Weights of R, G, B (ITU-R BT.601), the grey that Pillow's mode "L" gives."""

CUT_FRACTION = 0.05

_SAMPLE_VOXELS = 500_000


def measure(
    mask: CroppedMask,
    volume: Volume,
    plane: Plane = "axial",
    target_side: str | None = None,
    midline_mm: float | None = None,
) -> Measurements:
    """Measure one mask.

    Volume is the voxel count times ``|det(affine)|``. The area is that of the mask on its largest slice of
    ``plane``. Diameters are those of :func:`diameters`, always on axial slices. Mean and SD (divisor N) are of the
    voxels' own values, of luminance for RGB. Slice numbers are canonical indices across ``plane``. An axis with one
    slice only is not an edge.

    Args:
        mask: (Z, Y, X) on the volume's grid, not empty.
        plane: The plane whose slices are counted.
        target_side: "left" or "right" where the target's name says so; it overrides geometry.
        midline_mm: World x of the body's midline from :func:`body_midline`; computed here where it is None.

    Raises:
        ValueError: The mask is empty or lies on another grid.
    """
    if mask.shape != volume.shape:
        raise ValueError(f"mask of shape {mask.shape} on a volume of shape {volume.shape}")
    count = mask.count
    if not count:
        raise ValueError("an empty mask has no measurements")
    axis = volume.plane_axis(plane)
    per_slice = mask.crop.sum(axis=tuple(i for i in range(3) if i != axis))
    carrying = np.flatnonzero(per_slice) + mask.offset[axis]
    columns = volume.affine[:3, :3]
    in_mm = volume.spatial_unit == "mm"
    lengths = diameters(mask, volume.affine) if in_mm else None
    across = [columns[:, i] for i in range(3) if i != axis]
    pixel_mm2 = float(np.linalg.norm(np.cross(across[0], across[1])))
    values = volume.voxels[mask.box][mask.crop].astype(np.float64)
    if volume.is_rgb:
        values = values @ LUMINANCE
    return Measurements(
        voxel_count=count,
        volume_ml=count * abs(float(np.linalg.det(columns))) / 1000 if in_mm and not volume.is_2d else None,
        area_mm2=float(per_slice.max()) * pixel_mm2 if in_mm else None,
        longest_axial_diameter_mm=lengths[0] if lengths else None,
        perpendicular_diameter_mm=lengths[1] if lengths else None,
        intensity_mean=float(values.mean()),
        intensity_sd=float(values.std()),
        intensity_unit="intensity" if volume.is_rgb else volume.intensity_unit,
        slice_first=int(carrying[0]),
        slice_last=int(carrying[-1]),
        slice_largest=int(np.argmax(per_slice)) + mask.offset[axis],
        side=_side(mask, volume, target_side, midline_mm),
        touches_edge=any(
            size > 1 and (o == 0 or o + n == size)
            for o, n, size in zip(mask.offset, mask.crop.shape, mask.shape, strict=True)
        ),
    )


def diameters(mask: CroppedMask, affine: NDArray[np.float64]) -> tuple[float, float]:
    """Longest diameter over all axial slices, and the extent at right angles to it in the same slice, both in mm.

    The outline is the convex hull of the pixel centres, grown by a fraction ``c`` of a pixel on all sides. Centres
    alone are one pixel short for a box and corners one pixel long for a ball, so ``c`` is chosen such that the grown
    hull has the area of the pixels in it: with Pick's theorem (pixels N = A + B / 2 + 1 for a hull of area A with B
    pixels on its border, in pixel units) and the area of a hull of width w and height h grown by a c x c square
    (A + c (w + h) + c^2), that is c^2 + (w + h) c = N - A. It gives c = 1 for a box, so that its corners are met
    exactly, and a small c for round shapes.

    Args:
        mask: (Z, Y, X), not empty.
        affine: 4x4, (z, y, x) index to mm; may be oblique, anisotropic or sheared.
    """
    row_mm, column_mm = affine[:3, 1], affine[:3, 2]
    best = (-1.0, 0.0)
    for section in mask.crop:
        rows = np.flatnonzero(section.any(axis=1))
        if not rows.size:
            continue
        first = section[rows].argmax(axis=1)
        last = section.shape[1] - 1 - section[rows, ::-1].argmax(axis=1)
        ends = np.unique(np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]), axis=0)
        size = np.ptp(ends, axis=0) + 1
        if np.linalg.norm(size[0] * row_mm) + np.linalg.norm(size[1] * column_mm) <= best[0]:
            continue  # not even its bounding box is as long
        points = _grown_hull(ends.astype(np.int64)) @ np.stack([row_mm, column_mm])  # (P, 3) mm
        distances = pdist(points)
        longest = float(distances.max())
        if longest > best[0]:
            a, b = np.unravel_index(int(squareform(distances).argmax()), (len(points), len(points)))
            along = (points[a] - points[b]) / longest
            normal = np.cross(row_mm, column_mm)
            beside = np.cross(normal / np.linalg.norm(normal), along)
            best = (longest, float(np.ptp(points @ beside)))
    return best


def _grown_hull(points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Corners of the hull of lattice points (N, 2), each grown to four points as :func:`diameters` explains."""
    spread = points - points[0]
    if len(points) < 3 or np.linalg.matrix_rank(spread) < 2:
        order = np.lexsort((points[:, 1], points[:, 0]))
        hull = points[order[[0, -1]]]
        surplus = float(np.gcd(*np.abs(hull[1] - hull[0])) + 1)  # pixels on a straight line: N, with A = 0
    else:
        hull = points[ConvexHull(points).vertices]
        steps = np.abs(np.roll(hull, -1, axis=0) - hull)
        surplus = float(np.gcd(steps[:, 0], steps[:, 1]).sum()) / 2 + 1  # N - A = B / 2 + 1
    sides = float(np.ptp(points, axis=0).sum())
    grow = (np.sqrt(sides**2 + 4 * surplus) - sides) / 2
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]) * (grow / 2)
    return (hull[:, np.newaxis, :] + corners).reshape(-1, 2)


def body_midline(volume: Volume) -> float | None:
    """World x (mm, towards Right) of the body's centroid; None where the orientation or the size is unknown.

    The body is every voxel over an air threshold (``AIR_HU`` for HU, else ``AIR_FRACTION`` of the 99th percentile),
    read on a coarse grid of at most half a million voxels. Without a body it is the centre of the volume. A field of
    view that holds one side of the patient only has its own middle, not the patient's: see :func:`body_is_cut`.
    """
    if not volume.orientation_known or volume.spatial_unit != "mm":
        return None
    body, step = _body(volume)
    index = np.argwhere(body)
    middle = index.mean(axis=0) * step if len(index) else (np.array(volume.shape) - 1) / 2
    return float(volume.affine[0, :3] @ middle + volume.affine[0, 3])


def body_is_cut(volume: Volume) -> bool:
    """Whether the body reaches a lateral edge of the image, in more than ``CUT_FRACTION`` of the edge's voxels."""
    body, _ = _body(volume)
    return bool(max(body[..., 0].mean(), body[..., -1].mean()) > CUT_FRACTION)


def _body(volume: Volume) -> tuple[NDArray[np.bool_], int]:
    """Where the body is, on every n-th voxel, and n."""
    step = max(1, int(np.ceil((np.prod(volume.shape) / _SAMPLE_VOXELS) ** (1 / 3))))
    coarse: NDArray[Any] = volume.voxels[::step, ::step, ::step]
    if volume.is_rgb:
        coarse = coarse @ LUMINANCE
    threshold = AIR_HU if volume.intensity_unit == "HU" else AIR_FRACTION * float(np.percentile(coarse, 99))
    return coarse > threshold, step


def _side(mask: CroppedMask, volume: Volume, target_side: str | None, midline_mm: float | None) -> Side:
    """On which side of the midline most of the mask lies, patient left and right."""
    if target_side == "left":
        return "left"
    if target_side == "right":
        return "right"
    midline = body_midline(volume) if midline_mm is None else midline_mm
    if midline is None or not volume.orientation_known:
        return "unknown"
    row = volume.affine[0]
    z0, y0, x0 = mask.offset
    rows, columns = mask.crop.shape[1:]
    in_plane = row[1] * (np.arange(rows) + y0)[:, np.newaxis] + row[2] * (np.arange(columns) + x0)
    to_right = total = distance = 0.0
    for z, section in enumerate(mask.crop, start=z0):  # slice by slice: a lung has ten million voxels
        right_mm = in_plane[section] + (row[0] * z + row[3] - midline)
        to_right += float((right_mm > 0).sum())
        total += float(right_mm.sum())
        distance += float(np.abs(right_mm).sum())
    right, mean_mm, distance_mm = (value / mask.count for value in (to_right, total, distance))
    if min(right, 1 - right) < SIDE_FRACTION:
        return "right" if right > 0.5 else "left"
    near = abs(mean_mm) <= MIDLINE_TOLERANCE_MM and distance_mm <= 2 * MIDLINE_TOLERANCE_MM
    return "midline" if near else "both"
