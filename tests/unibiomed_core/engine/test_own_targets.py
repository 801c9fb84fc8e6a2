"""Targets that a model was trained on and the vocabulary does not know."""

from __future__ import annotations

import pytest

from tests.unibiomed_core.engine.toy import ct_slice, toy_engine
from unibiomed_core.engine.prompts import known_target, resolve
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Prompt

TARGETS = {"targets": {"ct": ("liver", "Coarse-grain lesion")}}


@pytest.mark.parametrize("asked", ["Coarse-grain lesion", "coarse grain lesion", "coarse-grain lesion in CT."])
def test_a_name_of_the_models_own_is_asked_as_it_was_trained(asked: str) -> None:
    engine = toy_engine(**TARGETS)
    question = resolve(Prompt("segment", target=asked), ct_slice(), engine.processor)
    assert question.target == "Coarse-grain lesion"
    assert question.text == "<image>Please segment Coarse-grain lesion in CT."


def test_vocabulary_names_keep_their_phrase() -> None:
    config = toy_engine(**TARGETS).processor.config
    assert known_target("Liver", "ct", config) == ("liver", "liver in abdomen CT")


@pytest.mark.parametrize("name", ["fine-grain lesion", "spleen", "coarse"])
def test_other_names_are_errors(name: str) -> None:
    with pytest.raises(PromptError):
        known_target(name, "ct", toy_engine(**TARGETS).processor.config)


def test_a_name_of_another_modality_is_an_error() -> None:
    with pytest.raises(PromptError, match="not in the vocabulary"):
        known_target("Coarse-grain lesion", "mri", toy_engine(**TARGETS).processor.config)
