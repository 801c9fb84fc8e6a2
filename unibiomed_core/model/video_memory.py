"""From slice to slice: a language vector prompts some slices, SAM 2's memory carries their masks onwards.

Legend: C decoder width, D language width, K targets, M memory width, P image tokens, h w embedding grid, S model side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.errors import ConfigError, PromptError
from unibiomed_core.model.grounder import Grounder, GroundingFeatures, MaskOutput
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

PROMPTED_SLICES = 5
"""How many slices from the first on the published model shows to the language side and prompts."""

POINTERS = 16
"""Object pointers that a tracked slice attends to at most, its own place counted in."""

MEMORY_SCALE, MEMORY_BIAS = 20.0, -10.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What a finished slice leaves behind: (h w, 1, M) features, their positions, and a (1, C) pointer."""

    features: Tensor
    positions: Tensor
    pointer: Tensor


@dataclass(slots=True)
class Track:
    """One target on its way through the slices, in one direction.

    Prompted slices are remembered for good, the others for as long as a later one can ask for them.

    Args:
        length: Slices of the whole way; short ways attend to fewer pointers.
    """

    grounder: Grounder
    length: int
    prompted: list[Memory] = field(default_factory=list)
    tracked: dict[int, Memory] = field(default_factory=dict)

    def prompt(self, features: GroundingFeatures, vector: Tensor) -> MaskOutput:
        """The mask of a slice that the language vector (C,) prompts; no memory is looked at."""
        output = self.grounder.decode(features, vector.unsqueeze(0), torch.zeros(1, dtype=torch.int64))
        self.prompted.append(_remember(self.grounder, features, output))
        return output

    def follow(self, features: GroundingFeatures, place: int) -> MaskOutput:
        """The mask of a slice that sees memories and no prompt.

        Args:
            place: Grows along the way by 1 a slice; memories are told apart by how far back they are.
        """
        embedding = _conditioned(self.grounder, features, self.prompted, self.tracked, place, self.length)
        output = self.grounder.decode_conditioned(features, embedding)
        self.tracked[place] = _remember(self.grounder, features, output)
        self.tracked.pop(place - max(POINTERS, self.grounder.sizes.memory_slots), None)
        return output


def require_memory(grounder: Grounder) -> None:
    """Refuse a model that cannot follow.

    Raises:
        ConfigError: The model has no memory parts.
    """
    if not grounder.sizes.memory:
        raise ConfigError(
            "No memory parts",
            "this model cannot follow a target through slices",
            "a model with SAM 2's memory, as the published one has",
            "Take another plan, e.g. 'coarse-to-fine'.",
        )


@torch.no_grad()
def propagate(
    grounder: Grounder, slices: Iterable[GroundingFeatures], vectors: Tensor, length: int
) -> Iterator[list[MaskOutput]]:
    """The published volume path: masks of K targets in every slice, in order.

    The first five slices are prompted independently. Later ones see the memories of those five and of the last six
    tracked slices, and no prompt.

    Args:
        slices: Features of one slice each.
        vectors: (K, C), the bridge's vector of each target's ``[SEG]`` token.
        length: How many slices there are.

    Yields:
        One output a target.

    Raises:
        ConfigError: The model has no memory parts.
    """
    require_memory(grounder)
    tracks = [Track(grounder, length) for _ in vectors]
    for place, features in enumerate(slices):
        if place < PROMPTED_SLICES:
            yield [track.prompt(features, vector) for track, vector in zip(tracks, vectors, strict=True)]
        else:
            yield [track.follow(features, place) for track in tracks]


@torch.no_grad()
def language_vector(
    model: UniBiomed, processor: Processor, image_tokens: Tensor, tiles_per_frame: Sequence[int], text: str, answer: str
) -> Tensor:
    """(C,) the bridge's vector of an answer's first ``[SEG]`` token, the answer being read behind its frames.

    Args:
        image_tokens: (P, D), or (tiles, P / tiles, D), of all frames in order.
        tiles_per_frame: How many tiles each frame has.
        text: What stands between the chat markers, ``<image>`` not yet expanded.

    Raises:
        PromptError: The answer has no ``[SEG]``, or is too long with its frames.
    """
    prompt = processor.encode(processor.expand_image(processor.chat(text), tiles_per_frame))
    given = processor.encode(answer)
    if processor.ids.seg not in given:
        raise PromptError("Nothing to follow", f"the answer '{answer[:80]}' marks no region", "an answer with [SEG]")
    limit = model.config.language.max_positions
    if len(prompt) + len(given) > limit:
        raise PromptError("Prompt too long", f"{len(prompt) + len(given)} tokens", f"at most {limit}", "Shorten it.")
    ids = torch.tensor([[*prompt, *given]], device=model.device)
    hidden = model.language(model.embed(ids, image_tokens))[0]
    return model.bridge(hidden[len(prompt) + given.index(processor.ids.seg)].float())


def _remember(grounder: Grounder, features: GroundingFeatures, output: MaskOutput) -> Memory:
    """Encode a slice with its mask; kept in bfloat16 as published, which shows in the later slices' numbers."""
    sam: Any = grounder.sam
    side = grounder.sizes.image_size
    whole = F.interpolate(output.selected.unsqueeze(1).float(), size=(side, side), mode="bilinear", align_corners=False)
    encoded, positions = sam.memory_encoder(features.embedding, whole.sigmoid() * MEMORY_SCALE + MEMORY_BIAS)
    token = output.tokens[torch.arange(1), output.best]  # (1, C)
    seen = output.object_score.unsqueeze(1) > 0
    pointer = torch.where(seen, sam.object_pointer_proj(token), sam.no_object_pointer)
    return Memory(_flat(encoded.bfloat16().float()), _flat(positions), pointer)


def _conditioned(
    grounder: Grounder,
    features: GroundingFeatures,
    prompted: Sequence[Memory],
    tracked: dict[int, Memory],
    index: int,
    total: int,
) -> Tensor:
    """(1, C, h, w) embedding of a slice after attention to memories and object pointers."""
    sam: Any = grounder.sam
    sizes = grounder.sizes
    times = sam.memory_temporal_positional_encoding  # (slots, 1, 1, M); the last one is for prompted slices
    near = [(back, tracked.get(index - back)) for back in range(sizes.memory_slots - 1, 0, -1)]
    kept = [(0, memory) for memory in prompted] + [(back, memory) for back, memory in near if memory is not None]
    pointers = [memory.pointer for memory in prompted]
    for back in range(1, min(total, POINTERS)):
        if (memory := tracked.get(index - back)) is not None:
            pointers.append(memory.pointer)
    # A pointer of width C is cut into C / M tokens of width M; they carry no position.
    tokens = torch.stack(pointers).reshape(len(pointers), 1, -1, sizes.memory_dim).permute(0, 2, 1, 3).flatten(0, 1)
    memories = torch.cat([*(memory.features for _, memory in kept), tokens])
    positions = torch.cat([*(memory.positions + times[back - 1] for back, memory in kept), torch.zeros_like(tokens)])
    grid = features.embedding
    own = sam.vision_encoder.neck.position_encoding(grid.shape, grid.device, grid.dtype)
    attended = sam.memory_attention(
        current_vision_features=_flat(grid),
        current_vision_position_embeddings=_flat(own),
        memory=memories,
        memory_posision_embeddings=positions,
        num_object_pointer_tokens=len(tokens),
    )
    return attended.reshape(-1, 1, grid.shape[1]).permute(1, 2, 0).reshape(grid.shape)


def _flat(maps: Tensor) -> Tensor:
    """(1, C, h, w) -> (h w, 1, C)."""
    return maps.flatten(2).permute(2, 0, 1)
