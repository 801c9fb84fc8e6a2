"""What a user does to layers in the middle of a run: every way has a defined end, and nothing of the user's is lost."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari.layers")
from tests.napari_unibiomed.dock_kit import Open, open_dock  # noqa: F401
from tests.napari_unibiomed.fake_engine import FakeEngine, ct

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

LIVER = {"liver": dict.fromkeys(range(3, 14), (20, 20, 60, 50))}
Kit = SimpleNamespace


def running(open_dock: Open) -> Kit:  # noqa: F811
    """A report of 14 slices that stands after the sixth."""
    kit = open_dock(FakeEngine(LIVER, held=True), image=ct(14, 64, "phantom"))
    kit.dock.run_report()
    kit.engine.let(6)
    kit.until(lambda: kit.session.current and len(kit.session.current.slices_done) == 6)
    kit.until(lambda: kit.dock.running.layers.layer_of(kit.session.current) is not None)
    kit.source, kit.made = kit.viewer.layers[0], kit.dock.running.layers.layer_of(kit.session.current)
    return kit


def finished(kit: Kit) -> Any:
    kit.engine.let_all()
    kit.until_idle()
    return kit.session.runs[0]


def rename(kit: Kit) -> None:
    kit.source.name, kit.made.name = "mine", "also mine"


def reorder(kit: Kit) -> None:
    kit.viewer.layers.reverse()


def hide(kit: Kit) -> None:
    kit.source.visible = kit.made.visible = False


def turn_the_view(kit: Kit) -> None:
    kit.viewer.dims.order = (1, 0, 2)
    kit.viewer.dims.ndisplay = 3


def add_others(kit: Kit) -> None:
    kit.viewer.add_image(np.zeros((3, 5, 7, 9)), name="phantom", scale=(1, 2, 0.5, 0.25))
    kit.viewer.add_labels(np.zeros((14, 64, 64), np.uint8), name="phantom report")


@pytest.mark.parametrize("what", [rename, reorder, hide, turn_the_view, add_others])
def test_a_run_ends_as_if_nothing_had_happened(open_dock: Open, what: Callable[[Kit], None]) -> None:  # noqa: F811
    kit = running(open_dock)
    what(kit)
    names = [layer.name for layer in kit.viewer.layers]
    run = finished(kit)
    assert [layer.name for layer in kit.viewer.layers] == names, "no name and no order of the user's is changed"
    assert len(run.report.slices_done) == 14
    assert run.report.complete
    assert np.array_equal(np.unique(kit.made.data[5]), [0, 1])


def test_findings_that_are_removed_stay_away_and_the_run_goes_on(open_dock: Open) -> None:  # noqa: F811
    kit = running(open_dock)
    kit.viewer.layers.remove(kit.made)
    run = finished(kit)
    assert len(run.report.slices_done) == 14
    assert [layer for layer in kit.viewer.layers if layer is not kit.source] == []
    assert run.report.findings, "the panel and exports have them"


def test_an_image_whose_pixels_are_replaced_is_reported_as_it_was(open_dock: Open) -> None:  # noqa: F811
    kit = running(open_dock)
    before = kit.source.data.copy()
    kit.source.data = np.zeros_like(before)
    run = finished(kit)
    assert len(run.report.slices_done) == 14
    assert np.array_equal(run.job.volume.voxels, before), "a run keeps the pixels it was started on"
    assert kit.dock.image_binding.volume is None, "an empty image cannot be asked about, and the old pixels are gone"
    assert "Constant image" in kit.dock.image_binding.problem.title


def test_an_image_that_gets_another_shape_is_taken_for_the_next_run(open_dock: Open) -> None:  # noqa: F811
    kit = running(open_dock)
    kit.source.data = np.random.default_rng(0).integers(-1000, 1000, (9, 40, 40)).astype(np.int16)
    run = finished(kit)
    assert len(run.report.slices_done) == 14, "a run keeps the pixels it was started on"
    assert kit.dock.image_binding.volume.shape == (9, 40, 40)
    kit.dock.run_report()
    kit.until_idle()
    assert kit.session.current.job.volume.shape == (9, 40, 40)


def test_findings_that_get_another_shape_are_left_alone(open_dock: Open) -> None:  # noqa: F811
    kit = running(open_dock)
    mine = np.ones((3, 10, 10), np.uint16)
    kit.made.data = mine.copy()
    run = finished(kit)
    assert len(run.report.slices_done) == 14
    assert np.array_equal(kit.made.data, mine)


@pytest.mark.parametrize("what", ["findings", "image", "all"])
def test_another_run_can_follow(open_dock: Open, what: str) -> None:  # noqa: F811
    kit = running(open_dock)
    if what == "all":
        kit.viewer.layers.clear()
    else:
        kit.viewer.layers.remove(kit.made if what == "findings" else kit.source)
    finished(kit)
    if what != "findings":
        kit.viewer.layers.clear()
        kit.dock.gateway.add_image(ct(14, 64, "second"))
        kit.until(lambda: kit.dock.image_binding.volume is not None)
    kit.dock.run_report()
    kit.until_idle()
    last = kit.session.runs[-1]
    assert len(last.report.slices_done) == 14
    assert kit.dock.running.layers.layer_of(last) in kit.viewer.layers


def test_boxes_that_are_removed_end_no_run(open_dock: Open) -> None:  # noqa: F811
    kit = open_dock(FakeEngine(LIVER, held=True), image=ct(14, 64, "phantom"))
    kit.dock.draw_box()
    boxes = kit.viewer.layers["UniBiomed ROI"]
    boxes.add_rectangles(np.array([[7, 15, 10], [7, 15, 40], [7, 45, 40], [7, 45, 10]]))
    kit.dock.run_task()
    kit.until(lambda: kit.session.phase.busy)
    kit.viewer.layers.remove(boxes)
    kit.engine.let_all()
    kit.until_idle()
    assert kit.session.current.answers
    kit.dock.draw_box()
    assert kit.viewer.layers["UniBiomed ROI"] is not boxes
