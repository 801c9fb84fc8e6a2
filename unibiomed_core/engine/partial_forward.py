"""The language model's layers, run no further than what is looked at.

The library's own forward pass makes the states of every place and prepares masks, angles and caches anew at each call.
Of the last layer only the keys and values are needed everywhere; its other three quarters run at the places whose
states are asked for. A token that is written costs the arithmetic of its layers and little else.

Legend: R rows, T tokens, K places asked for, D language width, H key heads, G query heads a key head, E width of a
head, W tokens that fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.engine.kv_cache import KeyValues, Prefix, empty_prefix
from unibiomed_core.model.unibiomed import UniBiomed


def read(model: UniBiomed, ids: Tensor, positions: Tensor, mask: Tensor, past: KeyValues, places: Tensor) -> Tensor:
    """Read texts behind their prefixes.

    Args:
        ids: (R, T) int64.
        positions: (R, T) int64.
        mask: (R, 1, T, T') bool, what each place looks at; T' counts from the first place of ``past``.
        past: Extended by T places.
        places: (R, K) int64, whose states are asked for.

    Returns:
        (R, K, D) hidden states after the last norm.
    """
    x, turn = _before_last(model, model.embed(ids, None), positions, mask, past)
    language: Any = model.vlm.model.language_model
    layer, block = language.layers[-1], language.layers[-1].self_attn
    _, _, rows, heads, _, width = past.states.shape
    keys, values = past.states[-1, :, :, :, : past.length]  # (R, H, T', E)
    x, cos, sin = (_at(places, t) for t in (x, *turn))  # (R, K, D), (R, K, E)
    query = _split(block.q_proj(_normed(layer.input_layernorm, x)), width)  # (R, H G, K, E)
    query = _turned(query, cos.unsqueeze(1), sin.unsqueeze(1)).reshape(rows, heads, -1, width)  # (R, H, G K, E)
    sees = _at(places, mask[:, 0]).repeat(1, query.shape[2] // places.shape[1], 1).unsqueeze(1)  # (R, 1, G K, T')
    given = F.scaled_dot_product_attention(query, keys, values, sees)  # (R, H, G K, E)
    given = given.reshape(rows, -1, places.shape[1], width).transpose(1, 2).flatten(2)  # (R, K, H G E)
    x = x + block.o_proj(given)
    x = x + layer.mlp(_normed(layer.post_attention_layernorm, x))
    return _normed(language.norm, x)


def read_prefixes(model: UniBiomed, ids: Sequence[Sequence[int]], image_tokens: Sequence[Tensor]) -> list[Prefix]:
    """One pass over prefixes of equal length; no state is asked for.

    Args:
        ids: One sequence of T ids each.
        image_tokens: (P, D) of each, as many as its ids have places for them.
    """
    past = KeyValues([empty_prefix(model)] * len(ids), len(ids[0]))
    tensor = torch.tensor([list(row) for row in ids], device=model.device)  # (R, T)
    positions = torch.arange(tensor.shape[1], device=tensor.device).expand_as(tensor)
    # Without a mask the library takes a causal one.
    _before_last(model, model.embed(tensor, torch.cat(list(image_tokens))), positions, None, past)
    # Copies: a view would keep the whole batch alive.
    return [Prefix(past.states[:, :, row].clone()) for row in range(len(ids))]


def _before_last(
    model: UniBiomed, x: Tensor, positions: Tensor, mask: Tensor | None, past: KeyValues
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """All layers but the last, and that one's keys and values; returns what enters it, and the angles."""
    language: Any = model.vlm.model.language_model
    turn = language.rotary_emb(x, positions)  # (R, T, E) twice
    cache = past.cache()
    for layer in language.layers[:-1]:
        x = layer(x, attention_mask=mask, position_embeddings=turn, cache=cache, use_cache=True)  # (R, T, D)
    block, width = language.layers[-1].self_attn, past.states.shape[-1]
    y = _normed(language.layers[-1].input_layernorm, x)
    start, stop = past.length, past.length + x.shape[1]
    keys = _split(block.k_proj(y), width)  # (R, H, T, E)
    past.states[-1, 0, :, :, start:stop] = _turned(keys, turn[0].unsqueeze(1), turn[1].unsqueeze(1))
    past.states[-1, 1, :, :, start:stop] = _split(block.v_proj(y), width)
    past.filled(x.shape[1])
    return x, turn


class DecodeStep:
    """Takes rows further token by token.

    Args:
        past: Keys and values of the prompts; extended in place.
        positions: (R,) int64, the position of each row's next token.
        seen: (R, W) bool, which places of ``past`` each row may look at, those still to be filled included; None where
            no row is padded.
    """

    def __init__(self, model: UniBiomed, past: KeyValues, positions: Tensor, seen: Tensor | None) -> None:
        self._model = model
        self._language: Any = model.vlm.model.language_model
        self._past = past
        self._positions = positions
        self._seen = None if seen is None else seen[:, None, None]  # (R, 1, 1, W)
        numbers = torch.arange(past.states.shape[4], device=positions.device).unsqueeze(0)
        cos, sin = self._language.rotary_emb(past.states, numbers)  # (1, W, E)
        self._cos, self._sin = cos[0], sin[0]

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on; (R',) int64."""
        self._past.keep(rows)
        self._positions = self._positions[rows]
        self._seen = None if self._seen is None else self._seen[rows]

    def step(self, ids: Tensor) -> Tensor:
        """(R,) ids -> (R, D) hidden states after the last norm."""
        x = self._model.embed(ids, None)  # (R, D)
        turn = self._cos[self._positions].unsqueeze(1), self._sin[self._positions].unsqueeze(1)  # (R, 1, E)
        mask = None if self._seen is None else self._seen[..., : self._past.length + 1]
        for layer, past in zip(self._language.layers, self._past.states, strict=True):
            x = x + self._attend(layer.self_attn, _normed(layer.input_layernorm, x), past, turn, mask)
            x = x + layer.mlp(_normed(layer.post_attention_layernorm, x))
        self._past.filled(1)
        self._positions = self._positions + 1
        return _normed(self._language.norm, x)

    def _attend(self, block: Any, x: Tensor, past: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        rows, heads, width = past.shape[1], past.shape[2], past.shape[4]
        place = self._past.length
        query = _turned(block.q_proj(x).view(rows, -1, width), *turn)  # (R, H G, E)
        past[0, :, :, place] = _turned(block.k_proj(x).view(rows, heads, width), *turn)
        past[1, :, :, place] = block.v_proj(x).view(rows, heads, width)
        keys, values = past[:, :, :, : place + 1]  # (R, H, T', E)
        # Query heads that share a key head stand as its queries: no key is copied.
        given = F.scaled_dot_product_attention(query.view(rows, heads, -1, width), keys, values, mask)  # (R, H, G, E)
        return block.o_proj(given.reshape(rows, -1))


def _at(places: Tensor, x: Tensor) -> Tensor:
    """(R, T, C) -> (R, K, C)."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def _split(x: Tensor, width: int) -> Tensor:
    """(R, T, H E) -> (R, H, T, E)."""
    return x.unflatten(2, (-1, width)).transpose(1, 2)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), the halves of a head paired."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
