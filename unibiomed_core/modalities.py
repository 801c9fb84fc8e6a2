"""The ten modalities: their names, intensity windows, and how a slice becomes the RGB picture the model sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.errors import ConfigError
from unibiomed_core.types import Region, Volume

MR_PERCENTILES = (0.5, 99.5)
"""Of the non-zero voxels of the whole volume, so that neighbouring slices share one scale."""


@dataclass(frozen=True, slots=True)
class Window:
    """An intensity window: ``low`` maps to black and ``high`` to white, in the image's own unit."""

    name: str
    low: float
    high: float

    @classmethod
    def from_width_center(cls, name: str, width: float, center: float) -> Window:
        return cls(name, center - width / 2, center + width / 2)


CT_WINDOWS: Mapping[str, Window] = MappingProxyType(
    {
        name: Window.from_width_center(name, width, center)
        for name, width, center in (
            ("soft tissue", 400, 40),
            ("lung", 1500, -600),
            ("bone", 1800, 400),
            ("brain", 80, 40),
            ("mediastinum", 350, 50),
            ("liver", 150, 60),
        )
    }
)


@dataclass(frozen=True, slots=True)
class Modality:
    """One modality.

    Args:
        name: The key used in options, files and training records.
        label: How people and prompts write it.
        colour: True where the picture's colours mean something (RGB goes to the model as it is).
        rule: "window" (fixed window in HU or SUV), "percentiles" or "as is" (8-bit values).
        aliases: Other spellings, among them the DICOM modality codes.
    """

    name: str
    label: str
    colour: bool
    rule: Literal["window", "percentiles", "as is"]
    aliases: tuple[str, ...] = ()


MODALITIES: Mapping[str, Modality] = MappingProxyType(
    {
        m.name: m
        for m in (
            Modality("ct", "CT", False, "window", ("computed tomography", "CT")),
            Modality("mri", "MRI", False, "percentiles", ("mr", "MR", "magnetic resonance")),
            Modality("xray", "X-ray", False, "as is", ("x-ray", "X-ray", "cxr", "radiograph", "CR", "DX", "RF", "MG")),
            Modality("pathology", "pathology", True, "as is", ("histology", "microscopy", "SM", "GM")),
            Modality("ultrasound", "ultrasound", False, "as is", ("us", "US", "sonography")),
            Modality("fundus", "fundus", True, "as is", ("fundus photography", "OP")),
            Modality("dermoscopy", "dermoscopy", True, "as is", ("dermatoscopy", "XC")),
            Modality("endoscopy", "endoscopy", True, "as is", ("ES", "colonoscopy")),
            Modality("oct", "OCT", False, "as is", ("optical coherence tomography", "OPT")),
            Modality("pet", "PET", False, "window", ("PT", "positron emission tomography")),
        )
    }
)

AS_IS = Window("as is", 0.0, 255.0)
"""Of pictures of 8 bits, whose values are left as they are."""

PET_WINDOW = Window("SUV 0 to 10", 0.0, 10.0)


def modality(name: str) -> Modality:
    """The modality of a name, label, alias or DICOM code, in any letter case.

    Raises:
        ConfigError: The name is none of these.
    """
    wanted = name.strip().lower()
    for row in MODALITIES.values():
        if wanted in {row.name, row.label.lower(), *(alias.lower() for alias in row.aliases)}:
            return row
    raise ConfigError("Unknown modality", f"'{name}' is not a modality", f"one of {', '.join(MODALITIES)}")


def with_labels(text: str) -> str:
    """A model's lower-case words with the modalities written as people write them: "liver in abdomen CT".

    Labels are as long as names, so that places in the text stay what they are.
    """
    labels = {row.label.lower(): row.label for row in MODALITIES.values() if row.label != row.label.lower()}
    return re.sub(rf"\b({'|'.join(map(re.escape, labels))})\b", lambda found: labels[found[0]], text)


def looks_like_hu(volume: Volume) -> bool:
    """Whether values can be Hounsfield units: something is darker than water and nothing is 8-bit grey."""
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    return low < -50 and high > 100


def choose_window(volume: Volume, preset: str = "") -> Window:
    """The window the model is given for a volume; one for all of its slices.

    CT in HU uses ``preset`` or soft tissue; PET in SUV uses 0 to 10; MRI and every image whose values have no unit
    use percentiles 0.5 to 99.5 of the non-zero voxels; 8-bit images are left as they are. A picture whose modality
    nobody told yet goes by its values alone.

    Args:
        preset: A name of ``CT_WINDOWS``; empty for the modality's default.

    Raises:
        ConfigError: ``preset`` is unknown, or is given for an image that is not in HU.
    """
    if preset:
        if preset not in CT_WINDOWS:
            raise ConfigError("Unknown window", f"'{preset}' is not a window preset", ", ".join(CT_WINDOWS))
        if volume.intensity_unit != "HU":
            raise ConfigError(
                "Values do not look like Hounsfield units",
                f"the image's unit is '{volume.intensity_unit}'",
                "an image in HU for a window preset",
                "Leave the window out; percentiles are used then.",
            )
        return CT_WINDOWS[preset]
    if volume.is_rgb or volume.voxels.dtype == np.uint8:
        return AS_IS
    if volume.intensity_unit == "HU":
        return CT_WINDOWS["soft tissue"]
    if volume.intensity_unit == "SUV":
        return PET_WINDOW
    values = volume.voxels[volume.voxels != 0]
    if values.size == 0:
        return Window("constant image", 0.0, 1.0)
    by_percentiles = bool(volume.modality) and modality(volume.modality).rule == "percentiles"
    if float(values.min()) >= 0 and float(values.max()) <= 255 and not by_percentiles:
        return AS_IS
    low, high = (float(v) for v in np.percentile(values, MR_PERCENTILES))
    name = f"percentiles {MR_PERCENTILES[0]} to {MR_PERCENTILES[1]} of non-zero values"
    return Window(name, low, high if high > low else low + 1.0)


def to_rgb(pixels: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """The picture the model sees: (H, W) or (H, W, 3) of any dtype to (H, W, 3) uint8.

    Values are scaled linearly from the window to 0..255, rounded and clipped; grey is repeated in three channels.
    """
    if pixels.dtype == np.uint8 and (window.low, window.high) == (0.0, 255.0):
        grey = pixels
    else:
        scaled = (pixels.astype(np.float32) - window.low) * (255.0 / (window.high - window.low))
        grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(grey if grey.ndim == 3 else np.repeat(grey[..., np.newaxis], 3, axis=2))


def draw_box(rgb: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
    """A copy with the box outlined in pure green, as in the published training data.

    OpenCV's thickness 2 covers the border pixel and one on either side of it, three in all, without the outermost
    corner pixels. It does not scale with the image.

    Args:
        rgb: (H, W, 3) uint8.
        region: Corners, both included.
    """
    height, width = rgb.shape[:2]
    x0, y0, x1, y1 = region.box
    # Two pixels of margin: in the published training data a box may end one pixel outside of the picture.
    ring = np.zeros((height + 4, width + 4), bool)
    ring[y0 + 1 : y1 + 4, x0 + 1 : x1 + 4] = True
    ring[y0 + 4 : y1 + 1, x0 + 4 : x1 + 1] = False
    for y, x in ((y0 + 1, x0 + 1), (y0 + 1, x1 + 3), (y1 + 3, x0 + 1), (y1 + 3, x1 + 3)):
        ring[y, x] = False
    boxed = rgb.copy()
    boxed[ring[2:-2, 2:-2]] = (0, 255, 0)
    return boxed
