"""The reader and the samples that napari's menus call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from napari_unibiomed.layers import LayerTuple, image_layer

PathOrPaths = str | Sequence[str]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerTuple]] | None:
    """The reader for one file or folder; napari asks once for several files, which is refused."""
    return read_layers if isinstance(path, str) else None


def read_layers(path: PathOrPaths) -> list[LayerTuple]:
    """Read a NIfTI, NRRD or MetaImage file or a DICOM folder with its true geometry.

    A file that tells no modality is read as MRI, whose window fits any intensities; the dock lets it be changed.

    Raises:
        UniBiomedError: It cannot be read; says what to do.
    """
    from unibiomed_core.errors import ReadError
    from unibiomed_core.io import read

    name = path if isinstance(path, str) else path[0]
    try:
        return [image_layer(read(name))]
    except ReadError as unknown:
        if "modality" not in unknown.title.lower():
            raise
        return [image_layer(read(name, "mri"))]


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
