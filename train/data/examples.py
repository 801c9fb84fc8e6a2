"""From records to examples: which task, which wording, which targets. All of it follows from the sample's generator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core import vocabulary
from unibiomed_core.modalities import modality
from unibiomed_core.tasks import END, NO_FINDINGS
from unibiomed_core.types import Region

from . import questions, wordings
from .records import UNNAMED, Record, RegionRecord
from .run_lengths import decode_mask
from .targets import NOTHING

TASK_WEIGHTS = {"disease": 0.3, "report": 0.3, "grounded_vqa": 0.1, "describe": 0.1, "vqa": 0.4}
"""How often a picture that more than one task fits is asked each of them."""

BOX_JITTER = 0.08
"""Boxes that people draw are not tight: each edge is moved by up to this share of the box's side, half of the time."""

_PARTS_OF_BRAIN_TUMOUR = {"tumour core", "enhancing tumour", "peritumoural oedema"}


@dataclass(frozen=True)
class Example:
    """One question with its answer.

    Args:
        targets: What each ``[SEG]`` of the answer stands for, in order.
        learn_words: Whether the answer's words carry loss; where their wording is one of five, the mask is what counts.
    """

    task: str
    question: str
    answer: str
    targets: tuple[str, ...] = ()
    learn_words: bool = True


def pick_targets(record: Record, rng: np.random.Generator, most: int) -> list[tuple[str, bool]]:
    """(target, present) pairs of one picture for mask training: up to ``most`` present ones and one or two absent."""
    present = [r.target for r in record.regions if r.counts]
    chosen = [(present[i], True) for i in rng.permutation(len(present))[:most]]
    pool = record.absent if record.absent and (rng.random() < 0.7 or not record.foreign) else record.foreign
    room = max(1, most - len(chosen))
    chosen += [(pool[i], False) for i in rng.permutation(len(pool))[: min(room, 2)]]
    if record.findings_known and not findings(record) and rng.random() < 0.3:
        chosen.append((NOTHING, False))
    return chosen


def plain_examples(
    record: Record, rng: np.random.Generator, known: Mapping[str, Sequence[str]], segments: int
) -> list[Example]:
    """Questions about a whole picture: some of its modality's targets, there or not, and one or two of the other tasks.

    Args:
        known: Modality -> targets of the training records.
        segments: Most referring questions.
    """
    examples = []
    pool = list(known.get(record.modality, ()))
    own = {r.target for r in record.regions if r.counts}
    if pool and segments:
        # What a phrase means does not depend on the picture, so that rare targets need not wait for their own.
        picked = [str(t) for t in rng.choice(pool, size=min(segments, len(pool)), replace=False)]
        if own and not own & set(picked):
            picked[0] = sorted(own)[int(rng.integers(len(own)))]
        examples = [segment_example(record, t, rng, learn_words=n == 0) for n, t in enumerate(picked)]
    tasks = available_tasks(record)
    for task in _drawn(tasks, rng, 2):
        examples.append(_MAKERS[task](record, rng))
    return examples


def _drawn(tasks: Sequence[str], rng: np.random.Generator, most: int) -> list[str]:
    if not tasks:
        return []
    weights = np.array([TASK_WEIGHTS[t] for t in tasks])
    return [str(t) for t in rng.choice(tasks, size=min(most, len(tasks)), replace=False, p=weights / weights.sum())]


def available_tasks(record: Record) -> tuple[str, ...]:
    """Tasks about the whole picture that have an answer, referring segmentation aside."""
    tasks = []
    if record.findings_known:
        tasks += ["disease", "report"]
    if any(r.anatomy for r in record.regions):
        tasks.append("grounded_vqa")
    if record.caption and not record.regions and not record.findings_known:
        tasks.append("describe")
    if record.questions or (record.dataset in questions.CLASS_QUESTIONS and record.image_class) or record.modality:
        tasks.append("vqa")
    return tuple(tasks)


def boxed_examples(record: Record, rng: np.random.Generator) -> tuple[Region, list[Example]]:
    """A box on one piece of a target, and the questions about it: its name where the source gives one, and more."""
    own, region, mask = region_of(record, rng)
    if rng.random() < 0.5:
        region = _jittered(region, mask.shape, rng)
    said = own.caption or wordings.describe(own.target, mask, record.pixels(), record.modality) + "."
    named = Example(
        "roi_class", one_of(questions.ROI_QUESTIONS, rng), wordings.phrase(own.target, record.modality) + END
    )
    described = Example("roi_describe", one_of(questions.ROI_DESCRIPTION_QUESTIONS, rng), said + END)
    return region, [described] if own.target == UNNAMED else [named, described]


def _jittered(region: Region, shape: tuple[int, ...], rng: np.random.Generator) -> Region:
    width, height = region.x1 - region.x0 + 1, region.y1 - region.y0 + 1
    moved = np.rint(rng.uniform(-BOX_JITTER, BOX_JITTER, 4) * (width, height, width, height)).astype(int)
    x0, x1 = max(0, region.x0 + moved[0]), min(shape[1] - 1, region.x1 + moved[2])
    y0, y1 = max(0, region.y0 + moved[1]), min(shape[0] - 1, region.y1 + moved[3])
    return Region(int(x0), int(y0), int(x1), int(y1)) if x1 > x0 and y1 > y0 else region


def region_of(record: Record, rng: np.random.Generator) -> tuple[RegionRecord, Region, NDArray[np.bool_]]:
    """A target, the box of one of its connected pieces and that piece; the larger pieces are likelier.

    A target that is known by its box alone is one piece, the whole box.
    """
    own = record.regions[int(rng.integers(len(record.regions)))]
    if not own.counts:
        x0, y0, x1, y1 = own.box
        filled = np.zeros(record.stored_size, bool)
        filled[y0 : y1 + 1, x0 : x1 + 1] = True
        return own, Region(x0, y0, x1, y1), filled
    mask = decode_mask(own.counts, record.stored_size)
    labels, count = ndimage.label(mask)
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    piece = int(rng.choice(count, p=areas / areas.sum()))
    rows, columns = ndimage.find_objects(labels)[piece]
    return own, Region(columns.start, rows.start, columns.stop - 1, rows.stop - 1), labels == piece + 1


def vocabulary_texts(records: Iterable[Record], known: Mapping[str, Sequence[str]], seed: int) -> Iterable[str]:
    """Every kind of text the tokenizer has to spell, from training records only."""
    rng = np.random.default_rng(seed)
    for record in records:
        examples = plain_examples(record, rng, known, 2)
        if record.regions:
            examples += boxed_examples(record, rng)[1]
        yield from (text for e in examples for text in (e.question, e.answer))
        yield from (text for q in record.questions for text in (q.question, q.answer))


def findings(record: Record) -> list[str]:
    """What is wrong in a picture: its regions that are findings. Parts of a brain tumour are not findings beside it."""
    known = vocabulary.targets()
    names = [r.target for r in record.regions if r.target not in known or known[r.target].kind == "finding"]
    return [n for n in names if n not in _PARTS_OF_BRAIN_TUMOUR or "brain tumour" not in names]


def one_of(options: Sequence[str], rng: np.random.Generator) -> str:
    """The first, published wording half of the time."""
    return options[0] if rng.random() < 0.5 else options[int(rng.integers(len(options)))]


def segment_example(record: Record, target: str, rng: np.random.Generator, learn_words: bool = True) -> Example:
    """A referring question about one target, whether the picture shows it or not."""
    name = wordings.phrase(target, record.modality)
    question = one_of(questions.SEGMENT_QUESTIONS, rng).replace("{target}", _cased(name, record.modality))
    return Example("segment", question, one_of(questions.SEGMENT_ANSWERS, rng) + END, (target,), learn_words)


def _cased(name: str, kind: str) -> str:
    """Prompts write modalities as people do ("CT"); training phrases are lower case."""
    label = modality(kind).label
    return name.replace(f" {label.lower()}", f" {label}") if name.endswith(label.lower()) else name


def _disease(record: Record, rng: np.random.Generator) -> Example:
    found = findings(record)
    target = found[int(rng.integers(len(found)))] if found else NOTHING
    said = wordings.phrase(target, record.modality) if found else NO_FINDINGS
    answer = one_of(questions.DISEASE_ANSWERS, rng).replace("{phrase}", said)
    return Example("disease", one_of(questions.DISEASE_QUESTIONS, rng), answer + END, (target,))


def _report(record: Record, rng: np.random.Generator) -> Example:
    return Example("report", one_of(questions.REPORT_QUESTIONS, rng), *report_answer(record))


def report_answer(record: Record) -> tuple[str, tuple[str, ...]]:
    """The grounded report of a picture and the target of each ``[SEG]``: the source's words where it has some."""
    found = findings(record)[:3]
    if not found:
        return f"<p> {NO_FINDINGS}. </p> [SEG]{END}", (NOTHING,)
    rgb, masks = record.pixels(), record.masks()
    captions = {r.target: r.caption for r in record.regions}
    parts = []
    for name in found:
        said = captions[name] or (
            wordings.describe(name, masks[name], rgb, record.modality) + "." if name in masks else ""
        )
        parts.append(f"<p> {name}. {said} </p> [SEG]")
    return " ".join(parts) + END, tuple(found)


def _grounded_vqa(record: Record, rng: np.random.Generator) -> Example:
    asked = [r for r in record.regions if r.anatomy]
    region = asked[int(rng.integers(len(asked)))]
    question = one_of(questions.GROUNDED_VQA_QUESTIONS, rng).replace("{target}", region.anatomy)
    return Example("grounded_vqa", question, f"<p> {region.target}. </p> [SEG]{END}", (region.target,))


def _describe(record: Record, rng: np.random.Generator) -> Example:
    return Example("describe", one_of(questions.DESCRIBE_QUESTIONS, rng), record.caption + END)


def _vqa(record: Record, rng: np.random.Generator) -> Example:
    pairs: list[tuple[str, str]] = [(q.question, q.answer.lower()) for q in record.questions]
    if record.dataset in questions.CLASS_QUESTIONS and record.image_class:
        question, says = questions.CLASS_QUESTIONS[record.dataset]
        pairs.append((question, (says or {}).get(record.image_class, record.image_class).lower()))
    if record.modality and (not pairs or rng.random() < 0.15):
        pairs = [(questions.MODALITY_QUESTION, modality(record.modality).label.lower())]
    question, answer = pairs[int(rng.integers(len(pairs)))]
    return Example("vqa", f"<image>\n{question}", answer + END)


_MAKERS = {
    "disease": _disease,
    "report": _report,
    "grounded_vqa": _grounded_vqa,
    "describe": _describe,
    "vqa": _vqa,
}
