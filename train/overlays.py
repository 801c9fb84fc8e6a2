"""A sheet of pictures with the outlines of reference and prediction, to see what the numbers do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from train.curves import write_figure
from unibiomed_core.errors import DataError
from unibiomed_core.metrics.overlap import dice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUTH_COLOUR, PREDICTED_COLOUR = "#00e5ff", "#ffe119"
PANEL_INCHES = 2.4


@dataclass(frozen=True)
class OverlayRow:
    """One picture with one target.

    Args:
        picture: (H, W, 3) uint8.
        truth: (H, W) bool.
        predicted: (H, W) bool.
        title: Data set and target; the Dice is added.
    """

    picture: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    title: str


def overlay_sheet(rows: Sequence[OverlayRow], path: Path) -> Path:
    """Write a PNG: a picture as it is, with the reference's outline, with the prediction's; two rows side by side.

    Raises:
        DataError: There is no row, or the sizes of a row differ.
        WriteError: The picture cannot be written.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise DataError("Empty sheet", "no picture to draw", "at least one")
    for row in rows:
        if not row.picture.shape[:2] == row.truth.shape == row.predicted.shape:
            sizes = f"picture {row.picture.shape}, reference {row.truth.shape}, prediction {row.predicted.shape}"
            raise DataError("Mask of another size", f"{row.title}: {sizes}", "one size")
    across = 1 if len(rows) == 1 else 2
    down = -(-len(rows) // across)
    figure = Figure(figsize=(across * 3 * PANEL_INCHES, down * (PANEL_INCHES + 0.3)), layout="constrained")
    for place, row in zip(figure.subfigures(down, across, squeeze=False).ravel(), rows, strict=False):
        place.suptitle(f"{row.title}   {_agreement(row)}", fontsize=8)
        plain, reference, prediction = place.subplots(1, 3)
        for panel in (plain, reference, prediction):
            panel.imshow(row.picture, interpolation="nearest")
            panel.set_axis_off()
        _outline(reference, row.truth, TRUTH_COLOUR, "reference")
        _outline(prediction, row.predicted, PREDICTED_COLOUR, "prediction")
    return write_figure(figure, path)


def _agreement(row: OverlayRow) -> str:
    if not row.truth.any():
        return "absent, false prediction" if row.predicted.any() else "absent, none predicted"
    return f"Dice {dice(row.predicted, row.truth):.2f}"


def _outline(panel: Axes, mask: NDArray[np.bool_], colour: str, name: str) -> None:
    from matplotlib import patheffects

    dark = [patheffects.withStroke(linewidth=1.8, foreground="black", alpha=0.6)]
    # A rim of background closes the outline of a region that touches the picture's edge.
    for points in find_contours(np.pad(mask, 1).astype(float), 0.5):
        panel.plot(points[:, 1] - 1, points[:, 0] - 1, color=colour, linewidth=1.0, path_effects=dark)
    panel.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))
    panel.set_title(name, fontsize=6, pad=2)
