"""Image features by content: a picture is encoded once, however many prompts and slices ask for it.

Legend: P image tokens of one picture, D language width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core.engine.devices import DevicePlacement
from unibiomed_core.engine.kv_cache import Prefix, empty_prefix
from unibiomed_core.engine.partial_forward import read_prefixes
from unibiomed_core.model.grounder import GroundingFeatures
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

T = TypeVar("T")

_TILES_PER_PASS = 16
"""Tiles that go through the vision transformer at once; a large picture alone has up to 13."""


@dataclass(slots=True)
class WorkCounts:
    """How much work was done; tests and benchmarks read speed from these and not from a clock.

    Of a model with one tower for both sides, a picture that goes through it for the language side counts as both.

    Args:
        grounding_encodes: Pictures that went through SAM 2's image encoder.
        vision_encodes: Pictures that went through the vision transformer.
        prefix_reads: Pictures whose image tokens went through the language model.
        text_tokens: Ids behind pictures that went through the language model to be read, prompts and known answers.
        decode_steps: Language passes that gave one new token to each of a batch of answers.
        mask_decodes: Calls of the mask decoder, each for a batch of ``[SEG]``.
    """

    grounding_encodes: int = 0
    vision_encodes: int = 0
    prefix_reads: int = 0
    text_tokens: int = 0
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
    placement: DevicePlacement
    budget_bytes: int
    counts: WorkCounts = field(default_factory=WorkCounts)
    _kept: OrderedDict[Hashable, Tensor | GroundingFeatures | Prefix] = field(default_factory=OrderedDict)

    @property
    def held_bytes(self) -> int:
        return sum(item.nbytes for item in self._kept.values())

    def clear(self) -> None:
        self._kept.clear()

    def image_tokens(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """The language side's view of each picture, (P, D) each."""
        return self._get([("vision", p.key) for p in pictures], pictures, self._encode_tiles)

    def prefixes(self, asked: Sequence[tuple[Picture | None, tuple[int, ...]]]) -> list[Prefix]:
        """What the language model made of each picture and the ids around it, up to the picture's closing mark.

        A picture that was read before with the same ids goes through neither the vision transformer nor the language
        model. Equal ones are the same object; without a picture nothing is read.
        """
        shown = [(p, ids) for p, ids in asked if p is not None]
        read = iter(self._get([("prefix", p.key, ids) for p, ids in shown], shown, self._read_prefixes))
        nothing = empty_prefix(self.model)
        return [nothing if p is None else next(read) for p, _ in asked]

    def grounding(self, pictures: Sequence[Picture]) -> GroundingFeatures:
        """SAM 2's view, one row a picture, in the order given; float32."""
        rows = self._get([("grounding", p.key) for p in pictures], pictures, self._encode_grounding)
        return GroundingFeatures(
            torch.cat([row.fine for row in rows]).float(),
            torch.cat([row.middle for row in rows]).float(),
            torch.cat([row.embedding for row in rows]).float(),
        )

    def _get(self, keys: Sequence[Hashable], items: Sequence[T], make: Callable[[list[T]], Sequence[Any]]) -> list[Any]:
        """What is kept under each key; what is missing is made of its items in one call, and kept once all of it is."""
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in self._kept}
        # Held here too, so that a batch larger than the budget still works.
        found = {key: self._kept[key] for key in keys if key not in missing}
        if missing:
            found.update(zip(missing, make(list(missing.values())), strict=True))
        for key, item in found.items():
            self._kept[key] = item
            self._kept.move_to_end(key)
        held = self.held_bytes
        while self._kept and held > self.budget_bytes:
            held -= self._kept.popitem(last=False)[1].nbytes
        return [found[key] for key in keys]

    def _read_prefixes(self, asked: list[tuple[Picture, tuple[int, ...]]]) -> list[Prefix]:
        made: dict[int, Prefix] = {}
        for length in dict.fromkeys(len(ids) for _, ids in asked):
            same = [n for n, (_, ids) in enumerate(asked) if len(ids) == length]
            tokens = self.image_tokens([asked[n][0] for n in same])
            made.update(zip(same, read_prefixes(self.model, [asked[n][1] for n in same], tokens), strict=True))
            self.counts.prefix_reads += len(same)
        return [made[n] for n in range(len(asked))]

    def _encode_tiles(self, pictures: list[Picture]) -> list[Tensor]:
        tiles = [self.processor.tiles(p.rgb) for p in pictures]
        if self.model.config.tower.shared:
            return self._encode_shared(pictures, torch.cat(tiles).to(self.placement.device))
        stack = torch.cat(tiles).to(self.placement.device, self.placement.dtype)  # (N, 3, S, S)
        tokens = torch.cat([self.model.encode_tiles(part) for part in stack.split(_TILES_PER_PASS)])  # (N, P, D)
        self.counts.vision_encodes += len(pictures)
        # Copies: a view would keep the whole batch alive.
        return [t.flatten(0, 1).clone() for t in tokens.split([len(t) for t in tiles])]

    def _encode_shared(self, pictures: list[Picture], stack: Tensor) -> list[Tensor]:
        """Image tokens; what the mask side will ask for is kept beside them, since one pass gives both.

        Args:
            stack: (B, 3, S, S) float32; a shared tower takes one tile a picture.
        """
        with self.placement.encoder_precision():
            tokens, features = self.model.encode_shared(stack)
        self.counts.vision_encodes += len(pictures)
        self.counts.grounding_encodes += len(pictures)
        for picture, row in zip(pictures, _rows(features), strict=True):
            self._kept[("grounding", picture.key)] = row
        return [t.clone() for t in tokens]

    def _encode_grounding(self, pictures: list[Picture]) -> list[GroundingFeatures]:
        pixels = torch.stack([self.processor.grounding_pixels(p.rgb) for p in pictures]).to(self.placement.device)
        with self.placement.encoder_precision():
            features = self.model.grounder.encode(pixels)
        self.counts.grounding_encodes += len(pictures)
        return _rows(features)


def _rows(features: GroundingFeatures) -> list[GroundingFeatures]:
    """One row each, copied: a view would keep the whole batch alive."""
    rows = zip(*(t.split(1) for t in (features.fine, features.middle, features.embedding)), strict=True)
    return [GroundingFeatures(fine.clone(), middle.clone(), whole.clone()) for fine, middle, whole in rows]
