"""Jobs and the record of a run."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from napari_unibiomed.jobs import Job, Run, RunAnswer, meets
from napari_unibiomed.session.worker import updates
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import CT_WINDOWS
from unibiomed_core.types import CroppedMask, Finding, Plane, Prompt, Region
from unibiomed_core.updates import CancelToken, Done

WINDOW = CT_WINDOWS["soft tissue"]


@pytest.mark.parametrize(
    ("job", "name"),
    [
        (Job("report", ct()), "Report"),
        (Job("segment", ct(), RunRequest.segment("liver", "spleen", "liver")), "Segment: liver, spleen"),
        (Job("ask", ct(), RunRequest((Prompt("vqa", question="Is there a mass?"),))), "Ask: Is there a mass?"),
        (Job("report", ct(), label="Evening run"), "Evening run"),
    ],
)
def test_a_job_has_a_name_for_people(job: Job, name: str) -> None:
    assert job.name == name


def test_the_request_of_a_job_reaches_the_engine() -> None:
    engine = FakeEngine()
    request = RunRequest.segment("liver", plan="coarse-to-fine", smooth_mm=1.5, min_area_mm2=12.0, link_slices=False)
    *_, done = updates(engine, Job("report", ct(4), request), {}, CancelToken())
    assert engine.requests == [request]
    assert isinstance(done, Done)
    assert all(len(finding.slices) == 1 for finding in done.report.findings)


def test_a_run_keeps_slices_and_answers() -> None:
    volume, prompt = ct(), Prompt("vqa", question="mass?")
    run = Run(Job("ask", volume, RunRequest((prompt,))), 1)
    for index in (3, 1):
        (given,) = FakeEngine(truncated=[1]).predict([volume.slice(index)], [prompt], WINDOW)
        run.take(index, given)
    assert run.slices_done == [1, 3]
    assert [(a.index, a.text, a.truncated, a.score) for a in run.answers] == [
        (3, "yes", False, None),
        (1, "yes", True, None),
    ]


def test_an_answer_carries_its_box_score_and_masks() -> None:
    volume, region = ct(), Region(2, 3, 20, 21, "coronal", 5)
    ((named, segmented),) = FakeEngine({"liver": {5: (0, 0, 4, 6)}}).predict(
        [volume.slice(5, "coronal")], [Prompt("roi_class", region=region), Prompt("segment", "liver")], WINDOW
    )
    assert RunAnswer.of(named).region is region
    assert (RunAnswer.of(named).plane, RunAnswer.of(named).masks) == ("coronal", ())
    assert RunAnswer.of(segmented).score == 0.9
    assert RunAnswer.of(segmented).masks[0].count == 24


def test_boxes_of_two_planes_with_one_index_are_two_places() -> None:
    volume = ct(8)
    run = Run(Job("roi", volume), 1)
    for plane in ("axial", "coronal"):
        region = Region(0, 0, 9, 9, plane, 2)
        (given,) = FakeEngine().predict([volume.slice(2, plane)], [Prompt("roi_class", region=region)], WINDOW)
        run.take(2, given)
    assert run.places_done == 2
    assert len(run.predictions[2]) == len(run.answers) == 2


@pytest.mark.parametrize(
    ("plane", "index", "box", "expected"),
    [
        ("axial", 2, (4, 4, 9, 9), True),  # x0, y0, x1, y1
        ("axial", 3, (4, 4, 9, 9), False),
        ("axial", 2, (0, 0, 4, 5), True),
        ("axial", 2, (0, 0, 3, 47), False),
        ("coronal", 5, (4, 2, 40, 2), True),
        ("coronal", 4, (4, 2, 40, 2), False),
        ("sagittal", 4, (5, 0, 5, 5), True),
        ("sagittal", 4, (0, 0, 4, 5), False),
    ],
)
def test_a_finding_meets_a_box_or_not(plane: Plane, index: int, box: tuple[int, ...], expected: bool) -> None:
    assert meets(finding_at(2, 5, 4), Region(*box, plane, index)) is expected


def finding_at(z: int, y: int, x: int) -> Finding:
    """A real finding of the fake engine, with a mask of two voxels along x."""
    volume = ct()
    done = next(u for u in FakeEngine().run(volume, RunRequest.segment("liver")) if isinstance(u, Done))
    mask = np.zeros(volume.shape, bool)
    mask[z, y, x : x + 2] = True
    from dataclasses import replace

    return replace(done.report.findings[0], mask=CroppedMask.from_full(mask))


def test_an_entry_tells_runs_of_one_name_apart() -> None:
    began = datetime(2026, 3, 4, 5, 6).timestamp()
    run = Run(Job("report", ct()), 2, began=began)
    assert run.entry == "2 · Report · 2026-03-04 05:06"
    run.title = "second look"
    assert run.entry == "2 · second look · 2026-03-04 05:06"
    assert Run(Job("report", ct()), 2).entry == "2 · Report"
