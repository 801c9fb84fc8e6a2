"""What can be heard of a viewer's layers and sliders, each with what disconnects it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed import painting, view

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

Disconnect = Callable[[], None]

Corners = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Lowest and highest data index along each axis of a layer."""


class LayerEvents:
    """Connections of one viewer; every method returns a function that disconnects and may be called twice."""

    viewer: ViewerModel

    def on_layers_changed(self, call: Callable[[], None]) -> Disconnect:
        """Call after a layer was added, removed, moved or renamed; returns what disconnects."""
        events = self.viewer.layers.events
        return view.connect([events.inserted, events.removed, events.reordered, events.renamed], lambda _: call())

    def on_layer_event(self, names: Collection[str], call: Callable[[], None]) -> Disconnect:
        """Call after an event of one of these names of any layer, as "visible"."""
        return view.connect([self.viewer.layers.events], lambda event: call() if event.type in names else None)

    def on_view_changed(self, call: Callable[[], None]) -> Disconnect:
        """Call after another slice, axis order or 2D/3D display was chosen, or the sliders have other steps."""
        events = self.viewer.dims.events
        return view.connect([events.current_step, events.order, events.ndisplay, events.range], lambda _: call())

    def on_painted(self, layer: Labels, call: Callable[[frozenset[int], Corners], None]) -> Disconnect:
        """Call after the user painted, erased or filled, with the numbers that gained or lost voxels, and where."""
        return view.connect(
            [layer.events.paint],
            lambda event: (
                call(painting.numbers_in(event.value), painting.corners_in(event.value)) if event.value else None
            ),
        )

    def on_selected_label(self, layer: Labels, call: Callable[[int], None]) -> Disconnect:
        """Call with the number that was picked on a labels layer."""
        return view.connect([layer.events.selected_label], lambda _: call(int(layer.selected_label)))

    def on_recoloured(self, layer: Labels, call: Callable[[], None]) -> Disconnect:
        """Call after the colours of a labels layer changed."""
        return view.connect([layer.events.colormap], lambda _: call())
