"""What an answer costs that never looks at the picture: everything here comes from training records alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unibiomed_core.metrics.overlap import dice
from unibiomed_core.metrics.published import clean
from unibiomed_core.tasks import NO_FINDINGS

from ..data import examples, negatives, wordings
from ..data.records import Record
from .predict import questions_of, roi_question

MOST_RECORDS = 50_000
"""Training records that are looked at, evenly spaced."""

MOST_DESCRIBED = 1500
"""Of them those whose pictures are described by rule, which takes longest."""

SHAPE_SIDE = 128
SHAPES_TRIED = 60
"""Training masks on which the cut of a mean shape is chosen."""

Key = tuple[str, str, str]
"""Data set, modality, target."""


@dataclass
class _Shape:
    """Running mean of one target's masks, (128, 128) each, and some of them as they are."""

    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SHAPE_SIDE, SHAPE_SIDE)))
    count: int = 0
    kept: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, mask: NDArray[np.bool_]) -> None:
        share = _resized(mask.astype(np.float32), (SHAPE_SIDE, SHAPE_SIDE), Image.Resampling.BOX)
        self.total += share
        self.count += 1
        if len(self.kept) < SHAPES_TRIED:
            self.kept.append(share >= 0.5)

    def best_cut(self) -> float:
        """The level at which the mean shape has the highest mean Dice on the kept masks."""
        mean = self.total / self.count
        levels = [float(level) for level in np.linspace(0.05, 0.9, 18) if (mean >= level).any()]
        return max(levels or [0.0], key=lambda level: np.mean([dice(mean >= level, m) for m in self.kept]))


@dataclass(frozen=True)
class Baselines:
    """Trivial answers.

    Args:
        shapes: For each target the (128, 128) mean of its training masks and the level it is cut at.
        present: Training pictures that show a target, of those that say whether they do (``asked``).
        answers: (task, modality or, for the class of a picture, data set) -> counted training answers.
    """

    shapes: dict[Key, tuple[NDArray[np.float32], float]]
    present: Counter[Key]
    asked: Counter[Key]
    answers: dict[tuple[str, str], Counter[str]]

    def shape(self, key: Key, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """(H, W) mean-shape mask of a target; None where no training picture shows it."""
        if key not in self.shapes:
            return None
        mean, level = self.shapes[key]
        return _resized(mean, (size[1], size[0]), Image.Resampling.BILINEAR) >= level

    def usually_present(self, key: Key) -> bool:
        return 2 * self.present[key] >= self.asked[key]

    def answer(self, task: str, dataset: str, modality: str) -> str:
        """The commonest training answer to a task; empty where there is none."""
        return _commonest(self.answers.get((task, _kind(task, dataset, modality)), Counter()))

    def answer_overall(self, task: str) -> str:
        """The commonest training answer to a task over all pictures; empty where there is none."""
        return _commonest(sum((c for (name, _), c in self.answers.items() if name == task), Counter[str]()))


def _commonest(counted: Counter[str]) -> str:
    return counted.most_common(1)[0][0] if counted else ""


def baselines(training: Sequence[Record]) -> Baselines:
    """Everything in one pass; memory does not grow with the number of records."""
    shapes: dict[Key, _Shape] = defaultdict(_Shape)
    present, asked = Counter[Key](), Counter[Key]()
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    step = -(-len(training) // MOST_RECORDS) or 1
    described = -(-len(training) // MOST_DESCRIBED) or 1
    for number in range(0, len(training), step):
        record = training[number]
        for target, mask in record.masks().items():
            key = (record.dataset, record.modality, target)
            shapes[key].add(mask)
            present[key] += 1
            asked[key] += 1
        asked.update((record.dataset, record.modality, target) for target in record.absent)
        for task, text in _answers(record, describe=number % described == 0):
            answers[task, _kind(task, record.dataset, record.modality)][text] += 1
    made = {k: ((s.total / s.count).astype(np.float32), s.best_cut()) for k, s in shapes.items()}
    return Baselines(made, present, asked, dict(answers))


def _kind(task: str, dataset: str, modality: str) -> str:
    """Whose commonest answer counts. The question for a picture's class gives the data set away."""
    return dataset if task == "image_class" else modality


def _answers(record: Record, describe: bool) -> Iterator[tuple[str, str]]:
    """(task, answer) of everything a training record would be asked."""
    for region in record.regions:
        yield "roi_class", wordings.phrase(region.target, record.modality)
        if region.anatomy:
            yield "grounded_vqa", region.target
    if record.findings_known:
        for name in negatives.findings(record) or [NO_FINDINGS]:
            yield "disease", wordings.phrase(name, record.modality) if name != NO_FINDINGS else NO_FINDINGS
    for task, _, answer in questions_of(record):
        yield task, answer
    if describe and record.findings_known:
        yield "report", clean(examples.report_answer(record)[0])
    if describe and (found := roi_question(record)) is not None:
        yield "roi_describe", found[2]


def _resized(values: NDArray[np.float32], size: tuple[int, int], how: Image.Resampling) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values).resize(size, how), np.float32)
