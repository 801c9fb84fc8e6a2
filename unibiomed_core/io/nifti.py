"""NIfTI-1 and NIfTI-2 single files, through nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ReadError
from unibiomed_core.io import geometry, guard
from unibiomed_core.io.stored import Stored, rescale
from unibiomed_core.types import Note

_KIND = "a NIfTI file"
LARGEST_FORM_CODE = 5
"""Of ``sform_code`` and ``qform_code``: 0 unset, 1 scanner, 2 aligned, 3 Talairach, 4 MNI 152, 5 other template."""

ROUNDED_QUATERNION = 1e-3
"""By so much the squares of a quaternion may exceed 1 and still be a turn written with few digits."""

_LARGEST_OFFSET = 1 << 30
"""No header has extensions of a gigabyte."""

_PIECE_BYTES = 1 << 22

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
        raw = _stored_values(path, header, shape, notes)
        slope, intercept = header.get_slope_inter()
        values = rescale(raw, 1.0 if slope is None else float(slope), float(intercept or 0.0))
        affine, orientation_known, spatial_unit, said = _geometry(header)
        notes += said
    values = values.reshape((*(*shape, 1, 1, 1)[:3], -1), order="A")
    if len(shape) != 3 and values.shape[3] == 1:
        kind = "one slice" if len(shape) == 2 else "three dimensions"
        notes.append(Note("stored_in_other_dimensions", f"Stored as {len(shape)}D; read as a volume of {kind}."))
    return [
        Stored(volume, affine, spatial_unit=spatial_unit, orientation_known=orientation_known, notes=tuple(notes))
        for volume in np.moveaxis(values, 3, 0)
    ]


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


def _stored_values(path: Path, header: Any, shape: tuple[int, ...], notes: list[Note]) -> NDArray[Any]:
    """The values as stored, in the shape of the header, from a complete and undamaged file.

    nibabel's own way to them refuses whole files for header fields that nothing depends on.
    """
    dtype, count = header.get_data_dtype(), int(np.prod(shape, dtype=object))
    length = count * dtype.itemsize
    content = _content(path, _first_voxel_at_most(header) + length)
    start = _first_voxel(path, header, content, length, notes)
    if len(content) < start + length:
        raise guard.damaged(path, _KIND, f"it has {len(content)} bytes where its header needs {start + length}")
    return np.frombuffer(content, dtype, count, start).reshape(shape, order="F")


def _content(path: Path, needed: int) -> bytearray:
    """The first bytes of a file, uncompressed; a compressed one is read to its end, where its checksum stands."""
    content = bytearray()
    with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
        # Piece by piece: a header may promise what the file does not have.
        while len(content) < needed and (piece := file.read(min(_PIECE_BYTES, needed - len(content)))):
            content += piece
        while isinstance(file, gzip.GzipFile) and file.read(_PIECE_BYTES):
            pass
    return content


def _smallest_offset(header: Any) -> int:
    """Behind the header stand four bytes that say whether extensions follow; then come the extensions or the voxels."""
    return int(header.sizeof_hdr) + 4


def _first_voxel_at_most(header: Any) -> int:
    told = float(header["vox_offset"])
    # Where the header is not to be believed, extensions may still stand before the voxels.
    return int(told) if _smallest_offset(header) <= told < _LARGEST_OFFSET else _smallest_offset(header) + _PIECE_BYTES


def _first_voxel(path: Path, header: Any, content: bytearray, length: int, notes: list[Note]) -> int:
    """Where the voxels begin.

    Some programs leave ``vox_offset`` at 0 in a single file, or at the size of the header; taken at its word it would
    make voxels of the header. The voxels then begin behind the header and its extensions.

    Raises:
        ReadError: There are extensions, and the file has not just the length that they and the voxels have.
    """
    told, smallest = float(header["vox_offset"]), _smallest_offset(header)
    if smallest <= told < _LARGEST_OFFSET:
        return int(told)
    bare = int(header.sizeof_hdr)
    not_even_four_bytes = told == bare and len(content) == bare + length
    extensions = 0 if not_even_four_bytes else _extension_bytes(header, content)
    start = bare if not_even_four_bytes else smallest + extensions
    flagged = not not_even_four_bytes and any(content[bare : bare + 1])
    if flagged and (extensions == 0 or len(content) != start + length):
        raise guard.damaged(path, _KIND, "its header has extensions and does not say where the voxels begin")
    text = f"The header says that the voxels begin at byte {told:g}, inside of itself; they are read from byte {start}."
    notes.append(Note("start_corrected", text))
    return start


def _extension_bytes(header: Any, content: bytearray) -> int:
    """Length of all header extensions; each begins with its own length."""
    start = _smallest_offset(header)
    if len(content) < start or content[start - 4] == 0:
        return 0
    end = start
    order: Literal["little", "big"] = "little" if header.endianness == "<" else "big"
    while len(content) >= end + 8:
        length = int.from_bytes(content[end : end + 4], order)
        if length < 8 or length % 16 or end + length > len(content):
            break
        end += length
    return end - start


def _sound_form(header: Any, path: Path) -> list[Note]:
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
        notes.append(
            Note(
                "orientation_code_unknown",
                f"The {name} of the header has the unknown code {codes[name]} and is not used.",
            )
        )
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
        notes.append(
            Note(
                "quaternion_scaled", "The header's quaternion is longer than 1 by rounding and was brought to length 1."
            )
        )
    elif int(header["sform_code"]) > 0:
        header["qform_code"] = 0
        notes.append(Note("orientations_differ", "The header's quaternion (qform) is no rotation; the sform is used."))
    else:
        raise ReadError(
            "Impossible geometry",
            f"The quaternion of '{path.name}' has length {np.sqrt(1.0 + excess):.3g}",
            "a rotation, of length 1",
            "Write the file again with a correct header.",
        )
    return notes


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
    if int(header["sform_code"]) == 0:  # a sform has the sizes in itself, and is checked where all affines are
        geometry.check_spacing(_voxel_sizes(header), path.name)


def _voxel_sizes(header: Any) -> tuple[float, ...]:
    """``pixdim`` of the axes in space that the file has, in the file's unit."""
    return tuple(float(s) for s in header["pixdim"][1 : 1 + min(int(header["dim"][0]), 3)])


def _geometry(header: Any) -> tuple[NDArray[np.float64], bool, Literal["mm", "px"], list[Note]]:
    """Affine in mm, whether the orientation is known, the spatial unit, and notes."""
    notes = []
    unit = int(header["xyzt_units"]) & 7
    affine = np.asarray(header.get_best_affine(), np.float64)
    if _MM_PER_UNIT.get(unit, 1.0) != 1.0:
        affine = np.diag([*[_MM_PER_UNIT[unit]] * 3, 1.0]) @ affine
        notes.append(
            Note(
                "lengths_converted",
                f"The file counts in {'metres' if unit == 1 else 'micrometres'}; lengths were converted to mm.",
            )
        )
    if not geometry.is_spacing(_voxel_sizes(header)):  # beside a sform only; without one this was refused
        header["qform_code"] = 0  # it takes its sizes from pixdim
        sizes = _voxel_sizes(header), np.linalg.norm(affine[:3, :3], axis=0)
        told, used = (" x ".join(f"{length:g}" for length in lengths) for lengths in sizes)
        text = (
            f"The header's voxel sizes (pixdim {told}) are impossible and are not used; sizes and positions are those "
            f"of its sform ({used} mm)."
        )
        notes.append(Note("sizes_of_sform", text))
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform == 0 and qform == 0:
        notes.append(
            Note(
                "orientation_unknown",
                "The file tells no orientation (sform and qform are unset); left and right are not known.",
            )
        )
        no_size = unit == 0 and np.allclose(header["pixdim"][1:4], 1.0)
        return affine, False, "px" if no_size else "mm", notes
    if sform > 0 and qform > 0 and not np.allclose(header.get_sform(), header.get_qform(), atol=0.05):
        notes.append(
            Note(
                "orientations_differ", "The two orientations in the header (sform and qform) differ; the sform is used."
            )
        )
    return affine, True, "mm", notes
