"""From image layers to volumes, whoever read them, and what has to be said about a volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.canvas.placement import KEY, Placement, volumes_in
from napari_unibiomed.messages import catalogue
from napari_unibiomed.messages.message import Message
from unibiomed_core.errors import ReadError
from unibiomed_core.io.geometry import CANONICAL_DIRECTIONS, SMALLEST_TILT_DEG, tilt_deg
from unibiomed_core.io.interpret import decide_unit
from unibiomed_core.io.stored import Stored, to_volume
from unibiomed_core.types import Note, StoredOrder, ToldBy, Volume

if TYPE_CHECKING:
    from napari.layers import Image, Layer

_RIGHT_ANGLE_TOLERANCE = 1e-4
"""Relative size of a matrix element that still counts as rounding and not as a rotation."""

_choices: WeakKeyDictionary[Layer, dict[int, int]] = WeakKeyDictionary()
"""The volume that was last taken of a layer with more dimensions: {layer axis: index}."""


def placement_of(layer: Layer, volume: Volume) -> Placement:
    """How a volume that :func:`volume_of` gave for this layer lies in it."""
    known = volumes_in(layer)
    step = next((i for i, v in enumerate(known) if v.stored is volume.stored and v.affine is volume.affine), None)
    if step is None:
        return Placement(volume.stored, dict(_choices.get(layer, {})), from_file=False)
    shape = volume.shape[1:] if volume.is_2d else volume.shape
    order = StoredOrder((0, 1, 2), (False, False, False), shape, volume.affine)
    return Placement(order, {0: step} if "volumes" in layer.metadata[KEY] else {})


Shares = tuple[tuple[str, float], ...]
"""(modality, share of the model's likelihood), likeliest first."""


def volume_of(layer: Image, modality: str, *, choice: Mapping[int, int] | None = None, shares: Shares = ()) -> Volume:
    """The volume behind an image layer; the layer is not changed.

    A layer of ours gives back exactly what was read. A layer of another reader has no direction: it is taken as it is
    shown, with sides unknown. Its data may run against the axes it is shown along (negative scale) or in another
    order; pictures are taken in the order of their pixels. Of a pyramid of resolutions the finest is taken. A lazy
    layer is read slice by slice after a check of memory, where :mod:`lazy_layers` does not keep its values yet.

    Args:
        modality: A name of ``modalities.MODALITIES``, as the user says unless the file says the same. Empty for a
            picture whose modality the model is to tell.
        shares: What the model said, where it told the modality.
        choice: {layer axis: index}, which volume to take of a layer with more than three dimensions.

    Raises:
        ReadError: It has more dimensions than ``choice`` settles, is rotated or sheared, holds colour volumes, more
            than fits into memory, or values that no image has.
        ConfigError: ``modality`` is unknown.
    """
    known = _known(layer, dict(choice or {}))
    if known is not None:
        return known if known.modality == modality else _as_modality(known, modality, shares)
    chosen = _checked(layer, dict(choice or {}))
    kept = [axis for axis in range(layer.ndim) if axis not in chosen]
    data = lazy_layers.values_of(layer, chosen)
    if layer.rgb:
        data = np.ascontiguousarray(_eight_bit(data[..., :3]))
    linear, offset = _shown_axes(layer, kept)
    step_mm, unit, assumed = _lengths(layer, kept)
    text = "This layer has no direction from its file: it is taken as it is shown, and sides are unknown."
    notes = [Note("orientation_unknown", text), *assumed]
    if len(kept) == 2:
        row, column = (float(n) * step_mm for n in np.abs(linear).max(axis=0)) if unit == "mm" else (1.0, 1.0)
        stored = Stored(data, None, (row, column), unit, False, notes=tuple(notes))
    else:
        affine = np.eye(4)
        affine[:3, :3] = CANONICAL_DIRECTIONS @ linear * step_mm
        affine[:3, 3] = CANONICAL_DIRECTIONS @ offset * step_mm
        stored = Stored(data, affine, spatial_unit=unit, orientation_known=False, notes=tuple(notes))
    volume = to_volume(stored, Path("layer"), modality, undecided=True)
    if shares:
        volume = replace(volume, modality_by="model", modality_shares=shares)
    _choices[layer] = chosen
    return replace(volume, name=str(layer.name), source="")


def warnings_of(volume: Volume) -> tuple[Message, ...]:
    """What has to be said about an image before it is asked about, the gravest first."""
    found = []
    if not volume.orientation_known and not volume.is_2d:
        found.append(catalogue.orientation_unknown())
    if is_no_hounsfield(volume):
        found.append(catalogue.not_hounsfield(float(volume.voxels.min()), float(volume.voxels.max())))
    if uneven := next((note for note in volume.notes if note.code == "uneven_spacing"), None):
        found.append(catalogue.uneven_spacing(**uneven.values))
    if volume.orientation_known and not volume.is_2d and (angle := tilt_deg(volume.affine)) >= SMALLEST_TILT_DEG:
        found.append(catalogue.tilted_acquisition(angle))
    return tuple(found)


def is_no_hounsfield(volume: Volume) -> bool:
    """Whether an image is a CT whose values were not taken as Hounsfield units."""
    return volume.modality == "ct" and volume.intensity_unit != "HU" and not volume.is_rgb


def _as_modality(volume: Volume, modality: str, shares: Shares) -> Volume:
    """The volume as the user or the model says it is; its unit is decided anew: a CT read as MRI is not in HU yet."""
    unit_in_file = "" if volume.intensity_unit == "intensity" else volume.intensity_unit
    told_by: ToldBy = "model" if shares or not modality else "user"
    changed = replace(volume, modality=modality, modality_by=told_by, modality_shares=shares)
    unit, why = decide_unit(changed, unit_in_file)
    return replace(changed, intensity_unit=unit, notes=tuple(dict.fromkeys((*volume.notes, *why))))


def _known(layer: Image, choice: dict[int, int]) -> Volume | None:
    """What our reader put into the layer, where its data are still those; a duplicate of the layer counts."""
    about, data = layer.metadata.get(KEY, {}), layer.data
    if not isinstance(data, np.ndarray):
        return None
    if "volumes" in about and choice.keys() == {0} and 0 <= choice[0] < min(len(data), len(about["volumes"])):
        known, data = about["volumes"][choice[0]], data[choice[0]]
    elif "volume" in about and not choice:
        known = about["volume"]
    else:
        return None
    voxels = known.voxels[0] if known.is_2d else known.voxels
    if data.shape != voxels.shape or data.dtype != voxels.dtype:
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


def _lengths(layer: Image, kept: list[int]) -> tuple[float, Literal["mm", "px"], list[Note]]:
    """Millimetres per unit of the layer's scale, the unit of the volume, and what was assumed."""
    import pint

    units = [layer.units[axis] for axis in kept]
    named = [str(unit) for unit in units if str(unit) != "pixel"]
    factor = None
    if named:
        try:
            (factor,) = {float((1 * unit).to("millimeter").magnitude) for unit in units}
        except (pint.DimensionalityError, ValueError) as mixed:
            raise ReadError(
                "Mixed units",
                f"the layer's axes count in {', '.join(map(str, units))}",
                "one unit of length for all axes",
            ) from mixed
    if factor is not None:
        return factor, "mm", []
    if len(kept) == 2 or np.allclose(np.abs(layer.scale), 1.0):
        return 1.0, "px", []
    return 1.0, "mm", [Note("unit_assumed", "The layer names no unit: its scale is taken as millimetres.")]
