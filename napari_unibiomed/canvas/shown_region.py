"""What the canvas shows of a picture, at full resolution, for the model to see its details."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.canvas.placement import volumes_in
from napari_unibiomed.canvas.volumes import volume_of
from unibiomed_core.errors import ReadError
from unibiomed_core.io import geometry, guard, read_region
from unibiomed_core.io.large_picture import MOST_PIXELS
from unibiomed_core.types import Note, Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


@dataclass(frozen=True)
class ShownRegion:
    """A part of a picture, and where it lies.

    Args:
        volume: Its pixels, in full resolution.
        start: Row and column of its first pixel's centre, in data coordinates of the layer it was taken from.
        step: Rows and columns of that layer that one pixel is high and wide; below 1 where the layer is a reduced one.
    """

    volume: Volume
    start: NDArray[np.float64]
    step: NDArray[np.float64]


def shown_region(viewer: ViewerModel, layer: Image, modality: str) -> ShownRegion:
    """The part of a 2D layer that is on the canvas. A picture that was read at low power is read again, that part only.

    Args:
        modality: A name of ``modalities.MODALITIES``.

    Raises:
        ReadError: The layer is not shown flat, lies beside the canvas, or more of it is shown than one picture may be.
    """
    low_power = next((v for v in volumes_in(layer) if any(n.code == "low_power" for n in v.notes)), None)
    # Pixels of the file for one of the layer.
    factor = np.ones(2) if low_power is None else np.asarray(low_power.spacing_mm[1:], float)
    first, last = _shown_pixels(viewer, layer, factor)
    sides = tuple(int(n) for n in last - first)
    if sides[0] * sides[1] > MOST_PIXELS:
        raise ReadError(
            "Region too large",
            f"the canvas shows {sides[1]} x {sides[0]} pixels of '{layer.name}'",
            f"at most {MOST_PIXELS} pixels",
            "Zoom in.",
        )
    rows, columns = ((int(a), int(b)) for a, b in zip(first, last, strict=True))
    if low_power is not None:
        volume = read_region(low_power.source, rows, columns, modality)
    else:
        volume = _part(layer, rows, columns, modality)
    name = f"{layer.name} ({columns[0]}, {rows[0]})"
    text = f"A part of “{layer.name}”: {sides[1]} x {sides[0]} pixels from column {columns[0]}, row {rows[0]} on."
    notes = (*volume.notes, Note("shown_region", text))
    return ShownRegion(replace(volume, name=name, notes=notes), (first + 0.5) / factor - 0.5, 1 / factor)


def _shown_pixels(viewer: ViewerModel, layer: Image, factor: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """First and end (row, column) of what is on the canvas, in pixels at full resolution."""
    ndim, dims = viewer.dims.ndim, viewer.dims
    if layer.ndim != 2 or dims.ndisplay != 2 or tuple(dims.displayed) != (ndim - 2, ndim - 1):
        raise ReadError("No flat picture", f"'{layer.name}' is not shown flat", "a 2D picture in 2D display")
    centre, half = np.asarray(viewer.scene.camera.center[-2:]), np.asarray(viewer.canvas.size) / 2
    half = half / viewer.scene.camera.zoom
    corners = [layer.world_to_data(centre + half * sign) for sign in ((-1, -1), (-1, 1), (1, -1), (1, 1))]
    size = np.asarray(lazy_layers.finest(layer).shape[:2])
    low, high = np.min(corners, axis=0) + 0.5, np.max(corners, axis=0) + 0.5
    first, last = (np.clip((np.clip(edge, 0, size)) * factor, 0, None) for edge in (low, high))
    first, last = np.floor(first + 1e-6).astype(int), np.ceil(last - 1e-6).astype(int)
    if (last - first < guard.SMALLEST_SIDE_PX).any():
        raise ReadError(
            "Nothing to take",
            f"the canvas shows {max(0, last[1] - first[1])} x {max(0, last[0] - first[0])} pixels of '{layer.name}'",
            f"at least {guard.SMALLEST_SIDE_PX} on each side",
            "Move the picture onto the canvas, or zoom out.",
        )
    return first, last


def _part(layer: Image, rows: tuple[int, int], columns: tuple[int, int], modality: str) -> Volume:
    where = slice(*rows), slice(*columns)
    if lazy_layers.is_lazy(layer):
        with guard.reading(Path(str(layer.name).replace("/", " ")), "a layer that can be read"):
            data = np.asarray(lazy_layers.finest(layer)[where])
        return volume_of(type(layer)(data, rgb=layer.rgb, scale=layer.scale, units=layer.units), modality)
    whole = volume_of(layer, modality)
    voxels = whole.voxels[:, where[0], where[1]]
    guard.check_values(voxels, Path(str(layer.name).replace("/", " ")))
    order, affine = geometry.picture_order(voxels.shape[1:3], whole.spacing_mm[1:])
    return replace(whole, voxels=voxels, affine=affine, stored=order)
