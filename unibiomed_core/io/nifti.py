"""NIfTI-1 and NIfTI-2 single files, through nibabel."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import geometry, guard
from unibiomed_core.io.stored import Stored, rescale

_KIND = "a NIfTI file"
LARGEST_FORM_CODE = 5
"""Of ``sform_code`` and ``qform_code``: 0 unset, 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 other template."""

ROUNDED_QUATERNION = 1e-3
"""By so much the squares of a quaternion may exceed 1 and still be a turn written with few digits."""

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""The space part of ``xyzt_units``: unknown, metre, millimetre, micrometre."""


def load(path: Path) -> Stored:
    """A ``.nii`` or ``.nii.gz`` file; ``values`` are (i, j, k) as stored, header scale applied.

    Raises:
        ReadError: It is no NIfTI file, is damaged, holds several volumes or vectors, or its geometry is impossible.
    """
    return _load(path, several=False)[0]


def load_series(path: Path) -> list[Stored]:
    """All volumes of a 4D file (time points, echoes, b-values) in their order, one for a 3D file; else as :func:`load`.

    Raises:
        ReadError: As :func:`load`, save that a fourth axis may be there.
    """
    return _load(path, several=True)


def _load(path: Path, several: bool) -> list[Stored]:
    with guard.reading(path, _KIND):
        header = _raw_header(path)
        shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
        notes = _sound_form(header, path)
        _check_header(header, shape, path, several)
        notes += _start_of_voxels(header, path)
        with _without_log():
            header.check_fix()
            stored = _voxels(path, header, shape)
            raw = stored.get_unscaled()
        values = rescale(raw, float(stored.slope), float(stored.inter))
        affine, orientation_known, spatial_unit, said = _geometry(header)
        notes += said
    values = values.reshape((*(*shape, 1, 1, 1)[:3], -1), order="A")
    if len(shape) != 3 and values.shape[3] == 1:
        notes.append(
            f"Stored as {len(shape)}D; read as a volume of {'one slice' if len(shape) == 2 else 'three dimensions'}."
        )
    return [
        Stored(volume, affine, spatial_unit=spatial_unit, orientation_known=orientation_known, notes=tuple(notes))
        for volume in np.moveaxis(values, 3, 0)
    ]


@contextmanager
def _without_log() -> Iterator[None]:
    """nibabel repairs a bad header with no more than a log line; the raw header was checked before instead."""
    from nibabel.imageglobals import logger

    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _raw_header(path: Path) -> Any:
    """The header as it stands in the file, nothing repaired."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    compressed = path.name.lower().endswith(".gz")
    found = guard.sniff(guard.head_of(path))
    if compressed:
        guard.check_kind(path, "gzip", "a compressed NIfTI file")
        with gzip.open(path, "rb") as file:
            block = file.read(Nifti2Header.sizeof_hdr)
        found = guard.sniff(block) if block else "unknown"
        if found != "nifti":
            raise guard.mislabelled(path, "gzip-compressed data that are no NIfTI image", "a compressed NIfTI file")
    else:
        guard.check_kind(path, "nifti", _KIND)
        with path.open("rb") as file:
            block = file.read(Nifti2Header.sizeof_hdr)
    kind = Nifti2Header if block[4:8] in {b"n+2\x00", b"ni2\x00"} else Nifti1Header
    if len(block) < kind.sizeof_hdr:
        raise guard.damaged(path, _KIND, "its header is cut short")
    return kind(binaryblock=block[: kind.sizeof_hdr], check=False)


def _voxels(path: Path, header: Any, shape: tuple[int, ...]) -> Any:
    """nibabel's view of the voxels of a complete and undamaged file.

    The header is handed over and not read again, so that what was noted about it holds.
    """
    from nibabel.arrayproxy import ArrayProxy

    if not path.name.lower().endswith(".gz"):
        return ArrayProxy(path, header, mmap=False)  # a file that changes on disk must not change a volume
    needed = int(header["vox_offset"]) + int(np.prod(shape)) * header.get_data_dtype().itemsize
    with gzip.open(path, "rb") as file:
        content = file.read(needed)
        # The checksum stands at the end of the stream; nibabel stops at the last voxel and never meets it.
        while file.read(1 << 20):
            pass
    return ArrayProxy(io.BytesIO(content), header)


def _sound_form(header: Any, path: Path) -> list[str]:
    """Leave the orientation that can be used where the other one of sform and qform can't, with a note.

    A header may carry both; one that is broken is no reason to refuse a file that the other one places. Where the
    qform is all there is, a quaternion too long by rounding only is brought to length 1.

    Raises:
        ReadError: The only orientation is broken.
    """
    notes = []
    codes = {name: int(header[f"{name}_code"]) for name in ("sform", "qform")}
    odd = [name for name, code in codes.items() if not 0 <= code <= LARGEST_FORM_CODE]
    sound = [name for name, code in codes.items() if 0 < code <= LARGEST_FORM_CODE]
    if odd and not sound:
        raise guard.damaged(path, _KIND, f"its orientation codes are {codes['sform']} and {codes['qform']}")
    for name in odd:
        notes.append(f"The {name} of the header has the unknown code {codes[name]} and is not used.")
        header[f"{name}_code"] = 0
    if int(header["qform_code"]) == 0:
        return notes
    quaternion = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    excess = float((quaternion**2).sum()) - 1.0
    if excess <= 0:
        return notes
    if excess <= ROUNDED_QUATERNION:
        # Rounding down keeps the fourth part real in the header's single precision.
        quaternion *= (1.0 - 1e-7) / np.sqrt(1.0 + excess)
        for axis, value in zip("bcd", quaternion, strict=True):
            header[f"quatern_{axis}"] = value
        notes.append("The header's quaternion is longer than 1 by rounding and was brought to length 1.")
    elif int(header["sform_code"]) > 0:
        header["qform_code"] = 0
        notes.append("The header's quaternion (qform) is no rotation; the sform is used.")
    else:
        raise ReadError(
            "Impossible geometry",
            f"The quaternion of '{path.name}' has length {np.sqrt(1.0 + excess):.3g}",
            "a rotation, of length 1",
            "Write the file again with a correct header.",
        )
    return notes


def _start_of_voxels(header: Any, path: Path) -> list[str]:
    """Where the header says that voxels begin at byte 0, which is the header itself: begin behind it, with a note.

    Raises:
        ReadError: Extensions of unknown length lie between the header and the voxels.
    """
    if float(header["vox_offset"]) != 0:
        return []
    start = header.single_vox_offset
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        flag = file.read(start)[header.sizeof_hdr : start]
    if any(flag[:1]):
        raise guard.damaged(path, _KIND, "its header has extensions and does not say where the voxels begin")
    header["vox_offset"] = start
    return [f"The header says that voxels begin at byte 0; they are read from byte {start}, behind the header."]


def _check_header(header: Any, shape: tuple[int, ...], path: Path, several: bool) -> None:
    """Refuse by the header alone what cannot become a volume, before anything large is allocated."""
    if not 2 <= len(shape) <= 7:
        raise guard.damaged(path, _KIND, f"its header says {int(header['dim'][0])} dimensions")
    dtype = header.get_data_dtype()
    if dtype.fields is not None:
        raise guard.colour_volume(path, len(dtype.fields))
    if dtype.kind not in "iuf":
        raise ReadError(
            "Unsupported voxel type",
            f"The voxels of '{path.name}' are {dtype}",
            "integers or real numbers",
            "Save the magnitude or another real image.",
        )
    guard.check_memory(shape, dtype.itemsize, path)
    # A fifth axis holds vectors or further series, which no choice of one volume settles.
    guard.check_one_volume((*shape[:3], *shape[4:]) if several else shape, path)
    spatial = min(len(shape), 3)
    geometry.check_spacing(tuple(float(s) for s in header["pixdim"][1 : 1 + spatial]), path.name)


def _geometry(header: Any) -> tuple[NDArray[np.float64], bool, Literal["mm", "px"], list[str]]:
    """Affine in mm, whether the orientation is known, the spatial unit, and notes."""
    notes = []
    unit = int(header["xyzt_units"]) & 7
    affine = np.asarray(header.get_best_affine(), np.float64)
    if _MM_PER_UNIT.get(unit, 1.0) != 1.0:
        affine = np.diag([*[_MM_PER_UNIT[unit]] * 3, 1.0]) @ affine
        notes.append(f"The file counts in {'metres' if unit == 1 else 'micrometres'}; lengths were converted to mm.")
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0 and qform == 0:
        notes.append("The file tells no orientation (sform and qform are unset); left and right are not known.")
        no_size = unit == 0 and np.allclose(header["pixdim"][1:4], 1.0)
        return affine, False, "px" if no_size else "mm", notes
    if sform > 0 and qform > 0 and not np.allclose(header.get_sform(), header.get_qform(), atol=0.05):
        notes.append("The two orientations in the header (sform and qform) differ; the sform is used.")
    return affine, True, "mm", notes
