"""What the detail card says: key slices, facts, raw answers, thumbnails."""

from __future__ import annotations

import numpy as np

from napari_unibiomed.findings.details import (
    caption_of,
    facts_of,
    key_slices,
    place_text,
    raw_answer,
    slice_beside,
    thumbnail,
)
from napari_unibiomed.findings.model import FindingsModel
from tests.napari_unibiomed.hand_runs import a_run, an_answer, predictions_on, small_volume
from unibiomed_core.types import Region


def test_key_slices_stand_in_the_order_of_the_slider() -> None:
    run = a_run()
    liver, tumour = FindingsModel().rows_of(run)
    assert key_slices(run, liver) == [(3, "first"), (6, "largest"), (7, "last")]
    assert key_slices(run, tumour) == [(6, "only slice")]
    assert caption_of(run, 6, "largest") == "6 largest"
    turned = a_run(small_volume(reverse=True))
    liver = FindingsModel().rows_of(turned)[0]
    assert key_slices(turned, liver) == [(3, "first"), (6, "largest"), (7, "last")], (
        "the order of the file is no matter"
    )


def test_steps_skip_the_gap_and_follow_the_numbers_people_see() -> None:
    run = a_run()
    liver = FindingsModel().rows_of(run)[0]
    assert slice_beside(liver, 4, 1) == 6
    assert slice_beside(liver, 6, -1) == 4
    assert slice_beside(liver, 7, 1) is None
    assert slice_beside(liver, 5, 1) == 6
    assert slice_beside(liver, 5, -1) == 4
    turned = a_run(small_volume(reverse=True))
    liver = FindingsModel().rows_of(turned)[0]
    assert slice_beside(liver, 4, 1) == 6
    assert place_text(turned, liver, 3) == "axial slice 3 · 1 of 4"
    assert place_text(run, FindingsModel().rows_of(run)[0], 5) == "axial slice 5 · not here"
    assert place_text(run, liver, 6, slider=19) == "axial slice 6 (slider 19) · 3 of 4"


def test_facts_tell_measurements_flags_and_settings() -> None:
    run = a_run()
    run.predictions[6] = predictions_on(run.volume, 6)
    rows = FindingsModel().rows_of(run)
    facts = dict(facts_of(run, rows[1]))
    assert facts["Size"].endswith("mL")
    assert facts["Note"] == "seen on one slice only; low score"
    assert facts["Raw answer"] == "liver tumour [SEG]"
    assert facts["Window"] == "soft tissue, −160 to 240"
    assert facts["Model"] == "mini, cpu"
    assert facts["Run time"] == "12.5 s"
    assert dict(facts_of(run, rows[0]))["Model's words"] == "liver in abdomen CT"


def test_a_box_shows_its_answers_and_its_place() -> None:
    run = a_run(report=None, kind="roi")
    box = Region(5, 6, 30, 28, "axial", 4)
    run.answers += [an_answer("cyst", box), an_answer("round", box)]
    (row,) = FindingsModel().rows_of(run)
    assert raw_answer(run, row) == "cyst\nround", "end marks are no words (ux 16)"
    picture = thumbnail(run, row, 4)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    coloured = (picture[..., 0] != picture[..., 2]).any(axis=1)
    assert coloured.any()


def test_a_thumbnail_outlines_the_finding() -> None:
    run = a_run()
    rows = FindingsModel().rows_of(run)
    plain, outlined = (thumbnail(run, rows[0], index) for index in (9, 6))
    assert not (plain[..., 0] != plain[..., 2]).any()
    assert (outlined[..., 0] != outlined[..., 2]).any()
