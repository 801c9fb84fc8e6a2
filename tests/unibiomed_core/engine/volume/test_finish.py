"""The end of a run: the same report whether it was stopped, failed, or is found on the disk."""

from __future__ import annotations

from typing import Any

import pytest

from tests.alike import differences
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.finish import finish_answered
from unibiomed_core.engine.volume.request import RunRequest, from_json, to_json
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.report import from_json as report_from_json
from unibiomed_core.report import to_json as report_to_json
from unibiomed_core.types import Prediction, Prompt, Region, Report, Volume
from unibiomed_core.updates import CancelToken, Done, SliceDone

Answered = dict[int, tuple[Prediction, ...]]

STEPPED = RunRequest.segment("liver", "spleen", plan="coarse-to-fine", describe=False, check=False, least_presence=0.2)
EMPTY = (0, 9)


def stopped(engine: Engine, volume: Volume, request: RunRequest, after: int = 3) -> tuple[Report, Answered]:
    """A run that the user stopped, and what it had answered."""
    cancel, answered = CancelToken(), Answered()
    for update in engine.run(volume, request, cancel=cancel):
        if isinstance(update, SliceDone):
            answered[update.index] = update.predictions
            if len(answered) == after:
                cancel.cancel()
        if isinstance(update, Done):
            return update.report, answered
    raise AssertionError("no report")


def told(report: Report) -> dict[str, Any]:
    """All but the time and what tells how it ended."""
    told = report_to_json(report) | {"wall_time_s": 0, "ended": "", "narrative": "", "cancelled": None}
    impression = told["sections"][0]
    impression["text"] = [line for line in impression["text"] if "what follows covers those only" not in line]
    return told


@pytest.mark.parametrize(("ended", "words"), [("failed", "Ended by an error"), ("interrupted", "Interrupted")])
def test_a_run_that_failed_says_so_and_all_else_that_a_stopped_one_says(ended: Any, words: str) -> None:
    engine, volume = toy_engine(batch_size=1), ct_volume(10, empty=EMPTY)
    report, answered = stopped(engine, volume, STEPPED)
    model = engine.info.provenance()
    failed = finish_answered(volume, STEPPED, answered, ended=ended, model=model, seconds=1.0)
    assert (report.ended, failed.ended) == ("cancelled", ended)
    assert not list(differences(told(failed), told(report)))
    assert failed.findings
    assert f"{words} after 3 of 10 slices" in failed.narrative
    assert "user" not in failed.narrative


def test_the_step_and_the_skipped_slices_of_the_plan_are_told_after_an_error() -> None:
    engine, volume = toy_engine(batch_size=1), ct_volume(10, empty=EMPTY)
    _, answered = stopped(engine, volume, STEPPED)
    failed = finish_answered(volume, STEPPED, answered, ended="failed", model=engine.info.provenance(), seconds=1.0)
    assert failed.settings["every"] == 2
    assert failed.slices_skipped == EMPTY
    assert failed.settings.keys() >= {"plan", "smooth_mm", "least_presence", "describe", "indices"}


def test_targets_that_the_model_does_not_know_are_told_after_an_error() -> None:
    engine, volume = toy_engine(batch_size=1, targets={"ct": ("liver", "spleen")}), ct_volume(4)
    request = RunRequest.segment("liver", "splen", "aorta", describe=False, check=False)
    report, answered = stopped(engine, volume, request, after=2)
    about: dict[str, Any] = {"ended": "failed", "model": engine.info.provenance(), "seconds": 1.0}
    failed = finish_answered(volume, request, answered, **about, learnt=engine.info.targets)
    assert not list(differences(told(failed), told(report)))
    alone = finish_answered(volume, request, answered, **about).settings["unknown_targets"]
    assert [(one["name"], one["code"], list(one["nearest"])) for one in alone] == [
        ("splen", "not_in_vocabulary", []),
        ("aorta", "not_learnt", []),
    ]


def test_a_report_with_unknown_targets_is_read_again() -> None:
    engine, volume = toy_engine(batch_size=1, targets={"ct": ("liver",)}), ct_volume(2)
    *_, done = engine.run(volume, RunRequest.segment("liver", "splen", describe=False, check=False))
    assert isinstance(done, Done)
    written = report_to_json(done.report)
    assert report_to_json(report_from_json(written)) == written


def test_a_request_comes_back_from_its_json() -> None:
    box = Prompt("roi_class", region=Region(1, 2, 20, 30, "coronal", 5))
    asked = RunRequest((box, Prompt("segment", "liver")), "coronal", indices=(3, 5), window=CT_WINDOWS["lung"])
    assert from_json(to_json(asked)) == asked
    assert hash(from_json(to_json(asked))) == hash(asked)
    assert from_json({}) == RunRequest()
    with pytest.raises(TypeError):
        from_json({"slices": [1]})
