"""Which parameters a run trains, by named rules; and token rows that are trained without the table they stand in.

Legend: B sequences, T tokens, D width, V vocabulary, R trained rows, the last ones of V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibiomed_core.errors import ConfigError
from unibiomed_core.model.adapters import lora_parameter_count, merge_lora
from unibiomed_core.model.unibiomed import UniBiomed

_PUBLISHED_IN_SAM = ("mask_decoder.", "prompt_encoder.", "memory_attention.", "memory_encoder.")
"""Parts of SAM 2 that the published recipe marks; the image encoder and all loose vectors are frozen."""

_USED_IN_SAM = ("mask_decoder.", "prompt_encoder.not_a_point_embed.", "prompt_encoder.no_mask_embed.")
"""Of them, what a language prompt on a single picture reaches."""


class RowsOfEmbedding(nn.Module):
    """A frozen embedding whose rows from ``first`` on are trained: a small table, zero at first, is added to them.

    A gradient of the whole table (136 M elements at 1B) is never made. Weight decay acts on what was added, so that it
    pulls towards the rows that training started from.
    """

    def __init__(self, base: nn.Embedding, first: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        self.added = nn.Parameter(torch.zeros_like(base.weight[first:]))  # (R, D)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, D)."""
        extra = F.embedding((ids - self.first).clamp(min=0), self.added)
        return self.base(ids) + extra * (ids >= self.first).unsqueeze(-1)


class RowsOfHead(nn.Module):
    """The same for the head: the logits of the last rows have a trained part."""

    def __init__(self, base: nn.Linear, first: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        self.added = nn.Parameter(torch.zeros_like(base.weight[first:]))  # (R, D)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        logits: Tensor = self.base(hidden)
        return logits + F.pad(F.linear(hidden, self.added), (self.first, 0))


def select_trained(model: UniBiomed, rule: str) -> None:
    """Turn gradients on for the parameters of a rule and off for all others; calling it again changes nothing.

    Raises:
        ConfigError: There is no such rule, or it needs adapters and the model has none.
    """
    if rule not in RULES:
        raise ConfigError("Unknown rule of what is trained", f"'{rule}'", f"one of {', '.join(RULES)}")
    model.requires_grad_(False)
    RULES[rule](model)


def plain(model: UniBiomed) -> None:
    """Add adapters and trained rows to the weights they belong to, so that the model can be saved."""
    if lora_parameter_count(model):
        merge_lora(model)
    for parent, name in _TABLES:
        owner = model.get_submodule(parent)
        table: Any = getattr(owner, name)
        if isinstance(table, RowsOfEmbedding | RowsOfHead):
            with torch.no_grad():
                table.base.weight[table.first :] += table.added
            setattr(owner, name, table.base)


_TABLES = (("vlm.model.language_model", "embed_tokens"), ("vlm", "lm_head"))


def _everything(model: UniBiomed) -> None:
    model.requires_grad_(True)


def _as_published(model: UniBiomed) -> None:
    """Adapters, both token tables whole, projector, bridge, and the parts of SAM 2 behind its image encoder.

    Memory attention and memory encoder are marked as well, though no gradient ever reaches them.
    """
    _shared_parts(model, _PUBLISHED_IN_SAM)
    model.vlm.get_input_embeddings().requires_grad_(True)
    model.vlm.lm_head.requires_grad_(True)


def _ours(model: UniBiomed) -> None:
    """The same parts without waste: of the token tables only the rows from ``[SEG]`` on, of SAM 2 only what is used."""
    _shared_parts(model, _USED_IN_SAM)
    for parent, name in _TABLES:
        owner = model.get_submodule(parent)
        table: Any = getattr(owner, name)
        if isinstance(table, nn.Embedding):
            table = RowsOfEmbedding(table, model.ids.seg)
        elif isinstance(table, nn.Linear):
            table = RowsOfHead(table, model.ids.seg)
        setattr(owner, name, table)
        table.added.requires_grad_(True)


def _shared_parts(model: UniBiomed, in_sam: tuple[str, ...]) -> None:
    if not lora_parameter_count(model):
        raise ConfigError(
            "No adapters to train", "the language model's own weights are frozen by this rule", "adapters",
            "Set adapters=128, or another rank.",
        )  # fmt: skip
    for name, parameter in model.vlm.model.language_model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.vlm.model.multi_modal_projector.requires_grad_(True)
    model.bridge.requires_grad_(True)
    for name, parameter in model.grounder.sam.named_parameters():
        parameter.requires_grad_(name.startswith(in_sam))


RULES: Mapping[str, Callable[[UniBiomed], None]] = MappingProxyType(
    {"all": _everything, "published": _as_published, "ours": _ours}
)
"""Name of a rule -> what turns gradients on."""
