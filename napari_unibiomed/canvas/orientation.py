"""Letters on the canvas edges that tell which way the patient lies: S or I, A or P, R or L."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_unibiomed.canvas import view
from napari_unibiomed.canvas.placement import volumes_in

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_unibiomed.canvas.layers import LayerGateway

Edge = Literal["top", "bottom", "left", "right"]

AXIS_ENDS = (("S", "I"), ("A", "P"), ("R", "L"))
"""Letters at the beginning and the end of canonical z, y and x."""

POSITIONS: Mapping[Edge, str] = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}
FONT_SIZE_PT = 14.0


def letters(vertical: str, horizontal: str) -> dict[Edge, str]:
    """The letter of each edge.

    Args:
        vertical: Two letters, what lies at the top and at the bottom.
        horizontal: What lies at the left and at the right edge of the screen.
    """
    return {"top": vertical[0], "bottom": vertical[1], "left": horizontal[0], "right": horizontal[1]}


class OrientationLetters:
    """Keeps the letters of one viewer in step with its slices, axis order and flips.

    They are off in 3D, for pictures, and where the file tells no orientation. :meth:`close` takes them away and
    disconnects; it may be called twice.

    Args:
        gateway: Of the viewer.
    """

    def __init__(self, gateway: LayerGateway) -> None:
        from napari.components.overlays import TextOverlay

        self._gateway = gateway
        self._viewer = gateway.viewer
        self._overlays = {
            edge: TextOverlay(position=place, font_size=FONT_SIZE_PT, box=True) for edge, place in POSITIONS.items()
        }
        for edge, overlay in self._overlays.items():
            self._viewer.canvas.overlays[f"unibiomed_{edge}"] = overlay
        camera = self._viewer.scene.camera.events
        self._disconnect = [
            gateway.on_layers_changed(self.update),
            gateway.on_layer_event({"visible", "scale", "rotate", "affine"}, self.update),
            gateway.on_view_changed(self.update),
            view.connect([camera.orientation], lambda _: self.update()),
        ]
        self.update()

    def current(self) -> dict[Edge, str]:
        """The letters that belong on the edges now; empty where they are off."""
        layer = next((layer for layer in self._gateway.images() if layer.visible and _tells_sides(layer)), None)
        dims = self._viewer.dims
        if layer is None or dims.ndisplay != 2:
            return {}
        ends = _ends(layer, dims.ndim)
        down, right = (ends.get(axis) for axis in dims.displayed)
        if down is None or right is None:
            return {}
        vertical, horizontal = self._viewer.scene.camera.orientation2d
        return letters(down if vertical == "down" else down[::-1], right if horizontal == "right" else right[::-1])

    def update(self) -> None:
        """Show the letters of now."""
        now = self.current()
        for edge, overlay in self._overlays.items():
            overlay.text = now.get(edge, "")
            overlay.visible = edge in now

    def close(self) -> None:
        """Take the letters away and listen no more."""
        while self._disconnect:
            self._disconnect.pop()()
        for edge, overlay in self._overlays.items():
            name = f"unibiomed_{edge}"
            if self._viewer.canvas.overlays.get(name) is overlay:
                del self._viewer.canvas.overlays[name]


def _tells_sides(layer: Layer) -> bool:
    """Whether a layer holds volumes of ours whose file says where the patient's left is."""
    known = volumes_in(layer)
    return bool(known) and known[0].orientation_known and not known[0].is_2d and layer.ndim in (3, 4)


def _ends(layer: Layer, ndim: int) -> dict[int, str]:
    """{world axis: letters at its beginning and end}; a layer that is turned in the viewer keeps its nearest axes."""
    lead = ndim - layer.ndim
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    found = {}
    for step, (first, last) in zip(np.eye(layer.ndim)[-3:], AXIS_ENDS, strict=True):
        way = np.asarray(layer.data_to_world(step)) - origin
        axis = int(np.abs(way).argmax())
        found[axis + lead] = first + last if way[axis] > 0 else last + first
    return found
