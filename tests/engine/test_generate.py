"""Reading and writing answers: one prefix for many prompts, known answers in one pass, when writing stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toy import SOFT_TISSUE, ct_slice, segment, toy_engine

from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.generate import Answer, Row
from unibiomed_core.types import Prompt


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def engine() -> Engine:
    return toy_engine()


def ids_of(engine: Engine, text: str) -> tuple[int, ...]:
    return tuple(engine.processor.encode(text))


def picture_row(engine: Engine, question: str, answer: str | None, picture: int = 0, limit: int = 24) -> Row:
    per_tile = engine.config.vision.tokens_per_tile
    text = engine.processor.expand_image(engine.processor.chat("<image>" + question), [1])
    ids = ids_of(engine, text)
    cut = max(i for i, t in enumerate(ids) if t == engine.processor.ids.image_context) + 2
    assert ids.count(engine.processor.ids.image_context) == per_tile
    return Row(ids[:cut], ids[cut:], picture, None if answer is None else ids_of(engine, answer), limit)


def image_tokens(engine: Engine, count: int = 1) -> list[Tensor]:
    size = engine.config.vision.tokens_per_tile, engine.config.language.hidden
    return [torch.randn(size, generator=torch.Generator().manual_seed(n)) for n in range(count)]


def whole_pass(engine: Engine, row: Row, tokens: list[Tensor]) -> Tensor:
    """(T, D) hidden states of prompt and answer in one uncached pass."""
    ids = torch.tensor([[*row.prefix, *row.suffix, *(row.answer or ())]])
    image = None if row.picture is None else tokens[row.picture].unsqueeze(0)
    return engine.model.language(engine.model.embed(ids, image))[0]


def force(engine: Engine, texts: list[str]) -> None:
    """Make the model write given texts, one a row, by overriding its choice of tokens."""
    wanted = [ids_of(engine, text) for text in texts]
    running = list(range(len(texts)))
    step = 0

    def logits(hidden: Tensor) -> Tensor:
        nonlocal step, running
        running = [r for r in running if step < len(wanted[r])]
        scores = torch.zeros(len(hidden), engine.config.language.vocabulary)
        for place, row in enumerate(running):
            scores[place, wanted[row][step]] = 1.0
        step += 1
        return scores

    engine.model.logits = logits  # type: ignore[method-assign]


TEXTS = ("It is [SEG].<|end|>", "<p> liver </p> [SEG] and <p> a very large spleen </p> [SEG].<|end|>", "no<|end|>")


def test_states_through_a_shared_prefix_equal_those_of_a_whole_pass(engine: Engine) -> None:
    tokens = image_tokens(engine, 2)
    rows = [picture_row(engine, f"Question {n}?" * (n + 1), text, n % 2) for n, text in enumerate(TEXTS)]
    rows += [picture_row(engine, "What?", TEXTS[1], 1)]
    answers = engine._reader.answer(rows, tokens)
    assert engine.counts.prefix_reads == 2
    for row, answer in zip(rows, answers, strict=True):
        ids = [*row.prefix, *row.suffix, *(row.answer or ())]
        where = [i for i, t in enumerate(ids) if t == engine.processor.ids.seg]
        expected = whole_pass(engine, row, tokens)[where]
        assert answer.states.shape == expected.shape
        assert torch.allclose(answer.states, expected, atol=1e-4)
        assert not answer.truncated


def test_different_prefixes_fall_back_to_one_pass_each(engine: Engine) -> None:
    tokens = image_tokens(engine)
    row = picture_row(engine, "Liver?", TEXTS[0])
    other = Row((*ids_of(engine, "earlier"), *row.prefix), row.suffix, 0, row.answer, 8)
    alone = Row((), ids_of(engine, "no picture"), None, ids_of(engine, TEXTS[0]), 8)
    answers = engine._reader.answer([row, other, alone], tokens)
    assert engine.counts.prefix_reads == 2
    for item, answer in zip((row, other, alone), answers, strict=True):
        seg = [
            i for i, t in enumerate([*item.prefix, *item.suffix, *(item.answer or ())]) if t == engine.processor.ids.seg
        ]
        assert torch.allclose(answer.states, whole_pass(engine, item, tokens)[seg], atol=1e-4)


def test_reading_an_answer_equals_writing_it(engine: Engine) -> None:
    tokens = image_tokens(engine)
    questions = ["Short?", "A question with many more words than the other one?", "Third?"]
    read = engine._reader.answer([picture_row(engine, q, t) for q, t in zip(questions, TEXTS, strict=True)], tokens)
    force(engine, list(TEXTS))
    written = engine._reader.answer([picture_row(engine, q, None, limit=64) for q in questions], tokens)
    assert engine.counts.decode_steps == max(len(a.ids) for a in read) - 1
    for a, b in zip(read, written, strict=True):
        assert a.ids == b.ids
        assert torch.allclose(a.states, b.states, atol=1e-4)
        assert not b.truncated


def test_written_and_read_masks_are_equal(engine: Engine) -> None:
    ((read,),) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    force(engine, [TEXTS[0]])
    ask = Prompt("segment", question="<image>Please segment liver in abdomen CT.", exact=True)
    ((written,),) = engine.predict([ct_slice()], [ask], SOFT_TISSUE)
    assert written.raw_text == read.raw_text
    assert (written.masks[0].full() == read.masks[0].full()).all()


def test_writing_in_a_batch_equals_writing_alone(engine: Engine) -> None:
    tokens = image_tokens(engine, 2)
    rows = [picture_row(engine, q, None, n, 20) for n, q in enumerate(("One?", "A longer second question?"))]
    rows.append(Row((), ids_of(engine, engine.processor.chat("Without a picture")), None, None, 20))
    together = engine._reader.answer(rows, tokens)
    alone = [engine._reader.answer([row], tokens)[0] for row in rows]
    assert [a.ids for a in together] == [a.ids for a in alone]
    assert len({a.ids for a in together}) == 3
    for row, answer in zip(rows, together, strict=True):
        everything = Row(row.prefix, row.suffix, row.picture, answer.ids, 20)
        hidden = whole_pass(engine, everything, tokens)
        first = len(row.prefix) + len(row.suffix) - 1
        best = engine.model.logits(hidden[first : first + len(answer.ids)]).argmax(-1)
        assert tuple(best.tolist()) == answer.ids, "greedy without a cache gives the same"


def write(engine: Engine, text: str, limit: int = 64) -> Answer:
    force(engine, [text + " and more that must not be written"])
    return engine._reader.answer([picture_row(engine, "What?", None, limit=limit)], image_tokens(engine))[0]


@pytest.mark.parametrize("text", ["yes<|end|>", "It is [SEG].<|end|>", "a\n<|end|>", "yes<|im_end|>"])
def test_writing_stops_on_the_end_text_whatever_pieces_it_is_made_of(engine: Engine, text: str) -> None:
    answer = write(engine, text)
    assert engine.processor.decode(answer.ids).startswith(text[:-1])
    assert len(answer.ids) <= len(ids_of(engine, text)) + 1
    assert not answer.truncated


def test_the_stop_test_looks_at_a_few_tokens_only(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    decode = engine.processor.decode

    def counted(ids: Sequence[int]) -> str:
        lengths.append(len(ids))
        return decode(ids)

    monkeypatch.setattr(engine.processor, "decode", counted)
    answer = write(engine, "word " * 30 + "<|end|>", limit=200)
    assert len(answer.ids) > 30
    assert max(lengths) <= 10


def test_the_length_limit_is_reported(engine: Engine) -> None:
    answer = write(engine, "a long answer that goes on and on", limit=5)
    assert len(answer.ids) == 5
    assert answer.truncated


def test_a_seg_that_never_goes_in_has_no_state_and_is_reported(engine: Engine) -> None:
    length = len(ids_of(engine, "It is [SEG]"))
    cut = write(engine, "It is [SEG].", limit=length)
    assert cut.ids[-1] == engine.processor.ids.seg
    assert len(cut.states) == 0
    assert cut.truncated
    one_more = write(engine, "It is [SEG].", limit=length + 1)
    assert len(one_more.states) == 1


def test_a_small_budget_splits_the_batch_and_changes_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = image_tokens(engine)
    rows = [picture_row(engine, f"Number {n}?", TEXTS[n % 2]) for n in range(5)]
    whole = engine._reader.answer(rows, tokens)
    engine._reader.working_bytes = 1
    calls: list[int] = []
    language = engine.model.language

    def counted(embeddings: Tensor, *args: Any, **options: Any) -> Tensor:
        calls.append(len(embeddings))
        return language(embeddings, *args, **options)

    monkeypatch.setattr(engine.model, "language", counted)
    split = engine._reader.answer(rows, tokens)
    assert calls == [1] * 6, "the prefix and each row apart"
    for a, b in zip(whole, split, strict=True):
        assert torch.allclose(a.states, b.states, atol=1e-5)
