"""Parts stand below their wholes, what is abnormal before what is not, and a thing that is told twice is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.linking import LinkedMask
from unibiomed_core.report.sections import is_abnormal, nested
from unibiomed_core.types import CroppedMask, Finding

INSIDE = 0.5
"""Of a part, at least this share lies in its whole."""

SAME = 0.7
"""Two outlines that share so much of what both cover (intersection over union) are one thing."""


def without_doubles(things: Sequence[LinkedMask]) -> tuple[LinkedMask, ...]:
    """Things without those that a more special name tells too: the lesion that is outlined as a lung tumour as well."""
    known = vocabulary.targets()
    general: set[int] = set()
    for thing in things:
        if thing.target not in known:
            continue
        wholes = vocabulary.wholes(thing.target)
        for number, other in enumerate(things):
            if other.target in wholes and known[other.target].kind == known[thing.target].kind:
                shared = _shared(thing.mask, other.mask)
                if shared and shared >= SAME * (thing.mask.count + other.mask.count - shared):
                    general.add(number)
    return tuple(thing for number, thing in enumerate(things) if number not in general)


def without_strays(things: Sequence[LinkedMask]) -> tuple[LinkedMask, ...]:
    """Things without wholes that lie beside their own sides: the lungs are where the left and the right one are."""
    known = vocabulary.targets()
    sides: dict[str, list[LinkedMask]] = {}
    for thing in things:
        if thing.target in known and known[thing.target].side is not None:
            for whole in vocabulary.wholes(thing.target):
                sides.setdefault(whole, []).append(thing)

    def astray(thing: LinkedMask) -> bool:
        parts = sides.get(thing.target, [])
        inside = sum(_shared(part.mask, thing.mask) for part in parts)
        return bool(parts) and inside < INSIDE * sum(part.mask.count for part in parts)

    return tuple(thing for thing in things if not astray(thing))


def arranged(findings: Sequence[Finding], modality: str) -> tuple[Finding, ...]:
    """Findings with the number of their whole, abnormal ones first, parts behind their wholes, numbered from 1."""
    placed = [replace(f, within=_whole(f, findings)) for f in findings]
    abnormal = [f for f in placed if is_abnormal(f.target or f.phrase, modality)]
    order = [*nested(abnormal), *nested([f for f in placed if f not in abnormal])]
    number = {f.number: n for n, f in enumerate(order, start=1)}
    return tuple(
        replace(f, number=number[f.number], within=None if f.within is None else number[f.within]) for f in order
    )


def _whole(finding: Finding, findings: Sequence[Finding]) -> int | None:
    """The number of the smallest whole that a finding lies in."""
    if finding.target not in vocabulary.targets():
        return None
    wholes = vocabulary.wholes(finding.target)
    holding = [
        f for f in findings if f.target in wholes and _shared(finding.mask, f.mask) >= INSIDE * finding.mask.count > 0
    ]
    return min(holding, key=lambda f: f.mask.count).number if holding else None


def _shared(one: CroppedMask, other: CroppedMask) -> int:
    """Voxels that two masks have in common."""
    low = np.maximum(one.offset, other.offset)
    high = np.minimum(np.add(one.offset, one.crop.shape), np.add(other.offset, other.crop.shape))
    if (low >= high).any():
        return 0
    views = [
        mask.crop[tuple(slice(int(a), int(b)) for a, b in zip(low - mask.offset, high - mask.offset, strict=True))]
        for mask in (one, other)
    ]
    return int((views[0] & views[1]).sum())
