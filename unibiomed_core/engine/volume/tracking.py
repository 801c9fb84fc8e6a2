"""Plans whose masks SAM 2's memory carries from slice to slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from unibiomed_core.engine.features import Picture
from unibiomed_core.engine.masks import regions
from unibiomed_core.engine.prompts import Question, resolve
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.batching import Batch, RunContext
from unibiomed_core.engine.volume.plans import Route
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import to_rgb
from unibiomed_core.model.grounder import GroundingFeatures, MaskOutput
from unibiomed_core.model.video_memory import PROMPTED_SLICES, Track, language_vector, propagate, require_memory
from unibiomed_core.types import Phrase, Prediction, Prompt

MOST_KEYS = 5
"""Slices of one stretch that are remembered for good, as many as the published path prompts; each costs memory."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring slices of the first pass that one prompt found something on, and the way around them.

    Args:
        keys: Canonical slice indices, ascending.
        start: The key with the highest score; both ways begin there.
        low: The last slice before the stretch that was examined without a finding; -1 at the end of the volume.
        high: The first one behind it.
    """

    prompt: Prompt
    keys: tuple[int, ...]
    start: int
    low: int
    high: int


def followable(prompt: Prompt) -> bool:
    """Whether the answer is known beforehand and marks one target."""
    return prompt.task == "segment" and bool(prompt.target) and not prompt.exact and not prompt.question


def check(context: RunContext, follows: str) -> None:
    """Refuse what cannot be followed, before any slice is computed.

    Raises:
        ConfigError: The model has no memory parts.
        PromptError: No prompt, or for the published path not every one, has an answer known beforehand with one mask.
    """
    require_memory(context.predictor.model.grounder)
    left = [p for p in context.prompts if not followable(p)]
    if left and (follows == "published" or len(left) == len(context.prompts)):
        raise PromptError("Nothing to follow", f"a prompt of the task '{left[0].task}'", "targets to segment")


def stretches(context: RunContext, route: Route, aggregation: Aggregation) -> list[Stretch]:
    """Where to follow what the first pass found."""
    found = []
    count = context.volume.slice_count(context.plane)
    for prompt in filter(followable, context.prompts):
        scores = aggregation.found.get(prompt, {})
        keys: list[int] = []
        before = -1
        for index in (*route.first_pass, count):
            if index in scores:
                keys.append(index)
            elif keys:
                start = max(keys, key=lambda i: scores[i])
                found.append(Stretch(prompt, tuple(keys), start, before, index))
                keys, before = [], index
            else:
                before = index
    return found


@torch.inference_mode()
def carried(context: RunContext, route: Route, aggregation: Aggregation) -> Iterator[Batch]:
    """The slices between those of the first pass, from memory; first downwards, then upwards.

    Downwards yields nothing, for a slice is done when both ways have passed it.
    """
    ways = stretches(context, route, aggregation)
    backward = [Track(context.predictor.model.grounder, way.high - way.low) for way in ways]
    for way, track in zip(ways, backward, strict=True):
        for key in _kept(way):
            if context.cancel.cancelled:
                return
            track.prompt(_features(context, key), _vector(context, way.prompt, [key]))
    forward = [Track(t.grounder, t.length, t.prompted) for t in backward]
    slices = route.further(aggregation.positive(filter(followable, context.prompts)))
    seen: dict[int, dict[Prompt, Phrase]] = {}
    for index in reversed(slices):
        if context.cancel.cancelled:
            return
        now = [(w, t) for w, t in zip(ways, backward, strict=True) if w.low < index < w.start and index not in w.keys]
        seen[index] = _step(context, index, now, -index)
        yield []
    for index in slices:
        if context.cancel.cancelled:
            return
        now = [(w, t) for w, t in zip(ways, forward, strict=True) if w.start < index < w.high and index not in w.keys]
        phrases = seen.pop(index) | _step(context, index, now, index)
        yield [(index, tuple(_prediction(context, p, index, phrases.get(p)) for p in context.prompts))]


@torch.inference_mode()
def published(context: RunContext) -> Iterator[Batch]:
    """The published model's path over all slices in order, one vector a prompt from the first five slices."""
    count = context.volume.slice_count(context.plane)
    first = list(range(min(PROMPTED_SLICES, count)))
    vectors = torch.stack([_vector(context, prompt, first) for prompt in context.prompts])
    features = (_features(context, index) for index in range(count))
    outputs = propagate(context.predictor.model.grounder, features, vectors, count)
    for index in range(count):
        if context.cancel.cancelled:
            return
        phrases = {p: _phrase(context, p, index, o) for p, o in zip(context.prompts, next(outputs), strict=True)}
        yield [(index, tuple(_prediction(context, p, index, phrases[p]) for p in context.prompts))]


def _kept(way: Stretch) -> list[int]:
    """At most ``MOST_KEYS`` of the keys, the best one always, evenly spread."""
    others = [k for k in way.keys if k != way.start]
    step = max(1, -(-len(others) // (MOST_KEYS - 1)))
    return sorted([way.start, *others[::step]])


def _step(context: RunContext, index: int, now: Sequence[tuple[Stretch, Track]], place: int) -> dict[Prompt, Phrase]:
    if not now:
        return {}
    features = _features(context, index)
    return {way.prompt: _phrase(context, way.prompt, index, track.follow(features, place)) for way, track in now}


def _picture(context: RunContext, index: int) -> Picture:
    return Picture.of(to_rgb(context.volume.slice(index, context.plane).pixels, context.window))


def _features(context: RunContext, index: int) -> GroundingFeatures:
    return context.predictor.features.grounding([_picture(context, index)])


def _question(context: RunContext, prompt: Prompt, index: int) -> Question:
    return resolve(prompt, context.volume.slice(index, context.plane), context.predictor.processor)


def _vector(context: RunContext, prompt: Prompt, indices: Sequence[int]) -> torch.Tensor:
    """(C,) the language vector of a prompt on one slice or, as published, on frames that are never tiled."""
    engine, question = context.predictor, _question(context, prompt, indices[0])
    if len(indices) == 1:
        (tokens,) = engine.features.image_tokens([_picture(context, indices[0])])
        tiles = [len(tokens) // engine.config.vision.tokens_per_tile]
    else:
        frames = torch.cat([engine.processor.frame(_picture(context, i).rgb) for i in indices])
        tokens = engine.model.encode_tiles(frames.to(engine.placement.device, engine.placement.dtype))
        tiles = [1] * len(indices)
    return language_vector(engine.model, engine.processor, tokens, tiles, question.text, question.answer or "")


def _phrase(context: RunContext, prompt: Prompt, index: int, output: MaskOutput) -> Phrase:
    """The target with its mask where the model's threshold lets it stand."""
    config, target = context.predictor.config, _question(context, prompt, index).target
    (region,) = regions(output, [context.volume.slice(index, context.plane).shape], config)
    presence = config.presence.probability(region.presence, target)
    stands = region.mask.crop.size and presence >= config.presence.threshold_for(target)
    return Phrase(target, 0, len(target), presence, region.mask if stands else None, target)


def _prediction(context: RunContext, prompt: Prompt, index: int, phrase: Phrase | None) -> Prediction:
    if phrase is None:
        return Prediction(prompt, context.plane, index, "", "", ())
    text = phrase.text
    if phrase.mask is None:
        text += f": not found on this slice (presence {phrase.score:.2f})."
    return Prediction(prompt, context.plane, index, text, "", (phrase,))
