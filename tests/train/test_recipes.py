"""Every recipe is complete, its names are real, and what it promises follows from it."""

from __future__ import annotations

import json

import pytest

from train.config import RunConfig, override
from train.recipes import RECIPES
from train.training.loop import resolved
from train.training.stages import KINDS
from train.training.trainable import RULES
from unibiomed_core.errors import ConfigError
from unibiomed_core.model.presets import PRESETS


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_complete(name: str) -> None:
    config = RECIPES[name]()
    assert config.recipe == name
    assert config.preset in PRESETS
    assert config.out.startswith("runs/")
    assert config.stages
    assert len({stage.name for stage in config.stages}) == len(config.stages)
    for stage in config.stages:
        assert stage.kind in KINDS
        assert stage.trained in RULES
        assert stage.steps > 0 or stage.epochs > 0
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_as_published_has_the_published_numbers() -> None:
    config = RECIPES["as_published"]()
    (stage,) = config.stages
    assert (stage.kind, stage.trained, stage.epochs, stage.batch_size, stage.micro_batch) == (
        "published", "published", 10, 128, 4,
    )  # fmt: skip
    assert (stage.learning_rate, stage.weight_decay, stage.second_beta, stage.decay_all) == (4e-5, 0.05, 0.999, True)
    assert (config.adapters, config.precision, config.checkpointing) == (128, "bfloat16", True)
    assert (config.save_every, config.keep, config.validation_share, config.seed) == (500, 3, 0.0, 42)
    assert config.record_side == 0


def test_steps_and_warm_up_follow_from_passes() -> None:
    stage = RECIPES["unibiomed_1b"]().stages[0]
    assert resolved(stage, samples=1280).steps == 100
    assert resolved(stage, samples=1280).warmup == 5
    fixed = RECIPES["mini"]().stages[0]
    assert resolved(fixed, samples=7) == fixed


def test_a_run_of_another_version_is_an_error() -> None:
    values = RECIPES["toy"]().to_dict()
    with pytest.raises(ConfigError, match="surprise"):
        RunConfig.from_dict({**values, "surprise": 1})
    with pytest.raises(ConfigError, match="stages"):
        RunConfig.from_dict({k: v for k, v in values.items() if k != "stages"})


def test_settings_reach_the_fields_of_a_stage() -> None:
    config = override(RECIPES["as_published"](), ["published.decay_all=no", "published.trained=ours", "adapters=8"])
    assert config.stages[0].decay_all is False
    assert config.stages[0].trained == "ours"
    assert config.adapters == 8
