"""LoRA adapters: their published count, and that merging them is the same model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.alike import CLOSE
from tests.unibiomed_core.engine.toy import toy_engine
from unibiomed_core.errors import ConfigError, WeightsError, WriteError
from unibiomed_core.model.adapters import (
    ADAPTER,
    SETTINGS,
    add_lora,
    load_adapter,
    lora_parameter_count,
    merge_lora,
    save_adapter,
)
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import TokenIds
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import load, save


def answer(model: UniBiomed) -> Tensor:
    return model.eval().language(model.embed(torch.arange(12).reshape(1, 12), None)).detach()


def adapted() -> UniBiomed:
    """A toy model whose adapters do something."""
    model = toy_engine().model
    add_lora(model, rank=4, alpha=8, dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # peft starts the one half at random and the other at zero
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "lora"
    save_adapter(adapted(), folder)
    return folder


def test_full_size_adapters_have_the_published_count() -> None:
    with torch.device("meta"):
        model = UniBiomed(preset("1b"), TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3))
        add_lora(model)
    assert lora_parameter_count(model) == 70_385_664


def test_new_adapters_change_nothing_and_alone_are_trained() -> None:
    model = toy_engine().model
    plain = answer(model)
    outside = {n: p.requires_grad for n, p in model.named_parameters() if "language_model" not in n}
    assert lora_parameter_count(model) == 0
    add_lora(model, rank=4, alpha=8, dropout=0.0)
    assert torch.allclose(answer(model), plain, atol=CLOSE)
    language = {n: p.requires_grad for n, p in model.named_parameters() if "language_model" in n}
    assert language
    assert all(trained == ("lora_" in name) for name, trained in language.items())
    assert {n: p.requires_grad for n, p in model.named_parameters() if "language_model" not in n} == outside
    with pytest.raises(ConfigError, match="already"):
        add_lora(model)


@pytest.mark.parametrize("prepared", [True, False])
def test_saved_adapters_give_the_same_answers(saved: Path, prepared: bool) -> None:
    other = toy_engine().model
    if prepared:
        add_lora(other, rank=4, alpha=8, dropout=0.0)
    load_adapter(other, saved)
    assert torch.allclose(answer(other), answer(adapted()), atol=CLOSE)
    assert not torch.allclose(answer(other), answer(toy_engine().model), atol=1e-3)


def test_a_merged_model_is_a_plain_one(tmp_path: Path) -> None:
    model, processor = adapted(), toy_engine().processor
    before = answer(model)
    with pytest.raises(WriteError, match="not merged"):
        save(model, processor, tmp_path / "toy")
    merge_lora(model)
    assert lora_parameter_count(model) == 0
    assert torch.allclose(answer(model), before, atol=1e-5)
    save(model, processor, tmp_path / "toy", dtype="float32")
    assert torch.allclose(answer(load(tmp_path / "toy")[0]), answer(model), atol=CLOSE)
    add_lora(model, rank=2)
    assert lora_parameter_count(model) > 0


@pytest.mark.parametrize(("rank", "alpha"), [(2, 8), (4, 16)])
def test_another_rank_or_scale_does_not_fit(saved: Path, rank: int, alpha: int) -> None:
    model = toy_engine().model
    add_lora(model, rank=rank, alpha=alpha)
    with pytest.raises(WeightsError, match=f"rank 4 and alpha 8.*rank {rank} and alpha {alpha}"):
        load_adapter(model, saved)


def remove(folder: Path) -> None:
    (folder / ADAPTER).unlink()


def truncate(folder: Path) -> None:
    (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:-50])


def garble(folder: Path) -> None:
    (folder / SETTINGS).write_text("{")


def other_rank(folder: Path) -> None:
    (folder / SETTINGS).write_text(json.dumps(json.loads((folder / SETTINGS).read_text()) | {"rank": 3}))


def no_rank(folder: Path) -> None:
    (folder / SETTINGS).write_text(json.dumps({"rank": 0, "alpha": 1, "dropout": 0}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove, "holds no adapters"),
        (truncate, "damaged"),
        (garble, "damaged"),
        (other_rank, "adapter tensors differ"),
        (no_rank, "rank 0"),
    ],
)
def test_damaged_adapters(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    save_adapter(adapted(), tmp_path / "lora")
    damage(tmp_path / "lora")
    with pytest.raises(WeightsError, match=said):
        load_adapter(toy_engine().model, tmp_path / "lora")


def test_without_adapters_there_is_nothing_to_save_or_merge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No adapters"):
        save_adapter(toy_engine().model, tmp_path / "lora")
    with pytest.raises(ConfigError, match="No adapters"):
        merge_lora(toy_engine().model)
    assert not list(tmp_path.iterdir())


def test_a_missing_peft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"peft is not installed.*\[train\]"):
        add_lora(toy_engine().model)
