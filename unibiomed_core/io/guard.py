"""Checks shared by all readers: what a file is, whether it fits into memory, and whether its values make an image.

Every failure of a reading library leaves here as a :class:`ReadError`; nothing is repaired.
"""

from __future__ import annotations

import io
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError, UniBiomedError

SMALLEST_SIDE_PX = 16
"""Shortest side of a slice that is accepted; below it there is nothing for the model's patches to see."""

WORKING_BYTES_PER_VOXEL = 4
"""Beside the stored values a volume may need one float32 copy while it is read."""

_HEAD_BYTES = 600


def existing(path: Path) -> Path:
    """The path, if there is something.

    Raises:
        ReadError: There is nothing at ``path``.
    """
    # os.path answers False where pathlib raises: forbidden folders, over-long names.
    if not os.path.exists(path):
        where = "its folder exists" if os.path.isdir(path.parent) else "its folder does not exist either"
        raise ReadError(
            "No such file or folder",
            f"'{path}' does not exist ({where})",
            "an image file or a folder of one DICOM series",
            "Check the spelling.",
        )
    return path


def head_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        ReadError: The file is empty or must not be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ReadError(
            "File cannot be opened",
            f"'{path.name}': {error.strerror}",
            "a file that you may read",
            "Check its permissions.",
        ) from error
    if not head:
        raise ReadError("Empty file", f"'{path.name}' has 0 bytes", "an image", "Copy or export it again.")
    return head


def sniff(head: bytes) -> str:
    """What the first bytes of a file say that it is: "png", "jpeg", "tiff", "dicom", "nrrd", "metaimage", "nifti",
    "gzip", "text", or "unknown"."""
    # First: the 128 bytes before the mark are free, and some programs begin them as a TIFF, so that both can open it.
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "tiff"
    if _bare_dicom(head):
        return "dicom"
    if head.startswith(b"NRRD0"):
        return "nrrd"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head[344:348] in {b"n+1\x00", b"ni1\x00"} or head[4:8] in {b"n+2\x00", b"ni2\x00"}:
        return "nifti"
    if any(line.split(b"=")[0].strip() in {b"ObjectType", b"NDims"} for line in head.splitlines()[:4]):
        return "metaimage"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return "text"
    return "unknown"


def _bare_dicom(head: bytes) -> bool:
    """Whether DICOM begins at once, without the preamble and its mark, as older programs write it.

    It begins with the length or version of its head, or with two data elements of group 0008 that follow one another.
    """
    if head.startswith((b"\x02\x00\x00\x00UL\x04\x00", b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00")):
        return True
    start, before = 0, -1
    for _ in range(2):
        group, element = (int.from_bytes(head[start + n : start + n + 2], "little") for n in (0, 2))
        explicit = head[start + 4 : start + 6] in _SHORT_VALUES
        length = int.from_bytes(head[start + 6 : start + 8] if explicit else head[start + 4 : start + 8], "little")
        if group != 8 or element <= before or length % 2 or length > _LONGEST_FIRST_VALUE:
            return False
        start, before = start + 8 + length, element
    return True


_SHORT_VALUES = {b"UL", b"US", b"UI", b"CS", b"DA", b"TM", b"DT", b"LO", b"SH", b"PN", b"ST", b"IS", b"DS", b"AE"}
"""Value representations whose length has two bytes, of those that stand first in a file."""

_LONGEST_FIRST_VALUE = 256

_WORDS = {
    "png": "a PNG picture",
    "jpeg": "a JPEG picture",
    "tiff": "a TIFF picture",
    "dicom": "a DICOM file",
    "nrrd": "an NRRD file",
    "metaimage": "a MetaImage file",
    "nifti": "an uncompressed NIfTI file",
    "gzip": "gzip-compressed data",
    "text": "plain text",
    "unknown": "nothing that is recognised",
}


def check_kind(path: Path, kind: str, kind_name: str) -> None:
    """Refuse a file whose content is not what its name says.

    Args:
        kind: A result of :func:`sniff`.
        kind_name: How the message names it.

    Raises:
        ReadError: The content is something else, or the file is empty.
    """
    found = sniff(head_of(path))
    if found != kind:
        raise mislabelled(path, _WORDS[found], kind_name)


def mislabelled(path: Path, content: str, kind_name: str) -> ReadError:
    """The error for a file whose content is not what its name says."""
    return ReadError(
        "Mislabelled file",
        f"'{path.name}' is named as {kind_name} but its content is {content}",
        f"the content of {kind_name}",
        "Give it the suffix of what it is, or export it again.",
    )


@contextmanager
def reading(path: Path, kind_name: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads ``path`` into a :class:`ReadError`."""
    try:
        yield
    except UniBiomedError:
        raise
    except MemoryError as error:
        raise ReadError(
            "Image too large",
            f"'{path.name}' does not fit into memory",
            "an image that does",
            "Crop it, or use a machine with more memory.",
        ) from error
    except PermissionError as error:
        raise ReadError(
            "File cannot be opened",
            f"'{path.name}': {error.strerror}",
            "a file that you may read",
            "Check permissions.",
        ) from error
    except (EOFError, zlib.error) as error:
        raise damaged(path, kind_name, "its compressed data end too early") from error
    except Exception as error:  # reading libraries raise many unrelated types on damaged input
        cause = first_sentence(str(error)).replace(str(path), path.name)
        raise damaged(path, kind_name, cause or type(error).__name__) from error


def damaged(path: Path, kind_name: str, cause: str) -> ReadError:
    """The error for a file that is what its name says but cannot be read."""
    return ReadError(
        "Damaged file",
        f"'{path.name}' cannot be read: {cause}",
        f"{kind_name} that is complete",
        "Copy, download or export it again.",
    )


def first_sentence(text: str) -> str:
    """The line of a library's message that says what is wrong, shortened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # ITK puts source locations first and the cause after "ITK ERROR: Class(address):".
    causes = [line for line in lines if "ERROR" in line]
    line = (causes or lines or [""])[0]
    return line.rsplit("): ", 1)[-1][:160] if causes else line[:160]


class BoundedFile(io.BufferedReader):
    """A file for libraries that read as many bytes as a damaged header tells them.

    Python makes room for all bytes that are asked for before it looks how many there are.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return super().read()
        return super().read(min(size, max(0, self._size - self.tell())))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what C libraries write to the standard error stream by themselves; the cause comes as an exception.

    MetaIO, GDCM and libtiff print below Python, so the file descriptor is redirected for the time of the read.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no standard error stream, as in a windowed program
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


def available_bytes() -> int | None:
    """Memory that can still be used, or None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def too_many_pixels(path: Path, most: int) -> ReadError:
    """The error for a picture that is larger than what is decoded."""
    return ReadError(
        "Image too large",
        f"'{path.name}' has more than {most} pixels",
        f"at most {most} pixels",
        "Crop the region of interest, or export it at a lower magnification.",
    )


def picture_stack(path: Path, pages: int) -> ReadError:
    """The error for a picture file of several pages."""
    return ReadError(
        "Picture stack",
        f"'{path.name}' holds {pages} pages",
        "one picture in a file",
        "Save a volume as NIfTI, NRRD or DICOM (which tell its spacing), or one page as its own picture.",
    )


def check_memory(shape: tuple[int, ...], itemsize: int, path: Path) -> None:
    """Refuse an image that would not fit into memory, before anything is allocated.

    Args:
        shape: Stored shape, channels included.
        itemsize: Bytes of one stored value.

    Raises:
        ReadError: A side is not positive, or the estimate is above what is available.
    """
    if min(shape, default=0) < 1:
        raise ReadError(
            "Damaged file",
            f"The header of '{path.name}' says {_times(shape)} voxels",
            "at least one voxel along every axis",
            "Export it again.",
        )
    # Python integers: header sizes can overflow 64 bits.
    needed = (itemsize + WORKING_BYTES_PER_VOXEL) * int(np.prod([int(n) for n in shape], dtype=object))
    free = available_bytes()
    if free is not None and needed > free:
        raise ReadError(
            "Image too large",
            f"'{path.name}' has {_times(shape)} voxels and needs about {needed / 1e9:.1f} GB; "
            f"{free / 1e9:.1f} GB are free",
            "an image that fits into memory",
            "Crop it, or use a machine with more memory.",
        )


def check_one_volume(shape: tuple[int, ...], path: Path) -> None:
    """Refuse a series of volumes.

    Raises:
        ReadError: There is more than one volume.
    """
    count = int(np.prod([int(n) for n in shape[3:]], dtype=object))
    if count > 1:
        raise ReadError(
            "More than one volume",
            f"'{path.name}' is {len(shape)}D ({_times(shape)}) and holds {count} volumes",
            "one 3D volume",
            "Save one volume (time point, echo, b-value) to its own file.",
        )


def colour_volume(path: Path, channels: int) -> ReadError:
    """The error for a volume whose voxels are vectors."""
    return ReadError(
        "Colour volume",
        f"'{path.name}' has {channels} values in every voxel",
        "a volume of single values, or a 2D colour picture",
        "Save one channel as its own volume.",
    )


def check_values(values: NDArray[Any], path: Path) -> None:
    """Refuse values that make no image.

    Raises:
        ReadError: Some are NaN or infinite (with the count), or all are the same.
    """
    if values.dtype.kind == "f":
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            raise ReadError(
                "Values that are not numbers",
                f"'{path.name}' has {bad} NaN or infinite values of {values.size}",
                "finite values everywhere",
                "Replace them by the background value and save it again.",
            )
    low, high = values.min(), values.max()
    if low == high:
        raise ReadError(
            "Constant image",
            f"Every value of '{path.name}' is {low:g}",
            "an image with contrast",
            "Check that the right file was chosen.",
        )


def check_sides(rows: int, columns: int, path: Path, what: str = "The image") -> None:
    """Refuse slices that are too small.

    Raises:
        ReadError: A side is under ``SMALLEST_SIDE_PX``.
    """
    if min(rows, columns) < SMALLEST_SIDE_PX:
        raise ReadError(
            "Image too small",
            f"{what} of '{path.name}' is {columns} x {rows} px",
            f"at least {SMALLEST_SIDE_PX} px on each side",
            "Use the original, not a thumbnail.",
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(int(n)) for n in shape)
