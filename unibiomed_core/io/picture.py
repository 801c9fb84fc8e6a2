"""PNG, JPEG and TIFF pictures, through Pillow; grey TIFF through tifffile, which keeps every depth and sign.

Pillow works in the decoding process (``pillow.py``); here it is said what must hold before, and what was assumed.

A picture that asks to be shown turned or mirrored (EXIF or TIFF orientation) is read as it is shown, masks alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import decoding, guard, large_picture, pillow, tiff
from unibiomed_core.io.stored import Stored
from unibiomed_core.types import Note

_KINDS = {
    ".png": ("png", "a PNG picture", "PNG"),
    ".jpg": ("jpeg", "a JPEG picture", "JPEG"),
    ".jpeg": ("jpeg", "a JPEG picture", "JPEG"),
    ".tif": ("tiff", "a TIFF picture", "TIFF"),
    ".tiff": ("tiff", "a TIFF picture", "TIFF"),
}
_HIGHEST_DEFLATE_RATIO = 1032
_MOST_JPEG_PIXELS_PER_BYTE = 512
"""A block of 64 pixels has a code of its own for its mean, of one bit at least."""

_BYTES_PER_PIXEL = 4
"""Most that Pillow keeps for one."""

_CONVERTED: Mapping[str, Note] = MappingProxyType(
    {
        "P": Note("palette", "The palette's colours were looked up."),
        "CMYK": Note("cmyk", "The picture is in CMYK (print colours) and was converted to RGB."),
    }
)
"""Mode -> what is said of it."""


def load(path: Path) -> Stored:
    """A picture; ``values`` are (H, W) of 8 or 16 bits or float, or (H, W, 3) uint8.

    Raises:
        ReadError: It is no such picture, is damaged, has several pages, is partly transparent, or is too large.
    """
    magic, kind_name, pillow_format = _KINDS[path.suffix.lower()]
    guard.check_kind(path, magic, kind_name)
    notes: list[Note] = []
    most = _most_pixels()
    if pillow_format == "TIFF":
        with guard.reading(path, kind_name):
            if most and np.prod(large_picture.size(path, magic)[:2], dtype=object) > most:
                return large_picture.load(path, magic, most)
            grey = tiff.grey(path, notes, most)
        if grey is not None:
            return Stored(_bytes_of_bits(grey), None, spatial_unit="px", orientation_known=False, notes=tuple(notes))
    header = _header(path, kind_name, pillow_format)
    if most and _pixels(header) > most:
        return large_picture.load(path, magic, most)
    _check_pages(header, path, notes)
    values = _image(_decoded(path, kind_name, header, "image", pillow_format, notes), path, notes)
    if header["bits"] > 8 and header["bands"] > 1:
        notes.append(Note("bits_reduced", "The picture has 16 bits for each colour and is read with 8."))
    return Stored(values, None, spatial_unit="px", orientation_known=False, notes=tuple(notes))


def load_mask(path: Path, colours: bool = False) -> tuple[NDArray[Any], tuple[Note, ...]]:
    """A picture whose values are labels, in any format that Pillow or tifffile reads; turned as :func:`load` turns it.

    Args:
        colours: Give (H, W, 3) uint8, looked up where the picture has a palette.

    Returns:
        (H, W) grey values, palette indices, or 0 and 1 of one bit; (H, W, C) of a colour picture, alpha included. And
        what the reader has to say of it.

    Raises:
        ReadError: The picture is damaged, too large, or is none.
    """
    notes: list[Note] = []
    most = _most_pixels()
    pillow_format = {"png": "PNG", "jpeg": "JPEG", "tiff": "TIFF"}.get(guard.sniff(guard.head_of(path)), "")
    if pillow_format == "TIFF":
        with guard.reading(path, "a picture"):
            grey = tiff.grey(path, notes, most)
        if grey is not None and not colours:
            return grey, tuple(notes)
        if grey is not None and grey.dtype in (np.dtype(np.uint8), np.dtype(np.bool_)):
            return np.repeat(_bytes_of_bits(grey)[..., np.newaxis], 3, axis=2), tuple(notes)
    header = _header(path, "a picture", pillow_format)
    if most and _pixels(header) > most:
        raise guard.too_many_pixels(path, most)
    wanted: pillow.Wanted = "colours" if colours else "labels"
    _, values = _decoded(path, "a picture", header, wanted, pillow_format, notes)
    return values, tuple(notes)


def _most_pixels() -> int:
    """Pillow's bound, which a program may set; 0 for none. Up to twice as many it would only warn."""
    from PIL import Image

    return int(Image.MAX_IMAGE_PIXELS or 0)


def _header(path: Path, kind_name: str, pillow_format: str) -> dict[str, Any]:
    """What a file tells of its picture before it is decoded; ``pillow.header`` says what it is."""
    if not pillow_format:
        return decoding.ask("picture header", path, kind_name, 0)[0]
    with guard.reading(path, kind_name):
        return pillow.header(path, pillow_format)


def _pixels(header: Mapping[str, Any]) -> int:
    return int(header["size"][0]) * int(header["size"][1])


def _decoded(
    path: Path,
    kind_name: str,
    header: Mapping[str, Any],
    wanted: pillow.Wanted,
    pillow_format: str,
    notes: list[Note],
) -> tuple[dict[str, Any], NDArray[Any]]:
    """What the decoding process tells and gives of a picture whose size is known, and fits."""
    guard.check_memory((*header["size"], header["bands"]), 4, path)
    _check_promise(header, path)
    size = _BYTES_PER_PIXEL * _pixels(header)
    told, values = decoding.ask("picture", path, kind_name, size, format_name=pillow_format, wanted=wanted)
    if told["turned"]:
        notes.append(tiff.TURNED)
    return told, values


def _bytes_of_bits(values: NDArray[Any]) -> NDArray[Any]:
    """Pictures of one bit as 0 and 255."""
    return np.where(values, 255, 0).astype(np.uint8) if values.dtype == np.bool_ else values


def _check_promise(header: Mapping[str, Any], path: Path) -> None:
    """Refuse a PNG or JPEG of more pixels than its bytes can hold, before there is room made for them."""
    (rows, columns), pixels, size = header["size"], _pixels(header), path.stat().st_size
    told = pixels * header["bands"] * header["bits"] // 8
    too_few = {
        "PNG": told > _HIGHEST_DEFLATE_RATIO * size,
        "JPEG": pixels > _MOST_JPEG_PIXELS_PER_BYTE * size,
        "MPO": pixels > _MOST_JPEG_PIXELS_PER_BYTE * size,
    }
    if too_few.get(header["format"]):
        raise guard.damaged(path, "a picture", f"it has too few bytes for {columns} x {rows} pixels")


def _check_pages(header: Mapping[str, Any], path: Path, notes: list[Note]) -> None:
    pages = header["pages"]
    if pages > 1 and header["format"] == "MPO":
        notes.append(Note("further_pictures", f"The file holds {pages} pictures; the main one is read."))
    elif pages > 1:
        raise guard.picture_stack(path, pages)


def _image(decoded: tuple[Mapping[str, Any], NDArray[Any]], path: Path, notes: list[Note]) -> NDArray[Any]:
    """(H, W) or (H, W, 3) of any mode that has one meaning."""
    told, values = decoded
    if told["clear"]:
        raise ReadError(
            "Transparent picture",
            f"{told['clear']} pixels of '{path.name}' are partly or wholly transparent",
            "an opaque picture, as what shows through is not in the file",
            "Flatten it onto its background and save it again.",
        )
    if told["unsupported"]:
        raise ReadError(
            "Unsupported colour mode",
            f"'{path.name}' is in mode {told['mode']}",
            "grey, palette, RGB or RGBA",
            "Convert it to RGB.",
        )
    if told["has_alpha"]:
        notes.append(Note("alpha_dropped", "The picture's alpha channel is opaque throughout and was left out."))
    elif told["mode"] in _CONVERTED:
        notes.append(_CONVERTED[told["mode"]])
    return values
