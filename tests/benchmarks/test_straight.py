"""The straight loop computes what the engine computes: only then do their times compare."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.straight import StraightLoop, written
from tests.alike import same_masks
from tests.unibiomed_core.engine.toy import NAMES, SOFT_TISSUE, ct_slice, rgb_picture, segment, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window, to_rgb
from unibiomed_core.model.config import Preprocessing
from unibiomed_core.types import Prediction, Prompt

KNOWN = "It is [SEG].<|end|>"
TWO = "<p> liver </p> [SEG] and <p> spleen </p> [SEG].<|end|>"
QUESTION = "<image>Please segment {} in abdomen CT."


def loop(engine: Engine) -> StraightLoop:
    return StraightLoop(engine.model, engine.processor)


def masks(prediction: Prediction) -> list[np.ndarray]:
    return [mask.full() for mask in prediction.masks]


def same(ours: list[np.ndarray], theirs: tuple[np.ndarray, ...]) -> bool:
    return len(ours) == len(theirs) > 0 and all(map(same_masks, ours, theirs))


def test_known_answers_give_the_same_masks() -> None:
    engine = toy_engine()
    piece, names = ct_slice(), NAMES[:3]
    (ours,) = engine.predict([piece], segment(*names), SOFT_TISSUE)
    seen = set()
    for name, prediction in zip(names, ours, strict=True):
        with written(engine.model, engine.processor.encode(KNOWN)):
            theirs = loop(engine).predict(to_rgb(piece.pixels, SOFT_TISSUE), QUESTION.format(name))
        assert theirs.text == prediction.raw_text == KNOWN
        assert same(masks(prediction), theirs.masks)
        seen.add(theirs.masks[0].tobytes())
    assert len(seen) == 3, "masks of different targets must differ for this test to mean anything"


def test_written_answers_with_several_masks_are_the_same() -> None:
    engine = toy_engine()
    piece, prompt = ct_slice(seed=3), Prompt("report")
    with written(engine.model, engine.processor.encode(TWO)):
        ((ours,),) = engine.predict([piece], [prompt], SOFT_TISSUE)
        theirs = loop(engine).predict(
            to_rgb(piece.pixels, SOFT_TISSUE), engine.processor.prompt_input(prompt), prompt.max_new_tokens
        )
    assert ours.raw_text == theirs.text == TWO
    assert same(masks(ours), theirs.masks)
    assert len(theirs.masks) == 2


def test_what_the_model_itself_writes_is_the_same() -> None:
    engine = toy_engine()
    with torch.no_grad():
        engine.model.vlm.lm_head.weight[engine.processor.ids.seg] *= 4  # a random model seldom writes it
    prompt = Prompt("vqa", question=QUESTION.format("liver"), exact=True, max_new_tokens=16)
    found = 0
    for seed in range(4):
        piece = ct_slice(seed=seed)
        ((ours,),) = engine.predict([piece], [prompt], SOFT_TISSUE)
        theirs = loop(engine).predict(to_rgb(piece.pixels, SOFT_TISSUE), prompt.question, 16)
        assert ours.raw_text == theirs.text.strip()
        shown = [mask for mask in theirs.masks if mask.any()]
        assert len(masks(ours)) == len(shown)
        assert all(map(same_masks, masks(ours), shown))
        found += len(theirs.masks)
    assert found > 4


def test_a_tiled_picture_is_read_the_same_way() -> None:
    engine = toy_engine(preprocessing=Preprocessing(tiling="dynamic", max_tiles=4))
    picture, window = rgb_picture((40, 120)).slice(0), Window("as is", 0.0, 255.0)
    prompt = Prompt("segment", question=QUESTION.format("liver"), answer=KNOWN, exact=True)
    ((ours,),) = engine.predict([picture], [prompt], window)
    with written(engine.model, engine.processor.encode(KNOWN)):
        theirs = loop(engine).predict(to_rgb(picture.pixels, window), prompt.question)
    assert same(masks(ours), theirs.masks)


def test_it_encodes_anew_for_every_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine()
    calls = {"grounder": 0, "tiles": 0}
    for owner, name, key in ((engine.model.grounder, "encode", "grounder"), (engine.model, "encode_tiles", "tiles")):
        inner = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda x, i=inner, k=key: (calls.update({k: calls[k] + 1}), i(x))[1])
    with written(engine.model, engine.processor.encode(TWO)):
        loop(engine).predict(to_rgb(ct_slice().pixels, SOFT_TISSUE), QUESTION.format("liver"))
    assert calls == {"grounder": 2, "tiles": 1}


def test_given_words_end_with_the_block() -> None:
    engine = toy_engine()
    prompt = Prompt("vqa", question="?", max_new_tokens=8)
    ((before,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    with written(engine.model, engine.processor.encode("no<|end|>")):
        assert engine.predict([ct_slice()], [prompt], SOFT_TISSUE)[0][0].raw_text == "no<|end|>"
    assert engine.predict([ct_slice()], [prompt], SOFT_TISSUE)[0][0].raw_text == before.raw_text
