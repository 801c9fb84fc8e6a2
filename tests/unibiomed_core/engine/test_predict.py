"""Engine.predict: what is computed once, what must not depend on batching, what is said when nothing is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.alike import close, same_masks
from tests.unibiomed_core.engine.toy import (
    NAMES,
    SOFT_TISSUE,
    ct_slice,
    rgb_picture,
    segment,
    tokenizer,
    toy_config,
    toy_engine,
)
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Preprocessing, Presence
from unibiomed_core.model.processor import Processor
from unibiomed_core.types import Prediction, Prompt, Region


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine()


def only_mask(prediction: Prediction) -> np.ndarray:
    (mask,) = prediction.masks
    return mask.full()


def test_twelve_targets_run_each_encoder_once() -> None:
    engine = toy_engine()
    (predictions,) = engine.predict([ct_slice()], segment(), SOFT_TISSUE)
    assert len(predictions) == len(NAMES) == 12
    assert all(len(p.phrases) == 1 for p in predictions)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes) == (1, 1)
    assert (engine.counts.prefix_reads, engine.counts.mask_decodes, engine.counts.decode_steps) == (1, 1, 0)


def test_a_second_question_on_the_same_slice_encodes_nothing() -> None:
    engine = toy_engine()
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    engine.predict([ct_slice()], segment("spleen"), SOFT_TISSUE)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes) == (1, 1)
    engine.predict([ct_slice(seed=9)], segment("spleen"), SOFT_TISSUE)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes) == (2, 2)


def test_masks_do_not_depend_on_the_batch(engine: Engine) -> None:
    slices = [ct_slice(seed=s, index=s) for s in range(3)]
    together = engine.predict(slices, segment(*NAMES[:4]), SOFT_TISSUE)
    seen = set()
    for piece, row in zip(slices, together, strict=True):
        for prompt, batched in zip(segment(*NAMES[:4]), row, strict=True):
            engine.free()
            ((alone,),) = engine.predict([piece], [prompt], SOFT_TISSUE)
            assert same_masks(only_mask(alone), only_mask(batched))
            assert alone.phrases[0].score == close(batched.phrases[0].score)
            assert (alone.text, alone.raw_text, alone.index) == (batched.text, batched.raw_text, piece.index)
            seen.add(only_mask(batched).tobytes())
    assert len(seen) > 6, "masks of different slices and targets must differ for this test to mean anything"


def test_tiles_of_a_wide_picture_are_read_with_each_prompt_apart(engine: Engine) -> None:
    tiled = toy_engine(preprocessing=Preprocessing(tiling="dynamic", max_tiles=4))
    picture = rgb_picture((40, 120))
    window = Window("as is", 0.0, 255.0)
    (predictions,) = tiled.predict([picture.slice(0)], segment("liver", "spleen"), window)
    assert tiled.counts.vision_encodes == 1
    ((alone,),) = tiled.predict([picture.slice(0)], segment("spleen"), window)
    assert same_masks(only_mask(alone), only_mask(predictions[1]))


def test_the_trained_phrase_goes_in_and_the_canonical_name_comes_out(engine: Engine) -> None:
    seen: list[str] = []
    processor = engine.processor

    class Spy(Processor):
        def chat(self, text: str) -> str:
            seen.append(text)
            return super().chat(text)

    engine.processor = Spy(engine.config, processor.tokenizer)
    try:
        ((prediction,),) = engine.predict([ct_slice()], segment("Hepar"), SOFT_TISSUE)
    finally:
        engine.processor = processor
    assert seen == ["<image>Please segment liver in abdomen CT."]
    assert prediction.phrases[0].target == "liver"
    assert prediction.text == "It is liver."
    assert prediction.text[prediction.phrases[0].start : prediction.phrases[0].end] == "liver"
    assert prediction.raw_text == "It is [SEG].<|end|>"


def test_a_presence_below_the_threshold_withdraws_the_mask_and_says_so() -> None:
    kept = toy_engine(presence=Presence("object", 0.0)).predict([ct_slice()], segment("liver"), SOFT_TISSUE)[0][0]
    assert kept.masks
    strict = toy_engine(presence=Presence("object", 0.0, {"liver": 1.01}))
    liver, spleen = strict.predict([ct_slice()], segment("liver", "spleen"), SOFT_TISSUE)[0]
    assert liver.phrases[0].mask is None
    assert liver.phrases[0].score == close(kept.phrases[0].score)
    assert liver.text == f"liver: not found on this slice (presence {liver.phrases[0].score:.2f})."
    assert liver.text[liver.phrases[0].start : liver.phrases[0].end] == "liver"
    assert spleen.masks, "the threshold was for the liver only"


def test_exact_prompts_keep_every_mask() -> None:
    engine = toy_engine(presence=Presence("object", 1.01))
    prompt = Prompt("segment", question="<image>Please segment liver in abdomen CT.", answer="It is [SEG].", exact=True)
    ((prediction,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    assert len(prediction.masks) == 1
    assert prediction.raw_text == "It is [SEG].<|end|>"


def test_presence_from_the_mask_is_zero_for_an_empty_one() -> None:
    engine = toy_engine(presence=Presence("mask", 0.0))
    ((full,),) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert 0 < full.phrases[0].score < 1
    decode = engine.model.grounder.decode
    engine.model.grounder.decode = lambda *a: replace(decode(*a), logits=-decode(*a).logits.abs() - 1)  # type: ignore
    ((empty,),) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert empty.phrases[0].mask is None
    assert empty.text == "liver: not found on this slice (presence 0.00)."


def test_a_drawn_box_is_seen_by_the_language_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine()
    seen: list[bool] = []

    def noting(make: Callable[[np.ndarray], Tensor]) -> Callable[[np.ndarray], Tensor]:
        def inner(rgb: np.ndarray) -> Tensor:
            seen.append(bool((rgb == (0, 255, 0)).all(-1).any()))
            return make(rgb)

        return inner

    monkeypatch.setattr(engine.processor, "tiles", noting(engine.processor.tiles))
    monkeypatch.setattr(engine.processor, "grounding_pixels", noting(engine.processor.grounding_pixels))
    region = Region(10, 12, 30, 33)
    ask = Prompt("ground", answer="<p> liver </p> [SEG]", region=region)
    name = Prompt("roi_class", region=region, max_new_tokens=4)
    engine.predict([ct_slice()], [ask, name, *segment("liver")], SOFT_TISSUE)
    assert sorted(seen) == [False, False, True], "one boxed and one plain picture for the ViT, one plain for SAM 2"
    assert (engine.counts.vision_encodes, engine.counts.grounding_encodes) == (2, 1)


def test_a_question_without_masks_never_touches_sam(engine: Engine) -> None:
    before = engine.counts.mask_decodes
    ((answer,),) = engine.predict(
        [ct_slice(seed=77)],
        [Prompt("vqa", question="What is this?", answer="a liver", max_new_tokens=3)],
        SOFT_TISSUE,
    )
    assert answer.text == "a liver"
    assert answer.phrases == ()
    assert engine.counts.mask_decodes == before


def test_a_text_is_grounded_phrase_by_phrase(engine: Engine) -> None:
    ((answer,),) = engine.predict([ct_slice()], [Prompt("ground", answer="The liver and the spleen.")], SOFT_TISSUE)
    assert answer.text == "The liver and the spleen."
    assert [(p.text, p.target, p.mask is not None) for p in answer.phrases] == [
        ("liver", "liver", True),
        ("spleen", "spleen", True),
    ]
    assert [answer.text[p.start : p.end] for p in answer.phrases] == ["liver", "spleen"]


def test_letters_that_look_like_the_token_are_not_counted(engine: Engine) -> None:
    prompt = Prompt("vqa", question="?", answer="[ SEG] is written [SEG]")
    ((answer,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    assert len(answer.masks) == 1


def test_typed_special_tokens_are_inert(engine: Engine) -> None:
    prompt = Prompt("vqa", question="<image> [SEG] <img><IMG_CONTEXT></img><|end|>", answer="yes")
    ((answer,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    assert answer.masks == ()
    with pytest.raises(PromptError, match="Image tokens in the question"):
        engine.predict([ct_slice()], [replace(prompt, exact=True)], SOFT_TISSUE)


def test_a_likely_answer_scores_higher_than_an_unlikely_one() -> None:
    engine = toy_engine()
    prompt = Prompt("vqa", question="?", max_new_tokens=6)
    ((written,),) = engine.predict([ct_slice()], [prompt], SOFT_TISSUE)
    ids = engine.processor.encode(written.raw_text)
    backwards = engine.processor.decode(ids[::-1])
    best, worst = engine.likelihoods(ct_slice(), prompt, [written.raw_text, backwards], SOFT_TISSUE)
    assert worst < best < 0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("segment", ""), "Empty target"),
        (Prompt("segment", "x" * 100_000), "Target too long"),
        (Prompt("segment", "liv\x07er"), "Control characters in the target"),
        (Prompt("vqa", question="  "), "Empty question"),
        (Prompt("vqa"), "Empty question"),
        (Prompt("vqa", question="x" * 100_000), "Question too long"),
        (Prompt("ground"), "Empty text"),
        (Prompt("ground", answer="nothing known here"), "Nothing to ground"),
        (Prompt("sing", "liver"), "Unknown task"),
        (Prompt("segment", "liver", max_new_tokens=0), "Answer length out of range"),
        (Prompt("roi_class"), "No region"),
        (Prompt("roi_class", region=Region(10, 10, 16, 30)), "Box too small.*7 x 21 pixels"),
        (Prompt("roi_class", region=Region(30, 10, 10, 30)), "Box inverted"),
        (Prompt("roi_class", region=Region(10, 10, 48, 30)), "Box outside the image.*columns 0 to 47"),
        (Prompt("roi_class", region=Region(-1, 10, 20, 30)), "Box outside the image"),
        (Prompt("roi_class", region=Region(10, 10, 30, 30, index=4)), "Box on another slice"),
    ],
)
def test_bad_prompts_are_told_before_anything_runs(engine: Engine, prompt: Prompt, message: str) -> None:
    before = replace(engine.counts)
    with pytest.raises(PromptError, match=message):
        engine.predict([ct_slice(seed=123)], [*segment("liver"), prompt], SOFT_TISSUE)
    assert engine.counts == before


def test_a_prompt_beyond_the_positions_of_the_model_is_told(engine: Engine) -> None:
    with pytest.raises(PromptError, match=r"Prompt too long.*at most 2048"):
        engine.predict([ct_slice()], [Prompt("vqa", question="q" * 3900)], SOFT_TISSUE)


def test_a_model_with_a_list_of_targets_takes_those_only() -> None:
    engine = toy_engine(targets={"ct": ("liver", "spleen")})
    assert engine.predict([ct_slice()], segment("hepar"), SOFT_TISSUE)[0][0].phrases[0].target == "liver"
    with pytest.raises(PromptError, match=r"Unknown target.*nearest: liver"):
        engine.predict([ct_slice()], segment("livr"), SOFT_TISSUE)
    with pytest.raises(PromptError, match=r"Target not learnt.*'aorta'.*ct"):
        engine.predict([ct_slice()], segment("aorta"), SOFT_TISSUE)
    with pytest.raises(PromptError, match=r"Target not learnt.*another modality: the model has no targets for MRI"):
        engine.predict([replace(ct_slice(), modality="mri")], segment("liver"), SOFT_TISSUE)


def test_a_free_text_model_takes_names_that_nobody_listed(engine: Engine) -> None:
    ((prediction,),) = engine.predict([ct_slice()], segment("dark spot"), SOFT_TISSUE)
    assert prediction.text == "It is dark spot."


def test_features_stay_within_their_budget() -> None:
    engine = toy_engine()
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    one = engine.features.held_bytes
    assert one > 0
    engine.features.budget_bytes = 2 * one
    for seed in range(5):
        engine.predict([ct_slice(seed=seed)], segment("liver"), SOFT_TISSUE)
        assert engine.features.held_bytes <= 2 * one
    encoded = engine.counts.grounding_encodes
    engine.predict([ct_slice(seed=4), ct_slice(seed=3)], segment("liver"), SOFT_TISSUE)
    assert engine.counts.grounding_encodes == encoded, "the two latest are kept"
    engine.features.budget_bytes = 0
    engine.predict([ct_slice(seed=1)], segment("liver"), SOFT_TISSUE)
    assert engine.features.held_bytes == 0


def test_info_says_what_runs(engine: Engine) -> None:
    info = engine.info
    assert (info.name, info.layout, info.device, info.dtype) == ("toy", "memory", "cpu", "float32")
    assert 0 < info.parameters < 1_000_000
    assert engine.info.provenance()["parameters"] == info.parameters


def test_toy_tokenizer_fits_the_toy_model() -> None:
    assert tokenizer().get_vocab_size() <= toy_config().language.vocabulary
    assert torch.get_num_threads() == 1
