"""python benchmarks/training.py [OUT]: our training step against the published one, and the loader against our step.

Both steps see the same pictures, questions and answers, train the same parts of the same model (the embedded one's
architecture with adapters, random weights, float32) and go forward and backward. Ours has all questions about a picture
in one row, decodes each object once, makes logits for answer positions and leaves SAM 2 alone where nothing is
segmented; the published one has a row a question, decodes every object five times, makes all logits and runs SAM 2
without weight where a micro-batch has no mask. FLOPs are counted, also with a row a question on our side, which shows
what sharing pictures gives; times are ratios of medians measured alternately. Everything runs on one core: on two, the
step is at most twice as fast, and the loader reads beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from train.config import RunConfig, Stage
from train.data import records as record_files
from train.data.batches import Sheet
from train.data.examples import vocabulary_texts
from train.data.records import Record, RecordSet, region_record, resize_picture
from train.data.targets import trained_targets
from train.training.initialise import initial_model
from train.training.loop import Steps
from train.training.progress import count_flops
from train.training.published.samples import PublishedSample
from train.training.published.stage import PublishedStage
from train.training.stage import StageTask, TrainingData
from train.training.stages import Joint
from unibiomed_core.model.unibiomed import UniBiomed

PICTURES, MICRO, SIDE, REPEATS = 8, 4, 256, 7
ORGANS = ("liver", "spleen", "aorta", "stomach", "right kidney")
ROLES = {"segment": "segment", "disease": "disease", "report": "report", "roi_class": "roi_class"}
"""Task of ours -> role in the published list; any other question is one about the picture, without a mask."""


def drawn_records(folder: Path) -> RecordSet:
    """CT pictures with three organs each, and polyps, a third of them not there; noise with brighter discs."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    made = []
    for number in range(48):
        polyps = number % 2 == 0
        names = ("polyp",) if polyps and number % 3 else () if polyps else tuple(rng.permutation(ORGANS)[:3])
        rgb = rng.integers(20, 90, (SIDE, SIDE, 3 if polyps else 1)).astype(np.uint8).repeat(1 if polyps else 3, axis=2)
        regions = []
        for name in names:
            row, column, radius = rng.integers(50, 200), rng.integers(50, 200), rng.integers(10, 40)
            mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            rgb[mask] += 100
            regions.append(region_record(str(name), mask))
        dataset, modality = ("polyps", "endoscopy") if polyps else ("organs", "ct")
        made.append(
            Record(
                f"{number}", dataset, "train", f"{number}", modality, "none",
                resize_picture(rgb, SIDE), (SIDE, SIDE), regions=tuple(regions), findings_known=polyps,
                absent=() if names else ("polyp",),
            )
        )  # fmt: skip
    record_files.save(made, folder / "train.parquet")
    return record_files.load(folder / "train.parquet")


@dataclass(frozen=True)
class Sides:
    """The steps, ready to run: each a stage and its micro-batches of the same questions; ``apart`` is ours with a row a
    question."""

    ours: tuple[StageTask, list[Any]]
    apart: tuple[StageTask, list[Any]]
    published: tuple[StageTask, list[Any]]
    questions: int


def prepared(model: UniBiomed, material: TrainingData) -> Sides:
    """Our plan of one step, and its questions as rows of the published step in a random order, as published."""
    stage = Stage(
        "joint", "joint", steps=99, batch_size=PICTURES, micro_batch=MICRO, learning_rate=1e-4, trained="ours"
    )
    ours, theirs = Joint(model, material, stage), PublishedStage(model, material, replace(stage, trained="published"))
    sheets = ours.plan(0)
    questions = [sample for sheet in sheets for sample in as_published(sheet)]
    order = np.random.default_rng(0).permutation(len(questions))
    rows = [[questions[n] for n in order[start : start + MICRO]] for start in range(0, len(order), MICRO)]
    single = sorted((replace(s, examples=(e,)) for s in sheets for e in s.examples), key=ours.length)
    alone = [single[start : start + MICRO] for start in range(0, len(single), MICRO)]
    return Sides(
        (ours, Steps(ours, 0, 1)[0]),
        (ours, [ours.collate(row) for row in alone]),
        (theirs, [theirs.collate(row) for row in rows]),
        len(questions),
    )


def as_published(sheet: Sheet) -> list[PublishedSample]:
    """One sample a question."""
    records, region, rng = (sheet.record,), sheet.region, sheet.rng
    return [
        PublishedSample(ROLES.get(e.task, "region_report"), records, e.question, e.answer, e.targets, region, rng)
        for e in sheet.examples
    ]


def step(side: tuple[StageTask, list[Any]]) -> None:
    """Forward and backward of all micro-batches."""
    task, batches = side
    totals: dict[str, float] = {}
    for batch in batches:
        for name, count in task.counts(batch).items():
            totals[name] = totals.get(name, 0.0) + count
    for batch in batches:
        torch.stack([value / max(1.0, totals[name]) for name, value in task(batch).items()]).sum().backward()
    task.zero_grad(set_to_none=True)


def compared(sides: Sides) -> dict[str, float]:
    """FLOPs and seconds of both steps."""
    flops: list[float] = []
    seconds: list[list[float]] = [[], []]
    for side in (sides.ours, sides.published, sides.apart):
        side[0].select_trained()
        side[0].train()
        flops.append(count_flops(lambda side=side: step(side)))
    for _ in range(REPEATS):
        for own, side in zip(seconds, (sides.ours, sides.published), strict=True):
            side[0].select_trained()
            own.append(timed(lambda side=side: step(side)))
    ours, theirs = map(median, seconds)
    return {
        "pictures": PICTURES,
        "questions": sides.questions,
        "published GFLOP a step": flops[1] / 1e9,
        "our GFLOP a step": flops[0] / 1e9,
        "FLOPs, published / ours": flops[1] / flops[0],
        "FLOPs, published / ours, a row a question": flops[1] / flops[2],
        "published seconds a step": theirs,
        "our seconds a step": ours,
        "time, published / ours": theirs / ours,
    }


def loader(task: StageTask, seconds: float) -> dict[str, float]:
    """Pictures a second that one process reads ahead, against those that a step uses."""
    steps = Steps(task, 0, 1)
    steps[1]
    read = PICTURES / median(timed(lambda n=n: steps[n]) for n in range(2, 2 + REPEATS))
    return {"loader, pictures a second": read, "loader / step": read * seconds / PICTURES}


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> None:
    """Print the table and write ``training.json``."""
    out = Path(arguments[0] if arguments else "out/benchmarks")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        records = drawn_records(Path(folder))
        config = RunConfig("benchmark", "mini", adapters=16)
        known = trained_targets(records)
        model, processor = initial_model(config, Path(folder), lambda: vocabulary_texts(records, known, 0))
        sides = prepared(model, TrainingData(records, processor, seed=0))
        found = compared(sides)
        found |= loader(sides.ours[0], found["our seconds a step"])
    for name, value in found.items():
        print(f"{name:42} {value:10.3f}")
    (out / "training.json").write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
