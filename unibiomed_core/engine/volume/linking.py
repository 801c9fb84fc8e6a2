"""Masks of single slices become things in the volume: split, linked across slices, filled and ordered.

Only cropped boolean arrays are held; the largest array that exists at any time is the box of one linked thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from unibiomed_core import vocabulary
from unibiomed_core.measure import body_midline, measure
from unibiomed_core.types import CroppedMask, Finding, Plane, Volume

MAX_GAP_MM = 6.0
"""Masks this far apart across slices may still be one thing; at least two visited steps are always allowed."""

MAX_DISTANCE_MM = 5.0
"""Masks on different slices that do not overlap may be this far apart in the plane."""

MIN_AREA_MM2 = 4.0
MIN_AREA_PX = 8
"""A speck is smaller than both of these; where pixels have no size, smaller than the second."""

LOW_SCORE = 0.5
"""Findings whose presence is below this are flagged."""

BEST_SLICES = 3
"""Presence is the mean of this many best slice scores: one lucky slice does not decide, weak ends do not count."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceMask:
    """One mask on one slice.

    Args:
        index: Canonical slice index across the plane.
        target: Name to link by; vocabulary synonyms count as one.
        phrase: The model's or the user's words.
        score: 0..1.
        mask: 2D, rows and columns of the canonical slice.
    """

    index: int
    target: str
    phrase: str
    score: float
    mask: CroppedMask


@dataclass(frozen=True, slots=True)
class LinkedMask:
    """One connected thing.

    Args:
        target: Normalised target name.
        phrase: The words of its best slice.
        presence: Mean of the ``BEST_SLICES`` highest slice scores, 0..1.
        mask: 3D, canonical (Z, Y, X).
        slices: Canonical indices of all slices that carry it, filled ones included, ascending.
        scores: (slice index, score) of every slice the model marked it on, ascending.
        flags: Any of "one_slice", "interpolated".
    """

    target: str
    phrase: str
    presence: float
    mask: CroppedMask
    plane: Plane
    slices: tuple[int, ...]
    scores: tuple[tuple[int, float], ...]
    flags: tuple[str, ...] = ()


def link(
    masks: Iterable[SliceMask],
    volume: Volume,
    plane: Plane = "axial",
    *,
    visited: Sequence[int] | None = None,
    every: int = 1,
    max_gap_mm: float = MAX_GAP_MM,
    max_distance_mm: float = MAX_DISTANCE_MM,
    min_area_mm2: float = MIN_AREA_MM2,
    min_area_px: float = MIN_AREA_PX,
    link_slices: bool = True,
) -> tuple[tuple[LinkedMask, ...], int]:
    """Join the masks of slices into connected things.

    Every mask is first split into its 8-connected parts. Parts of one target on different slices belong together
    where the slices are at most ``max(max_gap_mm, 2 * every * slice spacing)`` apart (so one visited slice without a
    mask is always bridged) and the parts overlap in the plane or are at most ``max_distance_mm`` apart. Parts on one
    slice belong together only where they overlap, or through other slices.

    With ``every`` > 1, slices that nobody visited between two neighbouring visited slices of a thing are filled by
    shape-based interpolation (the mean of both signed distance maps, weighted by nearness: Raya and Udupa, IEEE
    Trans. Med. Imaging 9, 1990), or by the nearer mask where the two do not overlap; the thing is then flagged
    "interpolated". A slice that was visited is never filled.

    Args:
        masks: In any order.
        visited: Canonical indices of all slices the model was asked about; None means those that carry a mask.
        every: Step of the plan over slices.
        link_slices: False joins nothing across slices: the pieces of each slice stay things of their own.

    Returns:
        The things, largest first, and the number of specks that were left out.
    """
    spacing = volume.spacing_mm[volume.plane_axis(plane)]
    limit = round(max(max_gap_mm / spacing, 2.0 * every), 6) if link_slices else 0.0  # in slices
    pixel = in_plane_mm(volume, plane)
    in_px = volume.spatial_unit == "px"
    smallest_px = min_area_px if in_px else min(min_area_px, min_area_mm2 / abs(float(np.linalg.det(pixel))))
    parts: list[Part] = []
    specks = 0
    for item in masks:
        target = canonical_target(item.target or item.phrase, volume.modality)
        pieces, small = split(item.mask, smallest_px)
        parts += [Part(item.index, target, item.phrase, item.score, crop, box) for crop, box in pieces]
        specks += small
    seen = {part.index for part in parts} if visited is None else set(visited)
    by_target: dict[str, list[Part]] = {}
    for part in parts:
        by_target.setdefault(part.target, []).append(part)
    linked = [
        _join(group, volume, plane, seen, every)
        for same in by_target.values()
        for group in _groups(same, pixel, limit, max_distance_mm)
    ]
    linked.sort(key=lambda thing: (-thing.mask.count, thing.mask.offset, thing.target))
    return tuple(linked), specks


def findings(
    linked: Iterable[LinkedMask], volume: Volume, low_score: float = LOW_SCORE, first_number: int = 1
) -> tuple[Finding, ...]:
    """Measure linked things and number them in the order given; adds the flags "touches_edge" and "low_score"."""
    midline_mm = body_midline(volume)
    found = []
    for number, thing in enumerate(linked, start=first_number):
        entry = vocabulary.find(thing.target, volume.modality)
        values = measure(thing.mask, volume, thing.plane, entry.side if entry else None, midline_mm)
        flags = list(thing.flags)
        if values.touches_edge:
            flags.append("touches_edge")
        if thing.presence < low_score:
            flags.append("low_score")
        found.append(
            Finding(
                number,
                thing.phrase,
                thing.target,
                thing.presence,
                thing.mask,
                thing.plane,
                thing.slices,
                values,
                tuple(flags),
            )
        )
    return tuple(found)


def canonical_target(name: str, modality: str = "") -> str:
    """The vocabulary's name of a target or synonym; the normalised words where it is not in the vocabulary."""
    entry = vocabulary.find(name, modality)
    return entry.name if entry else vocabulary.normalise(name)


def presence(scores: Iterable[float]) -> float:
    """Mean of the ``BEST_SLICES`` highest scores."""
    best = sorted(scores, reverse=True)[:BEST_SLICES]
    return float(np.mean(best))


def _groups(parts: list[Part], pixel: NDArray[np.float64], limit: float, max_distance_mm: float) -> list[list[Part]]:
    """Parts of one target that belong together (union over all pairs that are near)."""
    parts = sorted(parts, key=lambda part: part.index)
    index = np.array([part.index for part in parts])
    boxes = np.array([part.box for part in parts])
    margin = max_distance_mm / np.linalg.svd(pixel, compute_uv=False).min() + 1  # in pixels, generous
    outlines: dict[int, KDTree] = {}
    left: list[int] = []
    right: list[int] = []
    for i, part in enumerate(parts):
        stop = int(np.searchsorted(index, part.index + limit, side="right"))
        others = boxes[i + 1 : stop]
        apart = np.maximum(others[:, :2] - boxes[i, 2:], boxes[i, :2] - others[:, 2:]).max(axis=1)
        for j in np.flatnonzero(apart < margin) + i + 1:
            other = parts[j]
            if overlap(part, other) or (
                other.index != part.index and distance_mm(i, int(j), parts, pixel, outlines) <= max_distance_mm
            ):
                left.append(i)
                right.append(int(j))
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(parts), len(parts)))
    count, member = connected_components(graph, directed=False)
    groups: list[list[Part]] = [[] for _ in range(count)]
    for part, group in zip(parts, member, strict=True):
        groups[group].append(part)
    return groups


def _join(group: list[Part], volume: Volume, plane: Plane, visited: set[int], every: int) -> LinkedMask:
    """One thing from its parts."""
    axis = volume.plane_axis(plane)
    boxes = np.array([part.box for part in group])
    y0, x0 = boxes[:, :2].min(axis=0)
    y1, x1 = boxes[:, 2:].max(axis=0)
    first = min(part.index for part in group)
    last = max(part.index for part in group)
    stack = np.zeros((last - first + 1, y1 - y0, x1 - x0), bool)
    scores: dict[int, float] = {}
    for part in group:
        place = stack[part.index - first, part.box[0] - y0 : part.box[2] - y0, part.box[1] - x0 : part.box[3] - x0]
        place |= part.crop
        scores[part.index] = max(scores.get(part.index, 0.0), part.score)
    carrying = sorted(scores)
    filled = False
    if every > 1:
        for a, b in pairwise(carrying):
            if b - a > 1 and not any(a < v < b for v in visited):
                stack[a - first + 1 : b - first] = between(stack[a - first], stack[b - first], b - a - 1)
                filled = True
    slices = tuple(int(i) + first for i in np.flatnonzero(stack.any(axis=(1, 2))))
    offset = [int(y0), int(x0)]
    offset.insert(axis, first)
    flags = []
    if len(slices) == 1 and volume.slice_count(plane) > 1:
        flags.append("one_slice")
    if filled:
        flags.append("interpolated")
    return LinkedMask(
        target=group[0].target,
        phrase=max(group, key=lambda part: part.score).phrase,
        presence=presence(scores.values()),
        mask=CroppedMask(np.ascontiguousarray(np.moveaxis(stack, 0, axis)), tuple(offset), volume.shape),
        plane=plane,
        slices=slices,
        scores=tuple((i, float(scores[i])) for i in carrying),
        flags=tuple(flags),
    )


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
