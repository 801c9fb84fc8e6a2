"""Masks from COCO's outlines: polygons, of which pieces may be unusable, and run lengths, packed or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unibiomed_core.errors import DataError

from ..data.run_lengths import decode_mask, filled

_FLAT = 1e-9
"""Square pixels; corners on one line span no more."""

_BEYOND = 1.0
"""Pixels that an outline may lie outside without a word; tools count corners from 0, from 1 or from the middle."""


@dataclass(frozen=True)
class Outline:
    """What an annotation's ``segmentation`` gives.

    Args:
        mask: (H, W) bool; None where no piece of it covers a pixel.
        dropped: Pieces without area that were left out.
        cut: Pieces that left the picture and were cut at its border.
    """

    mask: NDArray[np.bool_] | None
    dropped: int = 0
    cut: int = 0


def outline(segmentation: Any, shape: tuple[int, int]) -> Outline:
    """The mask of polygons or of run lengths.

    Args:
        shape: (H, W) of the picture.

    Raises:
        DataError: The run lengths are of another size, corners are no numbers or lie far outside the picture, or what
            stands there is neither.
    """
    if isinstance(segmentation, dict) and {"size", "counts"} <= segmentation.keys():
        return Outline(_run_lengths(segmentation["size"], segmentation["counts"], shape))
    if not isinstance(segmentation, list):
        raise _unusable(segmentation)
    good, dropped, cut = [], 0, 0
    for piece in segmentation:
        corners = _corners(piece, segmentation, shape)
        if len(corners) < 3 or _on_one_line(corners):
            dropped += 1
            continue
        low, high = corners.min(axis=0), corners.max(axis=0)
        cut += bool((low < -_BEYOND).any() or high[0] > shape[1] + _BEYOND or high[1] > shape[0] + _BEYOND)
        good.append(corners.reshape(-1).tolist())
    if not good:
        return Outline(None, dropped)
    mask = np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(good, *shape)))).astype(bool)
    return Outline(mask if mask.any() else None, dropped, cut)


def _corners(piece: Any, whole: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    """(N, 2) x, y of one polygon."""
    numbers = isinstance(piece, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in piece)
    if not numbers or len(piece) % 2:
        raise _unusable(whole)
    corners = np.asarray(piece, np.float64).reshape(-1, 2)
    size = (shape[1], shape[0])
    # Drawing walks along each edge: one to a corner a million pixels off would take the memory with it.
    if not np.isfinite(corners).all() or (corners < np.negative(size)).any() or (corners > np.multiply(size, 2)).any():
        raise DataError("Mask not usable", f"corners outside of {size[0]} x {size[1]} px: {str(piece)[:60]}", "inside")
    return corners


def _on_one_line(corners: NDArray[np.float64]) -> bool:
    """Whether corners span no area; the sum of an outline that crosses itself may be 0 and its area is not."""
    steps = corners - corners[0]
    far = steps[np.abs(steps).sum(axis=1).argmax()]
    return bool(np.abs(steps[:, 0] * far[1] - steps[:, 1] * far[0]).max() <= _FLAT)


def _unusable(segmentation: Any) -> DataError:
    return DataError("Mask not usable", f"{str(segmentation)[:80]}", "polygons [[x, y, x, y, ...]], or run lengths")


def _run_lengths(size: Any, runs: Any, shape: tuple[int, int]) -> NDArray[np.bool_]:
    if not isinstance(size, list | tuple) or tuple(size) != shape:
        raise DataError("Mask of another size", f"run lengths of {str(size)[:40]}", f"{list(shape)} (H, W)")
    whole = isinstance(runs, list) and bool(runs) and all(type(n) is int for n in runs)
    if not whole and not isinstance(runs, str | bytes):
        raise DataError("Damaged mask", f"run lengths {str(runs)[:60]}", "whole numbers, or a COCO string")
    if not isinstance(runs, list):
        return decode_mask(runs, shape)
    if max(runs) > math.prod(shape) or min(runs) < 0:
        raise DataError("Damaged mask", f"run lengths up to {max(runs)} pixels", f"{math.prod(shape)} pixels in all")
    return filled(np.array(runs, np.int64), shape)
