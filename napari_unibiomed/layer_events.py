"""What can be heard of a viewer's layers and sliders, each with what disconnects it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from napari_unibiomed import painting, view

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

Disconnect = Callable[[], None]


class LayerEvents:
    """Connections of one viewer; every method returns a function that disconnects and may be called twice."""

    viewer: ViewerModel

    def on_layers_changed(self, call: Callable[[], None]) -> Disconnect:
        """Call after a layer was added, removed, moved or renamed; returns what disconnects."""
        events = self.viewer.layers.events
        return view.connect([events.inserted, events.removed, events.reordered, events.renamed], lambda _: call())

    def on_active_changed(self, call: Callable[[], None]) -> Disconnect:
        """Call after another layer was selected in the list of layers."""
        return view.connect([self.viewer.layers.selection.events.active], lambda _: call())

    def on_layer_event(self, names: Collection[str], call: Callable[[], None]) -> Disconnect:
        """Call after an event of one of these names of any layer, as "visible"."""
        return view.connect([self.viewer.layers.events], lambda event: call() if event.type in names else None)

    def on_view_changed(self, call: Callable[[], None]) -> Disconnect:
        """Call after another slice, axis order or 2D/3D display was chosen, or the sliders have other steps."""
        events = self.viewer.dims.events
        return view.connect([events.current_step, events.order, events.ndisplay, events.range], lambda _: call())

    def on_painted(self, layer: Labels, call: Callable[[painting.Stroke | None], None]) -> Disconnect:
        """Call after the user painted, erased or filled: with what changed, None where napari does not tell it."""
        return view.connect(
            [layer.events.paint],
            lambda event: call(painting.read_stroke(event.value, layer.data.shape)) if event.value else None,
        )

    def on_data_replaced(self, layer: Labels, call: Callable[[], None]) -> Disconnect:
        """Call after a layer was given another array."""
        return view.connect([layer.events.data], lambda _: call())

    def on_redrawn(self, layer: Labels, call: Callable[[bool], None]) -> Disconnect:
        """Call after a layer was drawn again: with whether the viewer shows the same place as at the call before.

        An undone stroke and a direct write into the array are told by nothing else.
        """
        shown = [self._place()]

        def drawn() -> None:
            before, shown[0] = shown[0], self._place()
            call(before == shown[0])

        return view.connect([layer.events.set_data], lambda _: drawn())

    def _place(self) -> tuple[Any, ...]:
        dims = self.viewer.dims
        return dims.point, dims.order, dims.ndisplay

    def on_selected_label(self, layer: Labels, call: Callable[[int], None]) -> Disconnect:
        """Call with the number that was picked on a labels layer."""
        return view.connect([layer.events.selected_label], lambda _: call(int(layer.selected_label)))

    def on_recoloured(self, layer: Labels, call: Callable[[], None]) -> Disconnect:
        """Call after the colours of a labels layer changed."""
        return view.connect([layer.events.colormap], lambda _: call())
