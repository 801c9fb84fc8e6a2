"""Checks before a run, in well under a second and without a model: image, window, slices, memory and time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_unibiomed.canvas.volumes import is_no_hounsfield, warnings_of
from napari_unibiomed.jobs import Job
from napari_unibiomed.messages import catalogue, notices
from napari_unibiomed.messages.catalogue import clock
from napari_unibiomed.messages.message import Message
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import Volume

LOWEST_HU, HIGHEST_HU = -1100, 4000
"""Values of a CT beyond these are no Hounsfield units: air is -1000, and dense metal is cut at 3071 or 4095."""

SAMPLED_PER_AXIS = 64
"""Values are looked at on a coarse grid of so many voxels an axis, which takes milliseconds."""

BYTES_PER_VOXEL = 6
"""Labels of two bytes, their copy while they are painted, and what the viewer draws of them."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found.

    Args:
        messages: The gravest first; an error among them stops the run.
        slices: How many will be examined, at most.
        estimate: ``96 axial slices · about 0:40``, without the time where it is not known.
    """

    messages: tuple[Message, ...]
    slices: int
    estimate: str

    @property
    def blocked(self) -> bool:
        return any(message.kind == "error" for message in self.messages)


def preflight(job: Job, *, seconds_per_slice: float | None = None, free_bytes: int | None = None) -> Preflight:
    """Look at a job before it is begun.

    Args:
        seconds_per_slice: Measured in runs of this kind; None while there was none.
        free_bytes: Memory that can be used; None asks the system.
    """
    volume = job.volume
    count = slice_count(job)
    said = [*_slices(job, count), *_memory(volume, free_bytes), *warnings_of(volume)]
    if not is_no_hounsfield(volume):  # that is said already
        said += _values(job)
    ordered = sorted(said, key=lambda message: ("error", "warning", "info").index(message.kind))
    plane = "" if volume.is_2d or job.kind == "roi" else job.request.plane
    return Preflight(tuple(ordered), count, estimate_text(count, seconds_per_slice, plane))


def slice_count(job: Job) -> int:
    """How many slices a job looks at, by the engine's own plan: those that show air only are left out.

    A plan with further passes looks at so many at most. Nought where the engine would refuse the slices.
    """
    if job.kind == "roi":
        regions = [prompt.region for prompt in job.request.prompts if prompt.region is not None]
        return len({(region.plane, region.index) for region in regions})
    from unibiomed_core.engine.volume import plans

    asked = job.request
    window = asked.window or choose_window(job.volume)
    try:
        route = plans.route(asked.plan, job.volume, asked.plane, window, asked.every, asked.indices)
    except PromptError:
        return 0
    return len(route.usable) if route.plan.further else len(route.first_pass)


def estimate_text(slices: int, seconds_per_slice: float | None, plane: str = "") -> str:
    """``96 axial slices · about 0:40``."""
    noun = f"{plane} slice".strip()
    words = f"1 {noun}" if slices == 1 else f"{slices} {noun}s"
    return words if seconds_per_slice is None else f"{words} \u00b7 about {clock(max(1.0, slices * seconds_per_slice))}"


def _slices(job: Job, count: int) -> list[Message]:
    total = job.volume.slice_count(job.request.plane)
    outside = [index for index in job.request.indices or () if not 0 <= index < total]
    if outside:
        return [notices.no_such_slice(outside[0], total)]
    nothing = not count and (job.kind == "roi" or job.request.indices is not None)
    return [notices.nothing_to_examine()] if nothing else []  # of an image that shows air only the engine tells


def _memory(volume: Volume, free_bytes: int | None) -> list[Message]:
    if free_bytes is None:
        import psutil

        free_bytes = psutil.virtual_memory().available
    z, y, x = volume.shape
    needed = BYTES_PER_VOXEL * z * y * x
    return [catalogue.not_enough_memory(needed / 1e9, free_bytes / 1e9)] if needed > free_bytes else []


def _values(job: Job) -> list[Message]:
    """Whether values can be what the image says, and whether the window shows any of them."""
    volume = job.volume
    if volume.is_rgb:
        return []
    steps = tuple(slice(None, None, max(1, size // SAMPLED_PER_AXIS)) for size in volume.shape)
    sample = volume.voxels[steps]
    low, high = float(sample.min()), float(sample.max())
    # Single voxels say nothing: metal reaches 30000 HU, and padding lies below air.
    usual_low, usual_high = (float(v) for v in np.percentile(sample, (1, 99)))
    if volume.intensity_unit == "HU" and (usual_low < LOWEST_HU or usual_high > HIGHEST_HU):
        return [catalogue.not_hounsfield(usual_low, usual_high)]
    if job.request.window is None and volume.intensity_unit != "HU":
        return []  # made from the values themselves
    window = job.request.window or choose_window(volume)
    if high <= window.low or low >= window.high:
        return [notices.window_shows_nothing(window.low, window.high, low, high)]
    return []
