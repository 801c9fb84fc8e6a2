"""The findings model: rows, texts, selection, filter, edits and undo. No Qt and no viewer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import (
    COLUMNS,
    Column,
    cell_text,
    cell_value,
    column_title,
    common_units,
    measurements_text,
    short_text,
)
from tests.hand_volumes import cropped, picture_of
from tests.napari_unibiomed.hand_runs import a_run, an_answer, masks, predictions_on, small_volume
from unibiomed_core.types import Region


def shown(run: Any) -> FindingsModel:
    model = FindingsModel()
    model.set_run(run)
    return model


class Heard:
    """Counts what a model tells."""

    def __init__(self, model: FindingsModel) -> None:
        self.changed, self.rows, self.masks, self.selected = 0, [], [], []
        model.changed.connect(self._changed)
        model.row_changed.connect(self.rows.append)
        model.mask_changed.connect(self.masks.append)
        model.selected.connect(self.selected.append)

    def _changed(self) -> None:
        self.changed += 1


def test_cells_show_three_digits_units_and_the_numbers_of_the_slider() -> None:
    model = shown(a_run())
    row = model.row(1)
    texts = {column: cell_text(row, column) for column in COLUMNS}
    assert texts[Column.FINDING] == "liver"
    assert texts[Column.SLICES] == "3–4, 6–7"
    assert texts[Column.SIZE] == "4.54 mL"
    assert texts[Column.DIAMETERS].count("×") == 1
    assert texts[Column.INTENSITY].endswith(" HU")
    assert texts[Column.SCORE] == "0.97"
    assert "one slice, low score" in cell_text(model.row(2), Column.FLAGS)
    assert "Size: 4.54 mL" in measurements_text(row)


def test_a_title_tells_the_unit_that_all_rows_have_and_the_cells_are_short() -> None:
    """ux 6: units in every cell left no room for the numbers."""
    rows = sorted(shown(a_run()).rows, key=lambda row: row.number)
    units = common_units(rows)
    assert units == {Column.SIZE: "mL", Column.INTENSITY: "HU"}
    titles = [column_title(column, units.get(column, "")) for column in COLUMNS]
    assert titles == ["No.", "Finding", "Kind", "Slices", "Side", "Vol. mL", "Ø mm", "Mean HU", "Score", "Flags"]
    assert short_text(rows[0], Column.SIZE, "mL") == "4.54"
    assert not short_text(rows[0], Column.INTENSITY, "HU").endswith("HU")
    assert short_text(rows[0], Column.DIAMETERS) == cell_text(rows[0], Column.DIAMETERS)
    mixed = (*rows, replace(rows[0], number=9, volume_ml=None, area_mm2=None, voxel_count=25, unit="intensity"))
    assert common_units(mixed) == {}
    assert [column_title(c) for c in (Column.SIZE, Column.INTENSITY)] == ["Size", "Mean ± SD"]
    assert short_text(mixed[-1], Column.SIZE) == "25 px"


def test_slices_count_as_the_slider_does_whatever_the_order_of_the_file() -> None:
    assert shown(a_run(small_volume(reverse=True))).row(1).slices == "3–4, 6–7"


def test_columns_sort_by_value() -> None:
    model = shown(a_run())
    large, small = model.row(1), model.row(2)
    assert cell_value(large, Column.SIZE) > cell_value(small, Column.SIZE)
    assert cell_value(large, Column.SLICES) < cell_value(small, Column.SLICES)
    run = a_run(report=None, kind="roi")
    run.answers.append(an_answer("cyst", Region(1, 1, 9, 9, "axial", 4), score=None))
    row = shown(run).row(1)
    assert cell_value(row, Column.SIZE) is cell_value(row, Column.SCORE) is None
    assert cell_text(row, Column.SCORE) == "–"


def test_a_picture_has_pixels_and_no_slices() -> None:
    volume = picture_of(np.random.default_rng(1).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    from unibiomed_core.engine.volume.linking import LinkedMask, findings

    mask = np.zeros((1, 30, 40), bool)
    mask[0, 5:10, 5:10] = True
    run = a_run(volume, report=None)
    run.findings = list(findings([LinkedMask("polyp", "polyp", 0.9, cropped(mask), "axial", (0,), ())], volume))
    row = shown(run).row(1)
    assert (cell_text(row, Column.SIZE), cell_text(row, Column.SLICES)) == ("25 px", "–")
    assert row.side == "–"


def test_rows_gather_slice_by_slice_and_are_replaced_by_findings() -> None:
    volume = small_volume()
    run = a_run(volume, report=None)
    model = shown(run)
    assert model.empty_state == ""
    for index in (3, 6):
        run.predictions[index] = predictions_on(volume, index)
        model.take_slice()
    assert [(row.phrase, row.slices, row.has_mask) for row in model.rows] == [
        ("liver tumour", "6", False),
        ("liver", "3, 6", False),
    ]
    assert model.row(1).slice_largest == 6
    model.reject(1)
    assert not model.row(1).rejected, "rows in work cannot be edited"
    done = a_run(volume)
    for finding in done.report.findings:
        model.add(finding)
    assert [row.number for row in model.rows] == [2, 1], "abnormal ones first"
    assert all(row.has_mask for row in model.rows)
    run.report = done.report
    model.finish(run)
    assert model.finished


def test_the_rows_of_a_run_say_why_nothing_is_listed() -> None:
    model = FindingsModel()
    assert model.empty_state == "no run"
    run = a_run()
    run.report = run.report.renumbered(())
    model.set_run(run)
    assert (model.empty_state, model.counts_text) == ("nothing found", "No findings")
    model.set_run(a_run(number=2))
    model.filter_text = "kidney"
    assert (model.empty_state, model.counts_text) == ("all filtered", "0 of 2 shown")
    model.clear_filter()
    assert (model.empty_state, model.counts_text) == ("", "1 abnormal, 1 structure")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("LIVER", [2, 1]), ("tumour", [2]), ("abdomen", [1]), ("low score", [2]), ("2", [2]), ("liver right", [2, 1])],
)
def test_the_filter_looks_at_names_sides_and_flags(text: str, numbers: list[int]) -> None:
    model = shown(a_run())
    model.filter_text = text
    assert [row.number for row in model.shown_rows] == numbers


def test_selection_is_told_once_and_only_of_rows_that_exist() -> None:
    model = shown(a_run())
    heard = Heard(model)
    model.select(2)
    model.select(2)
    model.select(77)
    assert heard.selected == [2, None]


def test_neighbours_go_around_and_skip_filtered_rows() -> None:
    model = shown(a_run())
    assert model.neighbour(1) == 2, "in the order of the report"
    model.select(1)
    assert model.neighbour(1) == 2
    model.reject(1)
    model.hide_rejected = True
    assert model.neighbour(1) == 2
    assert model.counts_text == "1 of 2 shown, 1 rejected"


def test_reject_rename_and_paint_are_taken_back_one_by_one() -> None:
    run = a_run()
    model = shown(run)
    heard = Heard(model)
    before = model.row(1)
    model.reject(2)
    model.rename(1, "  hepar  ")
    larger = masks(run.job.volume)[0]
    larger[5, 10:30, 2:20] = True
    model.remeasure(1, cropped(larger))
    assert model.row(1).slices == "3–7"
    assert model.row(1).volume_ml == pytest.approx(before.volume_ml * larger.sum() / before.voxel_count)
    assert (model.row(1).phrase, model.row(1).edited, model.row(1).score) == ("hepar", True, before.score)
    assert model.undo_words == "Paint"
    assert model.undo() == 1
    assert heard.masks == [1]
    assert (model.row(1).slices, model.row(1).phrase) == (before.slices, "hepar")
    assert model.undo() == 1
    assert (model.row(1).phrase, model.row(1).edited) == ("liver", False)
    assert model.undo() == 2
    assert model.selection == 2
    assert not model.row(2).rejected
    assert model.undo() is None
    assert heard.masks == [1]


def test_what_is_erased_is_rejected_and_comes_back_with_undo() -> None:
    run = a_run()
    model = shown(run)
    model.remeasure(2, cropped(np.zeros(run.job.volume.shape, bool)))
    assert model.row(2).all_flags[-2:] == ("edited", "rejected")
    model.undo()
    assert not model.row(2).rejected


def test_a_group_of_edits_is_one_step() -> None:
    model = shown(a_run())
    with model.group():
        model.reject(1)
        model.reject(2)
    model.undo()
    assert not any(row.rejected for row in model.rows)


def test_hiding_is_no_edit_and_survives_undo() -> None:
    model = shown(a_run())
    model.reject(1)
    model.show_only([1])
    assert model.unseen == {1, 2}
    model.undo()
    assert model.unseen == {2}
    model.show_only(None)
    assert not model.unseen
    assert model.undo_words == ""


def test_every_run_keeps_its_own_edits() -> None:
    first, second = a_run(), a_run(number=2)
    model = shown(first)
    model.reject(1)
    model.set_run(second)
    assert not model.row(1).rejected
    assert model.rows_of(first)[0].rejected
    model.set_run(first)
    assert model.row(1).rejected
    model.keep_only([second])
    assert model.run is second
    assert not model.rows_of(first)[0].rejected


def test_colours_of_the_canvas_are_taken() -> None:
    model = shown(a_run())
    heard = Heard(model)
    model.set_colours({1: "#123456", 2: model.row(2).colour.lower(), 9: "#000000"})
    assert model.row(1).colour == "#123456"
    assert (heard.changed, heard.rows) == (1, [])
    model.set_colours({1: "#123456"})
    assert heard.changed == 1


def test_answers_about_boxes_are_rows_without_a_mask() -> None:
    run = a_run(report=None, kind="roi")
    run.answers += [
        an_answer("cyst", Region(1, 2, 20, 22, "coronal", 4)),
        an_answer("a dark round thing", Region(1, 2, 20, 22, "coronal", 4)),
        an_answer("liver", Region(1, 2, 20, 22, "axial", 6)),
    ]
    model = shown(run)
    assert [(row.phrase, row.slices, row.plane, row.has_mask) for row in model.rows] == [
        ("cyst", "4", "coronal", False),
        ("liver", "6", "axial", False),
    ]
    model.mark_box_removed(1)
    model.mark_box_removed(1)
    assert model.row(1).all_flags == ("box removed",)
