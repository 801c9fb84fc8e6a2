"""The name of a box is a check only where the box could have had another one."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed_core.engine.volume.aggregation import Aggregation
from unibiomed_core.engine.volume.checks import checked, logits
from unibiomed_core.engine.volume.linking import LinkedMask
from unibiomed_core.types import CroppedMask, Prediction, Prompt


def named(**shares: float) -> Prediction:
    names = tuple((name.replace("_", " "), share) for name, share in shares.items())
    return Prediction(Prompt("roi_class"), "axial", 0, "", "", (), False, 0.0, None, None, names)


def region_checks(target: str, modality: str, said: Prediction) -> list[tuple[bool, float | None]]:
    mask = CroppedMask.from_full(np.ones((1, 20, 20), bool))
    thing = LinkedMask(target, target, 0.9, mask, "axial", (0,), ((0, 0.9),))
    told = checked([thing], Aggregation(done=[0]), modality, None, {0: [said]})
    assert told.evidence[0] is not None
    return [(check.agrees, check.score) for check in told.evidence[0].checks if check.code == "region"]


def test_a_box_that_can_have_one_name_only_checks_nothing() -> None:
    assert region_checks("polyp", "endoscopy", named(polyp=1.0)) == []
    assert region_checks("tumour core", "mri", named(brain_tumour=0.7, tumour_core=0.3)) == []  # one family


@pytest.mark.parametrize(("share", "agrees"), [(0.9, True), (0.2, False)])
def test_a_box_that_could_have_another_name_is_a_check(share: float, agrees: bool) -> None:
    said = named(consolidation=share, left_lung=1 - share)
    assert region_checks("consolidation", "xray", said) == [(agrees, share)]


def test_each_check_has_a_logit() -> None:
    thing = LinkedMask(
        "polyp", "polyp", 0.5, CroppedMask.from_full(np.ones((1, 9, 9), bool)), "axial", (0,), ((0, 0.5),)
    )
    told = checked([thing], Aggregation(done=[0, 1]), "endoscopy", None)
    (evidence,) = told.evidence
    assert evidence is not None
    assert logits(evidence.checks) == {"mask": 0.0, "neighbours": -1.0}
