"""The boxes of what was found, drawn on their slices: which name and which words the model gives them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unibiomed_core import vocabulary
from unibiomed_core.engine.predictor import FirstLook
from unibiomed_core.engine.volume.batching import RunContext
from unibiomed_core.engine.volume.linking import BEST_SLICES, LinkedMask
from unibiomed_core.types import Prediction, Prompt, Region

MOST_BOXES = 6
"""Boxes of one run that are named, of the most present things first: each is a picture of its own to the model."""

SLICES_PER_BOX = 4
"""Of a volume, one more box for so many slices examined, so that checks stay a quarter of the search at most."""

BOX_MARGIN = 2
"""Pixels around a thing; a box on its very edge would hide it."""

LEAST_BOX = 8
"""Pixels of a side; a smaller box grows to this."""


def box_prompts(
    thing: LinkedMask, context: RunContext, among: Sequence[str], describe: bool
) -> tuple[int, list[Prompt]]:
    """The slice that shows a thing best, and what is asked of its box there."""
    volume, plane = context.volume, context.plane
    axis = volume.plane_axis(plane)
    index = max(thing.scores, key=lambda item: item[1])[0]
    section = np.take(thing.mask.crop, index - thing.mask.offset[axis], axis=axis)
    offset = [o for i, o in enumerate(thing.mask.offset) if i != axis]
    height, width = volume.slice(index, plane).shape
    rows, columns = (np.flatnonzero(section.any(axis=a)) for a in (1, 0))
    y0, y1 = _side(int(rows[0]) + offset[0], int(rows[-1]) + offset[0], height)
    x0, x1 = _side(int(columns[0]) + offset[1], int(columns[-1]) + offset[1], width)
    region = Region(x0, y0, x1, y1, plane, index)
    prompts = [Prompt("roi_class", region=region, among=tuple(among))]
    return index, [*prompts, Prompt("roi_describe", region=region)] if describe else prompts


def ask_boxes(
    linked: Sequence[LinkedMask], context: RunContext, among: Sequence[str], slices_done: int, describe: bool
) -> dict[int, tuple[Prediction, ...]]:
    """What the model says of the boxes of the most present abnormal things: number of a thing -> predictions."""
    modality = context.volume.modality
    numbers = [n for n, thing in enumerate(linked) if vocabulary.kind_of(thing.target, modality) == "finding"]
    numbers.sort(key=lambda n: -linked[n].presence)
    said: dict[int, tuple[Prediction, ...]] = {}
    for number in numbers[: MOST_BOXES + slices_done // SLICES_PER_BOX]:
        if context.cancel.cancelled:
            break
        index, prompts = box_prompts(linked[number], context, among, describe)
        piece = context.volume.slice(index, context.plane)
        if min(piece.shape) < LEAST_BOX:
            continue
        (said[number],) = context.predictor.predict([piece], prompts, context.window)
    return said


def ask_looks(linked: Sequence[LinkedMask], context: RunContext) -> dict[int, float]:
    """How likely the slices that show an abnormal thing best do show it, by a first look at each, 0..1.

    Returns:
        Number of a thing -> mean over its best slices; without things that the first look does not know.
    """
    volume, plane = context.volume, context.plane
    seen: dict[int, FirstLook | None] = {}
    told: dict[int, float] = {}
    for number, thing in enumerate(linked):
        name = f"{volume.modality}/{thing.target}"
        best = sorted(thing.scores, key=lambda item: -item[1])[:BEST_SLICES]
        chances = []
        for index, _ in best:
            if index not in seen:
                seen[index] = context.predictor.first_look(volume.slice(index, plane), context.window)
            look = seen[index]
            if look is not None and name in look.finding:
                chances.append(look.finding[name])
        if chances:
            told[number] = float(np.mean(chances))
    return told


def _side(first: int, last: int, size: int) -> tuple[int, int]:
    """A box's side with its margin, at least ``LEAST_BOX`` long and inside of the slice."""
    first, last = first - BOX_MARGIN, last + BOX_MARGIN
    short = max(0, LEAST_BOX - (last - first + 1))
    first, last = first - short // 2, last + short - short // 2
    if first < 0:
        first, last = 0, last - first
    if last >= size:
        first, last = first - (last - size + 1), size - 1
    return max(0, first), last
