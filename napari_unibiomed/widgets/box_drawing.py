"""Drawing boxes on the canvas: the layer, the hint, and what the boxes say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from superqt.utils import qdebounced

from napari_unibiomed.canvas.boxes import Box, box_of, drawn_corners
from napari_unibiomed.canvas.layers import LayerGateway
from unibiomed_core.types import Volume

if TYPE_CHECKING:
    from napari.layers import Image, Shapes
    from napari.viewer import Viewer

HINT = "Drag a box around the region. Esc leaves."
LIVE_MS = 500


class BoxDrawing:
    """The boxes of one image at a time.

    Args:
        on_moved: Called half a second after boxes were drawn, moved or deleted.
    """

    def __init__(self, viewer: Viewer, gateway: LayerGateway, on_moved: Callable[[], None]) -> None:
        self._viewer, self._gateway = viewer, gateway
        self._moved = qdebounced(on_moved, timeout=LIVE_MS)
        self._layer: Shapes | None = None
        self._before: tuple[bool, str] | None = None

    def draw(self, source: Image) -> None:
        """Make or reuse the layer for an image, and let the user drag on it."""
        layer = self._gateway.roi_layer(source)
        if layer is not self._layer:
            self._leave()
            self._layer = layer
            layer.events.data.connect(self._on_data)
            layer.events.mode.connect(self._on_mode)
        self._hint(True)

    def boxes(self, source: Image, volume: Volume) -> tuple[Box, ...]:
        """The boxes that are asked about: the selected ones, else those on the slice that is shown, else all.

        Raises:
            PromptError: One cannot be used.
        """
        layer = self._layer_of(source)
        if layer is None:
            return ()
        corners = drawn_corners(layer, source, volume)
        chosen = sorted(layer.selected_data) or self._on_shown_slice(corners, volume) or range(len(corners))
        return tuple(dict.fromkeys(box_of(corners[number], volume) for number in chosen))

    def _on_shown_slice(self, corners: Sequence[NDArray[np.float64]], volume: Volume) -> list[int]:
        plane = self._gateway.displayed_plane(volume)
        index = None if plane is None else self._gateway.current_index(volume, plane)
        if plane is None or index is None:
            return []
        axis = volume.plane_axis(plane)
        return [n for n, points in enumerate(corners) if np.all(np.rint(points[:, axis]) == index)]

    def regions(self, source: Image, volume: Volume) -> tuple[Any, ...]:
        """Every box that can be asked about, selected or not."""
        from unibiomed_core.errors import PromptError

        layer, found = self._layer_of(source), []
        for corners in [] if layer is None else drawn_corners(layer, source, volume):
            try:
                found.append(box_of(corners, volume).region)
            except PromptError:
                continue  # one that is too small is refused with its size when it is asked about
        return tuple(found)

    def close(self) -> None:
        """Disconnect, and take the hint away."""
        self._moved.cancel()
        self._leave()

    def _layer_of(self, source: Image) -> Shapes | None:
        from napari_unibiomed.canvas.layers import KEY

        mine = (r for r in self._gateway.ours("roi") if r.metadata[KEY]["source"]() is source)
        return next(mine, None)

    def _on_data(self, event: Any) -> None:
        self._hint(False)
        self._moved()

    def _on_mode(self, event: Any) -> None:
        if self._layer is not None and not str(self._layer.mode).startswith("add"):
            self._hint(False)

    def _hint(self, shown: bool) -> None:
        """Show words on the canvas and afterwards what stood there before."""
        text = self._viewer.canvas.overlays.text
        if shown and self._before is None:
            self._before = (text.visible, text.text)
            text.text, text.visible = HINT, True
        elif not shown and self._before is not None:
            text.visible, text.text = self._before
            self._before = None

    def _leave(self) -> None:
        self._hint(False)
        if self._layer is not None:
            self._layer.events.data.disconnect(self._on_data)
            self._layer.events.mode.disconnect(self._on_mode)
            self._layer = None
