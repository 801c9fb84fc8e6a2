"""How the pixels of a DICOM file are compressed: what can be decoded here, and what to do where it can't."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard

_ROOT = "1.2.840.10008.1.2"
DECODED = frozenset(
    {
        _ROOT, f"{_ROOT}.1", f"{_ROOT}.2", f"{_ROOT}.1.99", f"{_ROOT}.5", f"{_ROOT}.4.50", f"{_ROOT}.4.51",
        f"{_ROOT}.4.57", f"{_ROOT}.4.70", f"{_ROOT}.4.80", f"{_ROOT}.4.81", f"{_ROOT}.4.90", f"{_ROOT}.4.91",
    }
)  # fmt: skip
"""Uncompressed, deflated, RLE, JPEG (baseline, extended, lossless), JPEG-LS and JPEG 2000, as GDCM reads them."""

_PACKAGES = {
    f"{_ROOT}.4.57": "pylibjpeg-libjpeg",
    f"{_ROOT}.4.70": "pylibjpeg-libjpeg",
    f"{_ROOT}.4.80": "pylibjpeg-libjpeg",
    f"{_ROOT}.4.81": "pylibjpeg-libjpeg",
    f"{_ROOT}.4.201": "pylibjpeg-openjpeg",
    f"{_ROOT}.4.202": "pylibjpeg-openjpeg",
    f"{_ROOT}.4.203": "pylibjpeg-openjpeg",
    f"{_ROOT}.4.110": "imagecodecs",
    f"{_ROOT}.4.111": "imagecodecs",
    f"{_ROOT}.4.112": "imagecodecs",
}
"""Transfer syntax -> a package that decodes it. The first four are met in enhanced objects, which pydicom reads."""


_PLAIN = frozenset({"", _ROOT, f"{_ROOT}.1", f"{_ROOT}.2", f"{_ROOT}.1.99"})
"""Nothing that a codec has to do with; deflated files are opened as a whole."""

_META_BYTES = 4096
_PIECE_BYTES = 1 << 20
_INFLATED_AT_LEAST, _HIGHEST_RATIO = 64 << 20, 50
"""Deflated images below this size, or ratio, are believed; real ones have a ratio of 2 to 10."""

_HIGHEST_CODEC_RATIO = 1000
"""The same of compressed pixels; a slice of air alone comes near to it."""


def is_compressed(tags: Any) -> bool:
    """Whether a codec is needed for the pixels."""
    return str(tags.file_meta.get("TransferSyntaxUID") or "") not in _PLAIN


def check_inflated_size(path: Path) -> None:
    """Refuse a deflated file that holds far more than its size lets expect, before a library inflates it at once.

    Raises:
        ReadError: It does.
    """
    with path.open("rb") as file:
        head = file.read(_META_BYTES)
        if head[128:132] != b"DICM" or f"{_ROOT}.1.99".encode() not in head:
            return
        file.seek(_end_of_meta(head))
        most = max(_INFLATED_AT_LEAST, _HIGHEST_RATIO * path.stat().st_size)
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while piece := inflater.unconsumed_tail or file.read(_PIECE_BYTES):
            size += len(inflater.decompress(piece, _PIECE_BYTES))
            if size > most:
                raise guard.damaged(path, "a DICOM file", f"{path.stat().st_size} bytes inflate to more than {size}")


def _end_of_meta(head: bytes) -> int:
    """Where the elements of group 0002 end, which are never deflated."""
    at = 132
    while head[at : at + 2] == b"\x02\x00":
        is_long = head[at + 4 : at + 6] in {b"OB", b"UN", b"UT"}
        length = head[at + 8 : at + 12] if is_long else head[at + 6 : at + 8]
        at += (12 if is_long else 8) + int.from_bytes(length, "little")
    return at


def check(tags: Any, path: Path) -> None:
    """Refuse a file whose pixels can't be decoded here, before they are read: by its transfer syntax or its size.

    Raises:
        ReadError: The message names the syntax and what decodes it, or the file is too short for its pixels.
    """
    syntax = str(tags.file_meta.get("TransferSyntaxUID") or "")
    if syntax and syntax not in DECODED:
        raise unsupported(syntax, path)
    # GDCM makes room for all pixels of the header before it looks for them.
    told, size = pixel_bytes(tags), path.stat().st_size
    ratio = _HIGHEST_CODEC_RATIO if is_compressed(tags) else _HIGHEST_RATIO if syntax == f"{_ROOT}.1.99" else 1
    if told > (size if ratio == 1 else max(_INFLATED_AT_LEAST, ratio * size)):
        found = f"its header tells of {told} bytes of pixels, and it has {size} in all"
        raise guard.damaged(path, "a DICOM file", found)


def pixel_bytes(tags: Any) -> int:
    """Size of a file's pixels without compression, as its header tells it."""
    samples = int(tags.get("SamplesPerPixel") or 1) * int(tags.get("NumberOfFrames") or 1)
    told = int(tags.Rows) * int(tags.Columns) * samples * int(tags.get("BitsAllocated") or 16) // 8
    # Of these, two pixels share their colours.
    return told * 2 // 3 if tags.get("PhotometricInterpretation") == "YBR_FULL_422" else told


def unsupported(syntax: str, path: Path) -> ReadError:
    """The error for a sound file in a transfer syntax (a DICOM unique identifier) that can't be decoded here."""
    from pydicom.uid import UID

    uid = UID(syntax)
    named = f"{uid.name} ({syntax})" if uid.name != syntax else f"the private transfer syntax {syntax}"
    package = _PACKAGES.get(syntax)
    if any(word in uid.name for word in ("MPEG", "HEVC", "H.26", "SMPTE")):
        action = "It is a film; export single frames."
    elif package:
        action = f"Decompress it first: the Python package {package} decodes it; or export it uncompressed."
    else:
        action = "Export it uncompressed or as lossless JPEG 2000."
    return ReadError(
        "Unsupported transfer syntax",
        f"The pixels of '{path.name}' are in {named}; the file may well be sound",
        "uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000 pixels",
        action,
    )
