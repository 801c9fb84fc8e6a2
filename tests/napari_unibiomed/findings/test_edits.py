"""Edits as values: grouping, measuring anew, and which mask a finding has after somebody painted."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unibiomed.findings import edits
from napari_unibiomed.findings.rows import row_of
from napari_unibiomed.widgets.contrast import READABLE, contrast, ink, readable
from tests.hand_volumes import cropped
from tests.napari_unibiomed.hand_runs import a_run, masks, small_volume
from unibiomed_core.report import colour
from unibiomed_core.types import CroppedMask


def test_a_finding_is_measured_as_the_engine_does_it() -> None:
    run = a_run()
    finding = run.report.findings[1]
    again = edits.measured_again(finding, finding.mask, run.volume)
    assert again.measurements == finding.measurements
    assert (again.flags, again.slices, again.number, again.presence) == (
        finding.flags,
        finding.slices,
        finding.number,
        finding.presence,
    )
    longer = masks(run.volume)[1]
    longer[7, 15:20, 10:14] = True
    assert edits.measured_again(finding, cropped(longer), run.volume).flags == ("low_score",)
    assert edits.measured_again(finding, cropped(np.zeros(run.volume.shape, bool)), run.volume) is None


def test_history_gives_steps_back_newest_first() -> None:
    run = a_run()
    row = row_of(run.report.findings[0], run.volume)
    history = edits.History()
    history.push(edits.reject(row))
    with history.group():
        history.push(edits.rename(row, "a"))
        assert history.words == "Rename"
        history.push(edits.rename(row, "b"))
    with history.group():
        pass
    assert [edit.after.phrase for edit in history.pop()] == ["b", "a"]
    assert history.words == "Reject"
    assert history.pop()[0].number == 1
    assert history.pop() == ()
    assert history.words == ""


def picture_of(own: dict[int, CroppedMask]) -> np.ndarray:
    """Labels as they are painted: smaller findings on top."""
    whole = np.zeros(next(iter(own.values())).shape, np.uint16)
    for number, mask in sorted(own.items(), key=lambda item: -item[1].count):
        whole[mask.box][mask.crop] = number
    return whole


@pytest.fixture
def own() -> dict[int, CroppedMask]:
    large, small = masks(small_volume())
    return {1: cropped(large), 2: cropped(small)}


def test_what_smaller_findings_cover_stays_part_of_a_mask(own: dict[int, CroppedMask]) -> None:
    picture = picture_of(own)
    for number, mask in own.items():
        assert np.array_equal(edits.mask_on_canvas(number, picture, own, mask.box).full(), mask.full())


def test_strokes_add_take_and_take_over(own: dict[int, CroppedMask]) -> None:
    picture = picture_of(own)
    picture[5, 10, 10] = 1  # new for the liver
    picture[6, 8, 2] = 0  # erased from the liver
    picture[6, 16, 11] = 1  # the tumour loses a voxel that stays the liver's
    picture[6, 25, 5] = 2  # the tumour takes a voxel of the liver
    picture[6, 15, 10] = 0  # erased from both
    strokes = (slice(5, 7), slice(8, 26), slice(2, 12))
    liver, tumour = (edits.mask_on_canvas(n, picture, own, strokes).full() for n in (1, 2))
    before = {n: mask.full() for n, mask in own.items()}
    assert {tuple(int(i) for i in v) for v in np.argwhere(liver != before[1])} == {
        (5, 10, 10),
        (6, 8, 2),
        (6, 25, 5),
        (6, 15, 10),
    }
    assert {tuple(int(i) for i in v) for v in np.argwhere(tumour != before[2])} == {
        (6, 16, 11),
        (6, 25, 5),
        (6, 15, 10),
    }


@pytest.mark.parametrize("background", ["#121212", "#262930", "#ffffff", "#efebe9"])
def test_colours_of_findings_can_be_read_as_text(background: str) -> None:
    for number in range(1, 8):
        assert contrast(readable(colour(number), background), background) >= READABLE
        assert contrast(ink(colour(number)), colour(number)) >= READABLE
