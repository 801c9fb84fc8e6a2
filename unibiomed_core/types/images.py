"""An image, its slices, and what has to be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
"""The plane whose slices are taken across axis 0, 1, 2 of a canonical volume."""


ToldBy = Literal["header", "user", "model"]
"""Who told what an image is: its file (header, name or values), the user, or the model that looked at it."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that has to be said about an image or a run.

    Args:
        code: The case, for code that acts on it.
        text: One whole sentence or more, for people only.
        values: What the case is about, for whoever says it in other words.
    """

    code: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """The exact way back from canonical axes to the order the file was stored in.

    ``canonical = flip(stored.transpose(axes), flips)``; a trailing channel axis is left alone.

    Args:
        axes: ``axes[i]`` is the stored axis that became canonical axis ``i``.
        flips: Whether canonical axis ``i`` runs against its stored axis.
        shape: Spatial shape as stored, 2 or 3 numbers; a 2D image is stored as (H, W) and canonical as (1, H, W).
        affine: 4x4 float64, stored (i, j, k) index to RAS+ mm, as read from the file.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def to_canonical(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view of a stored array in canonical (Z, Y, X[, C]) order."""
        if len(self.shape) == 2:
            return stored[np.newaxis]
        turned = stored.transpose(*self.axes, *range(3, stored.ndim))
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def to_stored(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """A view of a canonical (Z, Y, X[, C]) array in the order of the file."""
        if len(self.shape) == 2:
            return canonical[0]
        turned = canonical[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        back = tuple(int(axis) for axis in np.argsort(self.axes))
        return turned.transpose(*back, *range(3, turned.ndim))


@dataclass(frozen=True, slots=True)
class Volume:
    """An image in canonical axes. A 2D image has Z = 1.

    Args:
        voxels: (Z, Y, X) of any real dtype, or (Z, Y, X, 3) uint8.
        affine: 4x4 float64, canonical (z, y, x) index to RAS+ mm (pixels where ``spatial_unit`` is "px").
        modality: A name of ``modalities.MODALITIES``.
        intensity_unit: "HU", "SUV" or "intensity".
        spatial_unit: "mm", or "px" where the file tells no size.
        orientation_known: False where the file has no direction; sides are then reported as unknown.
        stored: The way back to the file's own order.
        name: A short name for display, never a path.
        source: Where it came from, for the user's own report only; never logged.
        notes: What a reader had to assume, for the report's warnings.
        modality_by: Who told the modality.
        modality_shares: (modality, share of the model's likelihood), likeliest first, where the model told it.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    modality: str
    intensity_unit: str
    spatial_unit: Literal["mm", "px"]
    orientation_known: bool
    stored: StoredOrder
    name: str = "image"
    source: str = ""
    notes: tuple[Note, ...] = ()
    modality_by: ToldBy = "header"
    modality_shares: tuple[tuple[str, float], ...] = ()

    @property
    def is_rgb(self) -> bool:
        return self.voxels.ndim == 4

    @property
    def is_2d(self) -> bool:
        """True for a picture; a volume that happens to have one slice is still a volume."""
        return len(self.stored.shape) == 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (Z, Y, X)."""
        return self.voxels.shape[0], self.voxels.shape[1], self.voxels.shape[2]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along Z, Y, X (in pixels where ``spatial_unit`` is "px")."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def acquisition_plane(self) -> Plane | None:
        """The plane of the slices as they were acquired: across the axis with the longest steps. None where no axis has
        steps longer by a tenth, for a picture, and where sizes are not known: then nothing tells the plane."""
        if self.is_2d or self.spatial_unit != "mm":
            return None
        second, longest = sorted(self.spacing_mm)[1:]
        return PLANES[self.spacing_mm.index(longest)] if longest > 1.1 * second else None

    @property
    def default_plane(self) -> Plane:
        """The plane that slices are taken in where nobody chooses one."""
        return self.acquisition_plane or "axial"

    def plane_axis(self, plane: Plane) -> int:
        return PLANES.index(plane)

    def slice_count(self, plane: Plane = "axial") -> int:
        return self.shape[self.plane_axis(plane)]

    def slice(self, index: int, plane: Plane = "axial") -> Slice:
        """One slice as a view, rows and columns in canonical direction.

        Raises:
            IndexError: ``index`` is outside the volume.
        """
        axis = self.plane_axis(plane)
        if not 0 <= index < self.shape[axis]:
            raise IndexError(f"slice {index} of {self.shape[axis]}")
        rows, columns = (size for i, size in enumerate(self.spacing_mm) if i != axis)
        return Slice(np.moveaxis(self.voxels, axis, 0)[index], plane, index, (rows, columns), self.modality)


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane of a volume: ``pixels`` (H, W) or (H, W, 3), a view; ``spacing_mm`` (row, column)."""

    pixels: NDArray[Any]
    plane: Plane
    index: int
    spacing_mm: tuple[float, float]
    modality: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True)
class Region:
    """A box on a slice, in canonical pixels: columns ``x0..x1`` and rows ``y0..y1``, both ends included."""

    x0: int
    y0: int
    x1: int
    y1: int
    plane: Plane = "axial"
    index: int = 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.x0, self.y0, self.x1, self.y1
