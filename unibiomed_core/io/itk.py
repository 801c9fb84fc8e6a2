"""NRRD and MetaImage files, through SimpleITK in the decoding process, as its parsers die of damaged headers."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from unibiomed_core.io import decoding, geometry, guard
from unibiomed_core.io.stored import Stored
from unibiomed_core.types import Note

_KINDS = {
    ".nrrd": ("nrrd", "an NRRD file", "NrrdImageIO"),
    ".mha": ("metaimage", "a MetaImage file", "MetaImageIO"),
    ".mhd": ("metaimage", "a MetaImage file", "MetaImageIO"),
}
_HEADER_BYTES, _PIECE_BYTES = 65536, 1 << 20


def load(path: Path) -> Stored:
    """A ``.nrrd``, ``.mha`` or ``.mhd`` file; ``values`` are (i, j, k), the fastest stored axis first.

    ITK's world is LPS; the affine is turned to RAS+.

    Raises:
        ReadError: It is no such file, is damaged, holds several volumes or vectors, or its geometry is impossible.
    """
    magic, kind_name, image_io = _KINDS[path.suffix.lower()]
    guard.check_kind(path, magic, kind_name)
    fields = _header_fields(path)
    if "spacings" in fields:
        # ITK calls a zero here a damaged file; negative ones it flips in silence.
        geometry.check_spacing(tuple(float(s) for s in _numbers(fields["spacings"])), path.name)
    told, _ = decoding.ask("itk header", path, kind_name, 0, image_io=image_io)
    size = tuple(int(n) for n in told["size"])
    if told["channels"] > 1:
        raise guard.colour_volume(path, told["channels"])
    guard.check_memory(size, told["itemsize"], path)
    guard.check_one_volume(size, path)
    spatial = min(len(size), 3)
    spacing_mm = np.asarray(told["spacing_mm"], np.float64)[:spatial]
    geometry.check_spacing(tuple(spacing_mm.tolist()), path.name)
    lps = np.eye(4)
    turn = np.asarray(told["direction"], np.float64).reshape(len(size), len(size))[:spatial, :spatial]
    lps[:spatial, :spatial] = turn * spacing_mm
    lps[:spatial, 3] = told["origin"][:spatial]
    affine = geometry.LPS_TO_RAS @ lps
    geometry.check_affine(affine, path.name)
    needed = int(np.prod(size, dtype=object)) * told["itemsize"]
    if image_io == "MetaImageIO" and fields.get("compresseddata", "").lower().startswith(("t", "1")):
        with guard.reading(path, kind_name):
            _check_compressed(path, fields, needed)
    _, values = decoding.ask("itk values", path, kind_name, needed, image_io=image_io)
    values = values.reshape(values.shape[-3:]) if values.ndim > 3 else values
    values = values.T if values.ndim == 3 else values.T[..., np.newaxis]  # i, j, k
    known, unit, notes = _told(image_io, told["space"], fields, len(size))
    return Stored(values, affine, spatial_unit=unit, orientation_known=known, notes=notes)


def _header_fields(path: Path) -> dict[str, str]:
    """The text header's fields by lower-case name; ITK does not tell which of them were there."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    # NRRD ends its header with an empty line, MetaImage with the field that names the data.
    text = re.split(rb"\r?\n\r?\n|ElementDataFile", head, maxsplit=1)[0].decode("latin-1")
    pairs = (re.split(r":=?|=", line, maxsplit=1) for line in text.splitlines() if not line.startswith("#"))
    return {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}


def _check_compressed(path: Path, fields: dict[str, str], needed: int) -> None:
    """Unpack the values of a compressed MetaImage once, for their number and checksum alone.

    ITK looks at neither: where they end too early, the rest of the image is what the memory held before.
    """
    with path.open("rb") as file:
        told = re.search(rb"ElementDataFile\s*[=:]\s*(\S+)[^\n]*\n?", file.read(_HEADER_BYTES))
    if told is None:
        return
    local = told[1].upper() == b"LOCAL"
    source = path if local else path.parent / told[1].decode("latin-1")
    if not source.is_file():
        return  # a list of files, or one that is missing, which ITK says
    size = fields.get("compresseddatasize", "" if local else str(source.stat().st_size))
    left = int(size) if size.isdecimal() else 0
    # Either wrapping, of zlib or of gzip.
    inflater, count = zlib.decompressobj(zlib.MAX_WBITS | 32), 0
    with source.open("rb") as file:
        file.seek(told.end() if local else 0)
        while count <= needed and not inflater.eof:
            piece = inflater.unconsumed_tail or file.read(min(left, _PIECE_BYTES))
            if not piece:
                break
            left -= 0 if inflater.unconsumed_tail else len(piece)
            count += len(inflater.decompress(piece, _PIECE_BYTES))
    if count != needed or not inflater.eof:
        raise guard.damaged(path, "a MetaImage file", f"its values unpack to {count} bytes and not to {needed}")


def _numbers(text: str) -> list[str]:
    return re.findall(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan", text, flags=re.IGNORECASE)


def _told(
    image_io: str, space: str, fields: dict[str, str], dimensions: int
) -> tuple[bool, Literal["mm", "px"], tuple[Note, ...]]:
    """Whether the file tells direction and size, as ITK fills in an identity where it does not."""
    if image_io == "NrrdImageIO":
        # ITK brings all patient spaces to this one and leaves scanner or unnamed spaces as they are.
        known = space.startswith("left-posterior-superior") and "space directions" in fields
        sized = "space directions" in fields or "spacings" in fields
    else:
        known = any(name in fields for name in ("transformmatrix", "rotation", "orientation"))
        sized = "elementspacing" in fields or "elementsize" in fields
    notes = []
    if dimensions == 2:
        known = False
        notes.append(
            Note("stored_in_other_dimensions", "The file is 2D; it is read as a volume of one slice, 1 mm thick.")
        )
    if not known:
        notes.append(
            Note("orientation_unknown", "The file tells no patient orientation; left and right are not known.")
        )
    if not sized:
        notes.append(Note("size_unknown", "The file tells no spacing; lengths are in pixels."))
    return known, "mm" if sized else "px", tuple(notes)
