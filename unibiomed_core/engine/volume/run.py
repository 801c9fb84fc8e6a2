"""A whole volume or picture: from a plan over slices to the report, as a stream of updates."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from unibiomed_core import vocabulary
from unibiomed_core.engine import devices
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.engine.prompts import resolve, without_unknown
from unibiomed_core.engine.volume import plans, postprocessing, tracking
from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.batching import Batch, RunContext, answered
from unibiomed_core.engine.volume.finish import Examined, find, finish, window_of
from unibiomed_core.engine.volume.plans import Route
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Ended, Finding, Prediction, Prompt, Volume
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
    window = window_of(volume, request)
    prompts, unknown = without_unknown(_prompts(predictor, volume, request), volume.modality, predictor.config)
    context = RunContext(predictor, volume, request.plane, prompts, window, cancel or CancelToken())
    route = plans.route(request.plan, volume, request.plane, window, request.every, request.indices)
    examined = Examined(volume, request, prompts, unknown, route)
    _check(context, examined)
    aggregation, finished = examined.aggregation, False
    try:
        yield from _examine(context, route, known or {}, aggregation, began)
        ended: Ended = "cancelled" if len(aggregation.done) < _planned(context, route, aggregation) else "finished"
        found = _retried(context, lambda: find(examined, ended))
        for finding in found.findings:
            yield FindingFound(finding)
        describe = request.describe and ended == "finished"
        sentences = _describe(context, found.findings, aggregation) if describe else []
        finished = not context.cancel.cancelled
    finally:
        if not finished:
            predictor.free()
    seconds = time.monotonic() - began
    model = predictor.info.provenance()
    yield Done(finish(examined, found, ended=ended, model=model, seconds=seconds, sentences=sentences))


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
    if request.prompts:
        return list(dict.fromkeys(request.prompts))
    known = predictor.info.default_targets.get(volume.modality) or predictor.info.targets.get(volume.modality)
    names = known or tuple(t.name for t in vocabulary.for_modality(volume.modality))
    if not names:
        raise PromptError(
            "Nothing to look for",
            f"neither the model nor the vocabulary has targets for the modality '{volume.modality}'",
            "at least one target or question",
            "Name the targets.",
        )
    return list(RunRequest.segment(*dict.fromkeys(names)).prompts)


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
