"""What every stage of training shares: its material, one sample, and what a stage must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from unibiomed_core import vocabulary
from unibiomed_core.model.lite0 import Lite0
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

from ..config import Stage
from ..data.batches import IGNORED
from ..data.records import Record, RecordSet
from ..data.sampler import Sampler
from ..data.targets import NOTHING, trained_targets

_SALTS = {"grounding": 0, "language": 1, "joint": 2, "published": 3, "boxed": 11}
"""Added to the seed, so that stages do not show the same records in the same order."""

_LAYERS = {"InternVLVisionLayer", "LlamaDecoderLayer", "Qwen2DecoderLayer"}
"""Not those of SAM 2: a batch without masks never passes them, which only the outermost shards allow."""

_VALIDATION = 5


class TrainingData:
    """What every stage of a run draws from.

    Attributes:
        held_out: (N,) bool, records of patients that are kept to validate with.
        known: Modality -> targets that the training records show.
        names: Every target a ``[SEG]`` can stand for; ``numbers`` is the way back.
    """

    def __init__(self, records: RecordSet, processor: Processor, seed: int, validation_share: float = 0.0) -> None:
        self.records = records
        self.held_out = records.held_out(validation_share)
        self.processor = processor
        self.seed = seed
        self.known = trained_targets(records)
        own = {t for names in self.known.values() for t in names}
        self.names = (*vocabulary.targets(), NOTHING, *sorted(own - set(vocabulary.targets())))
        self.numbers: Mapping[str, int] = {name: n for n, name in enumerate(self.names)}

    def sampler(self, salt: int, usable: NDArray[np.bool_] | None = None) -> Sampler:
        """A sampler of the records that are trained on, of those that are ``usable`` where that is given."""
        trained = ~self.held_out if usable is None else usable & ~self.held_out
        return Sampler(self.records, self.seed + salt, trained)


@dataclass(frozen=True)
class StageSample:
    """One record of a step with the generator of everything random about it."""

    record: Record
    rng: np.random.Generator


class StageTask(nn.Module, ABC):
    """A kind of stage. Its parameters are what the stage trains and checkpoints.

    ``plan`` says what a step shows, for all processes alike; ``collate`` makes tensors of the part that one process
    has; ``counts`` says what the sums that the forward pass gives are divided by.
    """

    skips_parts = False
    """Whether a batch may use some of the trained parameters and not others."""

    def __init__(self, material: TrainingData, stage: Stage) -> None:
        super().__init__()
        self.material = material
        self.stage = stage
        self.sampler = material.sampler(_SALTS[stage.kind])

    @property
    def _no_split_modules(self) -> list[str]:
        """What FSDP shards one by one, by the library's name for it: the transformer layers that every batch passes."""
        kinds = {type(module).__name__ for module in self.modules()}
        return sorted(kinds & _LAYERS)

    @property
    def samples_per_pass(self) -> int:
        """Samples that make one pass over the records."""
        return len(self.material.records)

    def select_trained(self) -> None:
        """Turn gradients on for what the stage trains: by default every parameter it has, but what a shared tower has
        of frozen stages."""
        self.requires_grad_(True)
        for part in self.modules():
            if isinstance(part, Lite0):
                part.freeze(self.stage.tower_frozen)

    def plan(self, step: int) -> list[Any]:
        """The step's samples, ``batch_size`` of them, in a fixed order."""
        return [StageSample(record, rng) for record, rng in self.sampler.samples(step, self.stage.batch_size)]

    @abstractmethod
    def item(self, index: int, number: int) -> Any:
        """A sample of one given record, drawn alike each time; None where the stage has no use for it."""

    def segment(self, record: Record, target: str) -> NDArray[np.bool_] | None:
        """(H, W) mask of a target at the record's size; None for a stage that makes none."""
        return None

    def length(self, item: Any) -> int:
        """What a sample costs; samples of like length are put into one micro-batch."""
        return 1

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Any:
        """Tensors of some samples."""

    @abstractmethod
    def counts(self, batch: Any) -> dict[str, float]:
        """Loss name -> what its sum is divided by."""


def validation_rng(number: int) -> np.random.Generator:
    return np.random.default_rng([_VALIDATION, number])


def at_size(logits: Tensor, record: Record) -> NDArray[np.bool_]:
    """(1, H, W) logits -> bool at the record's size."""
    return np.asarray((F.interpolate(logits[None].float(), size=record.stored_size, mode="bilinear")[0, 0] > 0).cpu())


def text_sum(model: UniBiomed, hidden: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the next token, summed over answer positions; logits are made for those positions only."""
    wanted = labels[:, 1:]
    where = wanted != IGNORED
    return F.cross_entropy(model.logits(hidden[:, :-1][where]).float(), wanted[where], reduction="sum")


def moved(batch: Any, device: torch.device) -> Any:
    """A batch (a dataclass of tensors and of such dataclasses) on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if is_dataclass(batch) and not isinstance(batch, type):
        return type(batch)(**{f.name: moved(getattr(batch, f.name), device) for f in fields(batch)})
    return batch
