"""Linked things become what a person counts: one organ, two lungs, a population of nuclei, a network of vessels.

The vocabulary says how each target is counted. Scraps of a mask belong to the structure beside them or fall away; they
are never things of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.linking import LinkedMask, findings, presence
from unibiomed_core.types import CroppedMask, Finding, Tally, Volume

LEAST_PART = 0.05
"""Pieces of one organ with less than this share of its largest piece are scraps and fall away."""

LEAST_OF_SEVERAL = 0.1
"""Of structures that there are several of, pieces with less than this share of the largest are scraps; lesions may be
of any size."""

LEAST_SIDE = 0.2
"""Of a pair, the smaller side has at least this share of the larger one."""

LEAST_SHARE = 0.0005
"""Of a picture's pixels: smaller pieces of what is counted one by one are scraps; volumes have a limit in mm."""

MOST_SEVERAL = 25
"""More things of one target are told as one row that counts them: nobody reads on after so many."""

NEAR = 1.0
"""A piece belongs to a larger one beside it where the gap is at most so many of its own diameters."""

MOST_POINTS = 2000
"""Outline points of a piece that distances are taken from; larger outlines are thinned evenly."""

LEAST_INSTANCE = 0.1
"""Of a population, pieces with less than this share of the median piece are not counted."""


def counted(linked: Sequence[LinkedMask], volume: Volume) -> tuple[tuple[LinkedMask, ...], Counter[str]]:
    """The things a person would count, largest first, and how many scraps of each target fell away.

    Targets that the vocabulary does not know are counted one by one.
    """
    by_target: dict[str, list[LinkedMask]] = {}
    for thing in linked:
        by_target.setdefault(thing.target, []).append(thing)
    kept: list[LinkedMask] = []
    scraps: Counter[str] = Counter()
    for target, pieces in by_target.items():
        way = way_of(target, volume.modality)
        if way == "pair" and any(_is_side_of(other, target) for other in by_target):
            way = "one"  # its sides have rows of their own, by their names
        groups = _groups(way, sorted(pieces, key=lambda p: -p.mask.count), volume)
        scraps[target] += len(pieces) - sum(map(len, groups))
        if len(groups) > MOST_SEVERAL:
            together = _joined([piece for group in groups for piece in group])
            kept.append(replace(together, flags=(*together.flags, "told_together")))
        else:
            kept += [_joined(group) for group in groups]
    kept.sort(key=lambda thing: (-thing.mask.count, thing.mask.offset, thing.target))
    return tuple(kept), +scraps


def _is_side_of(part: str, whole: str) -> bool:
    """Whether a target is the left or right one of a pair."""
    entry = vocabulary.targets().get(part)
    return entry is not None and entry.side is not None and whole in vocabulary.wholes(part)


def way_of(target: str, modality: str) -> vocabulary.Counted:
    """How a target is counted."""
    entry = vocabulary.find(target, modality)
    return entry.counted if entry else "several"


def with_tallies(found: Sequence[Finding], volume: Volume) -> tuple[Finding, ...]:
    """Findings that stand for many say for how many."""
    ways = [
        "population" if "told_together" in finding.flags else way_of(finding.target, volume.modality)
        for finding in found
    ]
    return tuple(replace(f, tally=tally(f.mask, way, volume)) for f, way in zip(found, ways, strict=True))


def tally(mask: CroppedMask, way: vocabulary.Counted, volume: Volume) -> Tally | None:
    """What one row stands for where it stands for many; None otherwise and in volumes, whose slices are no picture.

    Touching instances are told apart by a watershed on the distance to their outlines (Vincent and Soille, IEEE Trans.
    Pattern Anal. Mach. Intell. 13, 1991). A network's length is that of its skeleton, steps across a corner counted as
    sqrt 2.
    """
    if way not in ("population", "network") or not volume.is_2d:
        return None
    picture = mask.full()[0]
    in_mm = volume.spatial_unit == "mm"
    pixel = float(np.sqrt(volume.spacing_mm[1] * volume.spacing_mm[2])) if in_mm else 1.0  # mm, or px
    side = 1 if in_mm else 100
    unit: Literal["mm", "px"] = "mm" if in_mm else "px"
    fraction = float(picture.mean())

    if way == "network":
        return Tally(None, None, None, None, fraction, skeleton_length(picture) * pixel, unit, side)

    areas = np.array([float(np.count_nonzero(one)) for _, one in _instances(picture)]) * pixel**2
    whole = picture.size * pixel**2
    return Tally(
        len(areas),
        float(areas.mean()) if len(areas) else 0.0,
        float(areas.std()) if len(areas) else 0.0,
        len(areas) / whole * side**2,
        fraction,
        None,
        unit,
        side,
    )


def skeleton_length(mask: NDArray[np.bool_]) -> float:
    """Length in pixels of the centre line of a 2D mask: its skeleton's steps, 1 along an axis and sqrt 2 across."""
    from skimage.morphology import skeletonize

    line = skeletonize(mask)
    straight = (line[1:] & line[:-1]).sum() + (line[:, 1:] & line[:, :-1]).sum()
    # A step across a corner counts only where no two straight steps lead the same way.
    down = line[1:, 1:] & line[:-1, :-1] & ~line[1:, :-1] & ~line[:-1, 1:]
    up = line[1:, :-1] & line[:-1, 1:] & ~line[1:, 1:] & ~line[:-1, :-1]
    return float(straight + np.sqrt(2) * (down.sum() + up.sum()))


def singles(finding: Finding, volume: Volume) -> tuple[Finding, ...]:
    """The single things that a row of a population counts, as findings of their own, in reading order.

    Returns:
        Empty for a row that stands for one thing, or for a network.
    """
    if finding.tally is None or finding.tally.instances is None:
        return ()
    things = []
    for box, one in _instances(finding.mask.full()[0]):
        offset = (0, *(side.start for side in box))
        mask = CroppedMask(one[np.newaxis], offset, finding.mask.shape)
        things.append(
            LinkedMask(finding.target, finding.phrase, finding.presence, mask, finding.plane, (0,), ((0, 1.0),))
        )
    return findings(things, volume)


def _instances(mask: NDArray[np.bool_]) -> list[tuple[tuple[slice, ...], NDArray[np.bool_]]]:
    """The single things of a 2D mask, each with its box; specks left out."""
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(np.pad(mask, 1)), 1.0)[1:-1, 1:-1]
    depth[~mask] = 0
    # A dent of less than a pixel and a half parts nothing: outlines of masks are that rough.
    markers, _ = ndimage.label(h_maxima(depth, 0.75), np.ones((3, 3)))
    labels = watershed(-depth, markers, mask=mask)
    boxes = enumerate(ndimage.find_objects(labels), 1)
    found = [(box, labels[box] == number) for number, box in boxes if box is not None]
    sizes = np.array([np.count_nonzero(one) for _, one in found])
    return [one for one, size in zip(found, sizes, strict=True) if size >= LEAST_INSTANCE * np.median(sizes)]


def _groups(way: vocabulary.Counted, pieces: list[LinkedMask], volume: Volume) -> list[list[LinkedMask]]:
    """Pieces of one target, largest first, as the things that they make; what is in none is a scrap."""
    if way in ("population", "network"):
        return [pieces]
    if way == "several":
        if vocabulary.kind_of(pieces[0].target, volume.modality) == "anatomy":
            pieces = [piece for piece in pieces if piece.mask.count >= LEAST_OF_SEVERAL * pieces[0].mask.count]
        return _several(pieces, volume)
    parts = [piece for piece in pieces if piece.mask.count >= LEAST_PART * pieces[0].mask.count]
    if way == "one" or len(parts) == 1 or parts[1].mask.count < LEAST_SIDE * parts[0].mask.count:
        return [parts]
    sides: list[list[LinkedMask]] = [[parts[0]], [parts[1]]]
    for part in parts[2:]:
        gaps = [_gap(part, side[0], volume) for side in sides]
        sides[int(np.argmin(gaps))].append(part)
    return sides


def _several(pieces: list[LinkedMask], volume: Volume) -> list[list[LinkedMask]]:
    groups: list[list[LinkedMask]] = []
    least = LEAST_SHARE * volume.voxels[0].shape[0] * volume.voxels[0].shape[1] if volume.is_2d else 0.0
    for piece in pieces:
        size = piece.mask.count ** (1 / (2 if volume.is_2d else 3))
        reach = NEAR * size * float(np.mean(volume.spacing_mm[1:] if volume.is_2d else volume.spacing_mm))
        near = [group for group in groups if _gap(piece, group[0], volume) <= reach]
        if near:
            near[0].append(piece)
        elif piece.mask.count >= least:
            groups.append([piece])
    return groups


def _gap(one: LinkedMask, other: LinkedMask, volume: Volume) -> float:
    """Smallest distance between two things in mm (px where the image has no size)."""
    near, _ = KDTree(_outline(one, volume)).query(_outline(other, volume))
    return float(near.min())


def _outline(thing: LinkedMask, volume: Volume) -> NDArray[np.float64]:
    crop = np.pad(thing.mask.crop, 1)
    edge = np.argwhere(crop & ~ndimage.binary_erosion(crop)) - 1
    edge = edge[:: max(1, len(edge) // MOST_POINTS)]
    points: NDArray[np.float64] = (edge + thing.mask.offset) @ volume.affine[:3, :3].T
    return points


def _joined(pieces: list[LinkedMask]) -> LinkedMask:
    """One thing of several; it is as surely there as its surest piece."""
    if len(pieces) == 1:
        return pieces[0]
    scores: dict[int, float] = {}
    for piece in pieces:
        for index, score in piece.scores:
            scores[index] = max(score, scores.get(index, 0.0))
    flags = {flag for piece in pieces for flag in piece.flags} - {"one_slice"}
    slices = tuple(sorted({index for piece in pieces for index in piece.slices}))
    if len(slices) == 1 and any("one_slice" in piece.flags for piece in pieces):
        flags.add("one_slice")
    best = max(pieces, key=lambda piece: piece.presence)
    return replace(
        best,
        presence=presence(scores.values()),
        mask=_union([piece.mask for piece in pieces]),
        slices=slices,
        scores=tuple(sorted(scores.items())),
        flags=tuple(sorted(flags)),
    )


def _union(masks: Sequence[CroppedMask]) -> CroppedMask:
    low = np.min([mask.offset for mask in masks], axis=0)
    high = np.max([np.add(mask.offset, mask.crop.shape) for mask in masks], axis=0)
    crop = np.zeros(high - low, bool)
    for mask in masks:
        place = tuple(
            slice(int(start), int(start) + size)
            for start, size in zip(np.subtract(mask.offset, low), mask.crop.shape, strict=True)
        )
        crop[place] |= mask.crop
    return CroppedMask(crop, tuple(int(value) for value in low), masks[0].shape)
