"""A whole volume or picture: from a plan over slices to the report, as a stream of updates."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from unibiomed_core import report, vocabulary
from unibiomed_core.engine import devices
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.engine.prompts import resolve, without_unknown
from unibiomed_core.engine.volume import counting, plans, postprocessing, tracking
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.batching import Batch, RunContext, answered
from unibiomed_core.engine.volume.linking import findings
from unibiomed_core.engine.volume.plans import Route
from unibiomed_core.engine.volume.postprocessing import Selection
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import Window, choose_window
from unibiomed_core.report.text import unknown_text
from unibiomed_core.types import Finding, Plane, Prediction, Prompt, Volume
from unibiomed_core.updates import CancelToken, Done, FindingFound, Progress, SliceDone, Update

DESCRIBED_SLICES = 3
"""At most so many slices are described in the model's own words."""

T = TypeVar("T")


def run(
    predictor: Predictor,
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
    known: Mapping[int, tuple[Prediction, ...]] | None = None,
    plan: str = "all",
    smooth_mm: float = 0.0,
    least_presence: float = 0.0,
    min_area_mm2: float | None = None,
    link_slices: bool = True,
) -> Iterator[Update]:
    """Ask the same of the slices of a plan, link the answers into findings, and report.

    The order of updates: ``Progress`` with 0 done; a ``SliceDone`` for each slice of a batch and a ``Progress`` after
    it, batch after batch; a ``FindingFound`` for each finding, largest first; ``Done``. Where a plan adds slices to its
    first pass, the total of ``Progress`` grows as soon as they are known; it never shrinks. A run that is cancelled,
    closed or fails drops its cached features; a cancelled one ends its batch and then links and reports what is done.

    Args:
        asks: Prompts, or names of targets to segment; empty takes the model's default targets for the modality, else
            all of the vocabulary's.
        every: Step between the slices of the first pass, from the middle of the first step on; 1 leaves it to the plan.
        indices: Exactly these slices instead, empty ones included; with the plan "all" only.
        window: Intensity window; None takes the modality's.
        cancel: Looked at between batches.
        describe: Let the model describe the largest slice of the largest findings, or the picture, in its own words.
        settings: Further settings to be stated in the report, plain values.
        known: Slice index -> what an earlier, stopped run of the same model and prompts answered; these slices of the
            first pass come first and are not computed again.
        plan: A name of ``plans.PLANS``.
        smooth_mm: Standard deviation of a 3D smoothing of each finding; 0 leaves the masks as the model made them.
        least_presence: Findings with a lower presence are left out, and the report's warnings count them; 0..1.
        min_area_mm2: Mask pieces of a slice with a smaller area are left out; None takes the usual rule for specks.
        link_slices: Join pieces of neighbouring slices; False leaves the pieces of each slice findings of their own.

    Raises:
        PromptError: An ask, the plan or a number cannot be used, or there is nothing to ask for; before any slice is
            computed. Targets that the model does not know are left out and told while others are left.
        ConfigError: The plan needs memory parts that the model does not have.
        DeviceError: Memory does not suffice for a single slice, or for the findings.
    """
    began = time.monotonic()
    window = window or choose_window(volume)
    prompts, unknown = without_unknown(_prompts(predictor, volume, asks), volume.modality, predictor.config)
    context = RunContext(predictor, volume, plane, prompts, window, cancel or CancelToken())
    route = plans.route(plan, volume, plane, window, every, indices)
    postprocessing.check(smooth_mm, volume)
    selection = Selection(least_presence, min_area_mm2, link_slices)
    selection.check(volume)
    for prompt in prompts:
        if prompt.region is None:  # one with a region is checked against its own slice, in the first batch
            resolve(prompt, volume.slice(0, plane), predictor.processor)
    if route.plan.follows:
        tracking.check(context, route.plan.follows)
    aggregation = Aggregation()
    if unknown:
        aggregation.warnings.append(unknown_text(unknown))
    finished = False
    try:
        yield from _examine(context, route, known or {}, aggregation, began)
        cancelled = len(aggregation.done) < _planned(context, route, aggregation)
        found, specks = _findings(context, route, aggregation, cancelled, smooth_mm, selection)
        for finding in found:
            yield FindingFound(finding)
        sentences = _describe(context, found, aggregation) if describe and not cancelled else []
        finished = not context.cancel.cancelled
    finally:
        if not finished:
            predictor.free()
    if route.skipped and not route.first_pass:
        aggregation.warnings.append("No slice shows more than air, so none was examined.")
    stated = {
        "tasks": sorted({p.task for p in prompts}),
        "targets": [p.target for p in prompts if p.target],
        "questions": [p.question for p in prompts if p.question],
        **({"unknown_targets": [asdict(one) for one in unknown]} if unknown else {}),
        "plane": plane,
        "plan": plan,
        "every": route.step,
        "indices": None if indices is None else list(indices),
        "smooth_mm": smooth_mm,
        **selection.stated(),
        "describe": describe,
        "presence_threshold": predictor.config.presence.threshold,
        **(settings or {}),
    }
    yield Done(
        report.build(
            volume=volume,
            window=None if volume.is_rgb else window,
            plane=plane,
            findings=found,
            absences=aggregation.absences(prompts, found, volume.modality),
            model=predictor.info.provenance(),
            settings=stated,
            slices_done=aggregation.done,
            slices_skipped=route.skipped,
            seconds=time.monotonic() - began,
            sentences=sentences,
            truncated=aggregation.truncated,
            specks_dropped=specks,
            warnings=[*aggregation.warnings, *aggregation.contest_notes(volume)],
            cancelled=cancelled,
        )
    )


def _prompts(predictor: Predictor, volume: Volume, asks: Sequence[Prompt | str]) -> list[Prompt]:
    if not asks:
        known = predictor.info.default_targets.get(volume.modality) or predictor.info.targets.get(volume.modality)
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


def _planned(context: RunContext, route: Route, aggregation: Aggregation) -> int:
    """Slices of the first pass and those that, as far as is known, come after it."""
    return len(route.first_pass) + len(_further(context, route, aggregation))


def _further(context: RunContext, route: Route, aggregation: Aggregation) -> list[int]:
    if route.plan.further is None:
        return []
    follows = route.plan.follows == "memory"
    prompts = [p for p in context.prompts if tracking.followable(p) or not follows]
    return route.further(aggregation.positive(prompts))


def _examine(
    context: RunContext,
    route: Route,
    known: Mapping[int, tuple[Prediction, ...]],
    aggregation: Aggregation,
    began: float,
) -> Iterator[Update]:
    """All passes of a plan."""
    yield Progress(0, len(route.first_pass))
    for batch in _passes(context, route, known, aggregation):
        for index, predictions in batch:
            aggregation.take(index, predictions, context.volume.modality)
            yield SliceDone(index, predictions)
        done, total = len(aggregation.done), _planned(context, route, aggregation)
        yield Progress(done, total, (time.monotonic() - began) / done * (total - done))


def _passes(
    context: RunContext, route: Route, known: Mapping[int, tuple[Prediction, ...]], aggregation: Aggregation
) -> Iterator[Batch]:
    if route.plan.follows == "published":
        yield from _on_device(context, tracking.published(context))
        return
    given: Batch = [(index, known[index]) for index in route.first_pass if index in known]
    missing = [index for index in route.first_pass if index not in known]
    yield from itertools.chain([given] if given else [], answered(context, missing, aggregation.warnings))
    if context.cancel.cancelled or route.plan.further is None:
        return
    if route.plan.follows == "memory":
        yield from _on_device(context, tracking.carried(context, route, aggregation))
    else:
        yield from answered(context, _further(context, route, aggregation), aggregation.warnings)


def _on_device(context: RunContext, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of one slice, which cannot be made smaller.

    Raises:
        DeviceError: Memory does not suffice.
    """
    try:
        yield from batches
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        context.predictor.free()
        raise devices.out_of_memory(context.predictor.model, context.predictor.placement) from error


def _findings(
    context: RunContext, route: Route, aggregation: Aggregation, cancelled: bool, smooth_mm: float, selection: Selection
) -> tuple[tuple[Finding, ...], int]:
    """Linked, chosen and smoothed where asked for, and measured; and the number of specks that were left out.

    Raises:
        DeviceError: Memory does not suffice.
    """
    # A refined plan has left no slice out between two with a finding, unless it was stopped.
    step = 1 if route.plan.further and not cancelled else route.step
    linked, specks = _retried(
        context,
        lambda: selection.link(aggregation.masks, context.volume, context.plane, visited=aggregation.done, every=step),
    )
    if selection.link_slices:  # else the pieces of each slice are wanted as they are
        linked, scraps = counting.counted(linked, context.volume)
        specks += scraps.total()
    linked, notes = selection.keep(linked)
    aggregation.warnings += notes
    linked = _retried(context, lambda: postprocessing.smooth_all(linked, context.volume, smooth_mm))
    found = _retried(context, lambda: findings(linked, context.volume))
    return counting.with_tallies(found, context.volume), specks


def _retried(context: RunContext, call: Callable[[], T]) -> T:
    """A call, once more without cached features when memory runs out.

    Raises:
        DeviceError: Memory does not suffice.
    """
    try:
        return call()
    except MemoryError:
        context.predictor.free()
    try:
        return call()
    except MemoryError as error:
        raise devices.out_of_memory(context.predictor.model, context.predictor.placement) from error


def _describe(context: RunContext, found: Sequence[Finding], aggregation: Aggregation) -> list[tuple[int, str]]:
    """What the model itself writes about the largest slices of the largest findings, unedited."""
    keys = list(dict.fromkeys(f.measurements.slice_largest for f in found))[:DESCRIBED_SLICES]
    if not keys and context.volume.is_2d:
        keys = aggregation.done[:1]
    sentences: list[tuple[int, str]] = []
    for index in keys:
        if context.cancel.cancelled:
            aggregation.warnings.append("Stopped before all key slices were described.")
            break
        try:
            piece = context.volume.slice(index, context.plane)
            ((prediction,),) = context.predictor.predict([piece], [Prompt("report")], context.window)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            # The findings are worth more than their description.
            context.predictor.free()
            aggregation.warnings.append("Memory ran out while key slices were described; the findings are complete.")
            break
        if prediction.text:
            sentences.append((index, prediction.text))
        if prediction.truncated:
            aggregation.truncated.append(index)
    return sentences
