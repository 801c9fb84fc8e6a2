"""What is looked at before a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("napari")
from napari_unibiomed.jobs import Job
from napari_unibiomed.runs.preflight import estimate_text, preflight, slice_count
from tests.napari_unibiomed.fake_engine import ct, picture
from unibiomed_core.engine.volume import plans
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.modalities import CT_WINDOWS, Window, choose_window
from unibiomed_core.types import Prompt, Region, Volume

PLENTY = 10**12


def titles(job: Job, free_bytes: int = PLENTY) -> list[str]:
    return [message.title for message in preflight(job, free_bytes=free_bytes).messages]


def with_values(low: int, high: int, **changes: object) -> Volume:
    voxels = np.linspace(low, high, 6 * 48 * 48).reshape(6, 48, 48).astype(np.int16)
    return replace(ct(6), voxels=voxels, **changes)  # type: ignore[arg-type]


def test_a_sound_job_passes_without_a_word() -> None:
    checked = preflight(Job("report", ct(6)), free_bytes=PLENTY)
    assert checked.messages == ()
    assert not checked.blocked
    assert checked.estimate == "6 axial slices"
    assert preflight(Job("report", picture())).messages == ()


@pytest.mark.parametrize(
    ("volume", "title"),
    [
        (with_values(-3000, 1000), "Values do not look like Hounsfield units"),
        (with_values(-1000, 9000), "Values do not look like Hounsfield units"),
        (with_values(0, 255, intensity_unit="intensity"), "Values do not look like Hounsfield units"),
        (with_values(-1000, 1000, orientation_known=False), "Orientation unknown"),
    ],
)
def test_what_the_image_says_is_checked_and_told_once(volume: Volume, title: str) -> None:
    assert titles(Job("report", volume)) == [title]
    assert not preflight(Job("report", volume), free_bytes=PLENTY).blocked


def test_a_window_that_shows_nothing_is_told() -> None:
    assert titles(Job("report", ct(4), RunRequest(window=Window("far", 3000, 3500)))) == ["The window shows nothing"]
    assert titles(Job("report", ct(4), RunRequest(window=CT_WINDOWS["lung"]))) == []


@pytest.mark.parametrize(
    ("job", "title"),
    [
        (Job("report", ct(4), RunRequest(indices=(1, 4))), "No such slice"),
        (Job("report", ct(4), RunRequest(indices=(-1,))), "No such slice"),
        (Job("report", ct(4), RunRequest(indices=())), "Nothing to examine"),
        (Job("roi", ct(4)), "Nothing to examine"),
    ],
)
def test_slices_that_are_not_there_stop_the_run(job: Job, title: str) -> None:
    assert titles(job) == [title]
    assert preflight(job, free_bytes=PLENTY).blocked


def test_memory_that_does_not_suffice_stops_the_run_and_stands_first() -> None:
    job = Job("report", replace(ct(8), orientation_known=False))
    assert titles(job, free_bytes=8 * 48 * 48) == ["Not enough memory", "Orientation unknown"]
    assert preflight(job, free_bytes=8 * 48 * 48).blocked


def test_slices_are_counted_for_every_kind_of_job() -> None:
    boxes = [Region(0, 0, 9, 9, "axial", 1), Region(5, 5, 20, 20, "axial", 1), Region(0, 0, 9, 9, "coronal", 1)]
    assert slice_count(Job("roi", ct(4), RunRequest(tuple(Prompt("roi_class", region=box) for box in boxes)))) == 2
    assert slice_count(Job("report", ct(7), RunRequest(every=3))) == 3
    assert slice_count(Job("report", ct(7), RunRequest(every=3, plane="coronal"))) == 16
    assert slice_count(Job("ask", ct(7), RunRequest(indices=(2, 2, 3)))) == 2


def test_the_time_is_measured_or_left_out() -> None:
    """ux 15: no constant stands for a time that nobody measured."""
    job = Job("report", ct(6))
    assert preflight(job, seconds_per_slice=10.0).estimate == "6 axial slices · about 1:00"
    assert preflight(job).estimate == "6 axial slices"
    assert estimate_text(1, 0.001) == "1 slice · about 0:01"


def test_metal_and_padding_do_not_make_a_ct_another_scale() -> None:
    """bugs 06: the range was told by single voxels."""
    voxels = with_values(-1000, 1000).voxels.copy()
    voxels[0, :3], voxels[1, 0, :9] = -1024, 30000
    assert titles(Job("report", replace(ct(6), voxels=voxels))) == []


def test_slices_that_show_air_only_are_not_counted_as_the_engine_leaves_them_out() -> None:
    """ux 18: the estimate said 92 slices, the run 88."""
    volume = ct(9, 64)
    volume.voxels[:2] = -1000
    assert slice_count(Job("report", volume)) == 7
    engines = plans.route("all", volume, "axial", choose_window(volume), 3)
    assert slice_count(Job("report", volume, RunRequest(every=3))) == len(engines.first_pass) == 2
    assert slice_count(Job("report", volume, RunRequest(indices=(0, 1, 2)))) == 3
    assert slice_count(Job("report", volume, RunRequest(plan="coarse-to-fine"))) == 7
    volume.voxels[:] = -1000
    assert not preflight(Job("report", volume)).blocked  # the engine tells that no slice shows more than air
