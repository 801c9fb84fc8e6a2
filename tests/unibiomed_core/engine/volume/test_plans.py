"""Plans over slices: which slices, in what order, what a second pass adds, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_volume, rgb_picture, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume import plans
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ConfigError, PromptError
from unibiomed_core.modalities import Window
from unibiomed_core.types import CroppedMask, Phrase, Prediction, Prompt, Report, Slice
from unibiomed_core.updates import CancelToken, Done, Progress, SliceDone, Update


def answering(positive: Sequence[int]) -> Engine:
    """An engine whose answer is a square on the given slices and an absence elsewhere; nothing is computed."""
    engine = toy_engine(batch_size=1)

    def predict(slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window) -> list[tuple[Prediction, ...]]:
        def one(piece: Slice, prompt: Prompt) -> Prediction:
            mask = CroppedMask(np.ones((9, 9), bool), (10, 10), piece.shape) if piece.index in positive else None
            phrase = Phrase(prompt.target, 0, len(prompt.target), 0.9 if mask else 0.1, mask, prompt.target)
            return Prediction(prompt, piece.plane, piece.index, prompt.target, "", (phrase,))

        return [tuple(one(piece, prompt) for prompt in prompts) for piece in slices]

    engine.predict = predict  # type: ignore[method-assign]
    return engine


def finish(engine: Engine, count: int, **options: Any) -> tuple[list[Update], Report]:
    volume, known = ct_volume(count, size=24, **options.pop("volume", {})), options.pop("known", None)
    updates = list(engine.run(volume, RunRequest.segment("liver", describe=False, check=False, **options), known=known))
    assert isinstance(updates[-1], Done)
    return updates, updates[-1].report


def order(updates: Sequence[Update]) -> list[int]:
    return [u.index for u in updates if isinstance(u, SliceDone)]


def test_the_table_names_each_plan_and_what_it_does() -> None:
    assert list(plans.PLANS) == ["all", "coarse-to-fine", "key-slices", "propagate", "published-video"]
    assert all(plan.about for plan in plans.PLANS.values())


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("al", "all"), ("fine", "coarse-to-fine"), ("Video", "published-video")]
)
def test_an_unknown_plan_offers_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(PromptError, match=f"Unknown plan.*nearest: {nearest}"):
        plans.find(wrong)


def test_coarse_to_fine_finds_what_all_slices_find_with_fewer() -> None:
    lesion = range(13, 22)
    _, everything = finish(answering(lesion), 40)
    updates, refined = finish(answering(lesion), 40, plan="coarse-to-fine", every=4)
    coarse = list(range(1, 40, 4))
    assert order(updates) == [*coarse, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23, 24]
    assert [f.slices for f in refined.findings] == [f.slices for f in everything.findings] == [tuple(lesion)]
    assert refined.findings[0].flags == everything.findings[0].flags, "nothing is interpolated"
    assert refined.settings["plan"] == "coarse-to-fine"
    assert "Plan: coarse-to-fine, with a first pass over every 4th slice." in refined.narrative


def test_progress_tells_of_added_slices_at_once_and_ends_full() -> None:
    updates, _ = finish(answering(range(13, 22)), 40, plan="coarse-to-fine", every=4)
    steps = [(u.done, u.total) for u in updates if isinstance(u, Progress)]
    assert steps[0] == (0, 10)
    assert steps[4] == (4, 16), "slice 13 is the fourth; it adds three on either side"
    totals = [total for _, total in steps]
    assert totals == sorted(totals)
    assert steps[-1] == (22, 22)
    assert [done for done, _ in steps] == list(range(23))


def test_the_ends_of_a_volume_are_refined_too() -> None:
    updates, report = finish(answering([0, 1, 37, 38, 39]), 40, plan="coarse-to-fine", every=4)
    assert {0, 2, 3, 4, 34, 35, 36, 38, 39} <= set(order(updates))
    assert sorted(i for f in report.findings for i in f.slices) == [0, 1, 37, 38, 39]


def test_empty_slices_are_refined_around() -> None:
    _, report = finish(answering(range(40)), 12, plan="coarse-to-fine", every=4, volume={"empty": (0, 4, 5)})
    assert report.slices_skipped == (0, 4, 5)
    assert set(report.slices_done) == set(range(12)) - {0, 4, 5}


def test_a_plan_takes_its_step_from_the_slice_spacing() -> None:
    assert plans.coarse(1, 5.0) == 2  # never less than every second
    assert plans.coarse(1, 2.0) == 3
    assert plans.coarse(1, 0.7) == 4
    assert plans.coarse(5, 0.7) == 5
    assert plans.route("coarse-to-fine", ct_volume(12), "axial", SOFT_TISSUE).step == 2


def test_key_slices_are_spread_over_what_shows_something() -> None:
    route = plans.route("key-slices", ct_volume(30, empty=tuple(range(10))), "axial", SOFT_TISSUE)
    assert route.first_pass == (12, 16, 20, 24, 28)
    assert plans.route("key-slices", ct_volume(3), "axial", SOFT_TISSUE).first_pass == (0, 1, 2)
    assert plans.route("key-slices", ct_volume(3, empty=(0, 1, 2)), "axial", SOFT_TISSUE).first_pass == ()


def test_a_stopped_first_pass_is_linked_by_its_step_and_adds_no_slices() -> None:
    cancel = CancelToken()
    updates = []
    request = RunRequest.segment("liver", describe=False, check=False, plan="coarse-to-fine", every=4)
    for update in answering(range(40)).run(ct_volume(40, size=24), request, cancel=cancel):
        updates.append(update)
        if isinstance(update, SliceDone) and update.index == 9:
            cancel.cancel()
    report = updates[-1].report  # type: ignore[union-attr]
    assert report.ended == "cancelled"
    assert report.slices_done == (1, 5, 9)
    assert [f.slices for f in report.findings] == [tuple(range(1, 10))]
    assert report.findings[0].flags == ("interpolated",)


def test_slices_answered_before_are_not_asked_again() -> None:
    updates, _ = finish(answering([5]), 12, plan="coarse-to-fine", every=4)
    known = {u.index: u.predictions for u in updates if isinstance(u, SliceDone)}
    again, report = finish(answering([5]), 12, plan="coarse-to-fine", every=4, known={5: known[5]})
    assert order(again)[0] == 5
    assert sorted(order(again)) == sorted(order(updates))
    assert [f.slices for f in report.findings] == [(5,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "key-slices", "every": 2}, "Step without a use"),
        ({"plan": "published-video", "every": 2}, "Step without a use"),
        ({"plan": "coarse-to-fine", "indices": [1]}, "Two plans"),
        ({"plan": "all", "indices": [12]}, "No such slice"),
        ({"plan": "coarse-to-fine", "every": 0}, "Step out of range"),
        ({"smooth_mm": -1.0}, "Smoothing out of range"),
        ({"smooth_mm": float("nan")}, "Smoothing out of range"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_slice(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        finish(answering([]), 12, **options)


@pytest.mark.parametrize("plan", ["propagate", "published-video"])
def test_a_model_without_memory_cannot_follow_and_says_so(plan: str) -> None:
    with pytest.raises(ConfigError, match=r"No memory parts.*coarse-to-fine"):
        finish(answering([]), 4, plan=plan)


def test_a_picture_is_one_slice_under_every_plan() -> None:
    for plan in ("all", "coarse-to-fine", "key-slices"):
        assert plans.route(plan, rgb_picture(), "axial", Window("as is", 0, 255)).first_pass == (0,)
    with pytest.raises(PromptError, match="Nothing to smooth"):
        list(answering([]).run(rgb_picture(), RunRequest.segment("nuclei", smooth_mm=1.0)))
