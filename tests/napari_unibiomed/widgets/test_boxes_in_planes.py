"""ux 4: a box is drawn with the mouse in every plane after a jump, and a box on another slice is never taken for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari.layers")
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks

from tests.napari_unibiomed.dock_kit import Open, open_dock  # noqa: F401
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from unibiomed_core.types import PLANES, Plane

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]


def drag(viewer: Any, layer: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Press, move and release in the two displayed axes; world coordinates, as napari's canvas hands them on."""

    def event(kind: str, at: tuple[float, float]) -> Any:
        position = np.array(viewer.dims.point, float)
        position[list(viewer.dims.displayed)] = at
        made = SimpleNamespace(
            type=kind, is_dragging=kind == "mouse_move", modifiers=[], position=tuple(position), pos=at,
            view_direction=None, up_direction=None, dims_displayed=list(viewer.dims.displayed),
            dims_point=list(viewer.dims.point), button=1, native=None, handled=False, inverted=False, source=None,
            camera_zoom=1.0, delta=(0, 0), sources=[layer],
        )  # fmt: skip
        return ReadOnlyWrapper(made, exceptions=("handled",))

    middle = tuple((np.array(start) + end) / 2)
    mouse_press_callbacks(layer, event("mouse_press", start))
    for at in (middle, end):
        mouse_move_callbacks(layer, event("mouse_move", at))
    mouse_release_callbacks(layer, event("mouse_release", end))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("between", [False, True], ids=["after a jump", "between two slices"])
def test_a_dragged_box_is_shown_and_asked_about_on_its_slice(open_dock: Open, plane: Plane, between: bool) -> None:  # noqa: F811
    kit = open_dock(FakeEngine(), image=ct(40, 64))
    viewer, volume = kit.viewer, kit.dock.image_binding.volume
    kit.dock.gateway.jump(volume, plane, 11, (20.4, 30.6, 31.7))
    assert kit.dock.gateway.displayed_plane(volume) == plane
    source = viewer.layers[0]
    assert np.allclose(source.world_to_data(viewer.dims.point) % 1, 0), "sliders stand on whole slices"
    if between:  # where steps of another layer leave them
        viewer.dims.set_point(0, viewer.dims.point[0] + 0.3 * float(source.scale[0]))
        viewer.dims.set_point(1, viewer.dims.point[1] + 0.3 * float(source.scale[1]))
    kit.dock.draw_box()
    boxes = viewer.layers["UniBiomed ROI"]
    rows, columns = (float(source.scale[a]) for a in range(3) if PLANES[a] != plane)
    drag(viewer, boxes, (8 * rows, 10 * columns), (30 * rows, 40 * columns))
    assert len(boxes.data) == 1
    assert len(boxes._data_view._displayed.nonzero()[0]) == 1, "napari shows it"
    asked = kit.dock.boxes.boxes(source, volume)
    assert [(box.region.plane, box.region.index) for box in asked] == [(plane, 11)]


def test_a_stray_box_on_another_slice_is_not_taken(open_dock: Open) -> None:  # noqa: F811
    kit = open_dock(FakeEngine(), image=ct(14, 64))
    viewer, volume = kit.viewer, kit.dock.image_binding.volume
    kit.dock.draw_box()
    boxes = viewer.layers["UniBiomed ROI"]
    boxes.add_rectangles(np.array([[3, 15, 10], [3, 15, 12], [3, 16, 12], [3, 16, 10]]))  # a click that slipped
    boxes.add_rectangles(np.array([[7, 15, 10], [7, 15, 40], [7, 45, 40], [7, 45, 10]]))
    boxes.selected_data = set()
    kit.dock.gateway.jump(volume, "axial", 7)
    assert [box.region.index for box in kit.dock.boxes.boxes(viewer.layers[0], volume)] == [7]
