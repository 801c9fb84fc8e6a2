"""From records to examples: which task, which wording, which targets. All of it follows from (seed, epoch, index)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from train.data import sentences, wordings
from train.data.records import Record
from unibiomed_core import vocabulary
from unibiomed_core.modalities import modality
from unibiomed_core.tasks import END, NO_FINDINGS
from unibiomed_core.types import Region

TASK_WEIGHTS = {
    "segment": 0.25, "disease": 0.15, "report": 0.15, "roi_class": 0.2, "roi_describe": 0.1, "vqa": 0.15,
}  # fmt: skip
ABSENT_SHARE = 0.3
"""Share of referring questions that name something that is not there."""

NOTHING = NO_FINDINGS
"""The target of a ``[SEG]`` whose mask is empty because nothing is wrong."""


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Args:
        targets: What each ``[SEG]`` of the answer stands for, in order.
        region: A box that is drawn on the picture for the language side.
    """

    record: int
    task: str
    question: str
    answer: str
    targets: tuple[str, ...] = ()
    region: Region | None = None


def trained_targets(records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Modality -> targets that pictures show, in vocabulary order."""
    seen = {(r.modality, x.target) for r in records for x in r.regions}
    modalities = dict.fromkeys(m for m, _ in sorted(seen))
    return {m: tuple(t for t in vocabulary.targets() if (m, t) in seen) for m in modalities}


def sampling_weights(records: Sequence[Record]) -> NDArray[np.float64]:
    """How likely each record is drawn: data sets weigh as the square root of their size, so small ones are seen."""
    sizes = Counter(f"{r.dataset}/{r.modality}" for r in records)
    weights = np.array([sizes[f"{r.dataset}/{r.modality}"] ** -0.5 for r in records])
    return weights / weights.sum()


def draw(weights: NDArray[np.float64], count: int, seed: int, step: int) -> NDArray[np.int64]:
    """Which records a step shows; a function of (seed, step) alone, so that a resumed run goes on in the same order."""
    return np.random.default_rng([seed, step]).choice(len(weights), size=count, p=weights)


def pick_targets(record: Record, rng: np.random.Generator, most: int) -> list[tuple[str, bool]]:
    """(target, present) pairs of one picture for mask training: up to ``most`` present ones and one or two absent."""
    present = [r.target for r in record.regions]
    chosen = [(present[i], True) for i in rng.permutation(len(present))[:most]]
    pool = record.absent if record.absent and (rng.random() < 0.7 or not record.foreign) else record.foreign
    room = max(1, most - len(chosen))
    chosen += [(pool[i], False) for i in rng.permutation(len(pool))[: min(room, 2)]]
    if record.findings_known and not _findings(record) and rng.random() < 0.3:
        chosen.append((NOTHING, False))
    return chosen


def make_example(record: Record, index: int, rng: np.random.Generator) -> Example | None:
    """One example of a record, or None where no task fits it."""
    tasks = available_tasks(record)
    if not tasks:
        return None
    weights = np.array([TASK_WEIGHTS[t] for t in tasks])
    task = tasks[int(rng.choice(len(tasks), p=weights / weights.sum()))]
    return _MAKERS[task](record, index, rng)


def available_tasks(record: Record) -> tuple[str, ...]:
    tasks = []
    if record.regions or record.absent:
        tasks.append("segment")
    if record.regions:
        tasks += ["roi_class", "roi_describe"]
    if record.findings_known:
        tasks += ["disease", "report"]
    if record.questions or record.dataset in wordings.CLASS_QUESTIONS or record.modality:
        tasks.append("vqa")
    return tuple(tasks)


def vocabulary_texts(records: Sequence[Record], seed: int, per_record: int = 3) -> list[str]:
    """Every kind of text the tokenizer has to spell, from training records only."""
    rng = np.random.default_rng(seed)
    texts = []
    for index, record in enumerate(records):
        texts += [q.question for q in record.questions] + [q.answer for q in record.questions]
        for _ in range(per_record):
            if example := make_example(record, index, rng):
                texts += [example.question, example.answer]
    return texts


def _findings(record: Record) -> list[str]:
    known = vocabulary.targets()
    names = [r.target for r in record.regions if known[r.target].kind == "finding"]
    whole = {"tumour core", "enhancing tumour", "peritumoural oedema"} if "brain tumour" in names else set()
    return [n for n in names if n not in whole]


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    """The first, published wording half of the time."""
    return options[0] if rng.random() < 0.5 else options[int(rng.integers(len(options)))]


def _segment(record: Record, index: int, rng: np.random.Generator) -> Example:
    present = [r.target for r in record.regions]
    pool = present
    if not present or ((record.absent or record.foreign) and rng.random() < ABSENT_SHARE):
        pool = list(record.absent or record.foreign)
    return segment_example(record, index, pool[int(rng.integers(len(pool)))], rng)


def segment_example(record: Record, index: int, target: str, rng: np.random.Generator) -> Example:
    """A referring question about one target, whether the picture shows it or not."""
    name = sentences.phrase(target, record.modality)
    question = _one(wordings.SEGMENT_QUESTIONS, rng).replace("{target}", _cased(name, record.modality))
    return Example(index, "segment", question, _one(wordings.SEGMENT_ANSWERS, rng) + END, (target,))


def _cased(name: str, kind: str) -> str:
    """Prompts write modalities as people do ("CT"); training phrases are lower case."""
    label = modality(kind).label
    return name.replace(f" {label.lower()}", f" {label}") if name.endswith(label.lower()) else name


def _disease(record: Record, index: int, rng: np.random.Generator) -> Example:
    found = _findings(record)
    target = found[int(rng.integers(len(found)))] if found else NOTHING
    said = sentences.phrase(target, record.modality) if found else NO_FINDINGS
    answer = _one(wordings.DISEASE_ANSWERS, rng).replace("{phrase}", said)
    return Example(index, "disease", _one(wordings.DISEASE_QUESTIONS, rng), answer + END, (target,))


def _report(record: Record, index: int, rng: np.random.Generator) -> Example:
    found = _findings(record)
    question = _one(wordings.REPORT_QUESTIONS, rng)
    if not found:
        return Example(index, "report", question, f"<p> {NO_FINDINGS}. </p> [SEG]{END}", (NOTHING,))
    rgb, masks = record.pixels(), record.masks()
    parts = [
        f"<p> {name}. {sentences.describe(name, masks[name], rgb, record.modality)}. </p> [SEG]" for name in found[:3]
    ]
    return Example(index, "report", question, " ".join(parts) + END, tuple(found[:3]))


def region_of(record: Record, rng: np.random.Generator) -> tuple[str, Region, NDArray[np.bool_]]:
    """A target and the box of one of its connected pieces; the larger pieces are likelier."""
    masks = record.masks()
    target = list(masks)[int(rng.integers(len(masks)))]
    labels, count = ndimage.label(masks[target])
    areas = ndimage.sum_labels(masks[target], labels, range(1, count + 1))
    piece = int(rng.choice(count, p=areas / areas.sum()))
    rows, columns = ndimage.find_objects(labels)[piece]
    return target, Region(columns.start, rows.start, columns.stop - 1, rows.stop - 1), labels == piece + 1


def _roi_class(record: Record, index: int, rng: np.random.Generator) -> Example:
    target, region, _ = region_of(record, rng)
    answer = sentences.phrase(target, record.modality)
    return Example(index, "roi_class", _one(wordings.ROI_QUESTIONS, rng), answer + END, (), region)


def _roi_describe(record: Record, index: int, rng: np.random.Generator) -> Example:
    target, region, mask = region_of(record, rng)
    answer = sentences.describe(target, mask, record.pixels(), record.modality) + "."
    return Example(index, "roi_describe", _one(wordings.ROI_DESCRIPTION_QUESTIONS, rng), answer + END, (), region)


def _vqa(record: Record, index: int, rng: np.random.Generator) -> Example:
    pairs: list[tuple[str, str]] = [(q.question, q.answer.lower()) for q in record.questions]
    if record.dataset in wordings.CLASS_QUESTIONS and record.image_class:
        question, says = wordings.CLASS_QUESTIONS[record.dataset]
        pairs.append((question, (says or {}).get(record.image_class, record.image_class).lower()))
    if record.modality and (not pairs or rng.random() < 0.15):
        pairs = [(wordings.MODALITY_QUESTION, modality(record.modality).label.lower())]
    question, answer = pairs[int(rng.integers(len(pairs)))]
    return Example(index, "vqa", f"<image>\n{question}", answer + END)


_MAKERS = {
    "segment": _segment,
    "disease": _disease,
    "report": _report,
    "roi_class": _roi_class,
    "roi_describe": _roi_describe,
    "vqa": _vqa,
}
