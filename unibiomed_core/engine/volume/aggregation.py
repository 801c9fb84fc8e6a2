"""What a run over a volume has gathered so far, and how what was not found is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.linking import LinkedMask, SliceMask, canonical_target
from unibiomed_core.model.config import Presence
from unibiomed_core.report.text import number_text
from unibiomed_core.tasks import NO_FINDINGS, TASKS
from unibiomed_core.types import Absence, CroppedMask, Doubt, Finding, Note, Prediction, Prompt, Volume

MOST_PAIRS = 5
"""Pairs of targets that claimed the same voxels, told one by one; further ones are counted."""


@dataclass(slots=True)
class Aggregation:
    """Grows with the masks found, never with whole slices.

    Args:
        done: Slices that were answered for, in the order of the run.
        masks: After conflicts between targets were settled.
        best: Target -> highest slice score, masks that were withdrawn included.
        found: Prompt -> slice -> highest score of a mask that it gave there.
        searched: Target -> slices on which it was looked for; "" stands for questions that name none.
        open: Slice -> what the scored open question says there: name -> share of the likelihood.
        marked_by: Task -> (slice, target) that it marked, or named when it was asked openly.
        truncated: Slices on which the length limit cut an answer.
        contested: (winner, loser) -> pixels that both claimed.
    """

    done: list[int] = field(default_factory=list)
    masks: list[SliceMask] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    found: dict[Prompt, dict[int, float]] = field(default_factory=dict)
    searched: dict[str, set[int]] = field(default_factory=dict)
    open: dict[int, dict[str, float]] = field(default_factory=dict)
    marked_by: dict[str, set[tuple[int, str]]] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    contested: Counter[tuple[str, str]] = field(default_factory=Counter)
    warnings: list[Note] = field(default_factory=list)

    def positive(self, prompts: Iterable[Prompt]) -> set[int]:
        """Slices on which one of the prompts found something."""
        return {index for prompt in prompts for index in self.found.get(prompt, ())}

    def take(self, index: int, predictions: Sequence[Prediction], modality: str) -> None:
        """Keep what one slice says."""
        self.done.append(index)
        masks: list[SliceMask] = []
        for prediction in predictions:
            if prediction.truncated:
                self.truncated.append(index)
            if prediction.prompt.among:
                shares = self.open[index] = dict(prediction.shares)
                named = max(shares, key=shares.__getitem__, default=NO_FINDINGS)
                if named != NO_FINDINGS:
                    self.marked_by.setdefault("disease", set()).add((index, named))
                continue
            if prediction.text or prediction.phrases:  # else it was not asked here
                target = canonical_target(prediction.prompt.target, modality) if prediction.prompt.target else ""
                self.searched.setdefault(target, set()).add(index)
            for phrase in prediction.phrases:
                name = canonical_target(phrase.target or phrase.text, modality)
                self.best[name] = max(self.best.get(name, 0.0), phrase.score)
                if phrase.mask is not None:
                    masks.append(SliceMask(index, name, phrase.text, phrase.score, phrase.mask))
                    self.marked_by.setdefault(prediction.prompt.task, set()).add((index, name))
                    slices = self.found.setdefault(prediction.prompt, {})
                    slices[index] = max(slices.get(index, 0.0), phrase.score)
        settled, contested = settle(masks, modality)
        self.masks += settled
        self.contested += contested

    def found_by(self, thing: LinkedMask) -> tuple[str, ...]:
        """The tasks that marked a thing on one of its slices, in the order in which they did so first."""
        return tuple(
            task
            for task, marks in self.marked_by.items()
            if any((index, thing.target) in marks for index, _ in thing.scores)
        )

    def absences(
        self,
        prompts: Sequence[Prompt],
        findings: Sequence[Finding],
        modality: str,
        rule: Presence,
        dismissed: Mapping[str, float],
    ) -> list[Absence]:
        """What was looked for and not found; open questions after abnormality count as one target.

        Args:
            rule: Its thresholds tell what was seen although it has no outline.
            dismissed: Target -> presence of what was outlined and did not stand its checks.
        """
        if not self.done:
            return []
        # Where a part or a kind of it is found, a target is not absent, whatever its own search says.
        known = vocabulary.targets()
        present = {f.target for f in findings}
        present |= {whole for name in present if name in known for whole in vocabulary.wholes(name)}
        best = {**self.best, **dismissed}

        def absence(name: str, score: float, target: str) -> Absence:
            doubt: Doubt = ""
            if score >= rule.threshold_for(name) > 0:
                doubt = "not_confirmed" if name in dismissed else "no_outline"
            return Absence(name, score, len(self.searched.get(target, ())), doubt)

        names = {canonical_target(p.target, modality): None for p in prompts if p.task == "segment" and p.target}
        absences = [absence(name, best.get(name, 0.0), name) for name in names if name not in present]
        open_ended = any(TASKS[p.task].gives_masks and not p.target and not p.among for p in prompts)
        if open_ended and not findings:
            highest = max((s for name, s in best.items() if name not in names), default=0.0)
            absences.append(absence("abnormality", highest, ""))
        return absences

    def contest_notes(self, volume: Volume) -> list[Note]:
        """Notes on voxels that two targets claimed and one got, largest first."""
        in_ml = volume.spatial_unit == "mm" and not volume.is_2d
        size = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000 if in_ml else 1.0
        unit = "mL" if in_ml else "pixels"
        notes = [
            Note(
                "claimed_twice",
                f"{number_text(count * size)} {unit} claimed by both '{winner}' and '{loser}' went to '{winner}', "
                "which had the higher score there.",
                {"winner": winner, "loser": loser, "voxels": count},
            )
            for (winner, loser), count in self.contested.most_common(MOST_PAIRS)
        ]
        more = len(self.contested) - MOST_PAIRS
        if more <= 0:
            return notes
        text = f"{more} further pairs of targets claimed the same voxels."
        return [*notes, Note("claimed_twice_more", text, {"pairs": more})]


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
