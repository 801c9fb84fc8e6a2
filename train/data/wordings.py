"""Sentences by rule from annotations: target, size, position, brightness against the surroundings, patient side.

They say only what the mask and the picture show; nothing in them was written by a radiologist.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core.modalities import modality
from unibiomed_core.vocabulary import targets

SMALL_FRACTION, LARGE_FRACTION = 0.02, 0.15
"""Of the picture's area: below the first a region is small, above the second large."""

BRIGHTNESS_STEP = 0.08
"""Difference of mean grey (0..1) from the surrounding ring that counts as brighter or darker."""

_SIDED = {"ct", "mri", "pet", "xray"}
"""Modalities shown with the patient's left on the right of the picture."""


def place(mask: NDArray[np.bool_]) -> str:
    """Where the centroid lies on a 3 x 3 grid, e.g. "upper left"; "centre" in the middle."""
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    row = ("upper", "", "lower")[min(int(rows.mean() / height * 3), 2)]
    column = ("left", "", "right")[min(int(columns.mean() / width * 3), 2)]
    return f"{row} {column}".strip() or "centre"


def size_word(mask: NDArray[np.bool_]) -> str:
    fraction = float(mask.mean())
    return "small" if fraction < SMALL_FRACTION else "large" if fraction > LARGE_FRACTION else "medium"


def brightness(mask: NDArray[np.bool_], rgb: NDArray[np.uint8]) -> str:
    """Mean grey inside against a ring around it: "brighter than", "darker than" or "as bright as"."""
    grey = rgb.mean(axis=2) / 255
    ring = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=2)
    if not ring.any():
        return "as bright as"
    difference = float(grey[mask].mean() - grey[ring].mean())
    return (
        "brighter than"
        if difference > BRIGHTNESS_STEP
        else "darker than"
        if difference < -BRIGHTNESS_STEP
        else "as bright as"
    )


def side(mask: NDArray[np.bool_], kind: str) -> str:
    """The patient's side for modalities with a fixed convention; empty near the midline or where there is none."""
    if kind not in _SIDED:
        return ""
    centre = float(np.nonzero(mask)[1].mean()) / mask.shape[1]
    return "on the patient's right" if centre < 0.4 else "on the patient's left" if centre > 0.6 else ""


def describe(target: str, mask: NDArray[np.bool_], rgb: NDArray[np.uint8], kind: str) -> str:
    """One sentence about one region, without the final full stop."""
    parts = [
        f"a {size_word(mask)} {target} in the {place(mask)} of the picture",
        side(mask, kind),
        f"{brightness(mask, rgb)} its surroundings",
    ]
    return ", ".join(p for p in parts if p)


def phrase(target: str, kind: str) -> str:
    """The phrase of a target in a modality, lower case as in training: "liver in abdomen ct"."""
    found = targets().get(target)
    return (found.phrase(kind) if found else f"{target} in {modality(kind).label}").lower()
