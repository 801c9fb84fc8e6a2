"""What is measured: an engine with the straight loop beside it, drawn pictures, and medians of alternate runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.straight import StraightLoop
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model import weights
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.folder import read_config, read_tokenizer
from unibiomed_core.model.presets import one_billion
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.types import Prompt, Slice

REPEATS = 7
WINDOW = Window("as is", 0.0, 255.0)
TARGETS = 12


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine that keeps every mask, and the loop over the same weights.

    Args:
        where: "CPU" or "GPU".
    """

    engine: Engine
    straight: StraightLoop
    where: str

    @property
    def prompts(self) -> list[Prompt]:
        """One for each of ``TARGETS`` targets of CT."""
        return [Prompt("segment", name) for name in self.engine.config.targets["ct"][:TARGETS]]


def subjects() -> Iterator[Subject]:
    """The embedded model on the CPU, and a model of the published size with random weights where there is a GPU."""
    yield subject(Engine.load("mini", device="cpu"), "CPU")
    if torch.cuda.is_available():
        yield subject(random_engine(one_billion(), "cuda"), "GPU")


def random_engine(sizes: UniBiomedConfig, device: str) -> Engine:
    """A model of those sizes with random weights and the embedded model's words."""
    processor = embedded_processor(sizes)
    torch.manual_seed(0)
    with torch.device(device):
        model = UniBiomed(processor.config, processor.ids)
    return Engine(model, processor, device=device)


def subject(engine: Engine, where: str) -> Subject:
    """An engine made to keep every mask, so that masks can be compared."""
    engine.config = replace(engine.config, presence=Presence(engine.config.presence.source, 0.0))
    return Subject(engine, StraightLoop(engine.model, engine.processor), where)


def embedded_processor(sizes: UniBiomedConfig) -> Processor:
    """A model's sizes with the embedded model's words: tokenizer and targets."""
    folder = weights.resolve("mini", offline=True)
    targets = UniBiomedConfig.from_dict(read_config(folder)).targets
    return Processor(replace(sizes, targets=targets), read_tokenizer(folder))


def picture(seed: int, size: int = 256) -> Slice:
    """A picture of noise: time does not depend on what is in it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), np.uint8)
    return Slice(pixels, "axial", seed, (1.0, 1.0), "ct")


def medians(*calls: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Median seconds of each call, run alternately after one warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for own, call in zip(times, calls, strict=True):
            began = time.perf_counter()
            call()
            if repeat:
                own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in times]
