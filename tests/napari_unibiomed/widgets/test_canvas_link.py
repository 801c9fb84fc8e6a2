"""What the canvas shows of edited, hidden and rejected findings, and what measuring after a stroke costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_unibiomed.canvas import painting
from napari_unibiomed.canvas.layers import KEY, LayerGateway
from napari_unibiomed.findings import edits, painted_masks, saved_edits
from napari_unibiomed.findings.export import edited_report
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.widgets.canvas_link import CanvasLink
from tests.hand_volumes import cropped
from tests.napari_unibiomed.fake_engine import ct
from tests.patience import GUARD_MS, times_as_long, unit_of_work
from unibiomed_core import report as reports
from unibiomed_core.engine.volume.linking import LinkedMask, findings
from unibiomed_core.errors import WriteError
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import CroppedMask

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

Scene = SimpleNamespace


def scene(*wholes: np.ndarray, model: FindingsModel | None = None, linked: bool = True) -> Scene:
    """A run with one finding a mask, painted on the canvas, and the link to its rows."""
    volume = ct(wholes[0].shape[0], wholes[0].shape[1])
    things = [
        LinkedMask(
            f"thing {n}", f"thing {n}", 0.9, cropped(whole), "axial", tuple(np.flatnonzero(whole.any((1, 2)))), ()
        )
        for n, whole in enumerate(wholes, start=1)
    ]
    report = reports.build(
        volume=volume, window=choose_window(volume), plane="axial", findings=findings(things, volume), absences=[],
        model={}, settings={}, slices_done=range(volume.shape[0]), slices_skipped=(), seconds=1.0,
    )  # fmt: skip
    run = Run(Job("report", volume), 1, report=report)
    gateway = LayerGateway(ViewerModel())
    layer = gateway.add_labels(run, gateway.add_image(volume))
    model = model or FindingsModel()
    model.set_run(run)
    said: list[Any] = []
    link = CanvasLink(gateway, model, said.append) if linked else None
    return Scene(gateway=gateway, layer=layer, model=model, link=link, run=run, said=said)


def nested() -> tuple[np.ndarray, np.ndarray]:
    """A large block, and a small one that lies on it and sticks out."""
    large, small = np.zeros((6, 40, 40), bool), np.zeros((6, 40, 40), bool)
    large[1:5, 5:30, 5:30] = True
    small[2:4, 20:26, 26:34] = True
    return large, small


@pytest.fixture
def two(qtbot: Any) -> Iterator[Scene]:
    made = scene(*nested())
    yield made
    made.link.cleanup()


def test_what_is_not_seen_leaves_no_hole(two: Scene) -> None:
    large, small = nested()
    assert np.array_equal(two.layer.data == 2, small)
    for take_away, bring_back in (
        (lambda: two.model.hide(2), lambda: two.model.hide(2, False)),
        (lambda: two.model.reject(2), two.model.undo),
        (lambda: two.model.show_only([1]), lambda: two.model.show_only(None)),
    ):
        take_away()
        assert np.array_equal(two.layer.data == 1, large)
        assert np.array_equal(two.layer.data == 2, small & ~large)
        assert two.gateway.hidden(two.layer) == {2}
        bring_back()
        assert np.array_equal(two.layer.data == 2, small)
        assert np.array_equal(two.layer.data == 1, large & ~small)


def test_a_stroke_and_a_hidden_finding_take_nothing_from_each_other(two: Scene) -> None:
    large, _ = nested()
    two.layer.data_setitem((np.array([1]), np.array([31]), np.array([31])), 1)
    two.layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 9)
    two.model.hide(2)  # before the pause after the strokes is over
    assert two.model.row(1).voxel_count == large.sum() + 1
    assert two.layer.data[1, 31, 31] == 1
    assert two.layer.data[0, 0, 0] == 9
    two.layer.data_setitem((np.array([2]), np.array([20]), np.array([26])), 0)  # erased where the hidden one lies too
    two.link.measure_painted()
    assert two.model.row(1).voxel_count == large.sum()
    two.model.hide(2, False)
    assert np.array_equal(two.layer.data == 2, two.model.row(2).finding.mask.full())


def test_the_users_own_numbers_stay_where_a_finding_is_hidden(two: Scene) -> None:
    two.layer.data_setitem((np.array([2]), np.array([21]), np.array([27])), 9)
    two.link.measure_painted()
    two.model.hide(2)
    assert two.layer.data[2, 21, 27] == 9


def test_an_erased_finding_is_rejected_once_and_comes_back_with_undo(two: Scene) -> None:
    _, small = nested()
    where = np.nonzero(small)
    two.layer.data_setitem(where, 0)
    two.link.measure_painted()
    two.link.measure_painted()
    assert two.model.row(2).rejected
    assert two.gateway.hidden(two.layer) == {2}
    assert two.model.undo_words == "Erase"
    two.model.undo()
    assert two.model.undo_words == ""
    assert not two.model.row(2).rejected
    assert np.array_equal(two.layer.data == 2, small)


def test_masks_of_a_restored_run_are_painted(qtbot: Any, tmp_path: Any) -> None:
    large, small = nested()
    first = scene(large, small)
    larger = small.copy()
    larger[4, 20:26, 26:34] = True
    first.model.remeasure(2, CroppedMask.from_full(larger))
    assert np.array_equal(first.layer.data == 2, larger), "the canvas follows the rows"
    saved_edits.write(tmp_path, saved_edits.edits_of(first.run, first.model.rows))
    again = FindingsModel()
    again.kept_edits = {1: saved_edits.read(tmp_path, first.run)}
    second = scene(large, small, model=again)
    assert np.array_equal(second.layer.data == 2, larger)
    second.gateway.update_labels(second.layer, second.run)
    assert np.array_equal(second.layer.data == 2, larger), "the same report is not painted over it again"
    for made in (first, second):
        made.link.cleanup()


def wide() -> np.ndarray:
    whole = np.zeros((64, 256, 256), bool)
    whole[10:50, 60:150, 60:150] = True
    return whole


def test_a_stroke_is_measured_without_a_look_at_the_whole_volume(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scene(wide())
    sizes: list[int] = []
    plain = CroppedMask.from_full

    def counted(mask: Any) -> CroppedMask:
        sizes.append(mask.size)
        return plain(mask)

    monkeypatch.setattr(edits.CroppedMask, "from_full", counted)
    made.layer.data_setitem((np.array([50]), np.array([100]), np.array([100])), 1)
    made.link.measure_painted()
    assert made.model.row(1).voxel_count == wide().sum() + 1
    assert sizes
    assert max(sizes) == 41 * 90 * 90
    made.link.cleanup()


def test_a_stroke_costs_the_window_little(qtbot: Any) -> None:
    """Processor time of painting one voxel into a large finding and measuring it, beside a fixed piece of work."""
    made = scene(wide())
    values = itertools.cycle((1, 0))

    def stroke() -> None:
        made.layer.data_setitem((np.array([20]), np.array([101]), np.array([151])), next(values))
        made.link.measure_painted()

    stroke()  # the first one pays for imports
    count = made.model.row(1).voxel_count
    assert times_as_long(stroke, unit_of_work) < 16, "8 when this was written: about 45 ms on a common processor"
    assert made.model.row(1).voxel_count == count - 1, "an odd number of strokes, so the last one erased"
    assert made.layer.metadata[KEY]["masks"][1] is made.model.row(1).finding.mask
    made.link.cleanup()


def shown_by_export(made: Scene) -> np.ndarray:
    """(Z, Y, X) label numbers as an export of the run writes them."""
    painted_masks.settle(made.gateway, made.model, made.run)
    report = edited_report(made.run, made.model.rows_of(made.run))
    return reports.labels(report, made.run.job.volume)


def brush(layer: Any, number: int, at: tuple[int, int, int], size: int, dimensions: int = 2) -> None:
    layer.brush_size, layer.n_edit_dimensions = size, dimensions
    layer.paint(at, number)


def polygon(layer: Any, number: int, at: tuple[int, int, int], size: int) -> None:
    z, y, x = at
    corners = [(z, y, x), (z, y, x + size), (z, y + size, x + size), (z, y + size, x)]
    layer.n_edit_dimensions = 2
    layer.paint_polygon(np.array(corners), number)


def in_one_stroke(layer: Any, number: int, at: tuple[int, int, int]) -> None:
    with layer.block_history():
        for step in range(4):
            brush(layer, number, (at[0], at[1] + step, at[2] + step), 3)


def written_directly(layer: Any, number: int, at: tuple[int, int, int], refreshed: bool) -> None:
    z, y, x = at
    layer.data[z, y : y + 4, x : x + 4] = number
    if refreshed:
        layer.refresh()


def replaced(layer: Any, number: int, at: tuple[int, int, int]) -> None:
    data = layer.data.copy()
    data[at[0], : at[1]][data[at[0], : at[1]] > 0] = number
    layer.data = data


def filled(layer: Any, number: int, at: tuple[int, int, int]) -> None:
    layer.n_edit_dimensions = 2
    layer.fill(at, number)


WAYS: dict[str, Callable[[Any, int, tuple[int, int, int]], None]] = {
    "brush": lambda layer, n, at: brush(layer, n, at, 7),
    "brush in 3D": lambda layer, n, at: brush(layer, n, at, 5, 3),
    "one stroke of many steps": in_one_stroke,
    "fill": filled,
    "polygon": lambda layer, n, at: polygon(layer, n, at, 6),
    "set item": lambda layer, n, at: layer.data_setitem(tuple(np.array([i, i]) for i in at), n),
    "direct write": lambda layer, n, at: written_directly(layer, n, at, True),
    "direct write without a redraw": lambda layer, n, at: written_directly(layer, n, at, False),
    "new array": replaced,
    "undo": lambda layer, n, at: layer.undo(),
    "redo": lambda layer, n, at: layer.redo(),
}
"""All ways in which napari, or anybody through it, changes the labels of a layer."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [1, 2, 0], ids=["the large one", "the small one", "erased"])
def test_whatever_changes_the_labels_is_measured(two: Scene, way: str, number: int) -> None:
    """ux 1: strokes of napari 0.9.2 raised an error, stayed on the screen, and were not in the export."""
    before = two.layer.data.copy()
    at = (2, 22, 30) if number == 1 else (2, 10, 10)  # on the other one
    if way in ("undo", "redo"):
        brush(two.layer, number, at, 3)
        two.link.measure_painted()
    if way == "redo":
        two.layer.undo()
    WAYS[way](two.layer, number, at)
    assert np.array_equal(two.layer.data, before) == (way == "undo")
    exported = shown_by_export(two)
    assert np.array_equal(exported, two.layer.data)
    for row in two.model.rows:
        assert row.rejected or row.voxel_count >= (two.layer.data == row.number).sum()
        assert row.rejected or row.finding.mask.count == row.voxel_count


@pytest.mark.parametrize("way", [way for way in WAYS if way != "direct write without a redraw"])
def test_the_rows_follow_after_the_pause(two: Scene, qtbot: Any, way: str) -> None:
    """Without a direct call: what napari tells is enough to see every change but one that it cannot know of."""
    brush(two.layer, 1, (2, 33, 33), 3)
    if way == "redo":
        two.layer.undo()
    WAYS[way](two.layer, 1, (2, 33, 33))
    volume = two.run.job.volume
    qtbot.waitUntil(
        lambda: np.array_equal(reports.labels(edited_report(two.run, two.model.rows), volume), two.layer.data),
        timeout=GUARD_MS,
    )


Step = tuple[str, int, tuple[int, int, int]]


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(sorted(WAYS)),
            st.integers(0, 3),
            st.tuples(st.integers(0, 5), st.integers(0, 33), st.integers(0, 33)),
        ),
        min_size=1,
        max_size=8,
    ),
    measured=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_an_export_is_what_the_screen_shows(steps: list[Step], measured: list[bool]) -> None:
    """Random strokes, fills, polygons, writes, undo and redo, measured in between or not, then export equals layer."""
    made = scene(*nested(), nested()[1][:, ::-1, ::-1])
    try:
        for (way, number, at), now in zip(steps, measured, strict=False):
            WAYS[way](made.layer, number, at)
            if now:
                made.link.measure_painted()
        exported = shown_by_export(made)
        rejected = [row.number for row in made.model.rows if row.rejected]
        assert np.array_equal(exported, np.where(np.isin(made.layer.data, rejected), 0, made.layer.data))
        for row in made.model.rows:
            if not row.rejected:
                assert row.voxel_count == row.finding.mask.count
    finally:
        made.link.cleanup()


def test_labels_of_another_shape_are_refused_in_words_and_not_exported(two: Scene) -> None:
    two.layer.data = np.zeros((3, 10, 10), np.uint16)
    assert [m.title for m in two.said] == ["Labels on another grid"]
    with pytest.raises(WriteError, match="Labels on another grid"):
        shown_by_export(two)
    two.model.hide(2)
    two.model.reject(1)
    two.model.undo()
    two.layer.data = np.zeros((6, 40, 40), np.uint16)
    two.link.measure_painted()
    assert all(row.rejected for row in two.model.rows)


def test_what_a_tool_tells_in_another_way_is_found_by_looking(two: Scene) -> None:
    """A later napari may describe its steps otherwise; then the whole layer is looked at."""
    assert painting.read_stroke([("somewhere", 1)], (6, 40, 40)) is None
    assert painting.read_stroke([], (6, 40, 40)) is None
    large, _ = nested()
    two.layer.data[1, 31, 31] = 1
    two.layer.events.paint(value=[("somewhere", 1)])
    two.link.measure_painted()
    assert two.model.row(1).voxel_count == large.sum() + 1


def test_numbers_of_no_finding_are_spoken_of_once(two: Scene) -> None:
    for column in (1, 2, 3):
        two.layer.data_setitem((np.array([0]), np.array([0]), np.array([column])), 9)
        two.link.measure_painted()
    assert [m.title for m in two.said] == ["Label 9 is no finding"]


def test_nobody_paints_on_what_a_report_will_paint_over(qtbot: Any) -> None:
    volume = ct(6, 40)
    run = Run(Job("report", volume), 1)
    gateway = LayerGateway(ViewerModel())
    layer = gateway.add_labels(run, gateway.add_image(volume))
    assert not layer.editable
    done = scene(*nested())
    assert done.layer.editable
    done.link.cleanup()
