"""What the model thread does for one job: a stream of updates, whatever kind of job it is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from napari_unibiomed.jobs import Job
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import Plane, Prediction, Prompt
from unibiomed_core.updates import CancelToken, Progress, SliceDone, Update

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

Known = Mapping[int, tuple[Prediction, ...]]
"""Slice index -> what was answered before the run was stopped."""


def updates(engine: Engine, job: Job, known: Known, cancel: CancelToken) -> Iterator[Update]:
    """Do a job. Questions about boxes end without a report.

    Raises:
        PromptError: Something that is asked cannot be used.
        DeviceError: Memory does not suffice.
    """
    if job.kind == "roi":
        return _boxes(engine, job, known, cancel)
    return engine.run(
        job.volume,
        job.asks,
        plane=job.plane,
        every=job.every,
        indices=job.indices,
        window=job.window,
        cancel=cancel,
        describe=job.describe and job.kind == "report",
        known=known,
        **asdict(job.options),
    )


def _boxes(engine: Engine, job: Job, known: Known, cancel: CancelToken) -> Iterator[Update]:
    """Each box on its own slice; all boxes of a slice at once. ``known`` are slices that need no answer any more.

    Raises:
        PromptError: A prompt has no box.
    """
    began = time.monotonic()
    by_slice: dict[tuple[Plane, int], list[Prompt]] = {}
    for ask in job.asks:
        if isinstance(ask, str) or ask.region is None:
            raise PromptError("No region", "a question about a box was given without one", "a box", "Draw a box.")
        by_slice.setdefault((ask.region.plane, ask.region.index), []).append(ask)
    answered = {
        (prediction.plane, prediction.index) for predictions in known.values() for prediction in predictions
    }.intersection(by_slice)
    left = [place for place in by_slice if place not in answered]
    window = job.window or choose_window(job.volume)
    yield Progress(len(answered), len(by_slice))
    for number, (plane, index) in enumerate(left, start=1):
        if cancel.cancelled:
            return
        prompts = by_slice[plane, index]
        (predictions,) = engine.predict([job.volume.slice(index, plane)], prompts, window)
        yield SliceDone(index, predictions)
        seconds_left = (time.monotonic() - began) / number * (len(left) - number)
        yield Progress(len(answered) + number, len(by_slice), seconds_left)
