"""What happens where two targets claim the same pixel of a slice.

The rule, in this order:

1. Targets that can be in one place keep their masks: a finding or a device in an organ, a part in its whole
   (``within`` in the vocabulary), a target that the vocabulary does not know, and everything in pictures that show
   depth as one plane (X-ray) or that are no cross-sections of a patient.
2. Else the pixel goes to the mask with the higher score; at equal scores to the smaller mask.

In the label image, which holds one number a voxel, the smaller finding lies on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.linking import SliceMask
from unibiomed_core.types import CroppedMask

CROSS_SECTIONS = ("ct", "mri", "pet")
"""Modalities whose pixels show one place in the patient each."""


@cache
def may_share(first: str, second: str, modality: str) -> bool:
    """Whether two targets, by canonical name, can be in one place."""
    if first == second or modality not in CROSS_SECTIONS:
        return True
    a, b = vocabulary.find(first, modality), vocabulary.find(second, modality)
    if a is None or b is None or a.kind != b.kind or a.kind == "object":
        return True
    return b.name in vocabulary.wholes(a.name) or a.name in vocabulary.wholes(b.name)


def settle(masks: Sequence[SliceMask], modality: str) -> tuple[list[SliceMask], Counter[tuple[str, str]]]:
    """Give contested pixels of one slice to one target each.

    Args:
        masks: All masks of one slice, ``target`` being canonical names.

    Returns:
        The masks in their order, those that lost every pixel left out; and (winner, loser) -> number of pixels.
    """
    order = sorted(range(len(masks)), key=lambda i: (-masks[i].score, masks[i].mask.count))
    settled: dict[int, SliceMask] = {}
    contested: Counter[tuple[str, str]] = Counter()
    for number in order:
        mask = masks[number]
        for other in settled.values():
            if may_share(other.target, mask.target, modality):
                continue
            rest, lost = _without(mask.mask, other.mask)
            if lost:
                contested[other.target, mask.target] += lost
                mask = replace(mask, mask=rest)
        if mask.mask.crop.any():
            settled[number] = mask
    return [settled[i] for i in sorted(settled)], contested


def _without(mask: CroppedMask, other: CroppedMask) -> tuple[CroppedMask, int]:
    """A mask less the pixels of another, and how many these are; the same mask where they do not meet."""
    low = np.maximum(mask.offset, other.offset)
    high = np.minimum(np.add(mask.offset, mask.crop.shape), np.add(other.offset, other.crop.shape))
    if (low >= high).any():
        return mask, 0
    own, its = (tuple(slice(a, b) for a, b in zip(low - m.offset, high - m.offset, strict=True)) for m in (mask, other))
    both = mask.crop[own] & other.crop[its]
    lost = int(both.sum())
    if not lost:
        return mask, 0
    crop = mask.crop.copy()
    crop[own] &= ~both
    return CroppedMask(crop, mask.offset, mask.shape), lost
