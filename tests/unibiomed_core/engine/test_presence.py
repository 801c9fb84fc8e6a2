"""How presence is stated: never falling as the score rises, saved with the weights, its thresholds used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, segment, toy_config, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.weights import save
from unibiomed_core.types import Prompt

RULE = Presence("object", 0.4, {"liver": 0.3}, scale=0.6, offset=-0.5, offsets={"liver": 1.25})


@pytest.mark.parametrize("target", ["liver", "spleen"])
def test_presence_never_falls_as_the_score_rises(target: str) -> None:
    stated = [RULE.probability(float(score), target) for score in np.linspace(0, 1, 201)]
    assert np.all(np.diff(stated) >= 0)
    assert stated[40] < stated[100] < stated[160]
    assert 0 <= stated[0] < 0.01
    assert 0.99 < stated[-1] <= 1


def test_a_target_without_an_offset_takes_the_rule_of_all() -> None:
    logit = np.log(RULE.probability(0.5, "spleen") / (1 - RULE.probability(0.5, "spleen")))
    assert logit == pytest.approx(-0.5)
    logit = np.log(RULE.probability(0.5, "liver") / (1 - RULE.probability(0.5, "liver")))
    assert logit == pytest.approx(0.75)
    assert (RULE.threshold_for("spleen"), RULE.threshold_for("liver")) == (0.4, 0.3)


def test_a_configuration_from_before_calibration_loads_and_states_plain_scores() -> None:
    values = json.loads(json.dumps(toy_config(presence=Presence("object", 0.5, {"liver": 0.7})).to_dict()))
    for name in ("scale", "offset", "offsets"):
        del values["presence"][name]
    presence = UniBiomedConfig.from_dict(values).presence
    assert presence == Presence("object", 0.5, {"liver": 0.7})
    assert [presence.probability(score, "liver") for score in (0.0, 0.123, 1.0)] == [0.0, 0.123, 1.0]


def test_a_rule_is_saved_with_the_weights_and_used(tmp_path: Path) -> None:
    engine = toy_engine(presence=RULE)
    save(engine.model, engine.processor, tmp_path / "model", dtype="float32")
    again = Engine.load(str(tmp_path / "model"), device="cpu")
    assert again.config.presence == RULE
    plain = toy_engine(presence=Presence("object", 0.0)).predict([ct_slice()], segment("liver", "spleen"), SOFT_TISSUE)
    given = again.predict([ct_slice()], segment("liver", "spleen"), SOFT_TISSUE)
    for before, after in zip(plain[0], given[0], strict=True):
        name, score = after.phrases[0].target, after.phrases[0].score
        assert score == pytest.approx(RULE.probability(before.phrases[0].score, name))
        assert bool(after.masks) == (score >= RULE.threshold_for(name))


def test_absence_is_said_with_the_calibrated_number_and_exact_prompts_keep_their_mask() -> None:
    plain = toy_engine(presence=Presence("object", 0.0)).predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    stated = replace(RULE, offset=-4.0).probability(plain[0][0].phrases[0].score, "liver")
    engine = toy_engine(presence=replace(RULE, threshold=1.0, thresholds={"liver": 1.0}, offset=-4.0))
    exact = Prompt("segment", question="<image>Please segment liver in abdomen CT.", answer="It is [SEG].", exact=True)
    absent, kept = engine.predict([ct_slice()], [*segment("liver"), exact], SOFT_TISSUE)[0]
    assert absent.text == f"liver: not found on this slice (presence {stated:.2f})."
    assert absent.masks == ()
    assert (kept.masks[0].full() == plain[0][0].masks[0].full()).all()
