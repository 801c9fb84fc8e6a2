"""From what the controls say to a job, without Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from napari_unibiomed.canvas.boxes import Box
from napari_unibiomed.jobs import JobKind
from napari_unibiomed.runs import requests
from napari_unibiomed.runs.requests import Slices, TaskOptions
from tests.napari_unibiomed.fake_engine import ct, picture
from unibiomed_core.engine.volume import plans
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.types import Prompt, Region

WINDOW = CT_WINDOWS["lung"]


def job(task: str, text: str = "", slices: Slices | None = None, **about: Any) -> Any:
    wishes = TaskOptions(task, text, slices or Slices())  # type: ignore[arg-type]
    return requests.make_job(wishes, about.pop("volume", ct(20)), about.pop("plane", "axial"), WINDOW, **about)


def test_a_report_asks_for_all_that_the_model_knows_on_every_slice() -> None:
    made = job("report")
    assert (made.kind, made.request) == ("report", RunRequest(window=WINDOW))


def test_phrases_are_split_at_commas_and_lines_each_once() -> None:
    made = job("segment", " liver,  left  kidney\nliver ; spleen,, ")
    assert [prompt.target for prompt in made.request.prompts] == ["liver", "left kidney", "spleen"]
    assert not made.request.describe


@pytest.mark.parametrize(("task", "title"), [("segment", "Empty phrase"), ("ask", "Empty question"), ("roi", "No box")])
def test_a_task_without_anything_to_ask_is_refused(task: str, title: str) -> None:
    with pytest.raises(PromptError, match=title):
        job(task, " ,\n" if task == "segment" else "")


def test_a_question_is_one_prompt_with_its_length_limit() -> None:
    made = requests.make_job(TaskOptions("ask", " why, and where? ", max_new_tokens=32), ct(3), "axial", None)
    assert made.request.prompts == (Prompt("vqa", question="why, and where?", max_new_tokens=32),)


def test_slice_numbers_count_as_the_slider_does() -> None:
    """ux 5."""
    assert job("report", slices=Slices("range", 2, 4)).request.indices == (2, 3, 4)
    assert job("report", slices=Slices("range", 4, 2)).request.indices == (2, 3, 4)
    assert job("report", slices=Slices("range", 0, 19, every=7)).request.indices == (0, 7, 14)
    with pytest.raises(PromptError, match="No such slice"):
        job("report", slices=Slices("range", 1, 20))


OPTIONS = RunRequest(plan="coarse-to-fine", smooth_mm=2.0, least_presence=0.5, min_area_mm2=9.0, link_slices=False)


@pytest.mark.parametrize("task", ["report", "segment"])
def test_advanced_options_reach_the_job(task: JobKind) -> None:
    made = requests.make_job(TaskOptions(task, "liver", options=OPTIONS), ct(20), "axial", WINDOW)
    usual = requests.make_job(TaskOptions(task, "liver"), ct(20), "axial", WINDOW)
    assert OPTIONS.changed == {
        "plan": "coarse-to-fine", "smooth_mm": 2.0, "least_presence": 0.5, "min_area_mm2": 9.0, "link_slices": False
    }  # fmt: skip
    assert made.request == replace(usual.request, **OPTIONS.changed)
    assert not usual.request.changed.keys() & OPTIONS.changed.keys()


def test_options_without_a_meaning_are_left_out() -> None:
    question = requests.make_job(TaskOptions("ask", "what?", options=OPTIONS), ct(20), "axial", WINDOW)
    assert not question.request.changed.keys() & OPTIONS.changed.keys()
    few = requests.make_job(TaskOptions(slices=Slices("range", 1, 3), options=OPTIONS), ct(20), "axial", WINDOW)
    assert few.request == replace(OPTIONS, plan="all", indices=(1, 2, 3), window=WINDOW)
    flat = requests.make_job(TaskOptions(options=OPTIONS), picture(), "axial", None)
    assert flat.request == RunRequest(least_presence=0.5, min_area_mm2=9.0)


def test_every_plan_that_is_offered_is_one_of_the_engine() -> None:
    assert set(requests.PLANS) <= set(plans.PLANS)
    assert not any(plans.PLANS[name].follows for name in requests.PLANS), "each can be followed without memory parts"


def test_the_shown_slice_alone_ignores_the_step() -> None:
    made = job("ask", "what?", Slices("current", every=9), current=4)
    assert (made.request.indices, made.request.every) == ((4,), 1)
    with pytest.raises(PromptError, match="No slice is shown"):
        job("ask", "what?", Slices("current"))


def test_a_picture_has_one_slice_whatever_is_chosen() -> None:
    assert job("segment", "polyp", Slices("range", 4, 9), volume=picture()).request.indices is None


def test_all_slices_keep_their_step() -> None:
    assert job("report", slices=Slices("all", every=4)).request.every == 4


def test_boxes_bring_their_own_plane_and_slices() -> None:
    boxes = [Box(Region(1, 2, 20, 30, "coronal", 5)), Box(Region(3, 4, 25, 26, "axial", 7))]
    made = job("roi", boxes=boxes)
    assert [(a.task, a.region) for a in made.request.prompts] == [
        (task, box.region) for box in boxes for task in ("roi_class", "roi_describe")
    ]
    assert (made.request.plane, made.request.indices, made.request.every) == ("coronal", None, 1)


def test_the_class_of_a_box_becomes_a_mask_that_meets_the_box() -> None:
    region, volume = Region(1, 2, 20, 30, "sagittal", 5), ct(20)
    made = requests.segment_in_box("liver", region, volume, WINDOW)
    assert (made.kind, made.request.plane, made.request.indices, made.within) == ("segment", "sagittal", (5,), region)
    with pytest.raises(PromptError, match="No phrase"):
        requests.segment_in_box("", region, volume, WINDOW)


def test_the_range_around_the_shown_slice_stays_inside() -> None:
    assert requests.range_around(10, ct(20), "axial") == (5, 15)
    assert requests.range_around(1, ct(20), "axial") == (0, 6)
    assert requests.range_around(19, ct(20), "axial") == (14, 19)


def test_what_the_model_learnt_is_offered_before_the_vocabulary() -> None:
    assert requests.offered_targets("ct", ["liver"]) == ("liver",)
    assert "liver" in requests.offered_targets("ct")
    assert "polyp" not in requests.offered_targets("ct")
