"""Volumes and masks made by hand for tests, with nibabel's orientation functions as the independent way."""

from __future__ import annotations

import itertools
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from unibiomed_core.types import CroppedMask, StoredOrder, Volume

AXIS_CODES = tuple(
    "".join(order) for axes in itertools.permutations(("LR", "PA", "IS")) for order in itertools.product(*axes)
)
"""All 48 ways a file may order and direct its axes."""


def volume_of(
    stored: NDArray[Any],
    affine: NDArray[np.float64],
    modality: str = "ct",
    unit: str = "HU",
    known: bool = True,
    name: str = "phantom",
) -> Volume:
    """A volume from a stored array and its index-to-RAS matrix."""
    ours = nibabel.orientations.axcodes2ornt(("I", "P", "L"))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), ours)
    axes = tuple(int(i) for i in np.argsort(turn[:, 0]))
    flips = tuple(bool(turn[axis, 1] < 0) for axis in axes)
    order = StoredOrder((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]), stored.shape[:3], affine)
    canonical = affine @ nibabel.orientations.inv_ornt_aff(turn, stored.shape[:3])
    return Volume(order.to_canonical(stored), canonical, modality, unit, "mm", known, order, name)


def picture_of(pixels: NDArray[Any], modality: str = "pathology", name: str = "picture") -> Volume:
    """A 2D picture without a size in mm."""
    order = StoredOrder((0, 1, 2), (False, False, False), pixels.shape[:2], np.eye(4))
    return Volume(pixels[np.newaxis], np.eye(4), modality, "intensity", "px", False, order, name)


def canonical_affine(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Matrix of a straight canonical grid: z towards Inferior, y towards Posterior, x towards Left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = (-s for s in spacing_mm)
    affine[3, 3] = 1
    return affine


def tilted(affine: NDArray[np.float64], degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """The matrix after rotations about the patient's x, y and z axes."""
    from scipy.spatial.transform import Rotation

    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return turn @ affine


def world(volume: Volume) -> NDArray[np.float64]:
    """(Z, Y, X, 3) RAS mm of every voxel centre."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), axis=-1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def cropped(mask: NDArray[np.bool_]) -> CroppedMask:
    return CroppedMask.from_full(mask)
