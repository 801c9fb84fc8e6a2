"""The published training step, as it is: for comparison and for those who want the paper's numbers.

One question a row, every object decoded five times, sampled points, logits for all positions, and a pass of SAM 2 on
an empty picture where a micro-batch has no mask. The stage "joint" trains the same parts without any of these.

Legend: B samples of a micro-batch, T tokens, N tiles, G pictures for SAM 2, K objects, S side of those pictures,
C decoder width, h w mask logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core.errors import DataError
from unibiomed_core.modalities import draw_box
from unibiomed_core.model.grounder import MaskOutput
from unibiomed_core.model.processor import CHAT, Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import END

from ...config import Stage
from ...data.records import Record
from ..objective import Sums
from ..stage import StageTask, TrainingData, at_size, moved, validation_rng
from ..trainable import select_trained
from .losses import IGNORED, OBJECTS_PER_SAMPLE, as_published_objects, mask_losses, text_loss
from .samples import ROLES, PublishedSample, PublishedSamples, made_sample
from .wordings import NEWLINE_BEFORE_ANSWER

MOST_TOKENS = 8192
"""Of a row. The published training cuts the end of a longer one, its answer, away; here it is an error."""

PADDING = 0


@dataclass(frozen=True)
class PublishedBatch:
    """A micro-batch.

    Args:
        input_ids: (B, T) int64, padded on the right.
        attention_mask: (B, T) int64.
        labels: (B, T) int64.
        tiles: (N, 3, S', S').
        pixels: (G, 3, S, S); G may be 0.
        seg: (K,) int64, which ``[SEG]`` in reading order each object belongs to.
        image: (K,) int64, which picture it lies in.
        truth: (K, h, w) float32, 0 or 1, at the size of the logits.
        seed: What the points are drawn with.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    tiles: Tensor
    pixels: Tensor
    seg: Tensor
    image: Tensor
    truth: Tensor
    seed: int


class PublishedStage(StageTask):
    """Losses are means over a micro-batch, so each counts once and a step is the mean over its micro-batches."""

    def __init__(self, model: UniBiomed, material: TrainingData, stage: Stage) -> None:
        super().__init__(material, stage)
        self.model = model
        self.samples = PublishedSamples(material.records, material.seed, ~material.held_out)

    @property
    def samples_per_pass(self) -> int:
        return len(self.samples)

    def select_trained(self) -> None:
        select_trained(self.model, self.stage.trained)

    def plan(self, step: int) -> list[PublishedSample]:
        first = step * self.stage.batch_size
        return [self.samples.sample(position) for position in range(first, first + self.stage.batch_size)]

    def item(self, index: int, number: int) -> PublishedSample | None:
        """The segmentation question about the first mask of a record."""
        record = self.material.records[index]
        drawn = [n for n, region in enumerate(record.regions) if region.counts]
        return made_sample("segment", record, drawn[0], validation_rng(number)) if drawn else None

    def length(self, item: PublishedSample) -> int:
        """Volumes together, everything else in the order drawn, as the published sampler's pseudo-lengths have it."""
        return 2 if item.role == "volume" else 1

    def segment(self, record: Record, target: str) -> NDArray[np.bool_]:
        region = next(n for n, own in enumerate(record.regions) if own.target == target)
        batch = self.collate([made_sample("segment", record, region, validation_rng(0))])
        batch = moved(batch, self.model.device)
        return at_size(self._masks(batch, self._hidden(batch)).selected[:1], record)

    def collate(self, items: Sequence[PublishedSample]) -> PublishedBatch:
        return published_batch(items, self.model.config.grounding.image_size, self.material.processor)

    def counts(self, batch: PublishedBatch) -> dict[str, float]:
        return {"text": 1.0, "mask": 1.0, "dice": 1.0}

    def forward(self, batch: PublishedBatch) -> Sums:
        return self.losses(batch)

    def losses(self, batch: PublishedBatch, coordinates: Tensor | None = None) -> Sums:
        """Named losses of a micro-batch.

        Args:
            coordinates: (K, P, 2) points to use in place of drawn ones.
        """
        hidden = self._hidden(batch)
        text = text_loss(self.model.logits(hidden), batch.labels).value
        if not len(batch.seg):
            return {"text": text, **self._weightless(hidden, batch)}
        masks = self._masks(batch, hidden)
        generator = torch.Generator(hidden.device).manual_seed(batch.seed)
        found = mask_losses(masks.selected, batch.truth, coordinates=coordinates, generator=generator)
        return {"text": text, **{name: loss.value for name, loss in found.items()}}

    def _hidden(self, batch: PublishedBatch) -> Tensor:
        model = self.model
        image_tokens = model.encode_tiles(batch.tiles) if len(batch.tiles) else None
        return model.language(model.embed(batch.input_ids, image_tokens), batch.attention_mask)  # (B, T, D)

    def _masks(self, batch: PublishedBatch, hidden: Tensor) -> MaskOutput:
        prompts = self.model.bridge(hidden[batch.input_ids == self.model.ids.seg])[batch.seg]  # (K, C)
        return self.model.grounder.decode(self.model.grounder.encode(batch.pixels), prompts, batch.image)

    def _weightless(self, hidden: Tensor, batch: PublishedBatch) -> Sums:
        """SAM 2 on an empty picture a sample, prompted by the first five states, with no weight in the loss."""
        samples, side = len(hidden), self.model.config.grounding.image_size
        prompts = self.model.bridge(hidden[:, :OBJECTS_PER_SAMPLE]).flatten(0, 1)  # (5 B, C)
        image = torch.arange(samples, device=hidden.device).repeat_interleave(OBJECTS_PER_SAMPLE)
        features = self.model.grounder.encode(hidden.new_zeros(samples, 3, side, side))
        logits = self.model.grounder.decode(features, prompts, image).selected
        generator = torch.Generator(hidden.device).manual_seed(batch.seed)
        found = mask_losses(logits, torch.zeros_like(logits), generator=generator)
        return {name: loss.value * 0.0 for name, loss in found.items()}


def published_batch(items: Sequence[PublishedSample], side: int, processor: Processor) -> PublishedBatch:
    """Rows, tiles, pictures and objects of some samples.

    Args:
        side: Of the pictures for SAM 2; the logits have a quarter of it.

    Raises:
        DataError: A row is longer than ``MOST_TOKENS``.
    """
    rows: list[tuple[list[int], list[int]]] = []
    tiles: list[Tensor] = []
    pixels: list[Tensor] = []
    truth: list[Tensor] = []
    seg: list[int] = []
    for item in items:
        shown = _tiles(item, processor)
        tiles += shown
        rows.append(_row(item, [len(t) for t in shown], processor))
        if item.targets:
            number = 0 if not seg else seg[-1] + 1
            seg += [number] * len(item.targets)
            pixels += [processor.grounding_pixels(record.pixels()) for record in item.records]
            truth += [_truth(r, t, side // 4) for r, t in zip(item.records, item.targets, strict=True)]
    width = max(len(ids) for ids, _ in rows)
    fill = [width - len(ids) for ids, _ in rows]
    seed = int(items[0].rng.integers(2**62))
    chosen = as_published_objects([1] * len(truth)) if truth else torch.zeros(0, dtype=torch.int64)  # (K,)
    return PublishedBatch(
        input_ids=torch.tensor([ids + [PADDING] * n for (ids, _), n in zip(rows, fill, strict=True)]),
        attention_mask=torch.tensor([[1] * (width - n) + [0] * n for n in fill]),
        labels=torch.tensor([labels + [IGNORED] * n for (_, labels), n in zip(rows, fill, strict=True)]),
        tiles=torch.cat(tiles),
        pixels=torch.stack(pixels) if pixels else torch.zeros(0, 3, side, side),
        seg=torch.tensor(seg, dtype=torch.int64)[chosen],
        image=chosen,
        truth=torch.stack(truth)[chosen] if truth else torch.zeros(0, side // 4, side // 4),
        seed=seed,
    )


def _tiles(item: PublishedSample, processor: Processor) -> list[Tensor]:
    """One tensor a picture: tiles, or a single small picture, its box drawn in at its own size."""
    if ROLES[item.role].tiled:
        return [processor.tiles(item.records[0].pixels())]
    pictures = [record.pixels() for record in item.records]
    return [processor.frame(draw_box(rgb, item.region) if item.region else rgb) for rgb in pictures]


def _row(item: PublishedSample, tiles: Sequence[int], processor: Processor) -> tuple[list[int], list[int]]:
    """Ids and labels; question and answer are encoded apart, as published."""
    newline = item.role in NEWLINE_BEFORE_ANSWER
    chat = CHAT if newline else CHAT.replace(f"{END}\n", END)
    asked = processor.encode(processor.expand_image(chat.replace("{input}", item.question), tiles))
    answer = processor.encode(item.answer)
    after = processor.encode("\n") if newline else []
    ids = asked + answer + after
    if len(ids) > MOST_TOKENS:
        raise DataError("Row too long", f"{len(ids)} tokens, {item.records[0].id}", f"at most {MOST_TOKENS}")
    return ids, [IGNORED] * len(asked) + answer + [IGNORED] * len(after)


def _truth(record: Record, target: str, side: int) -> Tensor:
    """(side, side) float32, 0 or 1: the nearest pixel; zeros for what is not there."""
    mask = record.masks().get(target)
    if mask is None:
        return torch.zeros(side, side)
    return F.interpolate(torch.from_numpy(mask).float()[None, None], size=(side, side), mode="nearest")[0, 0]
