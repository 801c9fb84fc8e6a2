"""Files in and out. ``read`` goes by one table of formats; libraries are loaded when a format is met."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard
from unibiomed_core.io.stored import Stored, to_volume
from unibiomed_core.types import Volume

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        ".nii.gz": "nifti",
        ".nii": "nifti",
        ".nrrd": "itk",
        ".mha": "itk",
        ".mhd": "itk",
        ".dcm": "dicom",
        ".dicom": "dicom",
        ".ima": "dicom",
        ".png": "picture",
        ".jpg": "picture",
        ".jpeg": "picture",
        ".tif": "picture",
        ".tiff": "picture",
    }
)
"""Suffix -> module of this package whose ``load(path)`` reads it. A folder is read as one DICOM series."""

__all__ = ["FORMATS", "read", "read_region", "read_series", "write"]


def read(path: str | os.PathLike[str], modality: str = "", *, undecided: bool = False) -> Volume:
    """An image file, or a folder of one DICOM series, as a volume in canonical axes.

    Args:
        path: NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG or TIFF.
        modality: A name, label or alias of ``modalities.MODALITIES``; needed where neither the file nor its name nor
            its values tell it.
        undecided: A picture whose modality nothing tells comes with an empty one, for ``Engine.with_modality``, instead
            of being refused.

    Raises:
        ReadError: The input is missing, damaged, mislabelled or not one image; the message says what to do.
        ConfigError: ``modality`` is unknown.
    """
    source = guard.existing(Path(path))
    module = "dicom" if source.is_dir() else _module_of(source)
    stored: Stored = import_module(f"unibiomed_core.io.{module}").load(source)
    return to_volume(stored, source, modality, undecided)


def read_series(path: str | os.PathLike[str], modality: str = "", *, undecided: bool = False) -> tuple[Volume, ...]:
    """All volumes of a 4D NIfTI file, in their order and of one modality; of anything else the one volume it is.

    Args:
        path: As :func:`read`.
        modality: As :func:`read`.
        undecided: As :func:`read`.

    Raises:
        ReadError: As :func:`read`.
        ConfigError: ``modality`` is unknown.
    """
    source = guard.existing(Path(path))
    if source.is_dir() or _module_of(source) != "nifti":
        return (read(path, modality, undecided=undecided),)
    first, *rest = import_module("unibiomed_core.io.nifti").load_series(source)
    volume = to_volume(first, source, modality)
    return volume, *(to_volume(stored, source, volume.modality) for stored in rest)


def read_region(
    path: str | os.PathLike[str], rows: tuple[int, int], columns: tuple[int, int], modality: str = ""
) -> Volume:
    """A part of a PNG, JPEG or TIFF picture at full resolution, as of one that :func:`read` gives at low power.

    Args:
        path: Of the file.
        rows: The first and the end, in pixels of the picture as it is shown.
        columns: As ``rows``.
        modality: As :func:`read`.

    Raises:
        ReadError: As :func:`read`, or the part does not lie in the picture.
        ConfigError: ``modality`` is unknown.
    """
    source = guard.existing(Path(path))
    values = import_module("unibiomed_core.io.large_picture").region(source, rows, columns)
    return to_volume(Stored(values, None, spatial_unit="px", orientation_known=False), source, modality)


def _module_of(path: Path) -> str:
    """The reader of a file by its suffix; DICOM files often have none and are known by their content."""
    name = path.name.lower()
    for suffix, module in FORMATS.items():
        if name.endswith(suffix):
            return module
    if guard.sniff(guard.head_of(path)) == "dicom":
        return "dicom"
    raise ReadError(
        "Unknown file type",
        f"'{path.name}' has no suffix that is known",
        f"one of {' '.join(FORMATS)}, or a folder of one DICOM series",
        "Convert it, or give it the suffix of what it is.",
    )


def __getattr__(name: str) -> Any:
    # The writers are their own sub-package; loading them with every read would be for nothing.
    if name == "write":
        return import_module("unibiomed_core.io.export").write
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
