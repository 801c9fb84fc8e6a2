"""The wording of the known answer is the one that a checkpoint segments best with, and goes with its weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.train.toy_runs import ct_slice, record, toy_model
from train.calibration import known_answer
from train.calibration.known_answer import best_wording
from train.data.records import Record, region_record
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.types import Prompt, Slice

PUBLISHED = "It is [SEG]."


def record_told_by(wording: str) -> Record:
    """A record whose truth is what the toy model marks after one wording."""
    engine = Engine(*toy_model(), device="cpu")
    asked = Prompt("segment", target="polyp", answer=wording)
    piece = Slice(record(0).pixels(), "axial", 0, (1.0, 1.0), "endoscopy")
    ((prediction,),) = engine.predict([piece], [asked], Window("as is", 0.0, 255.0))
    (mask,) = prediction.masks
    return record(0, regions=(region_record("polyp", mask.full()),))


@pytest.mark.parametrize("wording", [PUBLISHED, "Sure, [SEG].", "[SEG]."])
def test_the_wording_with_the_highest_dice_is_taken(wording: str) -> None:
    model, processor = toy_model()
    model.config = strict = replace(model.config, presence=Presence("object", 1.0))
    assert best_wording(model, processor, [record_told_by(wording)]) == wording
    assert model.config is strict, "thresholds play no part, and are put back"


def test_a_gain_that_says_nothing_leaves_the_published_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_answer, "LEAST_GAIN", 0.999)
    assert best_wording(*toy_model(), [record_told_by("[SEG].")]) == PUBLISHED


def test_without_masks_the_published_wording_stays() -> None:
    assert best_wording(*toy_model(), [record(1)]) == PUBLISHED


def test_the_chosen_wording_is_read_and_saved() -> None:
    model, processor = toy_model()
    config = replace(model.config, answers={"segment": "[SEG]."})
    assert UniBiomedConfig.from_dict(config.to_dict()) == config
    model.config = processor.config = config
    engine = Engine(model, processor, device="cpu")
    ((prediction,),) = engine.predict([ct_slice()], [Prompt("segment", "liver")], Window("soft", -160.0, 240.0))
    assert prediction.raw_text == "[SEG].<|end|>"
    assert prediction.text == "liver."
    assert engine.counts.decode_steps == 0
    assert np.any(prediction.masks[0].full())
