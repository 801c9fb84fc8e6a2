"""Measuring labels that no run made: the user's own become a layer with a table of features. No model, no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.canvas.placement import volumes_in
from napari_unibiomed.canvas.volumes import placement_of, volume_of
from unibiomed_core.errors import DataError
from unibiomed_core.types import CroppedMask, Finding, Volume

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unibiomed.canvas.layers import LayerGateway

MOST_LABELS = 1000
"""Each is cropped and measured on its own; more are cells or superpixels, for which there are better tools."""


def measure_layer(gateway: LayerGateway, labels: Labels) -> Labels:
    """Measure every number of a labels layer on the image under it; the layer itself is not changed.

    Returns:
        A copy of the layer whose features hold the measurements, one row a number.

    Raises:
        DataError: No image lies under the labels, it is not read yet, they hold nothing, or too many numbers.
        ReadError: The image under them is no volume or picture.
    """
    image = image_under(gateway, labels)
    if lazy_layers.is_lazy(image) and lazy_layers.kept(image, {}) is None:
        raise DataError(
            "Image not read yet",
            f"the values of '{image.name}' are loaded or computed on demand",
            "an image in memory",
            "Choose it under Image in the dock, which reads it, and measure again.",
        )
    known = volumes_in(image)
    # Without a known kind the unit stays "intensity", as it does for MRI.
    volume = volume_of(image, known[0].modality if known else "mri")
    placement = placement_of(image, volume)
    found = measured(placement.to_canonical(np.asarray(labels.data)), volume, names_of(labels))
    return gateway.add_measured(labels, volume, placement, [row_of(finding, volume) for finding in found])


def image_under(gateway: LayerGateway, labels: Labels) -> Image:
    """The topmost image that a labels layer covers voxel for voxel.

    Raises:
        DataError: There is none.
    """
    shape = tuple(labels.data.shape)
    for image in gateway.images():
        same_place = all(
            np.allclose(getattr(image, name), getattr(labels, name))
            for name in ("scale", "translate")
            if image.ndim == labels.ndim
        )
        if not image.multiscale and tuple(image.data.shape[: image.ndim]) == shape and same_place:
            return image
    raise DataError(
        "No image under the labels",
        f"no image layer has the shape {shape} and the place of '{labels.name}'",
        "an image of the same shape, scale and position",
        "Open the image that the labels were drawn on.",
    )


def measured(canonical: NDArray[Any], volume: Volume, names: dict[int, str]) -> list[Finding]:
    """Every number of a canonical (Z, Y, X) label array as a measured finding, by number.

    Raises:
        DataError: There are none, or more than ``MOST_LABELS``.
    """
    from scipy.ndimage import find_objects

    from unibiomed_core.engine.volume.linking import LinkedMask, findings

    numbers = [int(n) for n in np.unique(canonical) if n]
    if not 0 < len(numbers) <= MOST_LABELS:
        raise DataError("Nothing to measure", f"{len(numbers)} different labels", f"1 to {MOST_LABELS} labels")
    # Numbers may be far apart; find_objects makes one entry for every number up to the highest.
    order = np.searchsorted(numbers, canonical).clip(max=len(numbers) - 1).astype(np.int32)
    places = find_objects(np.where(canonical != 0, order + 1, 0))
    found: list[Finding] = []
    for number, place in zip(numbers, places, strict=True):
        crop = canonical[place] == number
        mask = CroppedMask(crop, tuple(s.start for s in place), canonical.shape)
        slices = tuple(int(i) + place[0].start for i in np.flatnonzero(crop.any(axis=(1, 2))))
        flags = ("one_slice",) if len(slices) == 1 and volume.shape[0] > 1 else ()
        thing = LinkedMask("", names.get(number, f"label {number}"), 1.0, mask, "axial", slices, (), flags)
        found += findings([thing], volume, first_number=number)
    return found


def names_of(labels: Labels) -> dict[int, str]:
    """{number: name} where the layer's features tell them."""
    table = labels.features
    if "index" not in table or "finding" not in table:
        return {}
    return {int(n): str(name) for n, name in zip(table["index"], table["finding"], strict=True) if str(name)}


def row_of(finding: Finding, volume: Volume) -> dict[str, Any]:
    """A row of features: lengths in mm, volume in mL, intensities in the unit named; slices as on the slider."""
    names = (
        "volume_ml", "area_mm2", "longest_axial_diameter_mm", "perpendicular_diameter_mm", "intensity_mean",
        "intensity_sd", "intensity_unit", "slice_first", "slice_last", "side",
    )  # fmt: skip
    sizes = finding.measurements
    return {
        "index": finding.number,
        "finding": finding.phrase,
        "voxels": sizes.voxel_count,
        **{name: getattr(sizes, name) for name in names},
        "flags": ", ".join(finding.flags),
    }
