"""Layers whose data are computed or loaded when they are asked for: dask, zarr, memory maps, pyramids of resolutions.

They are read in blocks of slices, after the same check of memory as files, and never whole by one call. No Qt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.io import guard
from unibiomed_core.io.stored import compact

if TYPE_CHECKING:
    from napari.layers import Image, Layer

_kept: WeakKeyDictionary[Layer, tuple[Any, dict[int, int], NDArray[Any]]] = WeakKeyDictionary()
"""What was read of a layer last: its data, the choice, and the values."""


def finest(layer: Image) -> Any:
    """The data of a layer; of a pyramid its finest level, on whose grid the layer lies."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def is_lazy(layer: Image) -> bool:
    """Whether the layer's values are not in memory yet."""
    data = finest(layer)
    return not isinstance(data, np.ndarray) or isinstance(data, np.memmap)


def kept(layer: Image, choice: Mapping[int, int]) -> NDArray[Any] | None:
    """What :func:`keep` holds of a layer, where its data and the choice are still those."""
    data, chosen, values = _kept.get(layer, (None, {}, None))
    return values if data is layer.data and chosen == dict(choice) else None


def keep(layer: Image, choice: Mapping[int, int], values: NDArray[Any]) -> None:
    """Hold what was read of a layer as long as the layer lives, or until something else of it is read.

    Values are held in the type that volumes have, so that every volume of them is a view.
    """
    _kept[layer] = (layer.data, dict(choice), compact(values))


def shows(layer: Image, voxels: NDArray[Any]) -> bool:
    """Whether the voxels of a volume are those of the layer; a lazy layer is not computed for it."""
    held = _kept[layer][2] if layer in _kept else None
    data = held if is_lazy(layer) else finest(layer)
    return data is not None and np.may_share_memory(data, voxels)


def values_of(layer: Image, choice: Mapping[int, int]) -> NDArray[Any]:
    """The chosen values of a layer, in the order of its axes; lazy ones are read here and now where none are kept.

    Args:
        choice: {layer axis: index}; the other axes stay.

    Raises:
        ReadError: A lazy layer is larger than the memory that is free, or its data cannot be read.
    """
    if not is_lazy(layer):
        return np.asarray(finest(layer)[_at(layer, choice)])
    if (values := kept(layer, choice)) is not None:
        return values
    check_fits(layer, choice)
    read = read_slices(finest(layer), choice, str(layer.name), lambda: False)
    assert read is not None  # nothing cancels it
    keep(layer, choice, read)
    return _kept[layer][2]


def check_fits(layer: Image, choice: Mapping[int, int]) -> None:
    """Refuse what would not fit into memory, before anything is computed.

    Raises:
        ReadError: It would not.
    """
    data = finest(layer)
    shape = tuple(int(n) for axis, n in enumerate(data.shape) if axis not in choice)
    guard.check_memory(shape, np.dtype(data.dtype).itemsize, Path(str(layer.name).replace("/", " ")))


def read_slices(data: Any, choice: Mapping[int, int], name: str, cancelled: Callable[[], bool]) -> NDArray[Any] | None:
    """The chosen values, read block by block along the first axis that stays; None where ``cancelled`` says so.

    Args:
        data: Any array that is indexed like numpy's.
        name: Of the layer, for messages.

    Raises:
        ReadError: A block cannot be read.
    """
    where: list[Any] = [choice.get(axis, slice(None)) for axis in range(len(data.shape))]
    first = next(axis for axis in range(len(where)) if axis not in choice)
    count, step = int(data.shape[first]), _block(data, first)
    whole: NDArray[Any] | None = None
    with guard.reading(Path(name.replace("/", " ")), "a layer that can be read"):
        for start in range(0, count, step):
            if cancelled():
                return None
            where[first] = slice(start, min(start + step, count))
            block = np.asarray(data[tuple(where)])
            if whole is None:
                whole = np.empty((count, *block.shape[1:]), block.dtype)
            whole[start : start + len(block)] = block
    return whole


def _block(data: Any, axis: int) -> int:
    """Slices that are stored together: fewer at once would load or compute the same block again."""
    chunks = getattr(data, "chunks", None)
    if not chunks:
        return 1
    along = chunks[axis]
    return max(1, int(max(along) if isinstance(along, tuple) else along))


def _at(layer: Image, choice: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(choice.get(axis, slice(None)) for axis in range(layer.ndim))
