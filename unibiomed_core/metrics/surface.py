"""Distances between the surfaces of two masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def surface_distances(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From each surface element of one mask to the nearest of the other, in the unit of ``spacing``.

    A surface element is a foreground element with a background neighbour across a side; what lies outside of the
    array is background.

    Args:
        predicted: Boolean array with 2 or 3 axes.
        truth: Of the same shape.
        spacing: Distance of neighbours along each axis.

    Returns:
        (elements of ``predicted``,) and (elements of ``truth``,); infinite where the other mask is empty.

    Raises:
        ValueError: The shapes differ, or ``spacing`` has another number of axes.
    """
    if predicted.shape != truth.shape or len(spacing) != truth.ndim:
        raise ValueError(f"shapes differ: {predicted.shape}, {truth.shape} and {len(spacing)} spacings")
    either = predicted | truth
    if not either.any():
        return np.zeros(0), np.zeros(0)
    (box,) = ndimage.find_objects(either.astype(np.uint8))
    surfaces = [mask[box] & ~ndimage.binary_erosion(mask[box]) for mask in (predicted, truth)]
    return _nearest(surfaces[0], surfaces[1], spacing), _nearest(surfaces[1], surfaces[0], spacing)


def _nearest(surface: NDArray[np.bool_], other: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    if not other.any():
        return np.full(int(surface.sum()), np.inf)
    return np.asarray(ndimage.distance_transform_edt(~other, sampling=spacing)[surface], np.float64)


def surface_dice(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> float:
    """Share of both surfaces that lies within ``tolerance`` of the other one; 1.0 where both masks are empty.

    Normalised surface Dice (Nikolov et al. 2018, arXiv 1809.04430), every surface element counted once.

    Args:
        tolerance: In the unit of ``spacing``, its bound included.

    Raises:
        ValueError: As for :func:`surface_distances`.
    """
    near, total = surface_counts(predicted, truth, spacing, tolerance)
    return 1.0 if total == 0 else near / total


def surface_counts(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> tuple[int, int]:
    """(surface elements within tolerance, all surface elements) of both masks, to be summed over slices."""
    both = np.concatenate(surface_distances(predicted, truth, spacing))
    return int((both <= tolerance).sum()), len(both)


def hausdorff_95(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """The larger of the 95th percentiles of both directed surface distances, in the unit of ``spacing``.

    As in Maier-Hein et al. 2024, "Metrics reloaded". 0.0 where both masks are empty, infinite where one is.

    Raises:
        ValueError: As for :func:`surface_distances`.
    """
    there, back = surface_distances(predicted, truth, spacing)
    if not len(there) and not len(back):
        return 0.0
    if not len(there) or not len(back):
        return float("inf")
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))
