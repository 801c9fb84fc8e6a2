"""Axes: from the order and direction a file was stored in to canonical (Z, Y, X), and the exact way back.

Canonical Z grows towards Inferior, Y towards Posterior, X towards Left; the world is RAS+ mm. Nothing is resampled:
axes are permuted and flipped only, so a tilted acquisition keeps its tilt in the affine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.types import Note, StoredOrder

CANONICAL_AXCODES = ("I", "P", "L")
"""The direction in which each canonical axis grows, in nibabel's letters."""

CANONICAL_DIRECTIONS: NDArray[np.float64] = np.array([[0, 0, -1], [0, -1, 0], [-1, 0, 0]], np.float64)
"""Columns: the unit vectors in RAS+ along which canonical z, y and x grow in an untilted volume."""

LPS_TO_RAS: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4x4; DICOM and ITK count x towards Left and y towards Posterior."""

LARGEST_LENGTH_MM = 1e7
"""Ten kilometres; beyond any scanner's coordinates, so such a header is damaged."""

SMALLEST_TILT_DEG = 0.5
"""Below this a tilt is rounding in the header and is not mentioned."""


def check_affine(affine: NDArray[np.float64], name: str) -> None:
    """Refuse an index-to-mm matrix that cannot place voxels in space.

    Args:
        affine: 4x4, stored index to mm.
        name: The file's name for the message.

    Raises:
        ReadError: An element is not finite or absurdly large, a spacing is zero, or two axes run along the same line.
    """
    expected = "three positive spacings and three independent directions"
    action = "Write the file again with a correct header."
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ReadError(
            "Impossible geometry", f"The affine of '{name}' has values that are not numbers", expected, action
        )
    if np.abs(affine).max() > LARGEST_LENGTH_MM:
        raise ReadError(
            "Impossible geometry",
            f"The affine of '{name}' holds lengths of {np.abs(affine).max():.3g} mm",
            f"spacings and positions under {LARGEST_LENGTH_MM:g} mm",
            action,
        )
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing_mm < 1e-6).any():
        sizes = " x ".join(f"{s:g}" for s in spacing_mm)
        raise ReadError("Impossible geometry", f"'{name}' has zero spacing ({sizes} mm)", expected, action)
    # The determinant of unit directions is the sine-like volume they span: 1 at right angles, 0 when degenerate.
    if abs(np.linalg.det(affine[:3, :3] / spacing_mm)) < 1e-3:
        raise ReadError("Impossible geometry", f"The affine of '{name}' is singular", expected, action)


def is_spacing(spacing_mm: tuple[float, ...]) -> bool:
    """Whether all are positive and finite."""
    return all(np.isfinite(s) and s > 0 for s in spacing_mm)


def check_spacing(spacing_mm: tuple[float, ...], name: str) -> None:
    """Refuse spacings that are zero, negative or not finite.

    Raises:
        ReadError: One of them is.
    """
    if not is_spacing(spacing_mm):
        sizes = " x ".join(f"{s:g}" for s in spacing_mm)
        kind = "negative" if any(s < 0 for s in spacing_mm) else "zero or undefined"
        raise ReadError(
            "Impossible geometry",
            f"'{name}' has {kind} spacing ({sizes} mm)",
            "positive spacing along every axis",
            "Write the file again with a correct header.",
        )


def canonical_order(
    affine: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[StoredOrder, NDArray[np.float64]]:
    """The way between a stored volume and canonical axes.

    An oblique affine is taken as its closest canonical orientation (``nibabel.orientations.io_orientation``).

    Args:
        affine: 4x4, stored (i, j, k) index to RAS+ mm, already checked.
        shape: Stored spatial shape.

    Returns:
        The order, and the 4x4 affine of canonical (z, y, x) index to RAS+ mm.
    """
    from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    transform = ornt_transform(io_orientation(affine), axcodes2ornt(CANONICAL_AXCODES))
    # Row i of the transform says which canonical axis stored axis i becomes and whether it is flipped on the way.
    stored_axis_of = [int(i) for i in np.argsort(transform[:, 0])]
    axes = (stored_axis_of[0], stored_axis_of[1], stored_axis_of[2])
    flips = (bool(transform[axes[0], 1] < 0), bool(transform[axes[1], 1] < 0), bool(transform[axes[2], 1] < 0))
    canonical_affine = np.asarray(affine @ inv_ornt_aff(transform, shape), np.float64)
    return StoredOrder(axes, flips, shape, np.asarray(affine, np.float64)), canonical_affine


def picture_order(
    shape: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[StoredOrder, NDArray[np.float64]]:
    """The order of a 2D image stored as (H, W[, C]): rows run towards Posterior, columns towards Left.

    Args:
        shape: (H, W).
        spacing: Row and column spacing, in the image's spatial unit.

    Returns:
        The order, and the 4x4 affine of canonical (z, y, x) index; the step between slices is 1.
    """
    affine = np.eye(4)
    affine[:3, :3] = CANONICAL_DIRECTIONS * (1.0, *spacing)
    # Stored indices are (row, column, page), so the page column comes last.
    stored = affine[:, [1, 2, 0, 3]]
    return StoredOrder((2, 0, 1), (False, False, False), shape, stored), affine


def tilt_deg(canonical_affine: NDArray[np.float64]) -> float:
    """The largest angle between a canonical axis and the patient's axis that it stands for, in degrees.

    For a volume turned about one patient axis this is the angle of the turn; for a CT with gantry tilt it is the
    angle of the shear.
    """
    directions = canonical_affine[:3, :3] / np.linalg.norm(canonical_affine[:3, :3], axis=0)
    cosines = np.clip((directions * CANONICAL_DIRECTIONS).sum(axis=0), -1.0, 1.0)
    return float(np.degrees(np.arccos(cosines)).max())


def tilt_note(canonical_affine: NDArray[np.float64]) -> tuple[Note, ...]:
    """What has to be said about the tilt, where there is one."""
    angle = tilt_deg(canonical_affine)
    if angle < SMALLEST_TILT_DEG:
        return ()
    text = (
        f"Tilted acquisition ({angle:.0f}°). Slices are used as acquired and not resampled to the patient's axes; "
        "positions in mm follow the tilt."
    )
    return (Note("tilted", text),)
