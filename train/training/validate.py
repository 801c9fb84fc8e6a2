"""Validation on patients held out of the training split: a score for each checkpoint, and a sheet of overlays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import find_contours

from unibiomed_core.errors import DataError
from unibiomed_core.metrics.overlap import dice

from ..config import Stage
from ..data.records import Record
from ..plots import write_figure
from .stage import StageTask, TrainingData, moved

if TYPE_CHECKING:
    from matplotlib.axes import Axes


MOST_RECORDS = 96
"""Held-out pictures that a score is the mean of; evenly spaced over all of them."""

MOST_ROWS = 12
"""Rows of an overlay sheet."""


class Validation:
    """Held-out pictures of a run, asked the same way at every checkpoint.

    Args:
        folder: Where ``STAGE/overlays-STEP.png`` go.
    """

    def __init__(self, material: TrainingData, folder: Path) -> None:
        held_out = np.nonzero(material.held_out)[0]
        self.material = material
        self.records = held_out[:: max(1, len(held_out) // MOST_RECORDS)][:MOST_RECORDS]
        self.folder = folder

    @torch.no_grad()
    def losses(self, task: StageTask, stage: Stage, step: int, draws: bool = True) -> dict[str, float]:
        """The stage's losses over the held-out pictures, questions and augmentation the same each time; empty where
        none of them fits the stage.

        Args:
            draws: Also write the sheet of overlays.
        """
        items = [item for n, index in enumerate(self.records) if (item := task.item(int(index), n)) is not None]
        if not items:
            return {}
        task.eval()
        device = next(task.parameters()).device
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        for start in range(0, len(items), stage.batch_size):
            batch = task.collate(items[start : start + stage.batch_size])
            for name, value in task(moved(batch, device)).items():
                sums[name] = sums.get(name, 0.0) + float(value)
            for name, count in task.counts(batch).items():
                counts[name] = counts.get(name, 0.0) + count
        losses = {name: value / max(1.0, counts[name]) for name, value in sums.items()}
        if draws:
            self._overlays(task, stage, step)
        task.train()
        return losses

    def _overlays(self, task: StageTask, stage: Stage, step: int) -> None:
        rows: list[OverlayRow] = []
        for index in self.records:
            if len(rows) == MOST_ROWS:
                break
            record = self.material.records[int(index)]
            rows += self._row(task, record)
        if rows:
            overlay_sheet(rows, self.folder / stage.name / f"overlays-{step:08d}.png")

    def _row(self, task: StageTask, record: Record) -> list[OverlayRow]:
        """The picture's first target, as the stage segments it; nothing where there is none to show."""
        truth = record.masks()
        name = next((t for t in truth if t in self.material.numbers), None)
        found = task.segment(record, name) if name else None
        if name is None or found is None:
            return []
        return [OverlayRow(record.pixels(), truth[name], found, f"{record.dataset}: {name}")]


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
