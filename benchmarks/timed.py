"""Rows that are ratios of times, both sides measured alternately in one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.bars import Row
from benchmarks.counted import report_ids
from benchmarks.straight import written
from benchmarks.subject import TARGETS, WINDOW, Subject, medians, picture
from unibiomed_core.engine.prompts import resolve
from unibiomed_core.modalities import to_rgb
from unibiomed_core.types import Prediction, Prompt, Slice

BATCH = 16
VOLUME_SLICES, VOLUME_TARGETS = 24, 4
RATE_TOKENS = 97
KNOWN = "It is [SEG].<|end|>"
MOST_OTHER_PIXELS = 1e-3
"""Share of a mask's pixels that rounding may move between one sequence and a batch."""


def more_targets(subject: Subject) -> list[Row]:
    """R2: 12 targets on a slice against one, nothing cached."""

    def ask(count: int) -> None:
        subject.engine.free()
        subject.engine.predict([picture(1)], subject.prompts[:count], WINDOW)

    one, twelve = medians(lambda: ask(1), lambda: ask(TARGETS))
    bar = 2.5 if subject.where == "CPU" else 1.3
    return [Row("R2", "time: 12 targets / 1", subject.where, twelve / one, bar, parts={"seconds, 1 target": one})]


def second_question(subject: Subject) -> list[Row]:
    """R3: another target on a slice that was just seen, against the first."""
    engine, prompts = subject.engine, subject.prompts

    def first() -> None:
        engine.free()
        engine.predict([picture(1)], prompts[:1], WINDOW)

    fresh, again = medians(first, lambda: engine.predict([picture(1)], prompts[1:2], WINDOW))
    return [
        Row("R3", "second question on a seen slice / first", subject.where, again / fresh,
            0.3 if subject.where == "CPU" else 0.15),
    ]  # fmt: skip


def batches(subject: Subject) -> list[Row]:
    """R5: a slice in a batch of 16 against a slice alone."""
    engine = subject.engine
    slices = [picture(seed) for seed in range(BATCH)]

    def ask(size: int) -> None:
        for start in range(0, BATCH, size):
            engine.free()
            engine.predict(slices[start : start + size], subject.prompts[:1], WINDOW)

    alone, together = medians(lambda: ask(1), lambda: ask(BATCH))
    bar = 0.9 if subject.where == "CPU" else 0.35
    return [Row("R5", "slice in a batch of 16 / alone", subject.where, together / alone, bar)]


def against_straight(subject: Subject) -> list[Row]:
    """R6: ours against the straight loop, same weights, same words, same masks."""
    segment = subject.engine.processor.encode(KNOWN)
    report = report_ids(subject.engine.processor, 6, 180)
    cases = [
        ("slice x 12 targets", [picture(1)], subject.prompts, segment, 0.12),
        ("volume 24 x 4", [picture(n) for n in range(VOLUME_SLICES)], subject.prompts[:VOLUME_TARGETS], segment, 0.10),
        ("report with 6 masks", [picture(1)], [Prompt("report")], report, 0.35),
    ]
    rows = []
    for name, slices, prompts, ids, bar in cases:
        with written(subject.engine.model, ids):
            require_equal(straight(subject, slices, prompts), ours(subject, slices, prompts))
            theirs, own = medians(
                lambda s=slices, p=prompts: straight(subject, s, p), lambda s=slices, p=prompts: ours(subject, s, p)
            )
        parts = {"seconds, straight loop": theirs, "seconds, ours": own}
        rows.append(Row("R6", f"ours / straight loop: {name}", subject.where, own / theirs, bar, parts=parts))
    return rows


def ours(subject: Subject, slices: list[Slice], prompts: list[Prompt]) -> list[NDArray[np.bool_]]:
    """Masks by the engine, nothing cached before, in batches as it chooses them."""
    engine = subject.engine
    engine.free()
    answers: list[tuple[Prediction, ...]] = []
    for start in range(0, len(slices), engine.batch_size):
        answers += engine.predict(slices[start : start + engine.batch_size], prompts, WINDOW)
    empty = np.zeros(slices[0].shape, bool)
    phrases = [phrase for row in answers for prediction in row for phrase in prediction.phrases]
    return [empty if phrase.mask is None else phrase.mask.full() for phrase in phrases]


def straight(subject: Subject, slices: list[Slice], prompts: list[Prompt]) -> list[NDArray[np.bool_]]:
    """Masks by the straight loop."""
    masks: list[NDArray[np.bool_]] = []
    for piece in slices:
        rgb = to_rgb(piece.pixels, WINDOW)
        for prompt in prompts:
            question = resolve(prompt, piece, subject.engine.processor).text
            masks += subject.straight.predict(rgb, question, prompt.max_new_tokens).masks
    return masks


def require_equal(theirs: list[NDArray[np.bool_]], own: list[NDArray[np.bool_]]) -> None:
    """Stop where the two do not give the same masks: their times could not be compared.

    Raises:
        ValueError: They differ in number, or in more pixels than rounding moves.
    """
    if len(theirs) != len(own):
        raise ValueError(f"{len(theirs)} masks by the straight loop, {len(own)} by the engine")
    worst = max((float((a != b).mean()) for a, b in zip(theirs, own, strict=True)), default=0.0)
    if worst > MOST_OTHER_PIXELS:
        raise ValueError(f"a mask differs in {worst:.4%} of its pixels")


def tokens_per_second(subject: Subject) -> list[Row]:
    """R7: new tokens a second, the library's plain ``generate`` beside the engine.

    What comes before the second token is subtracted on both sides: the same long answer and one of one token.
    """
    engine, question = subject.engine, "<image>\nWhat is this?"
    words = engine.processor.encode(" liver spleen" * RATE_TOKENS)[:RATE_TOKENS]
    embeddings = subject.straight.embeddings(to_rgb(picture(1).pixels, WINDOW), question)

    def library(count: int) -> None:
        generate: Any = engine.model.vlm.generate
        with torch.inference_mode():
            generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device),
                do_sample=False,
                max_new_tokens=count,
                pad_token_id=engine.processor.ids.pad,
            )

    def own(count: int) -> None:
        prompt = Prompt("vqa", question=question, exact=True, max_new_tokens=count)
        engine.predict([picture(1)], [prompt], WINDOW)

    with written(engine.model, words):
        times = medians(lambda: library(RATE_TOKENS), lambda: library(1), lambda: own(RATE_TOKENS), lambda: own(1))
    rates = [(RATE_TOKENS - 1) / (long - short) for long, short in (times[:2], times[2:])]
    parts = {"tokens a second, library": rates[0], "tokens a second, ours": rates[1]}
    bar = 1.2 if subject.where == "CPU" else 5.0
    return [Row("R7", "tokens a second, ours / library", subject.where, rates[1] / rates[0], bar, True, parts)]
