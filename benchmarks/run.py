"""python benchmarks/run.py [OUT]: counts and ratios of the engine with the embedded model; one table and a JSON file.

Times are ratios of medians measured alternately in one process; nothing here is asserted, the tests assert counts.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.types import Prompt, Slice, StoredOrder, Volume

REPEATS = 7
WINDOW = Window("as is", 0.0, 255.0)


def picture(seed: int) -> Slice:
    """A 256 x 256 picture of noise: time does not depend on what is in it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (256, 256), np.uint8)
    return Slice(pixels, "axial", seed, (1.0, 1.0), "ct")


def medians(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, run alternately after one warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(REPEATS + 1):
        for own, call in zip(times, calls, strict=True):
            began = time.perf_counter()
            call()
            if repeat:
                own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in times]


def targets(engine: Engine) -> dict[str, float]:
    """12 targets on one slice against 1: image encodes, and time with nothing cached."""
    names = list(engine.info.targets["ct"])[:12]
    prompts = [Prompt("segment", target=name) for name in names]

    def ask(count: int) -> None:
        engine.free()
        engine.predict([picture(1)], prompts[:count], WINDOW)

    before = engine.counts.grounding_encodes
    ask(len(prompts))
    encodes = engine.counts.grounding_encodes - before
    one, twelve = medians(lambda: ask(1), lambda: ask(len(prompts)))
    engine.predict([picture(2)], prompts[:1], WINDOW)
    first, second = medians(lambda: ask(1), lambda: engine.predict([picture(1)], prompts[1:2], WINDOW))
    return {
        "image encodes per slice, 12 targets": encodes,
        "time, 12 targets / 1 target": twelve / one,
        "time, second question on a seen slice / first": second / first,
        "seconds per slice, 1 target": one,
    }


def volume(slices: int) -> Volume:
    """Noise in HU."""
    voxels = np.random.default_rng(0).integers(-900, 900, (slices, 128, 128)).astype(np.int16)
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], float)
    order = StoredOrder((2, 1, 0), (True, True, True), (128, 128, slices), np.eye(4))
    return Volume(voxels, affine, "ct", "HU", "mm", True, order)


def memory(engine: Engine) -> dict[str, float]:
    """Peak of traced allocations, 120 slices against 24; the input itself is left out of both."""
    peaks = []
    for count in (24, 120):
        given = volume(count)
        tracemalloc.start()
        for _ in engine.run(given, ["liver"], describe=False):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return {"traced peak memory, 120 slices / 24 slices": peaks[1] / peaks[0]}


def imports() -> dict[str, float]:
    """Seconds of ``import unibiomed_core`` against ``import torch``, each in a fresh interpreter."""

    def load(name: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {name}"], check=True)

    base, ours, torch_time = medians(lambda: load("sys"), lambda: load("unibiomed_core"), lambda: load("torch"))
    return {"import unibiomed_core / import torch": (ours - base) / (torch_time - base)}


def main() -> None:
    """Print the table and write ``benchmarks.json``."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    engine = Engine.load("mini", device="cpu")
    found = {**targets(engine), **memory(engine), **imports()}
    for name, value in found.items():
        print(f"{name:52} {value:8.3f}")
    (out / "benchmarks.json").write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
