"""The reader and the samples that napari's menus call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from napari_unibiomed.canvas.placement import LayerTuple, image_layer, series_layer

PathOrPaths = str | Sequence[str]

LOOKED_AT = 200
"""Files of a folder that are looked at for DICOM before it is left to other readers."""

ASSUMED = "The file tells no modality; it is taken as MRI, whose window fits any values, until another is chosen."


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerTuple]] | None:
    """The reader for one file or DICOM folder; None for several files and for a folder without DICOM."""
    if not isinstance(path, str):
        return None
    if Path(path).is_dir() and not holds_dicom(Path(path)):
        return None
    return read_layers


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files of a folder is DICOM by its content; folders inside it are not looked at."""
    from unibiomed_core.io import guard

    files = (file for file in sorted(folder.iterdir()) if file.is_file())
    return any(guard.sniff(guard.head_of(file)) == "dicom" for file in islice(files, LOOKED_AT))


def read_layers(path: PathOrPaths) -> list[LayerTuple]:
    """Read a NIfTI, NRRD, MetaImage or DICOM file, or a DICOM folder, with its true geometry.

    A picture that tells no modality is read without one, and the dock lets the model tell it. A volume that tells none
    is read as MRI, and its notes say so; the dock lets it be changed. A 4D NIfTI file becomes one 4D layer, of which
    the dock asks for one volume.

    Raises:
        UniBiomedError: It cannot be read; says what to do.
    """
    from unibiomed_core.errors import ReadError
    from unibiomed_core.io import read_series
    from unibiomed_core.types import Note

    name = path if isinstance(path, str) else path[0]
    try:
        volumes = read_series(name, undecided=True)
    except ReadError as unknown:
        if unknown.code != "modality_not_told":
            raise
        volumes = tuple(
            replace(v, notes=(*v.notes, Note("modality_assumed", ASSUMED))) for v in read_series(name, "mri")
        )
    return [image_layer(volumes[0]) if len(volumes) == 1 else series_layer(volumes)]


def open_sample(name: str) -> list[LayerTuple]:
    """One of the shipped samples."""
    from unibiomed_core.io import read
    from unibiomed_core.samples import samples

    sample = samples()[name]
    return [image_layer(read(sample.path, sample.modality))]


sample_ct = partial(open_sample, "ct")
sample_mri = partial(open_sample, "mri")
sample_pet = partial(open_sample, "pet")
sample_mri_cardiac = partial(open_sample, "mri-cardiac")
sample_xray_normal = partial(open_sample, "xray-normal")
sample_xray_tuberculosis = partial(open_sample, "xray-tuberculosis")
sample_pathology = partial(open_sample, "pathology")
sample_ultrasound = partial(open_sample, "ultrasound")
sample_fundus = partial(open_sample, "fundus")
sample_dermoscopy = partial(open_sample, "dermoscopy")
sample_endoscopy = partial(open_sample, "endoscopy")
sample_oct = partial(open_sample, "oct")
