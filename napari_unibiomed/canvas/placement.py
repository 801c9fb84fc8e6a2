"""From volumes to image layers, and how a volume's canonical axes lie in a layer's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.modalities import choose_window
from unibiomed_core.types import StoredOrder, Volume

if TYPE_CHECKING:
    from napari.layers import Layer

KEY = "unibiomed"
"""Where our records stand in ``layer.metadata``."""

AXIS_LABELS = ("S-I", "A-P", "R-L")
"""From the first to the last axis: indices grow towards Inferior, Posterior, Left."""

LayerTuple = tuple[Any, dict[str, Any], str]


@dataclass(frozen=True)
class Placement:
    """How a volume lies in the data of a layer.

    Args:
        order: Layer axes, the chosen ones left out, to canonical axes.
        choice: {layer axis: index} for the axes that the volume is one step of.
        from_file: The geometry was read from a file, so results can be saved with their true position.
    """

    order: StoredOrder
    choice: Mapping[int, int] = field(default_factory=dict)
    from_file: bool = True

    @property
    def kept(self) -> tuple[int, ...]:
        """Layer axes that the volume runs along."""
        return tuple(a for a in range(len(self.order.shape) + len(self.choice)) if a not in self.choice)

    def to_layer(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """A canonical (Z, Y, X) array in the axes of the layer, chosen axes of size 1; a view."""
        stored = self.order.to_stored(canonical)
        return np.expand_dims(stored, tuple(sorted(self.choice))) if self.choice else stored

    def to_canonical(self, data: NDArray[Any]) -> NDArray[Any]:
        """Results in the axes of the layer, chosen axes of size 1, as canonical (Z, Y, X); a view."""
        return self.order.to_canonical(np.squeeze(data, tuple(sorted(self.choice))) if self.choice else data)

    def to_position(self, voxel: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        """Layer data coordinates of a canonical (z, y, x) voxel, fractions allowed."""
        position = np.zeros(len(self.kept) + len(self.choice))
        position[list(self.choice)] = list(self.choice.values())
        if len(self.order.shape) == 2:
            position[list(self.kept)] = voxel[1:]
            return position
        for axis, flip, value in zip(self.order.axes, self.order.flips, voxel, strict=True):
            position[self.kept[axis]] = self.order.shape[axis] - 1 - value if flip else value
        return position

    def to_voxel(self, position: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        """The canonical (z, y, x) voxel at layer data coordinates; z is 0 in a picture."""
        inside = [float(position[axis]) for axis in self.kept]
        if len(self.order.shape) == 2:
            return np.array([0.0, *inside])
        turned = [inside[axis] for axis in self.order.axes]
        sizes = [self.order.shape[axis] for axis in self.order.axes]
        return np.array([n - 1 - v if flip else v for v, n, flip in zip(turned, sizes, self.order.flips, strict=True)])


def image_layer(volume: Volume) -> LayerTuple:
    """A volume as an image layer in display order, with its exact geometry in the metadata.

    Pictures become 2D (or RGB) layers in pixels, volumes 3D layers in mm. Grey images are shown in the window that the
    model is given.
    """
    about: dict[str, Any] = {"name": volume.name, "metadata": {KEY: {"volume": volume}}}
    if not volume.is_rgb:
        window = choose_window(volume)
        about["contrast_limits"] = (window.low, window.high)
    if volume.is_2d:
        return volume.voxels[0], about | {"rgb": volume.is_rgb}, "image"
    units = "mm" if volume.spatial_unit == "mm" else "pixel"
    return volume.voxels, about | {"scale": volume.spacing_mm, "units": units, "axis_labels": AXIS_LABELS}, "image"


def series_layer(volumes: Sequence[Volume]) -> LayerTuple:
    """Volumes of one file as one 4D image layer, the volumes along its first axis; each keeps its own geometry."""
    first = volumes[0]
    _, about, kind = image_layer(first)
    data = np.stack([volume.voxels for volume in volumes])
    held = tuple(replace(volume, voxels=voxels) for volume, voxels in zip(volumes, data, strict=True))
    about["metadata"] = {KEY: {"volumes": held}}
    about |= {"scale": (1.0, *about["scale"]), "axis_labels": ("volume", *AXIS_LABELS)}
    about["units"] = ("pixel", *(about["units"],) * 3)
    return data, about, kind


def volumes_in(layer: Layer) -> tuple[Volume, ...]:
    """What our reader put into a layer: one volume, the volumes of a series, or none."""
    about = layer.metadata.get(KEY, {})
    return about.get("volumes") or ((about["volume"],) if "volume" in about else ())
