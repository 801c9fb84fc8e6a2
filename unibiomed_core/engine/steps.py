"""One token further for a batch of rows: the language model's layers without what the library prepares at every call.

The library builds a mask, turns positions into angles and joins caches anew for each token, which on small models costs
more than the arithmetic. Here angles are made once, keys and values stand in one block, and the mask is sliced.

Legend: R rows, D language width, H key heads, G query heads a key head, E width of a head, W tokens that fit.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.engine.prefixes import KeyValues
from unibiomed_core.model.unibiomed import UniBiomed


class Stepper:
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
        last = past.states.shape[4]
        numbers = torch.arange(last, device=positions.device).unsqueeze(0)
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
        place = self._past.length
        turn = self._cos[self._positions].unsqueeze(1), self._sin[self._positions].unsqueeze(1)  # (R, 1, E)
        mask = None if self._seen is None else self._seen[..., : place + 1]
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
        keys, values = past[:, :, :, : place + 1]  # (R, H, W', E)
        # Query heads that share a key head stand as its queries: no key is copied.
        given = F.scaled_dot_product_attention(query.view(rows, heads, -1, width), keys, values, mask)  # (R, H, G, E)
        return block.o_proj(given.reshape(rows, -1))


def _normed(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves of a head paired; (R, N, E)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
