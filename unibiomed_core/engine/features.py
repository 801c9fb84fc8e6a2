"""Image features by content: a picture is encoded once, however many prompts and slices ask for it.

Legend: P image tokens of one picture, D language width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core.engine.devices import Placement
from unibiomed_core.model.grounder import GroundingFeatures
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

_TILES_PER_PASS = 16
"""Tiles that go through the vision transformer at once; a large picture alone has up to 13."""


@dataclass(slots=True)
class Counts:
    """How much work was done; tests and benchmarks read speed from these and not from a clock.

    Args:
        grounding_encodes: Pictures that went through SAM 2's image encoder.
        vision_encodes: Pictures that went through the vision transformer.
        prefix_reads: Pictures whose image tokens went through the language model.
        decode_steps: Language passes that gave one new token to each of a batch of answers.
        mask_decodes: Calls of the mask decoder, each for a batch of ``[SEG]``.
    """

    grounding_encodes: int = 0
    vision_encodes: int = 0
    prefix_reads: int = 0
    decode_steps: int = 0
    mask_decodes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """(H, W, 3) uint8 with the hash of its content."""

    rgb: NDArray[np.uint8]
    key: str

    @classmethod
    def of(cls, rgb: NDArray[np.uint8]) -> Picture:
        digest = hashlib.blake2b(rgb.tobytes(), digest_size=16)
        digest.update(repr(rgb.shape).encode())
        return cls(rgb, digest.hexdigest())


@dataclass(slots=True)
class FeatureStore:
    """Encodes pictures and keeps the latest results within ``budget_bytes``; the least recently used go first."""

    model: UniBiomed
    processor: Processor
    placement: Placement
    budget_bytes: int
    counts: Counts = field(default_factory=Counts)
    _kept: OrderedDict[tuple[str, str], Tensor | GroundingFeatures] = field(default_factory=OrderedDict)

    @property
    def held_bytes(self) -> int:
        return sum(item.nbytes for item in self._kept.values())

    def clear(self) -> None:
        self._kept.clear()

    def image_tokens(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """The language side's view of each picture, (P, D) each."""
        return self._get("vision", pictures, self._encode_tiles)

    def grounding(self, pictures: Sequence[Picture]) -> GroundingFeatures:
        """SAM 2's view, one row a picture, in the order given; float32."""
        rows: list[GroundingFeatures] = self._get("grounding", pictures, self._encode_grounding)
        return GroundingFeatures(
            torch.cat([row.fine for row in rows]).float(),
            torch.cat([row.middle for row in rows]).float(),
            torch.cat([row.embedding for row in rows]).float(),
        )

    def _get(self, kind: str, pictures: Sequence[Picture], encode: Callable[[list[Picture]], list[Any]]) -> list[Any]:
        missing = {p.key: p for p in pictures if (kind, p.key) not in self._kept}
        # Held here too, so that a batch larger than the budget still works.
        found = {p.key: self._kept[kind, p.key] for p in pictures if p.key not in missing}
        if missing:
            found.update(zip(missing, encode(list(missing.values())), strict=True))
        for key, item in found.items():
            self._kept[kind, key] = item
            self._kept.move_to_end((kind, key))
        while self._kept and self.held_bytes > self.budget_bytes:
            self._kept.popitem(last=False)
        return [found[p.key] for p in pictures]

    def _encode_tiles(self, pictures: list[Picture]) -> list[Tensor]:
        tiles = [self.processor.tiles(p.rgb) for p in pictures]
        stack = torch.cat(tiles).to(self.placement.device, self.placement.dtype)  # (N, 3, S, S)
        tokens = torch.cat([self.model.encode_tiles(part) for part in stack.split(_TILES_PER_PASS)])  # (N, P, D)
        self.counts.vision_encodes += len(pictures)
        # Copies: a view would keep the whole batch alive.
        return [t.flatten(0, 1).clone() for t in tokens.split([len(t) for t in tiles])]

    def _encode_grounding(self, pictures: list[Picture]) -> list[GroundingFeatures]:
        pixels = torch.stack([self.processor.grounding_pixels(p.rgb) for p in pictures]).to(self.placement.device)
        with self.placement.encoder_precision():
            features = self.model.grounder.encode(pixels)
        self.counts.grounding_encodes += len(pictures)
        rows = zip(*(t.split(1) for t in (features.fine, features.middle, features.embedding)), strict=True)
        return [GroundingFeatures(fine.clone(), middle.clone(), whole.clone()) for fine, middle, whole in rows]
