"""Boxes to ask about: on a piece of a target, within healthy anatomy, or on nothing."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core import vocabulary
from unibiomed_core.types import Region
from unibiomed_core.vocabulary import Target

from .negatives import all_told, findings, findings_told
from .records import Record, RegionRecord
from .run_lengths import decode_mask

BOX_JITTER = 0.08
"""Boxes that people draw are not tight: each edge is moved by up to this share of the box's side, half of the time."""

SMALLEST_BOX = 8
"""Pixels of a side; the engine takes none that is smaller."""

MOSTLY_INSIDE = 0.8
"""Share of a box within anatomy that is this anatomy."""

INNER_SIDE, EMPTY_SIDE = (0.2, 0.6), (0.1, 0.4)
"""Least and greatest side of a box within anatomy and on nothing, as shares of the piece's box and of the picture."""

_TRIES = 8


def region_of(record: Record, rng: np.random.Generator) -> tuple[RegionRecord, Region, NDArray[np.bool_]]:
    """A target, the box of one of its connected pieces and that piece; the larger pieces are likelier.

    A target that is known by its box alone is one piece, the whole box.
    """
    own = record.regions[int(rng.integers(len(record.regions)))]
    if not own.counts:
        x0, y0, x1, y1 = own.box
        filled = np.zeros(record.stored_size, bool)
        filled[y0 : y1 + 1, x0 : x1 + 1] = True
        return own, Region(x0, y0, x1, y1), filled
    mask = decode_mask(own.counts, record.stored_size)
    labels, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    piece = int(rng.choice(count, p=areas / areas.sum()))
    rows, columns = ndimage.find_objects(labels)[piece]
    return own, Region(columns.start, rows.start, columns.stop - 1, rows.stop - 1), labels == piece + 1


def jittered(region: Region, shape: tuple[int, ...], rng: np.random.Generator) -> Region:
    """The box with its edges moved by up to ``BOX_JITTER`` of its sides, within a picture of ``shape`` (H, W)."""
    width, height = region.x1 - region.x0 + 1, region.y1 - region.y0 + 1
    moved = np.rint(rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * (width, height, width, height)).astype(int)
    x0, x1 = max(0, region.x0 + moved[0]), min(shape[1] - 1, region.x1 + moved[2])
    y0, y1 = max(0, region.y0 + moved[1]), min(shape[0] - 1, region.y1 + moved[3])
    return Region(int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else region


def empty_box(record: Record, rng: np.random.Generator) -> Region | None:
    """A box that touches no target, in a picture of which it is known where all are; None where there is no room."""
    if not (findings_told(record) and all_told(record)):
        return None
    taken = _covered(record, [r.target for r in record.regions])
    for _ in range(_TRIES):
        box = _random_box(taken.shape, (0, 0, taken.shape[1] - 1, taken.shape[0] - 1), EMPTY_SIDE, rng)
        if box is not None and not taken[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1].any():
            return box
    return None


def inner_box(record: Record, own: RegionRecord, piece: NDArray[np.bool_], rng: np.random.Generator) -> Region | None:
    """A smaller box within a piece of anatomy and beside all findings; None where there is none or they are unknown."""
    kind = vocabulary.targets().get(own.target)
    if kind is None or kind.kind != "anatomy" or not (findings_told(record) or _never_ill(record.modality, kind)):
        return None
    wrong = _covered(record, findings(record))
    rows, columns = np.nonzero(piece.any(axis=1))[0], np.nonzero(piece.any(axis=0))[0]
    frame = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    for _ in range(_TRIES):
        box = _random_box(piece.shape, frame, INNER_SIDE, rng)
        if box is None:
            return None
        inside = np.s_[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1]
        if piece[inside].mean() >= MOSTLY_INSIDE and not wrong[inside].any():
            return box
    return None


def _never_ill(modality: str, anatomy: Target) -> bool:
    """Whether no finding that has a name in a modality is shown where the anatomy is."""
    return not any(t.kind == "finding" and set(t.parts) & set(anatomy.parts) for t in vocabulary.for_modality(modality))


def _covered(record: Record, names: Collection[str]) -> NDArray[np.bool_]:
    """(H, W) bool, pixels of any of the targets; a target that is known by its box alone covers all of that."""
    covered = np.zeros(record.stored_size, bool)
    for region in record.regions:
        if region.target in names:
            x0, y0, x1, y1 = region.box
            if region.counts:
                covered |= decode_mask(region.counts, covered.shape)
            else:
                covered[y0 : y1 + 1, x0 : x1 + 1] = True
    return covered


def _random_box(
    shape: tuple[int, ...], frame: tuple[int, int, int, int], shares: tuple[float, float], rng: np.random.Generator
) -> Region | None:
    """A box whose sides are between two shares of a frame's and which lies in it; None where that is too small.

    Args:
        shape: (H, W) of the picture.
        frame: (x0, y0, x1, y1), corners included.
    """
    x0, y0, x1, y1 = frame
    width, height = x1 - x0 + 1, y1 - y0 + 1
    if min(width, height, *shape) <= SMALLEST_BOX:
        return None
    w, h = (max(SMALLEST_BOX, int(n * rng.uniform(*shares))) for n in (width, height))
    left, top = x0 + int(rng.integers(width - w + 1)), y0 + int(rng.integers(height - h + 1))
    return Region(left, top, left + w - 1, top + h - 1)
