"""From image layers to volumes, whoever read them, and how a volume's canonical axes lie in a layer's data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed import messages
from unibiomed_core.errors import ReadError
from unibiomed_core.io.geometry import CANONICAL_DIRECTIONS, SMALLEST_TILT_DEG, tilt_deg
from unibiomed_core.io.interpret import decide_unit
from unibiomed_core.io.stored import Stored, to_volume
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import StoredOrder, Volume

if TYPE_CHECKING:
    from napari.layers import Image, Layer

KEY = "unibiomed"
"""Where our records stand in ``layer.metadata``."""

AXIS_LABELS = ("S-I", "A-P", "R-L")
"""From the first to the last axis: indices grow towards Inferior, Posterior, Left."""

LayerTuple = tuple[Any, dict[str, Any], str]

_RIGHT_ANGLE_TOLERANCE = 1e-4
"""Relative size of a matrix element that still counts as rounding and not as a rotation."""

_GAP = re.compile(r"Gap of ([\d.]+) mm between slices (\d+) and (\d+)")
"""In the note that a reader of DICOM leaves."""

_choices: WeakKeyDictionary[Layer, dict[int, int]] = WeakKeyDictionary()
"""The volume that was last taken of a layer with more dimensions: {layer axis: index}."""


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


def is_of_file(layer: Layer, volume: Volume) -> bool:
    """Whether a layer shows the canonical voxels of a volume that was read from a file, unchanged."""
    known = layer.metadata.get(KEY, {}).get("volume")
    return known is not None and known.stored is volume.stored and known.affine is volume.affine


def placement_of(layer: Layer, volume: Volume) -> Placement:
    """How a volume that :func:`volume_of` gave for this layer lies in it."""
    if is_of_file(layer, volume):
        shape = volume.shape[1:] if volume.is_2d else volume.shape
        return Placement(StoredOrder((0, 1, 2), (False, False, False), shape, volume.affine))
    return Placement(volume.stored, dict(_choices.get(layer, {})), from_file=False)


def volume_of(layer: Image, modality: str, *, choice: Mapping[int, int] | None = None) -> Volume:
    """The volume behind an image layer; the layer is not changed.

    A layer of ours gives back exactly what was read. A layer of another reader has no direction: it is taken as it is
    shown, with sides unknown. Its data may run against the axes it is shown along (negative scale) or in another
    order; pictures are taken in the order of their pixels.

    Args:
        modality: A name of ``modalities.MODALITIES``.
        choice: {layer axis: index}, which volume to take of a layer with more than three dimensions.

    Raises:
        ReadError: It has more dimensions than ``choice`` settles, is rotated or sheared, holds colour volumes, several
            resolutions, or values that no image has.
        ConfigError: ``modality`` is unknown.
    """
    known = _known(layer)
    if known is not None:
        return known if known.modality == modality else _as_modality(known, modality)
    if getattr(layer, "multiscale", False):
        raise ReadError(
            "Several resolutions", "this layer is a pyramid of resolutions", "one array", "Open one level of it."
        )
    chosen = _checked(layer, dict(choice or {}))
    kept = [axis for axis in range(layer.ndim) if axis not in chosen]
    data = np.asarray(layer.data[tuple(chosen.get(axis, slice(None)) for axis in range(layer.ndim))])
    if data.dtype.kind not in "iufb":
        raise ReadError("Unsupported voxel type", f"the values are {data.dtype}", "integers or real numbers")
    if layer.rgb:
        data = np.ascontiguousarray(_eight_bit(data[..., :3]))
    linear, offset = _shown_axes(layer, kept)
    step_mm, unit, assumed = _lengths(layer, kept)
    notes = ["This layer has no direction from its file: it is taken as it is shown, and sides are unknown.", *assumed]
    if len(kept) == 2:
        row, column = (float(n) * step_mm for n in np.abs(linear).max(axis=0)) if unit == "mm" else (1.0, 1.0)
        stored = Stored(data, None, (row, column), unit, False, notes=tuple(notes))
    else:
        affine = np.eye(4)
        affine[:3, :3] = CANONICAL_DIRECTIONS @ linear * step_mm
        affine[:3, 3] = CANONICAL_DIRECTIONS @ offset * step_mm
        stored = Stored(data, affine, spatial_unit=unit, orientation_known=False, notes=tuple(notes))
    volume = to_volume(stored, Path("layer"), modality)
    _choices[layer] = chosen
    return replace(volume, name=str(layer.name), source="")


def warnings_of(volume: Volume) -> tuple[messages.Message, ...]:
    """What has to be said about an image before it is asked about, the gravest first."""
    found = []
    if not volume.orientation_known and not volume.is_2d:
        found.append(messages.orientation_unknown())
    if volume.modality == "ct" and volume.intensity_unit != "HU" and not volume.is_rgb:
        found.append(messages.not_hounsfield(float(volume.voxels.min()), float(volume.voxels.max())))
    if gap := re.search(_GAP, " ".join(volume.notes)):
        found.append(messages.uneven_spacing(float(gap[1]), int(gap[2]), int(gap[3])))
    if volume.orientation_known and not volume.is_2d and (angle := tilt_deg(volume.affine)) >= SMALLEST_TILT_DEG:
        found.append(messages.tilted_acquisition(angle))
    return tuple(found)


def _as_modality(volume: Volume, modality: str) -> Volume:
    """The volume as the user says it is; its unit is decided anew, as a CT read as MRI is not in HU yet."""
    unit_in_file = "" if volume.intensity_unit == "intensity" else volume.intensity_unit
    changed = replace(volume, modality=modality)
    unit, why = decide_unit(changed, unit_in_file)
    return replace(changed, intensity_unit=unit, notes=tuple(dict.fromkeys((*volume.notes, *why))))


def _known(layer: Image) -> Volume | None:
    """What our reader put into the layer, where its data are still those; a duplicate of the layer counts."""
    known = layer.metadata.get(KEY, {}).get("volume")
    if known is None or getattr(layer, "multiscale", False):
        return None
    data, voxels = layer.data, known.voxels[0] if known.is_2d else known.voxels
    if not isinstance(data, np.ndarray) or data.shape != voxels.shape or data.dtype != voxels.dtype:
        return None
    same = data.ctypes.data == voxels.ctypes.data and data.strides == voxels.strides
    return known if same or np.array_equal(data, voxels) else None


def _checked(layer: Image, choice: dict[int, int]) -> dict[int, int]:
    """The choice, where it leaves a volume or a picture.

    Raises:
        ReadError: It does not, or an axis or index does not exist.
    """
    shape = tuple(int(n) for n in layer.data.shape[: layer.ndim])
    if layer.ndim - len(choice) not in (2, 3):
        raise ReadError(
            "Choose one volume", f"this layer has {layer.ndim} dimensions", "2 or 3", "Pick a time point or channel."
        )
    for axis, index in choice.items():
        if not (0 <= axis < layer.ndim and 0 <= index < shape[axis]):
            raise ReadError("Choose one volume", f"index {index} of axis {axis}", f"an index within {shape}")
    if layer.rgb and layer.ndim - len(choice) == 3:
        raise ReadError(
            "Colour volume", f"the layer has shape {shape} in colour", "a grey volume or one colour picture",
            "Choose one picture of it.",
        )  # fmt: skip
    return choice


def _eight_bit(colours: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours as napari shows them: integers up to 255, real numbers up to 1.

    Raises:
        ReadError: They are neither.
    """
    if colours.dtype == np.uint8:
        return colours
    if colours.dtype.kind == "f" and colours.min() >= 0 and colours.max() <= 1:
        return np.rint(colours * 255).astype(np.uint8)
    if colours.dtype.kind in "iu" and colours.min() >= 0 and colours.max() <= 255:
        return colours.astype(np.uint8)
    raise ReadError(
        "Unsupported colour depth", f"colours of type {colours.dtype} up to {colours.max()}", "8 bits, or 0 to 1"
    )


def _shown_axes(layer: Image, kept: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset from the data's kept axes to the axes that the layer is shown along.

    Raises:
        ReadError: An axis is not shown along another one, but between them.
    """
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    whole = np.stack([np.asarray(layer.data_to_world(step)) - origin for step in np.eye(layer.ndim)], axis=1)
    size = np.abs(whole).max(axis=0)
    significant = np.abs(whole) > _RIGHT_ANGLE_TOLERANCE * size
    others = [axis for axis in range(layer.ndim) if axis not in kept]
    straight = (significant.sum(axis=0) == 1).all() and (significant.sum(axis=1) == 1).all()
    if not straight or significant[np.ix_(others, kept)].any():
        raise ReadError(
            "Rotated layer", "the layer is turned or sheared in the viewer", "an upright one",
            "Open the file with UniBiomed, which keeps its tilt.",
        )  # fmt: skip
    inside = np.ix_(kept, kept)
    return np.where(significant, whole, 0.0)[inside], origin[kept]


def _lengths(layer: Image, kept: list[int]) -> tuple[float, Literal["mm", "px"], list[str]]:
    """Millimetres per unit of the layer's scale, the unit of the volume, and what was assumed."""
    import pint

    try:
        factors = {float((1 * layer.units[axis]).to("millimeter").magnitude) for axis in kept}
    except pint.DimensionalityError:
        factors = set()
    if len(factors) == 1:
        return factors.pop(), "mm", []
    if factors:
        raise ReadError("Mixed units", "the layer's axes count in different units", "one unit for all axes")
    if len(kept) == 2 or np.allclose(np.abs(layer.scale), 1.0):
        return 1.0, "px", []
    return 1.0, "mm", ["The layer names no unit: its scale is taken as millimetres."]
