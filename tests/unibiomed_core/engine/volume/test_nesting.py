"""Parts below wholes, doubles once, strays never."""

from __future__ import annotations

import numpy as np
import pytest

from tests.hand_volumes import cropped
from tests.unibiomed_core.engine.volume.test_counting import SIDE, disc, picture, things
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.engine.volume.nesting import arranged, without_doubles, without_strays

VOLUME = picture("xray")


def row_of(target: str, *shapes: np.ndarray) -> LinkedMask:
    (first, *_) = things(target, VOLUME, shapes[0])
    return LinkedMask(target, target, 0.9, cropped(np.any(shapes, axis=0)[np.newaxis]), "axial", (0,), first.scores)


LEFT, RIGHT = disc(128, 190, 40), disc(128, 60, 40)


def test_sides_lie_below_what_they_are_sides_of() -> None:
    rows = [row_of("left lung", LEFT), row_of("lung fields", LEFT, RIGHT), row_of("right lung", RIGHT)]
    told = arranged(findings(rows, VOLUME), "xray")
    assert [(f.number, f.target, f.within) for f in told] == [
        (1, "lung fields", None),
        (2, "left lung", 1),
        (3, "right lung", 1),
    ]


def test_what_is_abnormal_comes_first() -> None:
    rows = [row_of("cardiomediastinum", disc(128, 128, 50)), row_of("consolidation", disc(200, 60, 12))]
    assert [f.target for f in arranged(findings(rows, VOLUME), "xray")] == ["consolidation", "cardiomediastinum"]


@pytest.mark.parametrize(("shift", "left"), [(0, ["lung tumour"]), (60, ["lung tumour", "lesion"])])
def test_one_thing_by_two_names_is_told_by_the_more_special_one(shift: int, left: list[str]) -> None:
    rows = [row_of("lung tumour", disc(100, 100, 20)), row_of("lesion", disc(100, 100 + shift, 20))]
    assert [thing.target for thing in without_doubles(rows)] == left


def test_a_whole_beside_its_own_sides_is_no_row() -> None:
    """A heart MRI had a left and a right lung, and "lung" beside both."""
    sides = [row_of("left lung", LEFT), row_of("right lung", RIGHT)]
    stray, whole = row_of("lung fields", disc(20, 20, 15)), row_of("lung fields", LEFT, RIGHT)
    assert [thing.target for thing in without_strays([*sides, stray])] == ["left lung", "right lung"]
    assert len(without_strays([*sides, whole])) == 3
    assert len(without_strays([stray])) == 1
    assert SIDE == 256
