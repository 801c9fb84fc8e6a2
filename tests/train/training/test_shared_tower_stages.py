"""Training a model with one tower: a picture passes it once, its encoder learns slower, its first stages not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.toy_runs import records_of_every_role
from tests.unibiomed_core.engine.toy import tokenizer
from train.config import Stage
from train.data.records import RecordSet
from train.recipes import RECIPES
from train.training.loop import parameter_groups
from train.training.made_from import differences, inputs_of
from train.training.stage import TrainingData
from train.training.stages import KINDS
from unibiomed_core.model.presets import toy_lite0
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed


@pytest.fixture
def records(tmp_path: Path) -> RecordSet:
    return records_of_every_role(tmp_path)


@pytest.fixture
def model() -> UniBiomed:
    config = toy_lite0()
    torch.manual_seed(2)
    return UniBiomed(config, Processor(config, tokenizer()).ids)


def material(model: UniBiomed, records: RecordSet) -> TrainingData:
    return TrainingData(records, Processor(model.config, tokenizer()), seed=4)


@pytest.mark.parametrize("kind", ["grounding", "language", "joint"])
def test_every_kind_of_stage_trains_it(kind: str, model: UniBiomed, records: RecordSet) -> None:
    stage = Stage(kind, kind, steps=1, batch_size=6, learning_rate=1e-3, side=64, tower_frozen=1)
    task = KINDS[kind](model, material(model, records), stage)
    model.requires_grad_(False)
    task.select_trained()
    passes: list[int] = []
    assert model.grounder.tower is not None
    model.grounder.tower.encoder.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    batch = task.collate(task.plan(0))
    sums = task(batch)
    assert passes == [6]
    torch.stack(list(sums.values())).sum().backward()
    learnt = {name for name, p in model.named_parameters() if p.grad is not None}
    assert bool([n for n in learnt if "tower.encoder.stages.6" in n]) == (kind != "language")
    assert bool([n for n in learnt if "multi_modal_projector" in n]) == (kind != "grounding")
    assert not [n for n in learnt if "tower.encoder.stem" in n or "tower.encoder.stages.0" in n]


def test_masks_of_a_row_are_those_of_its_own_picture(model: UniBiomed, records: RecordSet) -> None:
    stage = Stage("joint", "joint", steps=1, batch_size=6, learning_rate=1e-3)
    task = KINDS["joint"](model, material(model, records), stage)
    batch = task.collate(task.plan(1)).batch
    assert batch.grounding_tile is not None
    assert len(batch.grounding_pixels) == 0
    assert len(batch.grounding_tile) == int(batch.seg_image.max()) + 1 > 1
    model.eval()
    with torch.no_grad():
        once = model(batch).masks
        apart = model(replace(batch, grounding_tile=None, grounding_pixels=batch.tiles[batch.grounding_tile])).masks
    assert once is not None
    assert apart is not None
    # One batch of another size may add in another order.
    assert torch.allclose(once.logits, apart.logits, atol=1e-4)


def test_another_start_of_the_tower_is_told(tmp_path: Path) -> None:
    config = replace(RECIPES["mini_lite0"](), data=str(tmp_path))
    before, now = (inputs_of(c, tmp_path / "run") for c in (config, replace(config, tower="")))
    assert differences(before, now) == ["tower 'lite0/imagenet', now none"]


def test_the_encoder_has_a_rate_of_its_own(model: UniBiomed) -> None:
    stage = Stage("joint", "joint", steps=1, batch_size=2, learning_rate=1e-3, tower_rate=0.3)
    groups = parameter_groups(model, stage)
    of = {id(p): group["rate"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    assert len(of) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert of[id(parameter)] == (0.3 if "tower.encoder." in name else 1.0)
