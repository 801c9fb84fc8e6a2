"""What the canvas shows of edited, hidden and rejected findings, and what measuring after a stroke costs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
from fake_engine import ct
from hand_volumes import cropped
from napari.components import ViewerModel
from patience import times_as_long, unit_of_work

from napari_unibiomed import edits, saved_edits
from napari_unibiomed.findings import FindingsModel
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.layers import KEY, LayerGateway
from napari_unibiomed.widgets.canvas_link import CanvasLink
from unibiomed_core import report as reports
from unibiomed_core.engine.linking import LinkedMask, findings
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
