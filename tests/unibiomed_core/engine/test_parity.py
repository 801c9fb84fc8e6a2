"""The published system's numbers through the engine: same text in, same tokens and masks out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from tests.alike import SHARE_OF_PIXELS, same_masks
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model import weights
from unibiomed_core.types import Prediction, Prompt, Slice

AS_IS = Window("as is", 0.0, 255.0)


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "parity" / "tiny-a"


@pytest.fixture(scope="module")
def cases(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "expected.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tensors(folder: Path) -> Mapping[str, NDArray[Any]]:
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.load(str(folder), device="cpu")


def ask(engine: Engine, folder: Path, case: Mapping[str, Any], **options: Any) -> Prediction:
    name = case.get("image", "image_0.png")
    with Image.open(folder / name) as picture:
        piece = Slice(np.array(picture.convert("RGB")), "axial", 0, (1.0, 1.0), "ct")
    prompt = Prompt("vqa", question=case["text"], exact=True, **options)
    ((prediction,),) = engine.predict([piece], [prompt], AS_IS)
    return prediction


@pytest.mark.parametrize("name", ["one_seg", "two_seg", "no_seg"])
def test_given_answers_give_the_published_masks(
    engine: Engine, folder: Path, cases: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], name: str
) -> None:
    case = cases[name]
    prediction = ask(engine, folder, case, answer=case["forced_answer"])
    assert prediction.raw_text == case["prediction"]
    assert len(prediction.masks) == case["num_masks"]
    for number, mask in enumerate(prediction.masks):
        assert same_masks(mask.full(), tensors[f"{name}/mask_{number}"][0] > 0)
        assert mask.count == pytest.approx(case["mask_area"][number], rel=SHARE_OF_PIXELS, abs=1)


def test_two_phrases_are_paired_with_their_masks(engine: Engine, folder: Path, cases: Mapping[str, Any]) -> None:
    prediction = ask(engine, folder, cases["two_seg"], answer=cases["two_seg"]["forced_answer"])
    assert [p.text for p in prediction.phrases] == ["liver tumor.", "lesion"]
    areas = [p.mask.count if p.mask else 0 for p in prediction.phrases]
    assert areas == pytest.approx(cases["two_seg"]["mask_area"], rel=SHARE_OF_PIXELS, abs=1)


def test_rounded_constants_give_the_released_script_s_mask(
    folder: Path, cases: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    model, processor = weights.load(folder)
    preprocessing = replace(processor.config.preprocessing, grounding_norm="rounded")
    rounded = type(processor)(replace(processor.config, preprocessing=preprocessing), processor.tokenizer)
    case = cases["one_seg_rounded_norm"]
    prediction = ask(Engine(model, rounded, device="cpu"), folder, case, answer=case["forced_answer"])
    assert same_masks(prediction.masks[0].full(), tensors["one_seg_rounded_norm/mask_0"][0] > 0)
    assert case["mask_area"][0] != cases["one_seg"]["mask_area"][0]


@pytest.mark.parametrize("name", ["greedy", "text_only"])
def test_greedy_writing_gives_the_published_tokens(
    engine: Engine, folder: Path, cases: Mapping[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases[name]
    written: list[tuple[int, ...]] = []
    answer = engine._reader.answer

    def spy(*rows: Any) -> Any:
        answers = answer(*rows)
        written.extend(a.ids for a in answers)
        return answers

    monkeypatch.setattr(engine._reader, "answer", spy)
    before = replace(engine.counts)
    prediction = ask(engine, folder, case, max_new_tokens=len(case["generated_ids"]))
    assert written == [tuple(case["generated_ids"])]
    assert prediction.raw_text == case["prediction"].strip()
    assert prediction.truncated
    assert prediction.masks == ()
    assert engine.counts.grounding_encodes == before.grounding_encodes


def test_prompts_asked_together_give_the_published_masks(
    engine: Engine, folder: Path, cases: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]
) -> None:
    """All given answers on all pictures in one call: nothing leaks between rows, tiles or pictures."""
    pieces = []
    for n in range(3):
        with Image.open(folder / f"image_{n}.png") as picture:
            pieces.append(Slice(np.array(picture.convert("RGB")), "axial", n, (1.0, 1.0), "ct"))
    names = ("one_seg", "two_seg", "no_seg")
    prompts = [Prompt("vqa", question=cases[n]["text"], answer=cases[n]["forced_answer"], exact=True) for n in names]
    engine.free()
    answers = engine.predict(pieces, prompts, AS_IS)
    for number, name in enumerate(names):
        masks = answers[number][number].masks
        assert len(masks) == cases[name]["num_masks"]
        for k, mask in enumerate(masks):
            assert same_masks(mask.full(), tensors[f"{name}/mask_{k}"][0] > 0)
