"""The answers of a run, batch by batch, going on with less at once when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unibiomed_core.engine import devices
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.modalities import Window
from unibiomed_core.types import Plane, Prediction, Prompt, Volume
from unibiomed_core.updates import CancelToken

log = logging.getLogger(__name__)

Batch = list[tuple[int, tuple[Prediction, ...]]]
"""(slice index, one prediction a prompt)."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What one run asks of one volume."""

    predictor: Predictor
    volume: Volume
    plane: Plane
    prompts: Sequence[Prompt]
    window: Window
    cancel: CancelToken


def answered(context: RunContext, indices: Sequence[int], warnings: list[str]) -> Iterator[Batch]:
    """The prompts asked on slices, batch by batch, until the end or a cancel.

    When memory runs out, the batch is halved, for good; with one slice left in it, the prompts of a slice are.

    Args:
        warnings: A sentence is added for each time that memory ran out.

    Raises:
        DeviceError: Memory does not suffice for one prompt on one slice.
    """
    predictor, volume, prompts = context.predictor, context.volume, context.prompts
    start, size, width = 0, predictor.batch_size, len(prompts)
    while start < len(indices) and not context.cancel.cancelled:
        part = indices[start : start + size]
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
            warnings.append(f"Memory ran out; the run went on with {what} at once.")
            continue
        start += len(part)
        yield [(i, tuple(p for answers in asked for p in answers[n])) for n, i in enumerate(part)]
