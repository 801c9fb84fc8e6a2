"""From mask logits to boolean crops with a presence, and from an answer to the words and phrases people read.

Legend: K ``[SEG]`` tokens, H W mask logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.prompts import Question
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.grounder import MaskOutput, upsample
from unibiomed_core.tasks import NO_FINDINGS, ParsedPhrase, parse_answer
from unibiomed_core.types import CroppedMask, Phrase


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMask:
    """One decoded ``[SEG]``: its mask at image size and its presence score, 0..1, not calibrated."""

    mask: CroppedMask
    presence: float


def regions(output: MaskOutput, sizes: Sequence[tuple[int, int]], config: UniBiomedConfig) -> Iterator[DecodedMask]:
    """The masks of K ``[SEG]``, upsampled one at a time so that one full-size array exists at most.

    Args:
        sizes: (height, width) of the image of each.
    """
    logits, quality = output.selected, output.quality.amax(dim=1)
    by_object = config.presence.source == "object"
    scores = output.object_score.float().sigmoid().tolist()
    # Interpolated values are weighted means: where no logit is positive none becomes so, and nothing is enlarged.
    anything = (logits.flatten(1).amax(dim=1) > 0).tolist()
    for k, size in enumerate(sizes):
        mask, presence = CroppedMask(np.zeros((0, 0), bool), (0, 0), size), scores[k] if by_object else 0.0
        if anything[k]:
            full = upsample(logits[k : k + 1], config.grounding.image_size, size)[0]  # (height, width)
            inside = full > 0
            mask = CroppedMask.from_full(inside.cpu().numpy())
            if not by_object and mask.crop.size:
                presence = float(full[inside].sigmoid().mean() * quality[k])
        yield DecodedMask(mask, float(np.clip(presence, 0.0, 1.0)))


def words(
    raw: str, question: Question, found: Sequence[DecodedMask], modality: str, rule: Presence
) -> tuple[str, tuple[Phrase, ...]]:
    """Clean text and phrases of an answer.

    A mask whose calibrated presence is below the target's threshold, or that is empty, is withdrawn, and the text says
    so with that number; prompts with ``exact`` keep every mask.

    Args:
        raw: The answer with special tokens; each ``[SEG]`` in it stands for a token.
        found: The regions of its first ``[SEG]`` tokens; the others have no mask.
    """
    parsed = parse_answer(raw, question.target)
    phrases: list[Phrase] = []
    absent: list[Phrase] = []
    for piece in parsed.phrases:
        region = found[piece.seg] if piece.seg is not None and piece.seg < len(found) else None
        name = _name(piece, question, modality)
        presence = rule.probability(region.presence, name) if region is not None else 0.0
        kept = region is not None and (question.prompt.exact or _stands(region, presence, name, piece, rule))
        mask = region.mask if region is not None and kept else None
        phrase = Phrase(piece.text, piece.start, piece.end, presence, mask, name)
        phrases.append(phrase)
        if region is not None and not kept and NO_FINDINGS not in piece.text.lower():
            absent.append(phrase)
    if not absent:
        return parsed.text, tuple(phrases)
    notes = [f"{p.text.rstrip(' .')}: not found on this slice (presence {p.score:.2f})." for p in absent]
    if question.target and len(phrases) == 1:
        # "It is liver." would say the opposite.
        only = phrases[0]
        end = len(only.text.rstrip(" ."))
        return notes[0], (Phrase(only.text[:end], 0, end, only.score, None, only.target),)
    return " ".join([parsed.text, *notes]), tuple(phrases)


def _name(piece: ParsedPhrase, question: Question, modality: str) -> str:
    if question.target and piece.text == question.target:
        return question.target
    entry = vocabulary.find(piece.text, modality)
    return entry.name if entry else vocabulary.normalise(piece.text)


def _stands(region: DecodedMask, presence: float, name: str, piece: ParsedPhrase, rule: Presence) -> bool:
    said_nothing = NO_FINDINGS in piece.text.lower()
    return bool(region.mask.crop.size) and presence >= rule.threshold_for(name) and not said_nothing
