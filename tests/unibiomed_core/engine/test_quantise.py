"""int8 on a CPU: what becomes int8, that masks are compared first, and that a model which changes is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.unibiomed_core.engine.toy import NAMES, SOFT_TISSUE, ct_slice, segment, tokenizer, toy_config
from unibiomed_core.engine import devices, int8
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import DeviceError
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.types import Prompt

TARGETS = {"endoscopy": ("polyp",), "ct": NAMES}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    int8._agreed.clear()
    yield
    int8._agreed.clear()


def engine(dtype: str = "int8", **changes: Any) -> Engine:
    config: UniBiomedConfig = replace(toy_config(), targets=TARGETS, **changes)
    processor = Processor(config, tokenizer())
    torch.manual_seed(0)
    return Engine(UniBiomed(config, processor.ids), processor, device="cpu", dtype=dtype)


def test_linear_layers_of_the_language_side_become_int8_and_nothing_else() -> None:
    built = engine()
    kind = torch.ao.nn.quantized.dynamic.Linear
    layers = {name for name, module in built.model.vlm.model.named_modules() if isinstance(module, kind)}
    language = {name for name in layers if name.startswith("language_model")}
    assert len(language) == 7 * built.config.language.layers
    assert any(name.startswith("vision_tower") for name in layers)
    assert not [m for m in built.model.vlm.model.modules() if type(m) is torch.nn.Linear]
    assert type(built.model.vlm.lm_head) is torch.nn.Linear
    for part in (built.model.grounder, built.model.bridge):
        assert not [m for m in part.modules() if isinstance(m, kind)]
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_it_answers_and_says_what_it_is() -> None:
    built, plain = engine(), engine("float32")
    assert (built.info.dtype, built.placement.dtype) == ("int8", torch.float32)
    assert built.info.parameters == plain.info.parameters
    packed = devices.packed_elements(built.model)
    expected = devices.parameter_bytes(plain.model, plain.placement) - 3 * packed
    # Biases are packed with their weights.
    assert devices.parameter_bytes(built.model, built.placement) == pytest.approx(expected, rel=0.02)
    (ours,), (theirs,) = (e.predict([ct_slice()], segment("liver"), SOFT_TISSUE) for e in (built, plain))
    assert ours[0].raw_text == theirs[0].raw_text
    a, b = (prediction.masks[0].full() for prediction in (ours[0], theirs[0]))
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > int8.LEAST_DICE
    ((written,),) = built.predict([ct_slice()], [Prompt("vqa", question="?", max_new_tokens=3)], SOFT_TISSUE)
    assert written.raw_text


def test_a_model_whose_masks_change_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = int8._masks
    calls: list[int] = []

    def moved(built: Engine) -> list[np.ndarray | None]:
        calls.append(1)
        return [m if m is None or len(calls) == 1 else np.roll(m, m.shape[0] // 2, 0) ^ True for m in masks(built)]

    monkeypatch.setattr(int8, "_masks", moved)
    with pytest.raises(DeviceError, match=r"int8 changes this model's masks. a mean Dice of .* at least 0.97"):
        engine()


def test_a_model_without_a_mask_to_compare_is_refused() -> None:
    with pytest.raises(DeviceError, match="no mask on the shipped pictures"):
        engine(presence=replace(toy_config().presence, threshold=1.01))


def test_absence_in_one_only_counts_as_nothing_in_common() -> None:
    mask = np.eye(4, dtype=bool)
    assert int8._dice(None, None) is None
    assert int8._dice(mask, None) == int8._dice(None, mask) == 0.0
    assert int8._dice(mask, mask) == 1.0
    assert int8._dice(mask, ~mask) == 0.0


def test_a_model_that_passed_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    masks = int8._masks
    monkeypatch.setattr(int8, "_masks", lambda built: (asked.append(1), masks(built))[1])
    for _ in range(2):
        built = engine("float32")
        built.info = replace(built.info, sha256="the same")
        assert int8.quantise_gated(built) >= int8.LEAST_DICE
    assert len(asked) == 2, "once before and once after, for the first of the two"


def test_a_build_without_int8_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Backends:
        engine = "none"

    monkeypatch.setattr(torch.backends, "quantized", Backends())
    with pytest.raises(DeviceError, match="this build of PyTorch has no arithmetic"):
        int8.quantise(engine("float32").model)


def test_int8_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_device", lambda name: torch.device("cuda:0"))
    monkeypatch.setattr(devices, "free_bytes", lambda device: 2**30)
    with pytest.raises(DeviceError, match="int8 on cuda:0"):
        devices.choose("cuda", "int8")
