"""Grey TIFF pictures of any depth through tifffile, and what a TIFF file holds besides them.

Pillow forgets the sign and the meaning of less usual depths (unsigned 32 bits, signed 8 bits, white as 0 in 16 bits);
colour of 8 and 16 bits it reads well, so that is left to it.

tifffile knows some thirty compressions; their codecs, as Pillow's, run in the process that ``decoding.py`` has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import decoding, guard
from unibiomed_core.types import Note

TURNED = Note(
    "turned",
    "The file asks viewers to turn or mirror the picture; it is read, and masks are written, as it is then shown.",
)

_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
ORIENTATION = 274
"""TIFF and EXIF tag; 1 is as stored."""

_TURNS: Mapping[int, Callable[[NDArray[Any]], NDArray[Any]]] = MappingProxyType(
    {
        2: np.fliplr,
        3: lambda values: np.rot90(values, 2),
        4: np.flipud,
        5: lambda values: np.swapaxes(values, 0, 1),
        6: lambda values: np.rot90(values, -1),
        7: lambda values: np.swapaxes(np.rot90(values, 2), 0, 1),
        8: np.rot90,
    }
)
"""Orientation tag -> from the stored picture to the one that is shown."""

_COLOUR_BITS = {1, 2, 4, 8, 16}
_MOST_DIRECTORIES, _MOST_TAGS = 1000, 4096
"""Whole slides have some tens of directories."""

_UNSIGNED = 1
_UNCOMPRESSED = 1


def grey(path: Path, notes: list[Note], most_pixels: int) -> NDArray[Any] | None:
    """(H, W) of a grey picture, white as its highest value; None of a colour picture that Pillow can read.

    Values of 1 bit are bool, True where light. Nothing is decoded before its size was checked.

    Args:
        notes: Gets what had to be assumed.
        most_pixels: A picture with more is refused.

    Raises:
        ReadError: It has several pages, too many pixels, a compression that cannot be decoded, or several channels
            that are no colours.
    """
    import tifffile
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    with tifffile.TiffFile(path) as file:
        page = one_page(file, path)
        height, width, samples = int(page.imagelength), int(page.imagewidth), int(page.samplesperpixel)
        if most_pixels and height * width > most_pixels:
            raise guard.too_many_pixels(path, most_pixels)
        bits, kind = int(page.bitspersample), int(page.sampleformat or _UNSIGNED)
        photometric = int(page.photometric)
        if photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO} or samples == 2:
            if bits not in _COLOUR_BITS or kind != _UNSIGNED:
                raise ReadError(
                    "Unsupported colour depth",
                    f"'{path.name}' has {bits} bits of sample format {kind} for each colour",
                    "unsigned colours of 8 or 16 bits",
                    "Export it with 8 bits for each colour.",
                )
            if int(page.compression) not in COMPRESSION_INFO:
                raise _unsupported(path, page)
            return None
        if samples != 1:
            raise ReadError(
                "Several channels",
                f"'{path.name}' holds {samples} grey channels",
                "one grey channel, or the three of a colour picture",
                "Save one channel as its own picture.",
            )
        if page.dtype is None:
            raise ReadError(
                "Unsupported voxel type",
                f"The pixels of '{path.name}' have {bits} bits of sample format {kind}",
                "whole or real numbers",
                "Save it with 8, 16 or 32 bits.",
            )
        guard.check_memory((height, width), page.dtype.itemsize, path)
        values = black_is_zero(decoded(page, path).reshape(height, width), photometric, bits, path)
        orientation = int(page.tags.valueof(ORIENTATION, default=1))
    return turned(values, orientation, notes)


def turned(values: NDArray[Any], orientation: int, notes: list[Note]) -> NDArray[Any]:
    """A stored picture (H, W[, C]) as its orientation tag asks viewers to show it, with a note where that differs."""
    if orientation not in _TURNS:
        return values
    notes.append(TURNED)
    return np.ascontiguousarray(_TURNS[orientation](values))


def one_page(file: Any, path: Path) -> Any:
    """The one picture of a file; reduced copies of it (pyramids, thumbnails) lie beside.

    Raises:
        ReadError: There are several, or it has a depth.
    """
    _check_directories(path)
    pages = [page for page in file.pages if not (page.is_reduced or page.is_mask)] or [file.pages.first]
    count = max(len(pages), int(pages[0].imagedepth))
    if count > 1:
        raise guard.picture_stack(path, count)
    return pages[0]


def _check_directories(path: Path) -> None:
    """Follow the chain of directories by their offsets alone, as tifffile makes a page of each and never tires.

    Raises:
        ReadError: The chain comes back to itself, or has far more directories than a pyramid has levels.
    """
    with path.open("rb") as file:
        head = file.read(16)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        # Of a count, an entry and an offset; BigTIFF has version 43 and an offset of its first directory further on.
        count_bytes, entry_bytes, offset_bytes = (8, 20, 8) if 43 in head[2:4] else (2, 12, 4)
        at, seen = int.from_bytes(head[offset_bytes : 2 * offset_bytes], order), set[int]()
        while at:
            if at in seen:
                raise guard.damaged(path, "a TIFF picture", "its directories lead round in a circle")
            seen.add(at)
            if len(seen) > _MOST_DIRECTORIES:
                raise guard.picture_stack(path, len(seen))
            file.seek(at)
            count = int.from_bytes(file.read(count_bytes), order)
            if count > _MOST_TAGS:
                raise guard.damaged(path, "a TIFF picture", f"a directory has {count} entries")
            file.seek(at + count_bytes + count * entry_bytes)
            at = int.from_bytes(file.read(offset_bytes), order)


def decoded(page: Any, path: Path) -> NDArray[Any]:
    """All pixels of a page.

    Raises:
        ReadError: It is damaged, or its compression cannot be decoded here.
    """
    return unpacked("tiff page", page, path) if is_compressed(page) else np.asarray(page.asarray())


def is_compressed(page: Any) -> bool:
    """Whether a codec has to do with its pixels."""
    return int(page.compression) != _UNCOMPRESSED


def unpacked(
    task: Literal["tiff page", "tiff means", "tiff region"], page: Any, path: Path, **options: int | list[int]
) -> NDArray[Any]:
    """What a task of the decoding process makes of a compressed page.

    Raises:
        ReadError: As :func:`decoded`.
    """
    size = int(np.prod(page.shape, dtype=object)) * page.dtype.itemsize
    told, values = decoding.ask(task, path, "a TIFF picture", size, offset=int(page.offset), **options)
    if told["unsupported"]:
        raise _unsupported(path, page)
    return values


def _unsupported(path: Path, page: Any) -> ReadError:
    name = getattr(page.compression, "name", str(page.compression))
    return ReadError(
        "Unsupported compression",
        f"'{path.name}' is compressed with {name} and {int(page.bitspersample)} bits, which cannot be decoded here",
        "no compression, LZW, Deflate, PackBits or JPEG",
        "Save it with one of these; the file itself may be sound.",
    )


def black_is_zero(values: NDArray[Any], photometric: int, bits: int, path: Path) -> NDArray[Any]:
    """The same picture with its darkest value lowest."""
    if values.dtype == np.bool_:
        return values ^ (photometric == _WHITE_IS_ZERO)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if photometric == _BLACK_IS_ZERO:
        return values
    if values.dtype.kind == "u":
        return values.dtype.type(2**bits - 1) - values
    if values.dtype.kind == "i":
        return -1 - values  # the range is -2^(n-1) to 2^(n-1) - 1
    raise ReadError(
        "Unsupported colour mode",
        f"'{path.name}' says that white is 0, for real numbers, which have no highest value",
        "real numbers with black as 0",
        "Save it with BlackIsZero (PhotometricInterpretation 1).",
    )
