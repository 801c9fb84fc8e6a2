"""What is left out of the findings, or not linked, where it was asked for; and that nothing is by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tests.unibiomed_core.engine.toy import ct_volume, rgb_picture, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.postprocessing import Selection
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.report import to_json
from unibiomed_core.types import CroppedMask, Phrase, Prediction, Prompt, Report, Slice
from unibiomed_core.updates import Done, FindingFound

PIECES = {2: (0.9, 9), 3: (0.8, 9), 4: (0.7, 9), 9: (0.55, 4)}
"""Slice -> score and side in mm of its square: one thing on three slices, and a small, doubtful one apart from it."""


def answering(pieces: Mapping[int, tuple[float, int]]) -> Engine:
    """An engine that marks these squares and computes nothing."""
    engine = toy_engine(batch_size=1)

    def one(piece: Slice, prompt: Prompt) -> Prediction:
        score, side = pieces.get(piece.index, (0.1, 0))
        mask = CroppedMask(np.ones((side, side), bool), (10, 10), piece.shape) if side else None
        phrase = Phrase(prompt.target, 0, len(prompt.target), score, mask, prompt.target)
        return Prediction(prompt, piece.plane, piece.index, prompt.target, "", (phrase,))

    def predict(slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window) -> list[tuple[Prediction, ...]]:
        return [tuple(one(piece, prompt) for prompt in prompts) for piece in slices]

    engine.predict = predict  # type: ignore[method-assign]
    return engine


def report(**options: Any) -> Report:
    request = RunRequest.segment("lesion", describe=False, check=False, **options)
    updates = list(answering(PIECES).run(ct_volume(12, size=24), request))
    done = updates[-1]
    assert isinstance(done, Done)
    assert [u.finding for u in updates if isinstance(u, FindingFound)] == list(done.report.findings)
    return done.report


def without_time(given: Report) -> dict[str, Any]:
    return to_json(given) | {"wall_time_s": 0}


def test_the_defaults_change_nothing_and_are_not_stated() -> None:
    usual = report()
    assert [f.slices for f in usual.findings] == [(2, 3, 4), (9,)]
    said = report(least_presence=0.0, min_area_mm2=None, link_slices=True)
    assert without_time(said) == without_time(usual)
    assert not {"least_presence", "min_area_mm2", "link_slices"} & set(usual.settings)


def test_findings_of_low_presence_are_left_out_and_counted() -> None:
    given = report(least_presence=0.6)
    assert [(f.number, f.slices) for f in given.findings] == [(1, (2, 3, 4))]
    assert given.warnings[-1].text == "1 finding was left out for a presence below 0.6: lesion."
    assert given.settings["least_presence"] == 0.6
    assert "left out for a presence below 0.6" in given.narrative
    assert len(report(least_presence=0.55).findings) == 2, "the limit itself is kept"
    nothing = report(least_presence=0.95)
    assert nothing.findings == ()
    assert "2 findings were left out for a presence below 0.95: lesion (2)." in [note.text for note in nothing.warnings]


def test_pieces_below_the_smallest_area_are_left_out() -> None:
    given = report(min_area_mm2=17.0)  # the small square has 16 mm² and more than 8 pixels
    assert [f.slices for f in given.findings] == [(2, 3, 4)]
    assert any("1 mask piece was too small" in note.text for note in given.warnings)
    assert given.settings["min_area_mm2"] == 17.0
    assert len(report(min_area_mm2=16.0).findings) == 2


def test_without_linking_each_slice_has_findings_of_its_own() -> None:
    given = report(link_slices=False)
    assert [f.slices for f in given.findings] == [(2,), (3,), (4,), (9,)]
    assert [f.presence for f in given.findings] == [0.9, 0.8, 0.7, 0.55]
    assert all("one_slice" in f.flags for f in given.findings)
    assert given.settings["link_slices"] is False
    between = report(link_slices=False, every=2)
    assert all(len(f.slices) == 1 for f in between.findings), "nothing is filled in between slices"


@pytest.mark.parametrize("options", [{"least_presence": 0.6}, {"min_area_mm2": 17.0}])
def test_smoothing_goes_with_a_choice(options: dict[str, Any]) -> None:
    (finding,) = report(smooth_mm=2.0, **options).findings
    assert finding.mask.count == 3 * 81
    assert "smoothed" in finding.flags


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"least_presence": -0.1}, "Presence out of range"),
        ({"least_presence": float("nan")}, "Presence out of range"),
        ({"min_area_mm2": -1.0}, "Area out of range"),
        ({"min_area_mm2": float("inf")}, "Area out of range"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(options: dict[str, Any], title: str) -> None:
    with pytest.raises(PromptError, match=title):
        report(**options)


def test_an_area_needs_pixels_with_a_size() -> None:
    with pytest.raises(PromptError, match="Area without a size"):
        Selection(min_area_mm2=9.0).check(rgb_picture())
