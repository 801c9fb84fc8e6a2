"""NIfTI label images on the input's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.types import Volume


def write_labels(canonical: NDArray[Any], volume: Volume, path: Path) -> None:
    """Write a canonical (Z, Y, X) label or boolean array in the order and with the matrix of the file it came from.

    The matrix goes into the sform, which NIfTI-1 keeps in single precision, and also into the qform where that can
    hold it (orthogonal axes), for programs that read only one of them.

    Args:
        canonical: Unsigned integers or booleans; booleans are written as 0 and 1 in uint8.
        path: Ends in ``.nii`` or ``.nii.gz``; written directly, so stand inside a ``staged`` block.

    Raises:
        ValueError: The array lies on another grid, or the image is a 2D picture.
    """
    import nibabel

    if canonical.shape != volume.shape or volume.is_2d:
        raise ValueError(f"labels of shape {canonical.shape} for an image of shape {volume.shape}")
    stored = volume.stored.to_stored(canonical)
    stored = np.asfortranarray(stored, np.uint8 if stored.dtype == bool else stored.dtype)
    image = nibabel.Nifti1Image(stored, volume.stored.affine)
    image.set_sform(volume.stored.affine, code="scanner")
    axes = volume.stored.affine[:3, :3] / np.linalg.norm(volume.stored.affine[:3, :3], axis=0)
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        image.set_qform(volume.stored.affine, code="scanner")
    image.header.set_xyzt_units("mm" if volume.spatial_unit == "mm" else "unknown")
    nibabel.save(image, path)
