"""A folder of one DICOM series, or one DICOM file: headers through pydicom, pixels through GDCM in
the decoding process.

The affine is made from the headers and not taken from ITK, which forgets a gantry tilt and, in a series with a gap,
takes the first distance for all.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import modalities
from unibiomed_core.errors import ConfigError, ReadError
from unibiomed_core.io import decoding, dicom_objects, functional_groups, geometry, guard, transfer_syntax
from unibiomed_core.io.stored import Stored
from unibiomed_core.types import Note

_KIND = "a DICOM file"
_SUFFIXES = {".dcm", ".dicom", ".ima"}
_TAGS = [
    "SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Rows", "Columns",
    "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "Units", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    *functional_groups.TAGS,
]  # fmt: skip
"""Read no more than this: patient data never enter the program."""

_WHITE_IS_LOW = Note("inverted", "Stored with white as low (MONOCHROME1); values were inverted so that white is high.")

SAME_POSITION_MM = 0.01
SAME_DIRECTION = 0.01
"""Of the direction cosines, about half a degree: scanners write them rounded."""

UNEVEN_MM = 0.1
UNEVEN_FRACTION = 0.02
"""Gaps that differ from the usual one by more than both are uneven; less is rounding in the headers."""


@dataclass(frozen=True, slots=True)
class _Header:
    path: Path
    tags: Any
    groups: tuple[Any, ...] = ()
    """Functional groups of one frame, its own before the common ones; empty in files of one slice."""
    frame: int = 0

    def value(self, name: str) -> Any:
        found = functional_groups.value(self.groups, name)
        return self.tags.get(name) if found is None else found

    def numbers(self, name: str) -> tuple[float, ...]:
        """The values of a tag; empty where it is absent or has no value."""
        value = self.value(name)
        if value is None or value == "":
            return ()
        return tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),)

    def text(self, name: str) -> str:
        return str(self.value(name) or "").strip()


def load(path: Path) -> Stored:
    """One series; ``values`` are (i, j, k) = (column, row, slice by position), rescaled (HU for CT).

    Enhanced objects give the frames of one or several files; each has its place and scale in functional groups.
    A single file without a position in the patient (radiograph, ultrasound, photograph) is a picture (H, W[, 3]).

    Raises:
        ReadError: Nothing is there, the files are damaged, are of several series or volumes, or form no volume.
    """
    with guard.reading(path, "a DICOM series" if path.is_dir() else _KIND):
        notes: list[Note] = []
        headers = _one_series(_headers(path, notes), path)
        first = headers[0]
        if len(headers) == 1 and not (
            first.numbers("ImagePositionPatient") and first.numbers("ImageOrientationPatient")
        ):
            return _picture(first, notes)
        headers, affine = _geometry(headers, path, notes)
        samples = int(first.tags.get("SamplesPerPixel") or 1)
        if samples > 1:
            raise guard.colour_volume(path, samples)
        values = _without_padding(_pixels(headers, path, notes), headers, notes)
        values = values[..., 0].transpose(2, 1, 0)  # i, j, k
        # pydicom converts a value when it is first asked for, so that every use of a header may meet damage.
        return Stored(values, affine, modality=_modality(first, notes), unit=_unit(first), notes=tuple(notes))


def _headers(path: Path, notes: list[Note]) -> list[_Header]:
    """The headers of all DICOM images of a folder, or of one file; a note tells what lies beside them."""
    try:
        import pydicom
    except ImportError as error:
        raise ReadError(
            "DICOM support missing",
            "The package pydicom is not installed",
            "the 'dicom' extra",
            "Install it: pip install 'napari-unibiomed[dicom]'.",
        ) from error
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
    else:
        guard.check_kind(path, "dicom", _KIND)
        files = [path]
    images: list[_Header] = []
    others: list[_Header] = []
    for file in files:
        if path.is_dir() and not _is_dicom(file):
            continue
        with guard.reading(file, _KIND), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values in tags that are not used here
            transfer_syntax.check_inflated_size(file)
            # The content was checked; a file without preamble has no other mark of its kind.
            with guard.BoundedFile(file) as opened:
                tags = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            header = _Header(file, tags)
            (images if "Rows" in tags and "Columns" in tags else others).append(header)
    # A segmentation or dose has rows and columns too; with no image beside it, it is what the folder was chosen for.
    beside = list(others)
    if of_patient := [h for h in images if h.text("Modality") not in dicom_objects.OTHER_OBJECTS]:
        beside += [h for h in images if h.text("Modality") in dicom_objects.OTHER_OBJECTS]
        images = of_patient
    kinds = {_class_of(h) for h in images}
    for header in others:
        # Reports and plans lie beside images; a file of the images' own class without a size was cut short.
        if _class_of(header) in kinds or not path.is_dir():
            raise guard.damaged(header.path, _KIND, "its header has no image size")
    if not images:
        folders = sum(p.is_dir() for p in path.iterdir())
        inside = f"{len(files)} files and {folders} folders"
        raise ReadError(
            "No images in the folder",
            f"'{path.name}' holds {inside}, none of them a DICOM image",
            "the folder that holds the DICOM files of one series",
            "Choose the folder with the slices, or name a NIfTI, NRRD or picture file itself.",
        )
    objects = [h.text("Modality") for h in beside if _class_of(h) != dicom_objects.DIRECTORY_CLASS]
    if note := dicom_objects.left_out_note(objects):
        notes.append(Note("objects_left_out", note))
    return images


def _class_of(header: _Header) -> str:
    return str(header.tags.file_meta.get("MediaStorageSOPClassUID") or header.tags.get("SOPClassUID") or "")


def _frames(headers: list[_Header]) -> list[_Header]:
    """A header for every frame of every file.

    Raises:
        ReadError: A file has several frames and does not say where they lie.
    """
    found: list[_Header] = []
    for header in headers:
        groups = functional_groups.groups_of(header.tags, header.path)
        frames = int(header.tags.get("NumberOfFrames") or 1)
        if frames > 1 and not groups:
            raise ReadError(
                "Multi-frame DICOM",
                f"'{header.path.name}' holds {frames} frames and does not say where each lies (a film, or an older "
                "multi-frame object)",
                "one slice in each file, or an enhanced object with functional groups",
                "Convert it to NIfTI (for example with dcm2niix), or export single frames.",
            )
        found += [_Header(header.path, header.tags, group, n) for n, group in enumerate(groups)] or [header]
    return found


def _is_dicom(file: Path) -> bool:
    """Whether a file of a folder is DICOM; one that is only named so is an error, anything else lies beside."""
    if file.suffix.lower() in _SUFFIXES:
        guard.check_kind(file, "dicom", _KIND)
        return True
    return file.stat().st_size > 0 and guard.sniff(guard.head_of(file)) == "dicom"


def _one_series(headers: list[_Header], path: Path) -> list[_Header]:
    """The headers, if they are of one series and of one shape."""
    series: dict[str, list[_Header]] = defaultdict(list)
    for header in headers:
        series[header.text("SeriesInstanceUID")].append(header)
    if len(series) > 1:
        lines = [
            f"number {h[0].text('SeriesNumber') or '?'} ({h[0].text('Modality') or 'no modality'}, "
            f"'{h[0].text('SeriesDescription')}', {len(h)} images)"
            for h in series.values()
        ]
        raise ReadError(
            "More than one series",
            f"'{path.name}' holds {len(series)} series: {'; '.join(sorted(lines))}",
            "one series in a folder",
            "Move one series into a folder of its own.",
        )
    headers = _frames(headers)
    first = headers[0]
    if several := functional_groups.stacks([h.groups for h in headers if h.groups]):
        raise ReadError(
            "More than one volume",
            f"'{path.name}' holds {several} stacks of frames",
            "one stack",
            "Export each stack as a series or file of its own.",
        )
    size = (first.tags.Rows, first.tags.Columns, first.tags.get("SamplesPerPixel"))
    odd = {
        "size": [h for h in headers if (h.tags.Rows, h.tags.Columns, h.tags.get("SamplesPerPixel")) != size],
        "pixel spacing": [h for h in headers if not _same(h, first, "PixelSpacing", SAME_POSITION_MM)],
        "direction": [h for h in headers if not _same(h, first, "ImageOrientationPatient", SAME_DIRECTION)],
    }
    for what, differing in odd.items():
        if differing:
            raise ReadError(
                "Slices form no volume",
                f"{len(differing)} of the {len(headers)} images of '{path.name}' differ from the first in {what}",
                "slices of one size, one pixel spacing and one direction",
                "Remove localisers and reformatted images from the folder.",
            )
    return headers


def _same(header: _Header, other: _Header, tag: str, tolerance: float) -> bool:
    """Whether two images have a tag in common within rounding."""
    ours, theirs = header.numbers(tag), other.numbers(tag)
    return len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=0, atol=tolerance)


def _geometry(headers: list[_Header], path: Path, notes: list[Note]) -> tuple[list[_Header], NDArray[np.float64]]:
    """The headers sorted by position along the slice normal, and the affine.

    Equation C.7.6.2.1-1 of DICOM PS3.3, with the mean step between slices as third column.
    """
    orientation = np.array(headers[0].numbers("ImageOrientationPatient"))
    spacing_mm = headers[0].numbers("PixelSpacing")
    positions = [h.numbers("ImagePositionPatient") for h in headers]
    if orientation.shape != (6,) or len(spacing_mm) != 2 or any(len(p) != 3 for p in positions):
        raise ReadError(
            "Slices form no volume",
            f"Images of '{path.name}' lack position, orientation or pixel spacing",
            "ImagePositionPatient, ImageOrientationPatient and PixelSpacing in every file",
            "Export the series again.",
        )
    geometry.check_spacing(spacing_mm, path.name)
    along_columns, along_rows = orientation[:3], orientation[3:]
    normal = np.cross(along_columns, along_rows)
    places = np.array(positions)
    order = np.argsort(places @ normal, kind="stable")
    headers, places = [headers[i] for i in order], places[order]
    if len(headers) == 1:
        step = normal * _thickness_mm(headers[0], notes)
    else:
        _check_doubled(np.diff(places @ normal), headers, path)
        step = (places[-1] - places[0]) / (len(headers) - 1)
        turned = _counted_backwards(np.column_stack([along_columns, along_rows, normal]))
        _check_steps(places, normal, step, turned, path, notes)
    lps = np.eye(4)
    # PixelSpacing is (between rows, between columns); i counts columns and j rows.
    lps[:3] = np.column_stack([along_columns * spacing_mm[1], along_rows * spacing_mm[0], step, places[0]])
    affine = geometry.LPS_TO_RAS @ lps
    geometry.check_affine(affine, path.name)
    return headers, affine


def _thickness_mm(header: _Header, notes: list[Note]) -> float:
    thickness = header.numbers("SliceThickness")
    if thickness and thickness[0] > 0:
        return thickness[0]
    notes.append(Note("thickness_assumed", "The slice tells no thickness; 1 mm is assumed."))
    return 1.0


def _counted_backwards(directions: NDArray[np.float64]) -> bool:
    """Whether the slice numbers that people see run against the slices' order along their normal.

    Args:
        directions: 3x3, unit vectors in LPS along columns, rows and normal.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions
    order, _ = geometry.canonical_order(geometry.LPS_TO_RAS @ affine, (1, 1, 1))
    return order.flips[order.axes.index(2)]


def _check_doubled(gaps: NDArray[np.float64], headers: Sequence[_Header], path: Path) -> None:
    """Refuse several images at one position, and say what they differ in where functional groups tell it."""
    doubled = int((gaps < SAME_POSITION_MM).sum())
    if not doubled:
        return
    told = functional_groups.dimensions([h.groups for h in headers])
    raise ReadError(
        "More than one volume",
        f"'{path.name}' holds {len(headers)} images at {len(headers) - doubled} positions{told and f' ({told})'}",
        "one image at each position",
        "Move the images of one volume (time point, echo, b-value) into a folder of their own.",
    )


def _check_steps(
    places: NDArray[np.float64],
    normal: NDArray[np.float64],
    step: NDArray[np.float64],
    turned: bool,
    path: Path,
    notes: list[Note],
) -> None:
    """Note gaps that differ and slices that are missing.

    Args:
        turned: Slice numbers run against the order of ``places``.
    """
    gaps = np.diff(places @ normal)
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(UNEVEN_MM, UNEVEN_FRACTION * usual))
    if uneven.size == 0:
        return

    def beside(gap: int) -> tuple[int, int]:
        first = len(gaps) - 1 - gap if turned else gap
        return first, first + 1

    def between(gap: int) -> str:
        return "between slices {} and {}".format(*beside(gap))

    shown = ", ".join(f"{gaps[i]:.2f} mm {between(int(i))}" for i in uneven[:5])
    more = f" and {uneven.size - 5} more" if uneven.size > 5 else ""
    line = places[0] + np.arange(len(places))[:, np.newaxis] * step
    off = float(np.linalg.norm(places - line, axis=1).max())
    text = (
        f"Uneven slice spacing. Gap of {shown}{more} where {usual:.2f} mm is usual; slices are taken as evenly spaced, "
        f"so positions are off by up to {off:.1f} mm and volumes are approximate."
    )
    gap_mm, (first, second) = round(float(gaps[uneven[0]]), 2), beside(int(uneven[0]))
    notes.append(Note("uneven_spacing", text, {"gap_mm": gap_mm, "first": first, "second": second}))
    missing = [(int(i), round(float(gaps[i]) / usual) - 1) for i in uneven]
    named = [f"{n} {between(i)}" for i, n in missing if n >= 1 and abs(gaps[i] - (n + 1) * usual) < 0.1 * usual]
    if named:
        notes.append(Note("slices_missing", f"Missing slices. The gaps fit {', '.join(named[:5])}."))


def _pixels(headers: list[_Header], path: Path, notes: list[Note]) -> NDArray[Any]:
    """Rescaled pixels (slice, row, column, channel) in the order of ``headers``."""
    first = headers[0]
    rows, columns = int(first.tags.Rows), int(first.tags.Columns)
    samples = int(first.tags.get("SamplesPerPixel") or 1)
    # GDCM widens rescaled values, up to float64.
    guard.check_memory((len(headers), rows, columns, samples), 8, path)
    for header in headers:
        transfer_syntax.check(header.tags, header.path)
    if first.groups:
        return _frame_pixels(headers, path, (rows, columns, samples), notes)
    # The type is taken from the first slice, which may be whole where later ones (PET) are not.
    scales = {(h.numbers("RescaleSlope"), h.numbers("RescaleIntercept")) for h in headers}
    values = _decoded(headers, (rows, columns, samples), "float32" if len(scales) > 1 else None)
    if first.text("PhotometricInterpretation") == "MONOCHROME1":
        notes.append(_WHITE_IS_LOW)
    values = values if values.ndim == 4 else values[..., np.newaxis]
    if values.shape != (len(headers), rows, columns, samples):
        raise guard.damaged(path, _KIND, f"its pixels are {values.shape} where its header says {rows} x {columns}")
    return values


def _decoded(headers: list[_Header], size: tuple[int, int, int], pixel_type: str | int | None) -> NDArray[Any]:
    """Rescaled pixels (slice, row, column[, channel]), all of one type.

    By the decoding process, of what is not compressed, too: GDCM believes every length that it finds in a file.
    """
    values: NDArray[Any] | None = None
    for number, header in enumerate(headers):
        stored = 0 if transfer_syntax.is_compressed(header.tags) else transfer_syntax.pixel_bytes(header.tags)
        told, one = decoding.ask(
            "dicom image", header.path, _KIND, _stored_bytes(header, size), pixel_type=pixel_type, stored_bytes=stored
        )
        pixel_type = told["pixel_type"]
        if values is None:
            values = np.empty((len(headers), *one.shape[1:]), one.dtype)
        if one.shape != (1, *values.shape[1:]):
            raise guard.damaged(header.path, _KIND, f"its pixels are {one.shape[1:]}, unlike the others")
        values[number] = one[0]
    assert values is not None
    return values


def _stored_bytes(header: _Header, size: tuple[int, ...]) -> int:
    return int(np.prod(size, dtype=object)) * max(1, int(header.tags.get("BitsAllocated") or 16) // 8)


def _frame_pixels(headers: list[_Header], path: Path, size: tuple[int, int, int], notes: list[Note]) -> NDArray[Any]:
    """As :func:`_pixels`, of enhanced objects, whose frames have scales of their own."""
    white_is_low = headers[0].text("PhotometricInterpretation") == "MONOCHROME1"
    parts: dict[Path, NDArray[Any]] = {}
    for header in headers:
        if header.path in parts:
            continue
        own = sorted((h for h in headers if h.path == header.path), key=lambda h: h.frame)
        scales = [((*h.numbers("RescaleSlope"), 1.0)[0], (*h.numbers("RescaleIntercept"), 0.0)[0]) for h in own]
        with guard.reading(header.path, _KIND):
            parts[header.path] = functional_groups.pixels(header.path, scales, (len(own), *size), white_is_low)
    if white_is_low:
        notes.append(_WHITE_IS_LOW)
    return np.stack([parts[h.path][h.frame] for h in headers])


def _without_padding(values: NDArray[Any], headers: Sequence[_Header], notes: list[Note]) -> NDArray[Any]:
    """Rescaled pixels with what the header calls padding (PS3.3 C.7.5.1.1.2) brought to the lowest value beside it.

    Air of a CT is left to the check that all formats have.
    """
    padded = np.zeros(values.shape, bool)
    for number, header in enumerate(headers):
        told = header.numbers("PixelPaddingValue")
        if not told or header.text("Modality") == "CT" or header.text("PhotometricInterpretation") != "MONOCHROME2":
            continue
        ends = [_signed(header, v) for v in (*told[:1], *(header.numbers("PixelPaddingRangeLimit") or told)[:1])]
        slope, intercept = (*header.numbers("RescaleSlope"), 1.0)[0], (*header.numbers("RescaleIntercept"), 0.0)[0]
        low, high = sorted(end * slope + intercept for end in ends)
        padded[number] = (values[number] >= low) & (values[number] <= high)
    if not padded.any() or padded.all():
        return values
    lowest = values[~padded].min()
    text = (
        f"Padding. {max(padded.mean(), 0.0001):.2%} of the pixels are marked in the header as outside of the image; "
        f"they are read as {float(lowest):g}, the lowest value beside them."
    )
    notes.append(Note("padding", text))
    return np.where(padded, lowest, values)


def _signed(header: _Header, value: float) -> float:
    """Explicit headers may write a signed value's bits as an unsigned number."""
    bits = int(header.tags.get("BitsAllocated") or 16)
    signed = int(header.tags.get("PixelRepresentation") or 0) == 1
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value


def _picture(header: _Header, notes: list[Note]) -> Stored:
    """A projection or photograph: no place in the patient, sometimes a pixel size."""
    values = _without_padding(_pixels([header], header.path, notes), [header], notes)[0]  # H, W, C
    modality = _modality(header, notes)
    if values.shape[2] == 3 and values.dtype != np.uint8:
        raise ReadError(
            "Unsupported colour depth",
            f"'{header.path.name}' has {values.dtype.itemsize * 8} bits for each colour",
            "8 bits",
            "Export it with 8 bits for each colour.",
        )
    values = values[..., 0] if values.shape[2] == 1 else values
    spacing_mm = header.numbers("PixelSpacing")
    notes.append(Note("position_unknown", "The image has no position in the patient; left and right are not known."))
    if len(spacing_mm) != 2:
        notes.append(Note("size_unknown", "The image tells no pixel size; lengths are in pixels."))
        return Stored(values, None, spatial_unit="px", orientation_known=False, modality=modality, notes=tuple(notes))
    return Stored(values, None, (spacing_mm[0], spacing_mm[1]), "mm", False, modality=modality, notes=tuple(notes))


def _modality(header: _Header, notes: list[Note]) -> str:
    """The file's modality, or empty where its code is none of ours."""
    code = header.text("Modality")
    try:
        return modalities.modality(code).name
    except ConfigError:
        notes.append(Note("modality_code_unknown", f"The file's modality code '{code}' is none that is known."))
        return ""


def _unit(header: _Header) -> str:
    """The unit that the header tells: PS3.3 C.11.1 (Rescale Type; HU for CT where absent), C.8.9.1 (Units)."""
    if header.text("Modality") == "CT" and header.numbers("RescaleIntercept"):
        return "HU" if header.text("RescaleType") in {"", "HU"} else ""
    if header.text("Modality") == "PT":
        units = header.text("Units")
        return "SUV" if units == "GML" else {"BQML": "Bq/mL", "CNTS": "counts"}.get(units, units)
    return ""
