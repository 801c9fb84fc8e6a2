"""The published volume path: one language vector prompts the first slices, SAM 2's memory carries them onwards.

Legend: C decoder width, M memory width, h w embedding grid, S model side, F slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.errors import ConfigError
from unibiomed_core.model.grounder import Grounder, GroundingFeatures, MaskOutput

PROMPTED_SLICES = 5
"""How many slices from the first on the published model shows to the language side and prompts."""

POINTERS = 16
"""Object pointers that a tracked slice attends to at most, its own place counted in."""

MEMORY_SCALE, MEMORY_BIAS = 20.0, -10.0


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a finished slice leaves behind: (h w, 1, M) features, their positions, and a (1, C) pointer."""

    features: Tensor
    positions: Tensor
    pointer: Tensor


@torch.no_grad()
def propagate(grounder: Grounder, slices: Sequence[Tensor], prompt: Tensor) -> Iterator[MaskOutput]:
    """Masks of one target in every slice, in order.

    The first five slices are prompted independently. Later ones see the memories of those five and of the last six
    tracked slices, and no prompt. A memory is kept for as long as a later slice can ask for it.

    Args:
        slices: F tensors (3, S, S), normalised.
        prompt: (C,), the bridge's vector of the ``[SEG]`` token.

    Raises:
        ConfigError: The model has no memory parts.
    """
    if not grounder.sizes.memory:
        raise ConfigError("No memory parts", "this model cannot follow a target through slices", "one with memory")
    prompted: list[_Memory] = []
    tracked: dict[int, _Memory] = {}
    for index, pixels in enumerate(slices):
        features = grounder.encode(pixels.unsqueeze(0))
        if index < PROMPTED_SLICES:
            output = grounder.decode(features, prompt.unsqueeze(0), torch.zeros(1, dtype=torch.int64))
        else:
            output = grounder.decode_conditioned(
                features, _conditioned(grounder, features, prompted, tracked, index, len(slices))
            )
        memory = _remember(grounder, features, output)
        if index < PROMPTED_SLICES:
            prompted.append(memory)
        else:
            tracked[index] = memory
            tracked.pop(index - max(POINTERS, grounder.sizes.memory_slots), None)
        yield output


def _remember(grounder: Grounder, features: GroundingFeatures, output: MaskOutput) -> _Memory:
    """Encode a slice with its mask; kept in bfloat16 as published, which shows in the later slices' numbers."""
    sam: Any = grounder.sam
    side = grounder.sizes.image_size
    whole = F.interpolate(output.selected.unsqueeze(1).float(), size=(side, side), mode="bilinear", align_corners=False)
    encoded, positions = sam.memory_encoder(features.embedding, whole.sigmoid() * MEMORY_SCALE + MEMORY_BIAS)
    token = output.tokens[torch.arange(1), output.best]  # (1, C)
    seen = output.object_score.unsqueeze(1) > 0
    pointer = torch.where(seen, sam.object_pointer_proj(token), sam.no_object_pointer)
    return _Memory(_flat(encoded.bfloat16().float()), _flat(positions), pointer)


def _conditioned(
    grounder: Grounder,
    features: GroundingFeatures,
    prompted: Sequence[_Memory],
    tracked: dict[int, _Memory],
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
