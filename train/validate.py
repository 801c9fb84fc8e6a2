"""Validation on patients held out of the training split: a score for each checkpoint, and a sheet of overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from train.config import Stage
from train.data.records import Record
from train.overlays import OverlayRow, overlay_sheet
from train.stages import Material, StageTask, moved

MOST_RECORDS = 96
"""Held-out pictures that a score is the mean of; evenly spaced over all of them."""

MOST_ROWS = 12
"""Rows of an overlay sheet."""


class Validation:
    """Held-out pictures of a run, asked the same way at every checkpoint.

    Args:
        folder: Where ``STAGE/overlays-STEP.png`` go.
    """

    def __init__(self, material: Material, folder: Path) -> None:
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
