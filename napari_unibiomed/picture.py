"""The picture that the model is given for a slice; which way round it is fed stands here. No Qt, no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unibiomed_core.modalities import Window, choose_window, draw_box, to_rgb
from unibiomed_core.types import Plane, Region, Volume

WAY_ROUND = "Rows run towards Inferior or Posterior, columns towards Left or Posterior: as radiologists read them."
"""Slices go to the model in canonical order, in each plane the order that the viewer shows them in."""


def model_picture(
    volume: Volume, plane: Plane, index: int, window: Window | None = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the windowed slice as RGB, with the box burnt in where the region lies on this slice.

    Args:
        window: None takes the modality's.
    """
    rgb = to_rgb(volume.slice(index, plane).pixels, window or choose_window(volume))
    if region is None or (region.plane, region.index) != (plane, index):
        return rgb
    return draw_box(rgb, region)
