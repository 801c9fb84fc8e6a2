"""What the values mean: the modality and the unit of the intensities, each with the reason where it is inferred."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import modalities
from unibiomed_core.errors import ReadError
from unibiomed_core.types import Note, ToldBy, Volume

NAME_HINTS: Mapping[str, str] = MappingProxyType(
    {
        token: name
        for name, tokens in {
            "ct": "ct cect ncct cta hrct cbct",
            "mri": "mr mri t1 t2 t1w t2w t1c t1ce t1gd flair dwi adc mprage",
            "pet": "pet pt suv fdg",
            "xray": "xray cxr radiograph",
            "ultrasound": "us ultrasound sonography bmode",
            "oct": "oct octa",
            "fundus": "fundus",
            "dermoscopy": "dermoscopy dermatoscopy",
            "endoscopy": "endoscopy colonoscopy gastroscopy",
            "pathology": "pathology histology histopathology wsi",
        }.items()
        for token in tokens.split()
    }
)
"""Whole words of a file name that tell the modality."""

HIGHEST_PLAUSIBLE_SUV = 100.0

AIR_HU = -1024
"""The lowest value of a CT scale of 12 bits."""

LOWEST_NOISE_HU = -1100
"""What lies lower is no measurement: scanners write -2000, -3024 or -32768 where nothing was scanned."""

_MOST_LOOKED_AT = 1_000_000


def values_look_like_hu(values: NDArray[Any]) -> bool:
    """Whether whole numbers reach from below -200 to above 200, as only Hounsfield units do."""
    if not (float(values.min()) < -200 and float(values.max()) > 200):
        return False
    return values.dtype.kind in "iu" or bool(np.array_equal(values, np.rint(values)))


def without_padding(
    values: NDArray[Any], modality_name: str, unit_in_file: str
) -> tuple[NDArray[Any], tuple[Note, ...]]:
    """A CT with what lies outside of the scan brought to air, so that it enters neither windows nor statistics.

    Returns:
        The same array where there is none, else a copy; and a note that says how much was changed.
    """
    if modality_name != "ct" or values.ndim != 3 or float(values.min()) >= LOWEST_NOISE_HU:
        return values, ()
    if unit_in_file != "HU" and float(values.max()) <= 100:  # nothing says that these are Hounsfield units
        return values, ()
    below = values[values < LOWEST_NOISE_HU]
    _, counts = np.unique(below[:: 1 + below.size // _MOST_LOOKED_AT], return_counts=True)
    if counts.max() < 0.5 * counts.sum():  # padding is one value; this is another scale
        return values, ()
    text = (
        f"Padding. {max(below.size / values.size, 0.0001):.2%} of the voxels lie below {LOWEST_NOISE_HU} HU (down to "
        f"{float(below.min()):.0f}), as is written where nothing was scanned; they are read as {AIR_HU}."
    )
    return np.maximum(values, np.asarray(AIR_HU, values.dtype)), (Note("padding", text),)


def modality_of_name(name: str) -> tuple[str, str]:
    """The modality that a file's name tells, and the word that told it; two empty strings where none or several do."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"x[-_ ]ray", "xray", name.lower()))
    found = {NAME_HINTS[word]: word for word in words if word in NAME_HINTS}
    if len(found) != 1:
        return "", ""
    return next(iter(found.items()))


def decide_modality(
    values: NDArray[Any], name: str, in_file: str, given: str, undecided: bool = False
) -> tuple[str, ToldBy, tuple[Note, ...]]:
    """The modality of an image and who told it: the file, else the caller; inferred ones with a note that says why.

    Args:
        values: The image in any order.
        name: The file's name.
        in_file: What the file itself says (a name of ``MODALITIES``), or empty.
        given: What the caller says, in any spelling, or empty.
        undecided: Give an empty modality, which the model is to tell, where nothing tells it.

    Raises:
        ReadError: File and caller disagree, or nothing tells the modality.
        ConfigError: ``given`` is no modality.
    """
    wanted = modalities.modality(given).name if given else ""
    if in_file:
        if wanted and wanted != in_file:
            raise ReadError(
                "Modality contradicts the file",
                f"'{name}' says that it is {modalities.MODALITIES[in_file].label}, "
                f"but {modalities.MODALITIES[wanted].label} was given",
                "the same modality in both",
                command="Leave --modality out.",
            )
        return in_file, "header", ()
    if wanted:
        return wanted, "user", ()
    hint, word = modality_of_name(name)
    hu = values_look_like_hu(values)
    # "pt" also stands for "patient"; PET has no negative values of this size, so the values win there.
    if hint and not (hint == "pet" and hu):
        text = f"Modality inferred as {modalities.MODALITIES[hint].label} from '{word}' in the file's name."
        return hint, "header", (Note("modality_inferred", text),)
    if hu:
        low, high = float(values.min()), float(values.max())
        text = f"Modality inferred as CT because values run from {low:.0f} to {high:.0f}."
        return "ct", "header", (Note("modality_inferred", text),)
    if undecided:
        return "", "model", ()
    raise ReadError(
        "Modality not told",
        f"Neither the header nor the name nor the values of '{name}' tell its modality",
        f"one of {', '.join(modalities.MODALITIES)}",
        command="Give it with --modality.",
        code="modality_not_told",
    )


def decide_unit(volume: Volume, unit_in_file: str) -> tuple[str, tuple[Note, ...]]:
    """The unit of the intensities, "HU", "SUV" or "intensity", with a note where it is assumed or refused.

    Args:
        volume: The image with its modality set.
        unit_in_file: What the file says: "HU", "SUV", another unit's name, or empty.
    """
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    run = f"values run from {low:.4g} to {high:.4g}"
    if volume.modality == "ct":
        eight_bit = low >= 0 and high <= 255
        if modalities.looks_like_hu(volume) or (unit_in_file == "HU" and not eight_bit):
            return "HU", ()
        return "intensity", (Note("unit_refused", f"CT values are not taken as Hounsfield units because {run}."),)
    if volume.modality == "pet":
        if unit_in_file == "SUV":
            return "SUV", (Note("unit_assumed", "PET values are taken as SUV because the file says so."),)
        if unit_in_file:
            return "intensity", (Note("unit_refused", f"PET values are in {unit_in_file} and not in SUV."),)
        # SUV is a ratio: without a scale factor whole numbers are counts or a windowed picture.
        if volume.voxels.dtype.kind == "f" and low >= 0 and high <= HIGHEST_PLAUSIBLE_SUV:
            return "SUV", (Note("unit_assumed", f"PET values are taken as SUV because scaled {run}."),)
        return "intensity", (Note("unit_refused", f"PET values are not taken as SUV because {run}."),)
    return "intensity", ()
