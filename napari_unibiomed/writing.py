"""The writer that napari's Save calls: labels on the exact grid of the file that their image came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_unibiomed.canvas.placement import KEY, Placement
from unibiomed_core.errors import WriteError
from unibiomed_core.types import Volume

VOLUME_SUFFIXES = (".nii.gz", ".nii")
PICTURE_SUFFIXES = (".png",)


def write_labels(path: str, data: Any, about: Mapping[str, Any]) -> list[str]:
    """Write one of our labels layers: a volume as NIfTI in the stored order of its file, a picture as PNG.

    napari's dialog has asked before a file is replaced; the image itself is never replaced.

    Args:
        data: The layer's data, the user's edits included.
        about: The layer's attributes as napari hands them to writers.

    Raises:
        WriteError: The layer has no geometry of a file, the suffix does not fit, or the file cannot be written.
    """
    volume, placement = _geometry(about)
    labels = np.asarray(data)
    expected = placement.to_layer(np.empty((*volume.shape,), np.uint8)).shape
    if labels.shape != expected:
        raise _no_geometry(f"its shape {labels.shape} is not that of its image, {expected}")
    target = Path(path)
    suffixes = PICTURE_SUFFIXES if volume.is_2d else VOLUME_SUFFIXES
    if not target.name.lower().endswith(suffixes):
        raise WriteError(
            "Unknown output format", f"'{target.name}'", f"a name that ends in {' or '.join(suffixes)}",
            "Choose another file name.",
        )  # fmt: skip
    if volume.source and target.exists() and Path(volume.source).exists() and target.samefile(volume.source):
        raise WriteError(
            "Would replace the image", f"'{target.name}' is the image itself", "another name", "Choose another name."
        )
    _write(placement.to_canonical(labels), volume, target)
    return [str(target)]


def _geometry(about: Mapping[str, Any]) -> tuple[Volume, Placement]:
    """The volume that a labels layer belongs to and its place in the layer.

    Raises:
        WriteError: It has none that comes from a file.
    """
    known = about.get("metadata", {}).get(KEY, {})
    volume, placement = known.get("volume"), known.get("placement")
    if volume is None or placement is None:
        raise _no_geometry("this layer has no geometry from its file")
    if not placement.from_file:
        raise _no_geometry("its image was opened by another reader, which hands on no position in the patient")
    return volume, placement


def _no_geometry(found: str) -> WriteError:
    return WriteError(
        "Cannot save with correct position",
        found,
        "labels that UniBiomed made on an image it opened",
        "Save it as TIFF for a plain array, or open the image with UniBiomed and run again.",
    )


def _write(canonical: Any, volume: Volume, target: Path) -> None:
    from unibiomed_core.io.export import nifti, png, staged

    with staged(target.parent, [target.name], overwrite=True) as folder:
        if volume.is_2d:
            png.write_labels(canonical[0], folder / target.name)
        else:
            nifti.write_labels(canonical, volume, folder / target.name)
