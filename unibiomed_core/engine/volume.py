"""A whole volume or picture: which slices, in what order, and the stream of updates from the first to the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unibiomed_core import report, vocabulary
from unibiomed_core.engine import devices
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.linking import SliceMask, canonical_target, findings, link
from unibiomed_core.engine.questions import resolve
from unibiomed_core.errors import PromptError
from unibiomed_core.measure import AIR_HU
from unibiomed_core.modalities import Window, choose_window
from unibiomed_core.tasks import TASKS
from unibiomed_core.types import Absence, Finding, Plane, Prediction, Prompt, Slice, Volume
from unibiomed_core.updates import CancelToken, Done, FindingFound, Progress, SliceDone, Update

log = logging.getLogger(__name__)

EMPTY_LEVEL = 0.05
"""A pixel shows something when it lies above the window's low end by more than this share of the window; in HU, when
it is above the window's low end and above air."""

EMPTY_FRACTION = 0.002
"""A slice with no larger share of such pixels is skipped: 23 x 23 of 512 x 512, less than the crown of a head."""

KEY_SLICES = 3
"""At most so many slices are described in the model's own words."""


@dataclass(slots=True)
class _Run:
    """What a run has gathered; grows with the masks found, never with whole slices."""

    done: list[int] = field(default_factory=list)
    masks: list[SliceMask] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    truncated: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, predictions: Sequence[Prediction], modality: str) -> None:
        """Keep what one slice says."""
        for prediction in predictions:
            for phrase in prediction.phrases:
                name = canonical_target(phrase.target or phrase.text, modality)
                self.best[name] = max(self.best.get(name, 0.0), phrase.score)
                if phrase.mask is not None:
                    self.masks.append(SliceMask(prediction.index, name, phrase.text, phrase.score, phrase.mask))
            if prediction.truncated:
                self.truncated.append(prediction.index)


def run(
    engine: Engine,
    volume: Volume,
    asks: Sequence[Prompt | str] = (),
    *,
    plane: Plane = "axial",
    every: int = 1,
    indices: Sequence[int] | None = None,
    window: Window | None = None,
    cancel: CancelToken | None = None,
    describe: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Update]:
    """Ask the same of every slice, link the answers into findings, and report.

    The order of updates: ``Progress`` with 0 done; a ``SliceDone`` for each slice of a batch and a ``Progress`` after
    it, batch after batch; a ``FindingFound`` for each finding, largest first; ``Done``. A cancelled run ends its batch
    and then links and reports what is done.

    Args:
        asks: Prompts, or names of targets to segment; empty takes the model's default targets for the modality, else
            all of the vocabulary's.
        every: Step between the slices that are examined, from the middle of the first step on.
        indices: Exactly these slices instead, empty ones included.
        window: Intensity window; None takes the modality's.
        cancel: Looked at between batches.
        describe: Let the model describe the largest slice of the largest findings, or the picture, in its own words.
        settings: Further settings to be stated in the report, plain values.

    Raises:
        PromptError: An ask cannot be used, or there is nothing to ask for; before any slice is computed.
        DeviceError: Memory does not suffice for a single slice.
    """
    began = time.monotonic()
    cancel = cancel or CancelToken()
    window = window or choose_window(volume)
    prompts = _prompts(engine, volume, asks)
    plan, skipped = _plan(volume, plane, every, indices, window)
    for prompt in prompts:
        if prompt.region is None:  # one with a region is checked against its own slice, in the first batch
            resolve(prompt, volume.slice(0, plane), engine.processor)
    state = _Run()
    yield Progress(0, len(plan))
    for batch in _batches(engine, volume, plane, plan, prompts, window, state, cancel):
        for index, predictions in batch:
            state.take(predictions, volume.modality)
            state.done.append(index)
            yield SliceDone(index, predictions)
        left = len(plan) - len(state.done)
        yield Progress(len(state.done), len(plan), (time.monotonic() - began) / len(state.done) * left)
    linked, specks = link(state.masks, volume, plane, visited=state.done, every=every)
    found = findings(linked, volume)
    for finding in found:
        yield FindingFound(finding)
    cancelled = len(state.done) < len(plan)
    sentences: list[tuple[int, str]] = []
    if describe and not cancelled:
        sentences = _describe(engine, volume, plane, found, window, state, cancel)
    if skipped and not plan:
        state.warnings.append("No slice shows more than air, so none was examined.")
    stated = {
        "tasks": sorted({p.task for p in prompts}),
        "targets": [p.target for p in prompts if p.target],
        "questions": [p.question for p in prompts if p.question],
        "plane": plane,
        "every": every,
        "indices": None if indices is None else list(indices),
        "describe": describe,
        "presence_threshold": engine.config.presence.threshold,
        **(settings or {}),
    }
    yield Done(
        report.build(
            volume=volume,
            window=None if volume.is_rgb else window,
            plane=plane,
            findings=found,
            absences=_absences(prompts, found, state, volume.modality),
            model=engine.info.provenance(),
            settings=stated,
            slices_done=state.done,
            slices_skipped=skipped,
            seconds=time.monotonic() - began,
            sentences=sentences,
            truncated=state.truncated,
            specks_dropped=specks,
            warnings=state.warnings,
            cancelled=cancelled,
        )
    )


def shows_nothing(piece: Slice, window: Window, in_hu: bool) -> bool:
    """Whether a slice is constant or shows air only (``EMPTY_LEVEL``, ``EMPTY_FRACTION``)."""
    pixels = piece.pixels
    if pixels.min() == pixels.max():
        return True
    level = max(window.low, AIR_HU) if in_hu else window.low + EMPTY_LEVEL * (window.high - window.low)
    return bool(np.count_nonzero(pixels > level) <= EMPTY_FRACTION * pixels.size)


def _prompts(engine: Engine, volume: Volume, asks: Sequence[Prompt | str]) -> list[Prompt]:
    if not asks:
        known = engine.info.default_targets.get(volume.modality) or engine.info.targets.get(volume.modality)
        asks = known or tuple(t.name for t in vocabulary.for_modality(volume.modality))
    if not asks:
        raise PromptError(
            "Nothing to look for",
            f"neither the model nor the vocabulary has targets for the modality '{volume.modality}'",
            "at least one target or question",
            "Name the targets.",
        )
    prompts = [Prompt("segment", ask) if isinstance(ask, str) else ask for ask in asks]
    return list(dict.fromkeys(prompts))


def _plan(
    volume: Volume, plane: Plane, every: int, indices: Sequence[int] | None, window: Window
) -> tuple[list[int], list[int]]:
    """Slices to examine and slices to skip, both ascending.

    Raises:
        PromptError: A number is out of range.
    """
    count = volume.slice_count(plane)
    if every < 1:
        raise PromptError("Step out of range", f"every {every}th slice", "a step of at least 1")
    if indices is not None:
        wrong = [i for i in indices if not 0 <= i < count]
        if wrong:
            raise PromptError("No such slice", f"index {wrong[0]}", f"0 to {count - 1}")
        return sorted(set(indices)), []
    chosen = range((count - 1) % every // 2, count, every)
    if volume.is_2d:
        return list(chosen), []
    in_hu = volume.intensity_unit == "HU"
    skipped = [i for i in chosen if shows_nothing(volume.slice(i, plane), window, in_hu)]
    left = set(skipped)
    return [i for i in chosen if i not in left], skipped


def _batches(
    engine: Engine,
    volume: Volume,
    plane: Plane,
    plan: Sequence[int],
    prompts: Sequence[Prompt],
    window: Window,
    state: _Run,
    cancel: CancelToken,
) -> Iterator[list[tuple[int, tuple[Prediction, ...]]]]:
    """Predictions batch by batch; when memory runs out, the batch is halved, for good."""
    start, size = 0, engine.batch_size
    while start < len(plan) and not cancel.cancelled:
        part = plan[start : start + size]
        try:
            answers = engine.predict([volume.slice(i, plane) for i in part], prompts, window)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            engine.free()
            if size == 1:
                raise devices.out_of_memory(engine.model, engine.placement) from error
            size = max(1, len(part) // 2)
            log.warning("memory ran out; going on with %d slices at once", size)
            state.warnings.append(f"Memory ran out; the run went on with {size} slice{'s'[: size > 1]} at once.")
            continue
        start += len(part)
        yield list(zip(part, answers, strict=True))


def _describe(
    engine: Engine,
    volume: Volume,
    plane: Plane,
    found: Sequence[Finding],
    window: Window,
    state: _Run,
    cancel: CancelToken,
) -> list[tuple[int, str]]:
    """What the model itself writes about the key slices, unedited."""
    keys = list(dict.fromkeys(f.measurements.slice_largest for f in found))[:KEY_SLICES]
    if not keys and volume.is_2d:
        keys = state.done[:1]
    sentences: list[tuple[int, str]] = []
    for index in keys:
        if cancel.cancelled:
            state.warnings.append("Stopped before all key slices were described.")
            break
        try:
            ((prediction,),) = engine.predict([volume.slice(index, plane)], [Prompt("report")], window)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            # The findings are worth more than their description.
            engine.free()
            state.warnings.append("Memory ran out while key slices were described; the findings are complete.")
            break
        if prediction.text:
            sentences.append((index, prediction.text))
        if prediction.truncated:
            state.truncated.append(index)
    return sentences


def _absences(prompts: Sequence[Prompt], found: Sequence[Finding], state: _Run, modality: str) -> list[Absence]:
    """What was looked for and not found; open questions after abnormality count as one target."""
    if not state.done:
        return []
    present = {f.target for f in found}
    names = {canonical_target(p.target, modality): None for p in prompts if p.task == "segment" and p.target}
    absences = [Absence(name, state.best.get(name, 0.0), len(state.done)) for name in names if name not in present]
    open_ended = any(TASKS[p.task].gives_masks and not p.target for p in prompts)
    if open_ended and not found:
        highest = max((s for name, s in state.best.items() if name not in names), default=0.0)
        absences.append(Absence("abnormality", highest, len(state.done)))
    return absences
