"""The answers of a run, batch by batch, going on with less at once when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from unibiomed_core.engine import devices
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.modalities import Window
from unibiomed_core.types import Note, Plane, Prediction, Prompt, Volume
from unibiomed_core.updates import LESS_MEMORY, CancelToken

log = logging.getLogger(__name__)

Batch = list[tuple[int, tuple[Prediction, ...]]]
"""(slice index, one prediction a prompt)."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What one run asks of one volume.

    Args:
        prompts: All of them, in their order.
        where: Prompt -> the slices that it is asked on, where these are not all.
    """

    predictor: Predictor
    volume: Volume
    plane: Plane
    prompts: Sequence[Prompt]
    window: Window
    cancel: CancelToken
    where: Mapping[Prompt, Collection[int]] = field(default_factory=dict)

    def asked_on(self, index: int) -> tuple[Prompt, ...]:
        """The prompts of one slice."""
        return tuple(p for p in self.prompts if p not in self.where or index in self.where[p])


def answered(context: RunContext, indices: Sequence[int], warnings: list[Note]) -> Iterator[Batch]:
    """The prompts asked on slices, batch by batch, until the end or a cancel.

    When memory runs out, the batch is halved, for good; with one slice left in it, the prompts of a slice are.

    Args:
        warnings: A note is added for each time that memory ran out.

    Raises:
        DeviceError: Memory does not suffice for one prompt on one slice.
    """
    predictor, volume = context.predictor, context.volume
    start, size, width = 0, predictor.batch_size, max(1, len(context.prompts))
    while start < len(indices) and not context.cancel.cancelled:
        prompts = context.asked_on(indices[start])
        part = list(takewhile(lambda i: context.asked_on(i) == prompts, indices[start : start + size]))  # noqa: B023
        slices = [volume.slice(i, context.plane) for i in part]
        try:
            asked = [
                predictor.predict(slices, prompts[i : i + width], context.window) for i in range(0, len(prompts), width)
            ]
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            predictor.free()
            if size == 1 and width == 1:
                raise devices.out_of_memory(predictor.model, predictor.placement) from error
            if size > 1:
                size = max(1, len(part) // 2)
                what = f"{size} slice{'s'[: size > 1]}"
            else:
                width = max(1, width // 2)
                what = f"{width} prompt{'s'[: width > 1]}"
            log.warning("memory ran out; going on with %s at once", what)
            warnings.append(Note(LESS_MEMORY, f"Memory ran out; the run went on with {what} at once."))
            continue
        start += len(part)
        yield [(i, tuple(p for answers in asked for p in answers[n])) for n, i in enumerate(part)]
