"""A whole volume or picture: from a plan over slices to the report, as a stream of updates."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from unibiomed_core.engine import devices
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.engine.prompts import resolve, without_unknown
from unibiomed_core.engine.volume import plans, postprocessing, scene, strategy, tracking
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.batching import Batch, RunContext, answered
from unibiomed_core.engine.volume.boxes import ask_boxes, ask_looks
from unibiomed_core.engine.volume.checks import Checked, checked
from unibiomed_core.engine.volume.finish import Examined, Found, find, finish, measured, unchecked, window_of
from unibiomed_core.engine.volume.plans import Route
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Ended, Finding, Note, Prediction, Prompt, Shown, Volume
from unibiomed_core.updates import CancelToken, Done, FindingFound, Progress, SliceDone, Update

DESCRIBED_SLICES = 3
"""At most so many slices are described in the model's own words."""

T = TypeVar("T")


def run(
    predictor: Predictor,
    volume: Volume,
    request: RunRequest = RunRequest(),
    *,
    cancel: CancelToken | None = None,
    known: Mapping[int, tuple[Prediction, ...]] | None = None,
) -> Iterator[Update]:
    """Ask the same of the slices of a plan, link the answers into findings, and report.

    The order of updates: ``Progress`` with 0 done; a ``SliceDone`` for each slice of a batch and a ``Progress`` after
    it, batch after batch; a ``FindingFound`` for each finding, largest first; ``Done``. Where a plan adds slices to its
    first pass, the total of ``Progress`` grows as soon as they are known; it never shrinks. A run that is cancelled,
    closed or fails drops its cached features; a cancelled one ends its batch and then links and reports what is done.

    Args:
        cancel: Looked at between batches.
        known: Slice index -> what an earlier, stopped run of the same model and request answered; these slices of the
            first pass come first and are not computed again.

    Raises:
        PromptError: A prompt, the plan or a number cannot be used, or there is nothing to ask for; before any slice is
            computed. Targets that the model does not know are left out and told while others are left.
        ConfigError: The plan needs memory parts that the model does not have.
        DeviceError: Memory does not suffice for a single slice, or for the findings.
    """
    began = time.monotonic()
    window, cancel = window_of(volume, request), cancel or CancelToken()
    prompts, unknown = without_unknown(_prompts(predictor, volume, request), volume.modality, predictor.config)
    route = plans.route(request.plan, volume, request.plane, window, request.every, request.indices)
    asked = RunContext(predictor, volume, request.plane, prompts, window, cancel)
    _check(asked, Examined(volume, request, prompts, unknown, route))
    finished = False
    try:
        yield Progress(0, len(route.first_pass))
        aggregation = Aggregation()
        context, shown = _prepared(asked, request, route, aggregation.warnings)
        examined = Examined(volume, request, context.prompts, unknown, route, aggregation, shown)
        yield from _examine(context, route, known or {}, aggregation, began)
        ended: Ended = "cancelled" if len(aggregation.done) < _planned(context, route, aggregation) else "finished"
        found = _retried(context, lambda: find(examined, ended))
        stands = _checked(context, examined, found) if request.check else unchecked(found)
        rows, dismissed = _retried(context, lambda: measured(examined, stands))
        for finding in rows:
            yield FindingFound(finding)
        describe = request.describe and ended == "finished"
        sentences = _describe(context, rows, aggregation) if describe else []
        finished = not context.cancel.cancelled
    finally:
        if not finished:
            predictor.free()
    seconds = time.monotonic() - began
    model = predictor.info.provenance()
    yield Done(finish(examined, found, rows, dismissed, ended=ended, model=model, seconds=seconds, sentences=sentences))


def _prepared(
    asked: RunContext, request: RunRequest, route: Route, warnings: list[Note]
) -> tuple[RunContext, Shown | None]:
    """What is shown, and what is asked where because of it; what the user named is asked everywhere.

    Args:
        warnings: A note is added where memory does not suffice to see what is shown; all is searched everywhere then.
    """
    slices = sorted(route.usable)
    if not request.check or not slices or route.plan.follows == "published":
        return asked, None
    volume, config, prompts = asked.volume, asked.predictor.config, list(asked.prompts)
    shown = _where_it_fits(
        asked, warnings, lambda: scene.recognise(asked.predictor, volume, asked.plane, asked.window, slices)
    )
    if shown is None:
        return asked, None
    if doubt := scene.contradiction(shown):
        warnings.append(doubt)
    where: dict[Prompt, frozenset[int]] = {}
    if not request.prompts:
        where = strategy.places(prompts, volume, shown, slices)
        prompts = [prompt for prompt in prompts if where.get(prompt, slices)]
        where |= strategy.reports(prompts, config, slices)
    prompts += strategy.open_questions(config, volume, shown)
    return replace(asked, prompts=prompts, where=where), shown


def _checked(context: RunContext, examined: Examined, found: Found) -> Checked:
    """What was found, looked at again by the other tasks of the model."""
    config, volume = context.predictor.config, context.volume
    among = strategy.nameable(config, volume, examined.shown)
    aggregation, describe = examined.aggregation, examined.request.describe
    done, warnings = len(aggregation.done), aggregation.warnings
    said = _where_it_fits(context, warnings, lambda: ask_boxes(found.things, context, among, done, describe))
    looks = _where_it_fits(context, warnings, lambda: ask_looks(found.things, context))
    return checked(found.things, aggregation, volume.modality, config.presence.fusion, said, looks)


def _where_it_fits(context: RunContext, warnings: list[Note], call: Callable[[], T]) -> T | None:
    """What the report is better with but not lost without: None and a note where memory does not suffice."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
    context.predictor.free()
    note = Note("checks_memory", "Memory ran out while what was found was to be checked; some checks are missing.")
    if note not in warnings:
        warnings.append(note)
    return None


def _check(context: RunContext, examined: Examined) -> None:
    """Refuse what cannot be used, before any slice is computed.

    Raises:
        PromptError: A prompt or a number.
        ConfigError: The plan needs memory parts that the model does not have.
    """
    volume, follows = context.volume, examined.route.plan.follows
    postprocessing.check(examined.request.smooth_mm, volume)
    examined.selection.check(volume)
    for prompt in context.prompts:
        if prompt.region is None:  # one with a region is checked against its own slice, in the first batch
            resolve(prompt, volume.slice(0, context.plane), context.predictor.processor)
    if follows:
        tracking.check(context, follows)


def _prompts(predictor: Predictor, volume: Volume, request: RunRequest) -> list[Prompt]:
    """Those of a request, each once; what the model looks for where it has none.

    Raises:
        PromptError: There is nothing to look for.
    """
    prompts = list(dict.fromkeys(request.prompts)) or strategy.unasked(predictor.config, volume)
    if not prompts:
        raise PromptError(
            "Nothing to look for",
            f"the model has no targets for the modality '{volume.modality}'",
            "at least one target or question",
            "Name the targets.",
        )
    return prompts


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
            aggregation.warnings.append(Note("description_stopped", "Stopped before all key slices were described."))
            break
        try:
            piece = context.volume.slice(index, context.plane)
            ((prediction,),) = context.predictor.predict([piece], [Prompt("report")], context.window)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            # The findings are worth more than their description.
            context.predictor.free()
            text = "Memory ran out while key slices were described; the findings are complete."
            aggregation.warnings.append(Note("description_memory", text))
            break
        if prediction.text:
            sentences.append((index, prediction.text))
        if prediction.truncated:
            aggregation.truncated.append(index)
    return sentences
