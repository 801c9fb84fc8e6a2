"""Reading and writing answers: one prefix for many prompts, known answers in one pass, when writing stops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, segment, toy_engine
from unibiomed_core.engine import generate, partial_forward
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.generate import GeneratedAnswer, Row
from unibiomed_core.engine.kv_cache import Prefix, empty_prefix
from unibiomed_core.engine.partial_forward import read_prefixes
from unibiomed_core.model.unibiomed import UniBiomed
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


@dataclass(frozen=True)
class Shown:
    """A picture as the language model gets it: the ids up to its closing mark, its image tokens, both as read."""

    ids: tuple[int, ...]
    tokens: Tensor
    prefix: Prefix


def shown(engine: Engine, number: int = 0, before: str = "") -> Shown:
    """Numbered pictures of random image tokens."""
    sizes = engine.config.vision.tokens_per_tile, engine.config.language.hidden
    tokens = torch.randn(sizes, generator=torch.Generator().manual_seed(number))
    text = engine.processor.expand_image(before + engine.processor.chat("<image>"), [1])
    ids = ids_of(engine, text)
    ids = ids[: max(i for i, t in enumerate(ids) if t == engine.processor.ids.image_context) + 2]
    assert ids.count(engine.processor.ids.image_context) == len(tokens)
    (prefix,) = read_prefixes(engine.model, [ids], [tokens])
    return Shown(ids, tokens, prefix)


def row(engine: Engine, picture: Shown | None, question: str, answer: str | None, limit: int = 24) -> Row:
    prefix = empty_prefix(engine.model) if picture is None else picture.prefix
    suffix = ids_of(engine, question + "<|end|>\n<|assistant|>\n")
    return Row(prefix, suffix, None if answer is None else ids_of(engine, answer), limit)


def whole_pass(engine: Engine, asked: Row, picture: Shown | None) -> Tensor:
    """(T, D) hidden states of prompt and answer in one uncached pass."""
    ids = torch.tensor([[*(picture.ids if picture else ()), *asked.suffix, *(asked.answer or ())]])
    return engine.model.language(engine.model.embed(ids, picture.tokens if picture else None))[0]


def states_at_seg(engine: Engine, asked: Row, picture: Shown | None) -> Tensor:
    """(K, D) of the ``[SEG]`` of the answer."""
    answer = asked.answer or ()
    where = [i - len(answer) for i, token in enumerate(answer) if token == engine.processor.ids.seg]
    return whole_pass(engine, asked, picture)[where]


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
    pictures = [shown(engine, 0), shown(engine, 1)]
    asked = [(pictures[n % 2], f"Question {n}?" * (n + 1), text) for n, text in enumerate(TEXTS)]
    asked += [
        (pictures[1], "What?", TEXTS[1]),
        (None, "No picture?", TEXTS[0]),
        (shown(engine, 0, "Before"), "?", TEXTS[0]),
    ]
    rows = [row(engine, *item) for item in asked]
    for (picture, _, _), item, answer in zip(asked, rows, engine._reader.answer(rows), strict=True):
        expected = states_at_seg(engine, item, picture)
        assert answer.ids == item.answer
        assert answer.states.shape == expected.shape
        assert torch.allclose(answer.states, expected, atol=1e-4)
        assert not answer.truncated


def test_questions_about_one_picture_share_what_they_begin_with(engine: Engine) -> None:
    picture = shown(engine)
    rows = [row(engine, picture, f"Please segment {name}.", TEXTS[0]) for name in ("liver", "spleen")]
    engine._reader.answer(rows[:1])
    alone = engine.counts.text_tokens
    shared = len(ids_of(engine, "Please segment "))
    engine._reader.answer(rows)
    together = engine.counts.text_tokens - alone
    assert together <= 2 * alone - shared + 2
    rest = len(ids_of(engine, TEXTS[0])) - ids_of(engine, TEXTS[0]).index(engine.processor.ids.seg) - 1
    assert alone == len(rows[0].suffix) + len(rows[0].answer or ()) - rest, "nothing is read behind the last [SEG]"


def test_many_answers_take_several_sheets_and_change_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = shown(engine)
    rows = [row(engine, picture, f"Number {n}?", TEXTS[n % 2]) for n in range(5)]
    whole = engine._reader.answer(rows)
    monkeypatch.setattr(generate, "_SHEET_NODES", 40)
    for a, b in zip(whole, engine._reader.answer(rows), strict=True):
        assert torch.allclose(a.states, b.states, atol=1e-5)


def test_scored_answers_have_the_probabilities_of_a_whole_pass(engine: Engine) -> None:
    picture = shown(engine)
    rows = [
        replace(row(engine, picture, "What is it?", text + "<|end|>"), scored=True) for text in ("liver", "lung", "a")
    ]
    for item, answer in zip(rows, engine._reader.answer(rows), strict=True):
        ids = item.answer or ()
        logits = engine.model.logits(whole_pass(engine, item, picture)[-len(ids) - 1 : -1])
        expected = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()
        assert answer.log_probability == pytest.approx(float(expected), abs=1e-4)


def test_reading_an_answer_equals_writing_it(engine: Engine) -> None:
    picture = shown(engine)
    questions = ["Short?", "A question with many more words than the other one?", "Third?"]
    read = engine._reader.answer([row(engine, picture, q, t) for q, t in zip(questions, TEXTS, strict=True)])
    force(engine, list(TEXTS))
    written = engine._reader.answer([row(engine, picture, q, None, limit=64) for q in questions])
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
    pictures = [shown(engine, 0), shown(engine, 1), None]
    questions = ("One?", "A longer second question?", "Without a picture")
    rows = [row(engine, p, q, None, 20) for p, q in zip(pictures, questions, strict=True)]
    together = engine._reader.answer(rows)
    alone = [engine._reader.answer([item])[0] for item in rows]
    assert [a.ids for a in together] == [a.ids for a in alone]
    assert len({a.ids for a in together}) == 3
    for item, answer, picture in zip(rows, together, pictures, strict=True):
        hidden = whole_pass(engine, replace(item, answer=answer.ids), picture)
        best = engine.model.logits(hidden[-len(answer.ids) - 1 : -1]).argmax(-1)
        assert tuple(best.tolist()) == answer.ids, "greedy without a cache gives the same"


def test_a_step_gives_the_states_of_a_whole_pass(engine: Engine) -> None:
    """With rows of different lengths, and after one of them has left."""
    picture = shown(engine)
    rows = [row(engine, picture, "One?", None), row(engine, picture, "A longer second question?", None)]
    _, stepper = engine._reader._prompted(rows, 8)
    fed = torch.tensor([[5, 6, 7], [8, 9, 10]])
    steps = [stepper.step(fed[:, n]) for n in range(2)]
    stepper.keep(torch.tensor([1]))
    steps.append(stepper.step(fed[1:, 2]))
    for number, item in enumerate(rows):
        expected = whole_pass(engine, replace(item, answer=tuple(fed[number].tolist())), picture)[-3:]
        for n, states in enumerate(steps if number else steps[:2]):
            assert torch.allclose(states[number if n < 2 else 0], expected[n], atol=1e-4)


def write(engine: Engine, text: str, limit: int = 64) -> GeneratedAnswer:
    force(engine, [text + " and more that must not be written"])
    return engine._reader.answer([row(engine, shown(engine), "What?", None, limit=limit)])[0]


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
    rows = [row(engine, shown(engine, n), f"Number {n}?", TEXTS[n % 2]) for n in range(5)]
    rows += [replace(item, answer=None, max_new_tokens=5) for item in rows]
    calls: list[int] = []
    read = partial_forward.read

    def counted(model: UniBiomed, ids: Tensor, *more: Any) -> Tensor:
        calls.append(len(ids))
        return read(model, ids, *more)

    monkeypatch.setattr(partial_forward, "read", counted)
    whole = engine._reader.answer(rows)
    assert calls == [5, 5]
    engine._reader.working_bytes = 1
    split = engine._reader.answer(rows)
    assert calls[2:] == [1] * 10
    for a, b in zip(whole, split, strict=True):
        assert a.ids == b.ids
        assert torch.allclose(a.states, b.states, atol=1e-5)
