"""FLOPs of the engine's own calls at any size, counted by torch on the meta device: shapes only, no weights, no time.

The engine runs as it is, over a model without values. What the model gives stays on the meta device until the engine
looks at it: numbers read as zero, words as those given, masks as empty. torch counts two FLOPs for a multiplication
with addition, and attention over every pair of positions it is given, those hidden by a mask included.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map
from torch.utils.flop_counter import FlopCounterMode

from unibiomed_core.engine import devices
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model import weights
from unibiomed_core.model.grounder import MaskOutput
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.types import Prompt, Slice

VISION, READING, WRITING, HEAD = "vision transformer", "language, reading", "language, writing", "language, logits"
ENCODER, DECODER, BRIDGE = "SAM 2 image encoder", "SAM 2 mask decoder", "bridge"

_NUMBERS: dict[Any, Any] = {Tensor.__bool__: True, Tensor.__int__: 0, Tensor.__float__: 0.0, Tensor.item: 0}


@dataclass(slots=True)
class _Border(TorchFunctionMode):
    """Takes what meets a meta tensor onto the meta device too, and answers the engine's questions about values."""

    writes: Sequence[int]
    counter: FlopCounterMode
    flops: Counter[str] = field(default_factory=Counter)
    written: int = 0
    part: str = READING
    _before: int = 0

    def __post_init__(self) -> None:
        TorchFunctionMode.__init__(self)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not tree_any(_is_meta, (args, kwargs)):
            return func(*args, **kwargs)
        if func in _NUMBERS:
            return _NUMBERS[func]
        if func is Tensor.tolist:
            token = self.writes[self.written % len(self.writes)]
            self.written += 1
            self.enter(WRITING)
            return [token] * len(args[0])
        args, kwargs = tree_map(_meta, (args, kwargs))
        return func(*args, **kwargs)

    def enter(self, part: str) -> str:
        """Book what was counted on the part that ends here, and go on with another; returns the one that ended."""
        total = self.counter.get_total_flops()
        self.flops[self.part] += total - self._before
        ended, self.part, self._before = self.part, part, total
        return ended


def predict_flops(
    processor: Processor, piece: Slice, prompts: Sequence[Prompt], window: Window, writes: Sequence[int] = ()
) -> Counter[str]:
    """FLOPs by part of one ``Engine.predict`` on a slice never seen, at the sizes of the processor's configuration.

    Args:
        writes: Ids that the model writes, one a step, where it writes.
    """
    model = weights.empty(processor.config, processor).eval().requires_grad_(False)
    with patch.object(devices, "place", lambda model, placement: model):  # values that are not there cannot be moved
        engine = Engine(model, processor, device="cpu", dtype="float32")
    real_ids = patch.object(UniBiomed, "device", torch.device("cpu"))  # their lengths decide what is computed
    with real_ids, torch.no_grad(), FlopCounterMode(display=False) as counter, _Border(writes, counter) as border:
        _watch(model, border)
        # Without inference mode, under which torch's counter takes every composite operation apart, 20 times slower.
        inspect.unwrap(Engine.predict)(engine, [piece], prompts, window)
        border.enter(READING)
    return Counter({part: count for part, count in border.flops.items() if count})


def _watch(model: UniBiomed, border: _Border) -> None:
    """Book calls of the model's parts under their names."""
    watched = (
        (model, "encode_tiles", VISION, None),
        (model, "logits", HEAD, None),
        (model.bridge, "forward", BRIDGE, None),
        (model, "encode_shared", ENCODER, None),
        (model.grounder, "encode", ENCODER, None),
        (model.grounder, "decode", DECODER, _empty_masks),
    )
    for owner, name, part, change in watched:
        setattr(owner, name, _booked(getattr(owner, name), part, border, change))


def _booked(call: Callable[..., Any], part: str, border: _Border, change: Callable[[Any], Any] | None) -> Any:
    def inner(*args: Any, **kwargs: Any) -> Any:
        with _during(part, border):
            made = call(*args, **kwargs)
        return made if change is None else change(made)

    return inner


@contextmanager
def _during(part: str, border: _Border) -> Iterator[None]:
    outer = border.enter(part)
    try:
        yield
    finally:
        border.enter(outer)


def _empty_masks(output: MaskOutput) -> MaskOutput:
    values = (getattr(output, part.name) for part in fields(output))
    return MaskOutput(*(torch.zeros(value.shape) for value in values))


def _is_meta(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _meta(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("meta")
    return torch.empty_like(value, device="meta") if isinstance(value, Tensor) and not value.is_meta else value
