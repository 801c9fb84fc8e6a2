"""What a labels layer shows: masks into label arrays, colours by number, and the table of features."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import WriteError
from unibiomed_core.report import paint
from unibiomed_core.types import PLANES, CroppedMask, Finding, Plane, Prediction

if TYPE_CHECKING:
    import pandas
    from napari.layers import Labels
    from napari.utils.colormaps import DirectLabelColormap

    from napari_unibiomed.canvas.placement import Placement


READY_COLOURS = 64
"""So many numbers have their colour before anything is found."""


def colormap(colours: Iterable[tuple[int, str]], hidden: Iterable[int] = ()) -> DirectLabelColormap:
    """Colours of a labels layer; other numbers, which only the user's brush can make, have none of their own.

    Args:
        colours: (number, #RRGGBB).
        hidden: Numbers that are not shown; their colours are kept.
    """
    from napari.utils.colormaps import DirectLabelColormap

    unseen = frozenset(hidden)
    table: dict[int | None, Any] = {None: "#FFFFFF", 0: "transparent"}
    table |= {number: f"{colour[:7]}{'00' if number in unseen else 'FF'}" for number, colour in colours}
    return DirectLabelColormap(color_dict=table)


def colours_of(layer: Labels) -> dict[int, str]:
    """{number: #RRGGBB} of the numbers in the layer's features, as the layer shows them."""
    numbers = [int(n) for n in layer.features["index"] if n]
    rgb = {number: np.rint(np.asarray(layer.colormap.map(number))[:3] * 255).astype(int) for number in numbers}
    return {number: "#{:02X}{:02X}{:02X}".format(*values) for number, values in rgb.items()}


def features(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """The features of a labels layer: a row for the background, then one a finding."""
    import pandas

    return pandas.DataFrame([{"index": 0, "finding": ""}, *rows])


def finding_rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """What hovering over a finding tells, and what napari's own table can save."""
    return [
        {
            "index": f.number,
            "finding": f.phrase,
            "presence": round(f.presence, 3),
            "volume_ml": f.measurements.volume_ml,
            "side": f.measurements.side,
            "flags": ", ".join(f.flags),
        }
        for f in findings
    ]


def paint_all(canonical: NDArray[Any], masks: Mapping[int, CroppedMask], below: Collection[int] = ()) -> None:
    """Paint {number: 3D mask} and nothing else into a canonical array in place, smaller ones on top.

    Args:
        below: Numbers that are not seen; they lie under all others, so that those leave no hole.

    Raises:
        WriteError: A number does not fit the array.
        ValueError: A mask lies on another grid.
    """
    canonical[...] = 0
    for number in from_below(masks, below):
        mask = masks[number]
        if number > np.iinfo(canonical.dtype).max:
            raise WriteError(
                "Too many findings", f"finding number {number}", f"at most {np.iinfo(canonical.dtype).max}"
            )
        if mask.shape != canonical.shape:
            raise ValueError(f"mask of shape {mask.shape} on a volume of shape {canonical.shape}")
        paint(canonical, mask, number)


def from_below(masks: Mapping[int, CroppedMask], below: Collection[int]) -> list[int]:
    """Numbers in the order in which they are painted: what is not seen, then from large to small."""
    return sorted(masks, key=lambda number: (number not in below, -masks[number].count))


def paint_again(
    canonical: NDArray[Any], masks: Mapping[int, CroppedMask], where: CroppedMask, below: Collection[int]
) -> None:
    """Paint the voxels of one mask anew, in another order; numbers of the user's own brush there stay."""
    there = canonical[where.box]
    known = where.crop & np.isin(there, [0, *masks])
    fresh = np.zeros_like(there)
    for number in from_below(masks, below):
        fresh[inside(masks[number], where)] = number
    there[known] = fresh[known]


def inside(mask: CroppedMask, frame: CroppedMask) -> NDArray[np.bool_]:
    """A mask cut to the box of another one."""
    cut = np.zeros(frame.crop.shape, bool)
    low = [max(a, b) for a, b in zip(mask.offset, frame.offset, strict=True)]
    high = [min(a.stop, b.stop) for a, b in zip(mask.box, frame.box, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        there = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, frame.offset, strict=True))
        from_mask = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, mask.offset, strict=True))
        cut[there] = mask.crop[from_mask]
    return cut


def paint_slice(
    canonical: NDArray[Any], plane: Plane, index: int, predictions: Iterable[Prediction], names: dict[str, int]
) -> None:
    """Paint the masks of one slice in place, one number a target; new targets are added to ``names``."""
    picture = np.moveaxis(canonical, PLANES.index(plane), 0)[index]
    phrases = [p for prediction in predictions for p in prediction.phrases if p.mask is not None and p.mask.count]
    for phrase in phrases:
        names.setdefault(phrase.target or phrase.text, len(names) + 1)
    for phrase in sorted(phrases, key=lambda p: -p.mask.count if p.mask else 0):
        if phrase.mask is not None:
            paint(picture, phrase.mask, names[phrase.target or phrase.text])


def outline_data(mask: CroppedMask, placement: Placement, border: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """A 3D mask's box with a border, so that its outline is not cut, and where its first element lies in the layer.

    Returns:
        0 and 1 in the axes of the layer; data coordinates of the element [0, 0, ...] in the whole layer.
    """
    start = np.maximum(np.subtract(mask.offset, border), 0)
    end = np.minimum(np.add(mask.offset, mask.crop.shape) + border, mask.shape)
    whole = np.zeros(end - start, np.uint8)
    whole[tuple(slice(b.start - s, b.stop - s) for b, s in zip(mask.box, start, strict=True))] = mask.crop
    corners = [placement.to_position(start), placement.to_position(end - 1)]
    # Axes are turned and flipped the same way whatever the size, which the turn itself does not look at.
    return np.ascontiguousarray(placement.to_layer(whole)), np.minimum(*corners)


@dataclass(frozen=True, slots=True)
class Stroke:
    """What one undoable step of napari's tools changed.

    Args:
        numbers: What lost voxels, and what gained them; 0 is left out.
        low: Lowest data index along each axis of the layer.
        high: Highest data index along each axis of the layer.
    """

    numbers: frozenset[int]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


def read_stroke(steps: Iterable[Sequence[Any]], shape: Sequence[int]) -> Stroke | None:
    """What a step of napari's history says of itself, or None where it is told in a way that is not known.

    Versions of napari tell a place by index arrays, by slices, or by both, and the values as arrays or as one number;
    the value before and the value after come last. Whoever gets None has to look at the whole layer.

    Args:
        shape: Of the layer's data.
    """
    numbers: set[int] = set()
    ends: list[list[tuple[int, int]]] = []
    try:
        for step in steps:
            place, *_, before, after = step
            here = [_first_and_last(axis, size) for axis, size in zip(place, shape, strict=True)]
            for values in (before, after):
                numbers.update(int(n) for n in np.unique(np.asarray(values)))
            ends.append(here)
    except (TypeError, ValueError, AttributeError, IndexError):
        return None
    if not ends:
        return None
    low, high = np.array(ends, np.int64).transpose(2, 0, 1)
    return Stroke(frozenset(numbers - {0}), low.min(axis=0), high.max(axis=0))


def _first_and_last(axis: Any, size: int) -> tuple[int, int]:
    """Of the indices along one axis: a slice, an array or a number."""
    if isinstance(axis, slice):
        touched = range(size)[axis]
        return min(touched[0], touched[-1]), max(touched[0], touched[-1])
    indices = np.asarray(axis)
    if indices.dtype.kind not in "iu":
        raise TypeError(indices.dtype)
    return int(indices.min()) % size, int(indices.max()) % size
