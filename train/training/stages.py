"""The kinds of stages: what each trains, which data a step shows, and its losses as sums with counts.

Legend: K ``[SEG]`` tokens or prompts, C decoder width, A side of the true masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from unibiomed_core.errors import DataError
from unibiomed_core.model.unibiomed import UniBiomed

from ..config import Stage
from ..data.augment import normalise, picture_tensor
from ..data.batches import IGNORED, MaskBatch, Sheet, TextBatch, make_sheet, mask_batch, row_length, text_batch
from ..data.examples import segment_example
from ..data.records import Record
from ..data.sampler import Sampler
from ..data.targets import CODE_SCALE, target_codes
from .objective import Sums, mask_counts, mask_objective
from .stage import _SALTS, StageSample, StageTask, TrainingData, at_size, moved, text_sum, validation_rng
from .trainable import select_trained


class Grounding(StageTask):
    """Masks from fixed target codes: SAM 2 alone, no text."""

    def __init__(self, model: UniBiomed, material: TrainingData, stage: Stage) -> None:
        super().__init__(material, stage)
        records = material.records
        self.sampler = material.sampler(
            _SALTS["grounding"], (records.lengths("regions") > 0) | (records.lengths("absent") > 0)
        )
        self.grounder = model.grounder
        self.codes: Tensor
        self.register_buffer("codes", target_codes(material.names, model.config.grounding.hidden), persistent=False)

    def item(self, index: int, number: int) -> StageSample | None:
        record = self.material.records[index]
        usable = any(r.target in self.material.numbers for r in record.regions)
        return StageSample(record, validation_rng(number)) if usable else None

    def segment(self, record: Record, target: str) -> NDArray[np.bool_]:
        pixels = F.interpolate(picture_tensor(record)[None], size=(self.stage.side,) * 2, mode="area")
        features = self.grounder.encode(normalise(pixels).to(self.codes.device))
        code = self.codes[self.material.numbers[target]][None]
        masks = self.grounder.decode(features, code, torch.zeros(1, dtype=torch.int64, device=code.device))
        return at_size(masks.selected, record)

    def collate(self, items: Sequence[StageSample]) -> MaskBatch:
        samples = [(item.record, item.rng) for item in items]
        stage, width = self.stage, self.codes.shape[1]
        # Twice as fine as the logits: what a thin structure needs, at a quarter of the cost of full size.
        return mask_batch(samples, self.material.numbers, stage.side, stage.targets_per_picture, stage.side // 2, width)

    def counts(self, batch: MaskBatch) -> dict[str, float]:
        return mask_counts(batch.present)

    def forward(self, batch: MaskBatch) -> Sums:
        features = self.grounder.encode(batch.pixels)
        masks = self.grounder.decode(features, self.codes[batch.target] + batch.noise, batch.image)
        return mask_objective(masks, batch.truth, batch.present)


class Language(StageTask):
    """Text, and the bridge onto the target codes. SAM 2 takes no part."""

    def __init__(self, model: UniBiomed, material: TrainingData, stage: Stage) -> None:
        super().__init__(material, stage)
        self.vlm, self.bridge = model.vlm, model.bridge
        self._model = [model]  # in a list, so that its other parts are not parameters of the stage
        self.codes: Tensor
        self.register_buffer("codes", target_codes(material.names, model.config.grounding.hidden), persistent=False)
        self.boxed = material.sampler(_SALTS["boxed"], material.records.lengths("regions") > 0)

    def plan(self, step: int) -> list[Sheet]:
        """The first pictures of a step have a box drawn in, the others are asked about as a whole."""
        boxed = round(self.stage.batch_size * self.stage.boxed_share)
        sheets = []
        for position in range(self.stage.batch_size):
            sampler = self.boxed if position < boxed else self.sampler
            sheets.append(self._sheet(sampler, step, position, position < boxed))
        return sheets

    def _sheet(self, sampler: Sampler, step: int, position: int, boxed: bool) -> Sheet:
        """A record that no question fits (a picture without a modality, region or text) is passed over."""
        rng = sampler.rng(step, position)
        for _ in range(_TRIES):
            record = sampler.records[sampler.draw(rng)]
            sheet = make_sheet(record, rng, self.material.known, boxed, self.stage.targets_per_picture)
            if sheet.examples:
                return sheet
        raise DataError("No question to ask", f"{_TRIES} records in a row have no text material", "records with some")

    def item(self, index: int, number: int) -> Sheet | None:
        record, rng = self.material.records[index], validation_rng(number)
        sheet = make_sheet(record, rng, self.material.known, number % 2 == 0, self.stage.targets_per_picture)
        return sheet if sheet.examples else None

    def length(self, item: Sheet) -> int:
        return row_length(item, self.material.processor)

    def collate(self, items: Sequence[Sheet]) -> TextBatch:
        return text_batch(items, self.material.processor, self.material.numbers)

    def counts(self, batch: TextBatch) -> dict[str, float]:
        return {"text": float((batch.batch.labels[:, 1:] != IGNORED).sum()), "code": float(len(batch.target))}

    def forward(self, batch: TextBatch) -> Sums:
        model, given = self._model[0], batch.batch
        hidden = model.language(
            model.embed(given.input_ids, model.encode_tiles(given.tiles)), given.attention_mask, given.position_ids
        )
        wanted = self.codes[batch.target]
        found = model.bridge(hidden[given.input_ids == model.ids.seg])
        # Squared error as a share of the codes' variance.
        code = (found.float() - wanted).square().mean(dim=1).sum() / CODE_SCALE**2
        return {"text": text_sum(model, hidden, given.labels), "code": code}


class Joint(StageTask):
    """Text and masks through the whole model. Pictures are encoded once, however many targets are asked."""

    skips_parts = True  # a batch without masks never touches SAM 2

    def __init__(self, model: UniBiomed, material: TrainingData, stage: Stage) -> None:
        super().__init__(material, stage)
        self.model = model
        self.boxed = material.sampler(_SALTS["boxed"], material.records.lengths("regions") > 0)

    def select_trained(self) -> None:
        select_trained(self.model, self.stage.trained)
        if self.model.grounder.tower is not None:
            self.model.grounder.tower.encoder.freeze(self.stage.tower_frozen)

    plan = Language.plan
    _sheet = Language._sheet
    item = Language.item
    length = Language.length

    def segment(self, record: Record, target: str) -> NDArray[np.bool_]:
        rng = validation_rng(0)
        sheet = Sheet(record, (segment_example(record, target, rng),), None, False, rng)
        output = self.model(moved(self.collate([sheet]), self.model.device).batch)
        return at_size(output.masks.selected, record)

    def collate(self, items: Sequence[Sheet]) -> TextBatch:
        side = self.model.config.grounding.image_size // 2
        return text_batch(items, self.material.processor, self.material.numbers, side)

    def counts(self, batch: TextBatch) -> dict[str, float]:
        grounded = batch.present[batch.batch.seg_image >= 0]
        return {"text": float((batch.batch.labels[:, 1:] != IGNORED).sum()), **mask_counts(grounded)}

    def forward(self, batch: TextBatch) -> Sums:
        output = self.model(batch.batch)
        sums = {"text": text_sum(self.model, output.hidden, batch.batch.labels)}
        if output.masks is not None:
            sums |= mask_objective(output.masks, batch.truth, batch.present[batch.batch.seg_image >= 0])
        if isinstance(self, FSDPModule):
            # Shards are reduced over all processes, and another one may have masks: a gradient of zero, no pass.
            unused = [p.sum() for part in (self.model.bridge, self.model.grounder) for p in part.parameters()]
            sums["text"] = sums["text"] + 0.0 * torch.stack(unused).sum()
        return sums


def _published(model: UniBiomed, material: TrainingData, stage: Stage) -> StageTask:
    from .published.stage import PublishedStage  # it is a stage task itself

    return PublishedStage(model, material, stage)


KINDS: Mapping[str, Callable[[UniBiomed, TrainingData, Stage], StageTask]] = MappingProxyType(
    {"grounding": Grounding, "language": Language, "joint": Joint, "published": _published}
)


_TRIES = 100
