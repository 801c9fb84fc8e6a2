"""Pictures of more pixels than are decoded at once, such as whole slides: read whole, at low power, in bounded memory.

A TIFF pyramid gives the level that fits; other TIFF files are averaged tile by tile, JPEG is reduced while it is
decoded. PNG has no such way: it is decoded whole where memory allows, then averaged. A region of one is read at full
resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import decoding, guard, pillow, tiff
from unibiomed_core.io.stored import Stored
from unibiomed_core.types import Note

MOST_PIXELS = 4096 * 4096
"""Of the reduced picture; several times what a model sees of it."""

HIGHEST_COMPRESSION = 200
"""Raw bytes for one of the file. Real pictures stay far below; a few bytes that promise gigabytes are no picture."""

_SIDEWAYS = range(5, 9)
"""Orientations that make rows of columns."""

SAME_SHAPE = 0.01
"""Relative difference of the two reductions of a pyramid's level that is still rounding."""


def load(path: Path, kind: str, most_pixels: int) -> Stored:
    """A picture at 1/2, 1/3 ... of its size, with a note; ``spacing`` is in pixels of the file.

    Args:
        kind: "png", "jpeg" or "tiff".
        most_pixels: The bound that it exceeds, for the message.

    Raises:
        ReadError: It is no real picture of this size, or one part of it needs more memory than is free.
    """
    height, width, samples, bits = size(path, kind)
    if height * width * samples * bits // 8 > HIGHEST_COMPRESSION * path.stat().st_size:
        raise guard.too_many_pixels(path, most_pixels)
    factor = max(2, int(np.ceil(np.sqrt(height * width / MOST_PIXELS))))
    values, orientation = (
        _tiff(path, factor, most_pixels) if kind == "tiff" else _pillow(path, kind, factor, most_pixels)
    )
    rows, columns = values.shape[:2]
    notes: list[Note] = []
    values = tiff.turned(values, orientation, notes)
    spacing = height / rows, width / columns
    text = (
        f"The picture has {width} x {height} pixels and is read whole at low power ({columns} x {rows}). Masks have "
        "this size, and lengths are in pixels of the file. For details, zoom in and take the shown region in napari, "
        "or save a region as its own picture."
    )
    notes.append(Note("low_power", text))
    return Stored(values, None, spacing[::-1] if orientation in _SIDEWAYS else spacing, "px", False, notes=tuple(notes))


def region(path: Path, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    """A part of a picture at full resolution: (row, column[, channel]), in the picture's own dtype.

    Of a TIFF the tiles or strips are decoded that it touches; PNG and JPEG are decoded whole, where memory allows.

    Args:
        rows: The first and the end, in pixels of the picture as the file asks viewers to show it.
        columns: As ``rows``.

    Raises:
        ReadError: The part does not lie in the picture, or the picture cannot be read by parts.
    """
    kind = guard.sniff(guard.head_of(path))
    if kind not in ("png", "jpeg", "tiff"):
        raise ReadError("No picture", f"'{path.name}' is none", "a PNG, JPEG or TIFF picture")
    with guard.reading(path, f"a {kind.upper()} picture"):
        values = _tiff_region(path, rows, columns) if kind == "tiff" else _pillow_region(path, kind, rows, columns)
    return values[..., 0] if values.shape[-1] == 1 else values


def _pillow_region(path: Path, kind: str, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    told = pillow.header(path, kind.upper())
    if told["mode"] not in pillow.PLAIN:
        raise _whole_only(path)
    most = max(told["size"])
    _check_inside(path, rows, columns, (most, most))  # it may be shown turned, which is known once it is decoded
    guard.check_memory((*told["size"], told["bands"]), 2, path)
    size = told["size"][0] * told["size"][1] * 4
    options: dict[str, str | list[int]] = {"format_name": kind.upper(), "rows": [*rows], "columns": [*columns]}
    told, values = decoding.ask("picture region", path, f"a {kind.upper()} picture", size, **options)
    _check_inside(path, rows, columns, told["size"])
    return values


def _tiff_region(path: Path, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = tiff.one_page(file, path)
        if not _is_plain(page) or int(page.tags.valueof(tiff.ORIENTATION, default=1)) != 1:
            raise _whole_only(path)
        _check_inside(path, rows, columns, (int(page.imagelength), int(page.imagewidth)))
        samples = int(page.samplesperpixel)
        guard.check_memory((rows[1] - rows[0], columns[1] - columns[0], samples), page.dtype.itemsize, path)
        guard.check_memory((*_part_size(page), samples), page.dtype.itemsize, path)
        values = tiff.unpacked("tiff region", page, path, rows=list(rows), columns=list(columns))
        if samples == 1:
            grey = tiff.black_is_zero(values[..., 0], int(page.photometric), int(page.bitspersample), path)
            return grey[..., np.newaxis]
        return values


def _whole_only(path: Path) -> ReadError:
    return ReadError(
        "Picture cannot be read by parts",
        f"'{path.name}' is stored turned, or in colours or numbers that are read whole only",
        "a grey or RGB picture that is stored upright",
        "Save the region as its own picture.",
    )


def _check_inside(path: Path, rows: tuple[int, int], columns: tuple[int, int], size: Sequence[int]) -> None:
    inside = all(0 <= first < end <= most for (first, end), most in zip((rows, columns), size, strict=True))
    if not inside:
        found = f"rows {rows[0]} to {rows[1]}, columns {columns[0]} to {columns[1]} of '{path.name}'"
        raise ReadError("Region outside of the picture", found, f"a part of {size[1]} x {size[0]} pixels")


def part_of(page: Any, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[Any]:
    """(row, column, channel) of a part of a tifffile page; what was never written is 0."""
    high, wide = _part_size(page)
    handle, across = page.parent.filehandle, -(-int(page.imagewidth) // wide)
    options: dict[str, Any] = {"_fullsize": page.is_tiled}
    if int(page.compression) in _JPEG:
        options |= {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
    found = np.zeros((rows[1] - rows[0], columns[1] - columns[0], int(page.samplesperpixel)), page.dtype)
    for y in range(rows[0] // high * high, rows[1], high):
        for x in range(columns[0] // wide * wide, columns[1], wide):
            index = y // high * across + x // wide
            if not page.databytecounts[index]:
                continue
            handle.seek(page.dataoffsets[index])
            values, _, _ = page.decode(handle.read(page.databytecounts[index]), index, **options)
            values = values.reshape(values.shape[-3:])
            top, left = max(y, rows[0]), max(x, columns[0])
            inside = values[top - y : rows[1] - y, left - x : columns[1] - x]
            found[top - rows[0] :, left - columns[0] :][: inside.shape[0], : inside.shape[1]] = inside
    return found


_JPEG = {6, 7, 33007, 34892}


def size(path: Path, kind: str) -> tuple[int, int, int, int]:
    """Height, width, samples and bits of a sample; nothing is decoded."""
    if kind == "tiff":
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = tiff.one_page(file, path)
            return int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel), int(page.bitspersample)
    told = pillow.header(path, kind.upper())
    return *told["size"], told["bands"], told["bits"]


def _pillow(path: Path, kind: str, factor: int, most_pixels: int) -> tuple[NDArray[Any], int]:
    told = pillow.header(path, kind.upper(), factor)
    if told["mode"] not in pillow.PLAIN:
        raise guard.too_many_pixels(path, most_pixels)
    rows, columns = told["decoded"]
    guard.check_memory((rows, columns, told["bands"]), 4 if kind == "jpeg" else 2, path)
    size = rows * columns * 4  # as Pillow keeps colours
    told, values = decoding.ask(
        "picture means", path, f"a {kind.upper()} picture", size, format_name=kind.upper(), factor=factor
    )
    return values, int(told["orientation"])


def _tiff(path: Path, factor: int, most_pixels: int) -> tuple[NDArray[Any], int]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = tiff.one_page(file, path)
        if not _is_plain(page):
            raise guard.too_many_pixels(path, most_pixels)
        photometric, samples = int(page.photometric), int(page.samplesperpixel)
        level = _level(file, page)
        if level is not None:
            guard.check_memory(level.shape, level.dtype.itemsize, path)
            values = tiff.decoded(level, path)
        else:
            values = _by_parts(page, factor, path)
        values = values.reshape(values.shape[0], values.shape[1], -1)
        if samples == 1:
            values = tiff.black_is_zero(values[..., 0], photometric, int(page.bitspersample), path)
        return values, int(page.tags.valueof(tiff.ORIENTATION, default=1))


def _is_plain(page: Any) -> bool:
    """Whether it is grey, or RGB of 8 bits, whose parts can be decoded one by one."""
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if page.dtype is None or page.dtype.kind not in "uif" or int(page.planarconfig) != 1:
        return False
    if samples == 3 and (page.dtype != np.uint8 or (photometric == 6 and int(page.compression) != 7)):
        return False
    return (samples, photometric) in {(1, 0), (1, 1), (3, 2), (3, 6)}


def _part_size(page: Any) -> tuple[int, int]:
    """Height and width of its tiles or strips."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _level(file: Any, page: Any) -> Any:
    """The largest level of a pyramid that is small enough, None where there is none."""
    found = [p for p in (*file.pages, *(page.pages or ())) if p.is_reduced or p.index != page.index]
    fitting = [
        p
        for p in found
        if p.imagelength * p.imagewidth <= MOST_PIXELS
        and (p.samplesperpixel, p.dtype, p.photometric) == (page.samplesperpixel, page.dtype, page.photometric)
        and abs(p.imagelength / page.imagelength / (p.imagewidth / page.imagewidth) - 1) < SAME_SHAPE
    ]
    # A thumbnail of a few hundred pixels is no low power view; a quarter of what is wanted is.
    best = max(fitting, key=lambda p: p.imagelength * p.imagewidth, default=None)
    return best if best is not None and best.imagelength * best.imagewidth * 16 >= MOST_PIXELS else None


def _by_parts(page: Any, factor: int, path: Path) -> NDArray[Any]:
    """Tiles or strips one after the other, each averaged as it comes."""
    part = _part_size(page)
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    guard.check_memory((min(part[0], height), part[1], samples), page.dtype.itemsize, path)
    guard.check_memory((-(-height // factor), -(-width // factor), samples), 4, path)
    if tiff.is_compressed(page):
        return tiff.unpacked("tiff means", page, path, factor=factor)
    return means_of(page, factor)


def means_of(page: Any, factor: int) -> NDArray[Any]:
    """Means of squares of ``factor`` pixels of a tifffile page: (row, column, channel), decoded part by part."""
    height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
    rows, columns = -(-height // factor), -(-width // factor)
    sums = np.zeros((rows, columns, samples), np.float32)
    for values, place, shape in page.segments(maxworkers=1):
        if values is None:
            continue  # a part that was never written
        y, x = int(place[-3]), int(place[-2])
        inside = values.reshape(values.shape[-3:])[: min(shape[-3], height - y), : min(shape[-2], width - x)]
        small = _summed(inside, factor, (y % factor, x % factor))
        sums[y // factor : y // factor + small.shape[0], x // factor : x // factor + small.shape[1]] += small
    return _means(sums, (height, width), factor, page.dtype)


def _summed(values: NDArray[Any], factor: int, start: tuple[int, int]) -> NDArray[np.float32]:
    """Sums over squares, where the first pixel stands at ``start`` in its square."""
    found = values.astype(np.float32)
    for axis, first in enumerate(start):
        edges = np.unique(np.maximum(np.arange(-first, values.shape[axis], factor), 0))
        found = np.add.reduceat(found, edges, axis=axis)
    return found


def _means(sums: NDArray[np.float32], shape: tuple[int, ...], factor: int, dtype: Any) -> NDArray[Any]:
    for axis in (0, 1):
        counts = np.minimum(factor, shape[axis] - factor * np.arange(sums.shape[axis])).astype(np.float32)
        sums /= np.expand_dims(counts, tuple(n for n in range(sums.ndim) if n != axis))
    return (np.rint(sums) if np.dtype(dtype).kind in "iu" else sums).astype(dtype)
