"""The targets of a run: which there are, where they occur, and the fixed vector that stands for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from unibiomed_core import vocabulary
from unibiomed_core.tasks import NO_FINDINGS

from .records import RecordSet

NOTHING = NO_FINDINGS
"""The target of a ``[SEG]`` whose mask is empty because nothing is wrong."""

CODE_SCALE = 0.5
_CODE_SEED = 7


def trained_targets(records: RecordSet) -> dict[str, tuple[str, ...]]:
    """Modality -> targets that pictures show: vocabulary order, then the data's own names."""
    seen = {(modality, target) for _, modality, target in records.target_counts()}
    order = {name: number for number, name in enumerate(vocabulary.targets())}
    return {
        m: tuple(sorted((t for k, t in seen if k == m), key=lambda t: (order.get(t, len(order)), t)))
        for m in sorted({m for m, _ in seen})
    }


def target_codes(names: Iterable[str], width: int) -> Tensor:
    """(targets, C) fixed random vectors.

    The grounding stage learns to answer them and the language stage to produce them, so that the two need not wait
    for one another. A target of the vocabulary has the vector of its place there (new targets are added at its end, so
    that a model can go on from an older one); any other name has one made from its letters.
    """
    ordered = (*vocabulary.targets(), NOTHING)
    rows = torch.randn(len(ordered), width, generator=torch.Generator().manual_seed(_CODE_SEED))
    known = dict(zip(ordered, rows, strict=True))
    return torch.stack([known[n] if n in known else _from_letters(n, width) for n in names]) * CODE_SCALE


def _from_letters(name: str, width: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % 2**63
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))
