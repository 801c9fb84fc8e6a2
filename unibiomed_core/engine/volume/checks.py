"""What was found is looked at again by other tasks of the model, and stands, is doubted or falls by all together.

The mask decoder's score, the open question, the name of the box and the next slices are fused to one presence where the
model brings weights for it, fitted on held-out patients; else they are counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.linking import BEST_SLICES, LinkedMask
from unibiomed_core.model.config import SURE, Fusion
from unibiomed_core.types import Check, Evidence, Prediction


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of the checks.

    Args:
        kept: Things that stand, with their fused presence; flagged "unsure" where the checks do not agree.
        evidence: One for each that stands; None where nothing but its mask speaks of it.
        dismissed: Target -> presence of the surest thing that fell.
        descriptions: What the model writes about the box of each; empty where it was not asked.
    """

    kept: tuple[LinkedMask, ...]
    evidence: tuple[Evidence | None, ...]
    dismissed: Mapping[str, float]
    descriptions: tuple[str, ...]


def family(target: str) -> frozenset[str]:
    """A target and all that it is a part or a kind of, and all that are a part or a kind of it."""
    known = vocabulary.targets()
    if target not in known:
        return frozenset([target])
    return frozenset([target, *vocabulary.wholes(target), *(n for n in known if target in vocabulary.wholes(n))])


def checked(
    linked: Sequence[LinkedMask],
    aggregation: Aggregation,
    modality: str,
    fusion: Fusion | None,
    boxes: Mapping[int, Sequence[Prediction]] | None = None,
    looks: Mapping[int, float] | None = None,
) -> Checked:
    """Weigh all that speaks for and against each abnormal thing; anatomy and devices stand by their masks.

    Args:
        fusion: The model's own rule; None counts the checks that agree.
        boxes: Number of a thing -> what the model said of its box: its name, and where asked a description.
        looks: Number of a thing -> how likely the slices that show it best do so, by a first look at each.
    """
    kept: list[LinkedMask] = []
    evidence: list[Evidence | None] = []
    descriptions: list[str] = []
    dismissed: dict[str, float] = {}
    for number, thing in enumerate(linked):
        said = (boxes or {}).get(number, ())
        if vocabulary.kind_of(thing.target, modality) != "finding":
            kept.append(thing)
            evidence.append(None)
            descriptions.append("")
            continue
        checks = _checks(thing, _speaking_for(thing, linked), aggregation, said, (looks or {}).get(number))
        fused = thing.presence if fusion is None else fusion.probability(thing.presence, logits(checks))
        agreeing = sum(check.agrees for check in checks)
        if fused < fusion.threshold if fusion else not enough_agree(checks):
            dismissed[thing.target] = max(fused, dismissed.get(thing.target, 0.0))
            continue
        unsure = 2 * agreeing <= len(checks) and len(checks) > 1
        flags = (*thing.flags, "unsure") if unsure else thing.flags
        kept.append(replace(thing, presence=fused, flags=flags))
        evidence.append(Evidence(aggregation.found_by(thing), tuple(checks), fusion is not None))
        descriptions.append(next((p.text for p in said if p.prompt.task == "roi_describe"), ""))
    return Checked(tuple(kept), tuple(evidence), dismissed, tuple(descriptions))


def _speaking_for(thing: LinkedMask, linked: Sequence[LinkedMask]) -> frozenset[str]:
    """The names that speak for a thing: its family, without more special ones that have an outline of their own there.

    Beside a sarcoma, the word "sarcoma" says nothing for a spot that only the search for any lesion marks.
    """
    slices, known = set(thing.slices), vocabulary.targets()
    taken = {
        other.target
        for other in linked
        if other.target in known and thing.target in vocabulary.wholes(other.target) and slices & set(other.slices)
    }
    return family(thing.target) - taken


def _checks(
    thing: LinkedMask,
    same: frozenset[str],
    aggregation: Aggregation,
    said: Sequence[Prediction],
    look: float | None,
) -> list[Check]:
    """All that could be made of one thing.

    Args:
        same: The names that speak for it.
    """
    checks = [Check("mask", thing.presence >= 0.5, thing.presence)]
    if look is not None:
        checks.append(Check("picture", look >= 0.5, look))
    opened = [aggregation.open[index] for index in thing.slices if index in aggregation.open]
    if opened:
        shares = sorted((sum(shares.get(name, 0.0) for name in same) for shares in opened), reverse=True)
        named = any(max(shares, key=shares.__getitem__) in same for shares in opened)
        checks.append(Check("open", named, float(np.mean(shares[:BEST_SLICES]))))
    for prediction in said:
        shares_of = dict(prediction.shares)
        if shares_of.keys() - same:  # where a box can have no other name, its name tells nothing
            best = max(shares_of, key=shares_of.__getitem__)
            checks.append(Check("region", best in same, sum(shares_of.get(name, 0.0) for name in same)))
    if len(aggregation.done) > 1:
        checks.append(Check("neighbours", len(thing.scores) > 1))
    return checks


def enough_agree(checks: Sequence[Check]) -> bool:
    """Whether a thing stands where no rule weighs its checks.

    A lone outline against two who see nothing falls; what the model names openly stands.
    """
    return len(checks) <= 1 or 3 * sum(check.agrees for check in checks) > len(checks)


def logits(checks: Sequence[Check]) -> dict[str, float]:
    """Check -> logit of its score; one without a degree counts as +1 or -1."""
    return {
        check.code: _logit(check.score) if check.score is not None else (1.0 if check.agrees else -1.0)
        for check in checks
    }


def _logit(score: float) -> float:
    kept = min(max(score, SURE), 1.0 - SURE)
    return math.log(kept / (1.0 - kept))
