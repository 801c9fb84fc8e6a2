"""Keys and values of the language model: what stands before a question, kept; and room for what follows it.

Legend: L layers, R rows, H key heads, T tokens, W tokens that fit, E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from unibiomed_core.model.unibiomed import UniBiomed


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """One picture and the ids around it, as the language model has read them.

    Args:
        states: (L, 2, H, T, E) keys and values in the language model's precision; T is 0 for a text without a picture.
    """

    states: Tensor

    @property
    def length(self) -> int:
        return self.states.shape[3]

    @property
    def nbytes(self) -> int:
        return self.states.numel() * self.states.element_size()


def empty_prefix(model: UniBiomed) -> Prefix:
    """What stands before a text without a picture: nothing."""
    sizes = model.config.language
    shape = (sizes.layers, 2, sizes.kv_heads, 0, sizes.hidden // sizes.heads)
    return Prefix(torch.zeros(shape, dtype=model.vlm.dtype, device=model.device))


def token_bytes(model: UniBiomed) -> int:
    """Bytes of the keys and values of one token."""
    sizes = model.config.language
    return 2 * sizes.layers * sizes.kv_heads * (sizes.hidden // sizes.heads) * model.vlm.dtype.itemsize


class KeyValues:
    """Keys and values of a batch of rows in one block of memory, which is filled and never grown.

    Args:
        prefixes: One a row, of equal length; they are copied.
        room: Tokens that may follow.
    """

    def __init__(self, prefixes: Sequence[Prefix], room: int) -> None:
        layers, two, heads, start, width = prefixes[0].states.shape
        like = prefixes[0].states
        self.states = like.new_empty(layers, two, len(prefixes), heads, start + room, width)  # (L, 2, R, H, W, E)
        for row, prefix in enumerate(prefixes):
            self.states[:, :, row, :, :start] = prefix.states
        self.length = start

    def cache(self) -> Cache:
        """A view for the library's own layers, which fill the same memory; see :meth:`filled`."""
        cache = DynamicCache()
        cache.layers = [_Layer(keys, values, self.length) for keys, values in self.states]
        return cache

    def filled(self, tokens: int) -> None:
        """Note that a pass wrote so many tokens."""
        self.length += tokens

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on; (R',) int64."""
        self.states = self.states[:, :, rows]


class _Layer(DynamicLayer):
    """The library's growing layer over memory that is already there."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self._all = keys, values  # (R, H, W, E) each
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._show(length)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write (R, H, T, E) behind what is there; returns all of it."""
        start = self.get_seq_length()
        stop = start + key_states.shape[2]
        for whole, new in zip(self._all, (key_states, value_states), strict=True):
            whole[:, :, start:stop] = new
        self._show(stop)
        return self.keys, self.values  # type: ignore[return-value]

    def _show(self, length: int) -> None:
        self.keys, self.values = (whole[:, :, :length] for whole in self._all)
