"""From records to examples: which task, which wording, which targets. All of it follows from the sample's generator."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unibiomed_core.modalities import modality
from unibiomed_core.tasks import END, MODALITY_ANSWERS, NO_FINDINGS, PART_ANSWERS
from unibiomed_core.types import Region

from . import boxes, questions, wordings
from .negatives import findings, findings_told, negatives, nothing_found, part_of
from .records import UNNAMED, Record
from .targets import NOTHING

TASK_WEIGHTS = {"disease": 0.3, "report": 0.3, "grounded_vqa": 0.1, "describe": 0.1, "vqa": 0.4}
"""How often a picture that more than one task fits is asked each of them."""

LOOK_SHARES = {"modality": 0.25, "part": 0.35}
"""Share of the pictures that are also asked what they are; those that nothing else can be asked of always are."""

NEGATIVE_WEIGHTS = {"near": 0.6, "far": 0.3, "other": 0.1}
"""How often each kind of :class:`.negatives.Negatives` gives what a picture does not show, of those that it has.

Other modalities are told apart so easily that one target of them a picture is enough.
"""

OTHER_MODALITY = 0.1
"""Share of pictures whose last referring question is worded as for another modality, and has an empty mask."""

INNER_BOX, EMPTY_BOX = 0.3, 0.3
"""Shares of boxes that lie within healthy anatomy, or on nothing at all, in pictures of which this is known."""


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


def pick_targets(record: Record, rng: np.random.Generator, most: int, known: Container[str]) -> list[tuple[str, bool]]:
    """(target, present) pairs of one picture for mask training: up to ``most`` present ones and one or two absent.

    Args:
        known: Targets of the run; others are not picked.
    """
    present = [r.target for r in record.regions if r.counts and r.target in known]
    chosen = [(present[i], True) for i in rng.permutation(len(present))[:most]]
    pools = {
        name: pool for name in NEGATIVE_WEIGHTS if (pool := [t for t in getattr(negatives(record), name) if t in known])
    }
    if pools:
        kind = _weighted(NEGATIVE_WEIGHTS, list(pools), rng, 1)[0]
        count = 1 if kind == "other" else min(2, max(1, most - len(chosen)))
        chosen += [(pools[kind][i], False) for i in rng.permutation(len(pools[kind]))[:count]]
    if nothing_found(record) and NOTHING in known and rng.random() < 0.3:
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
        if len(examples) > 1 and rng.random() < OTHER_MODALITY and (others := _of_other_modalities(record, known)):
            target, kind = others[int(rng.integers(len(others)))]
            examples[-1] = segment_example(record, target, rng, learn_words=False, kind=kind)
    tasks = available_tasks(record)
    drawn = _weighted(TASK_WEIGHTS, [t for t in tasks if t in TASK_WEIGHTS], rng, 2)
    looks = [t for t in tasks if t in LOOK_SHARES]
    drawn += [t for t in looks if rng.random() < LOOK_SHARES[t]] if examples or drawn else looks
    return [*examples, *(_MAKERS[task](record, rng) for task in drawn)]


def _of_other_modalities(record: Record, known: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(target, modality) of all that a run knows elsewhere and the picture surely does not show."""
    other = frozenset(negatives(record).other)
    return [(t, m) for m, names in known.items() if m and m != record.modality for t in names if t in other]


def _weighted(weights: Mapping[str, float], names: Sequence[str], rng: np.random.Generator, most: int) -> list[str]:
    """Up to ``most`` of the names, none twice."""
    if not names:
        return []
    chances = np.array([weights[name] for name in names])
    drawn = rng.choice(names, size=min(most, len(names)), replace=False, p=chances / chances.sum())
    return [str(name) for name in drawn]


def available_tasks(record: Record) -> tuple[str, ...]:
    """Tasks about the whole picture that have an answer, referring segmentation aside."""
    tasks = []
    if findings_told(record):
        tasks += ["disease", "report"]
    if any(r.anatomy for r in record.regions):
        tasks.append("grounded_vqa")
    if record.caption and not record.regions and not findings_told(record):
        tasks.append("describe")
    if record.questions or (record.dataset in questions.CLASS_QUESTIONS and record.image_class):
        tasks.append("vqa")
    if record.modality:
        tasks.append("modality")
    if part_of(record):
        tasks.append("part")
    return tuple(tasks)


def boxed_examples(record: Record, rng: np.random.Generator) -> tuple[Region, list[Example]]:
    """A box and the questions about it: its name where the source gives one, and more.

    It lies on one piece of a target, or where findings are known within healthy anatomy, which keeps its name, or on
    nothing at all.
    """
    if rng.random() < EMPTY_BOX and (region := boxes.empty_box(record, rng)) is not None:
        return region, [_named(NO_FINDINGS, rng)]
    own, region, mask = boxes.region_of(record, rng)
    name = wordings.phrase(own.target, record.modality)
    if rng.random() < INNER_BOX and (inner := boxes.inner_box(record, own, mask, rng)) is not None:
        return inner, [_named(name, rng)]
    if rng.random() < 0.5:
        region = boxes.jittered(region, mask.shape, rng)
    said = own.caption or wordings.describe(own.target, mask, record.pixels(), record.modality) + "."
    described = Example("roi_describe", one_of(questions.ROI_DESCRIPTION_QUESTIONS, rng), said + END)
    return region, [described] if own.target == UNNAMED else [_named(name, rng), described]


def _named(name: str, rng: np.random.Generator) -> Example:
    return Example("roi_class", one_of(questions.ROI_QUESTIONS, rng), name + END)


def vocabulary_texts(records: Iterable[Record], known: Mapping[str, Sequence[str]], seed: int) -> Iterable[str]:
    """Every kind of text the tokenizer has to spell, from training records only."""
    rng = np.random.default_rng(seed)
    for record in records:
        examples = plain_examples(record, rng, known, 2)
        if record.regions:
            examples += boxed_examples(record, rng)[1]
        yield from (text for e in examples for text in (e.question, e.answer))
        yield from (text for q in record.questions for text in (q.question, q.answer))


def one_of(options: Sequence[str], rng: np.random.Generator) -> str:
    """The first, published wording half of the time."""
    return options[0] if rng.random() < 0.5 else options[int(rng.integers(len(options)))]


def segment_example(
    record: Record, target: str, rng: np.random.Generator, learn_words: bool = True, kind: str = ""
) -> Example:
    """A referring question about one target, whether the picture shows it or not.

    Args:
        kind: The modality that it is worded for; the picture's own where empty.
    """
    name = wordings.phrase(target, kind or record.modality)
    question = one_of(questions.SEGMENT_QUESTIONS, rng).replace("{target}", _cased(name, kind or record.modality))
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
    question, answer = pairs[int(rng.integers(len(pairs)))]
    return Example("vqa", f"<image>\n{question}", answer + END)


def _modality(record: Record, rng: np.random.Generator) -> Example:
    return Example("modality", questions.MODALITY_QUESTION, MODALITY_ANSWERS[record.modality] + END)


def _part(record: Record, rng: np.random.Generator) -> Example:
    return Example("part", questions.PART_QUESTION, PART_ANSWERS[part_of(record)] + END)


_MAKERS = {
    "disease": _disease,
    "report": _report,
    "grounded_vqa": _grounded_vqa,
    "describe": _describe,
    "vqa": _vqa,
    "modality": _modality,
    "part": _part,
}
