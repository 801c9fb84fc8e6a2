"""Closed questions: answers are listed and scored, and none is written."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, segment, toy_engine
from unibiomed_core.engine import prompts
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.prompts import choices
from unibiomed_core.types import Prompt, Region

BOX = Region(10, 12, 30, 33)
ASK = Prompt("roi_class", region=BOX, max_new_tokens=12)
TARGETS = {"ct": ("liver", "spleen", "Coarse-grain lesion"), "mri": ("hippocampus",)}
ANSWERS = ("liver in abdomen ct", "spleen in abdomen ct", "coarse-grain lesion in ct")


@pytest.fixture
def engine() -> Engine:
    return toy_engine(targets=TARGETS)


def test_a_region_is_named_without_writing(engine: Engine) -> None:
    prompts = [ASK, *segment("liver")]
    named, _ = engine.predict([ct_slice()], prompts, SOFT_TISSUE)[0]
    assert engine.counts.decode_steps == 0
    assert engine.counts.prefix_reads == 2, "the boxed picture and the plain one"
    assert named.text in ANSWERS
    assert named.raw_text == named.text + "<|end|>"
    assert (named.masks, named.truncated) == ((), False)


def test_the_likeliest_whole_answer_is_given(engine: Engine) -> None:
    """Sums over tokens, end mark included, against an uncached pass for each answer."""
    ((named,),) = engine.predict([ct_slice()], [ASK], SOFT_TISSUE)
    means = engine.likelihoods(ct_slice(), ASK, ANSWERS, SOFT_TISSUE)
    sums = [m * len(engine.processor.encode(a + "<|end|>")) for m, a in zip(means, ANSWERS, strict=True)]
    assert named.text == ANSWERS[sums.index(max(sums))]


@pytest.mark.parametrize("wanted", ANSWERS)
def test_scored_equals_greedy(engine: Engine, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """A model that knows one answer by heart: each of its states leads to the next token, other states to none."""
    ids = engine.processor.encode(wanted + "<|end|>")
    seen: list[torch.Tensor] = []
    logits = engine.model.logits
    monkeypatch.setattr(engine.model, "logits", lambda hidden: seen.append(hidden) or logits(hidden))
    engine.likelihoods(ct_slice(), ASK, [wanted], SOFT_TISSUE)
    states = torch.cat(seen)
    following = torch.nn.functional.one_hot(torch.tensor(ids), engine.config.language.vocabulary).float()
    monkeypatch.setattr(
        engine.model, "logits", lambda hidden: 20 * (torch.cdist(hidden, states) < 0.01).float() @ following
    )
    ((scored,),) = engine.predict([ct_slice()], [ASK], SOFT_TISSUE)
    assert engine.counts.decode_steps == 0
    monkeypatch.setattr(prompts, "choices", lambda *_: {})
    ((greedy,),) = engine.predict([ct_slice()], [replace(ASK, max_new_tokens=len(ids))], SOFT_TISSUE)
    assert engine.counts.decode_steps == len(ids) - 1
    assert scored.text == greedy.text == wanted
    assert scored.raw_text == greedy.raw_text


def test_answers_share_the_question_and_their_beginnings(engine: Engine) -> None:
    engine.predict([ct_slice()], [ASK], SOFT_TISSUE)
    encode = engine.processor.encode
    question = len(encode("\nWhat is the <region> in the picture?<|end|>\n<|assistant|>\n"))
    answers = sum(len(encode(a + "<|end|>")) for a in ANSWERS)
    assert engine.counts.text_tokens <= question + answers


@pytest.mark.parametrize(
    "ask",
    [
        replace(ASK, question="Which organ?"),
        replace(ASK, question="<image>Which organ?", exact=True),
        replace(ASK, answer="lung"),
        replace(ASK, task="roi_describe"),
    ],
)
def test_other_questions_are_not_closed(engine: Engine, ask: Prompt) -> None:
    assert choices(ask, "ct", engine.config) == {}
    engine.predict([ct_slice()], [ask], SOFT_TISSUE)
    assert (engine.counts.decode_steps > 0) == (ask.answer is None)


def test_models_without_a_list_for_the_modality_write() -> None:
    assert choices(ASK, "ct", toy_engine().config) == {}
    assert choices(ASK, "ultrasound", toy_engine(targets=TARGETS).config) == {}
    free = toy_engine()
    free.predict([ct_slice()], [ASK], SOFT_TISSUE)
    assert free.counts.decode_steps > 0
