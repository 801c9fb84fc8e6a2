"""Keeps the labels layers of runs in step with what the session says, at most four times a second while one runs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

from superqt.utils import qthrottled

from napari_unibiomed.canvas.layers import KEY, LayerGateway

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unibiomed.jobs import Run

REFRESH_MS = 250
LAYER_KINDS = ("report", "segment")


class RunLayers:
    """One labels layer a run, on the image layer that the run was started with.

    Args:
        gateway: Adds, paints and removes the layers.
    """

    def __init__(self, gateway: LayerGateway) -> None:
        self._gateway = gateway
        self._sources: dict[int, weakref.ref[Image]] = {}
        """Number of a run -> its image layer."""
        self.running: Run | None = None
        self._refresh = qthrottled(self._paint, timeout=REFRESH_MS)

    def begin(self, run: Run, source: Image) -> None:
        """Bind a run to its image, and add its layer where its kind has one."""
        self._sources[run.number] = weakref.ref(source)
        self.running = run
        if run.job.kind in LAYER_KINDS and self._gateway.holds(source) and self.layer_of(run) is None:
            run.title = self._gateway.add_labels(run, source).name

    def source_of(self, run: Run) -> Image | None:
        """The image layer of a run, None once it left the viewer."""
        held = self._sources.get(run.number)
        layer = held() if held is not None else None
        return layer if layer is not None and self._gateway.holds(layer) else None

    def layer_of(self, run: Run) -> Labels | None:
        """The labels layer of a run, None where it has none in this viewer."""
        return next((layer for layer in self._gateway.ours("findings") if layer.metadata[KEY].get("run") is run), None)

    def take_names(self, runs: Iterable[Run]) -> list[Run]:
        """Give runs the names of their layers, which the user may have changed; those whose name is new."""
        renamed = []
        for run in runs:
            layer = self.layer_of(run)
            if layer is not None and layer.name != run.title:
                run.title, run.renamed = layer.name, True
                renamed.append(run)
        return renamed

    def on_slice(self, run: Run, index: int) -> None:
        """Take note of a slice; it is painted soon."""
        if run is self.running:
            self._refresh()

    def end(self, run: Run) -> None:
        """Paint the last word of a run; a layer that shows nothing is taken away."""
        self._refresh.cancel()
        self.running = None
        layer = self.layer_of(run)
        if layer is None:
            return
        self._gateway.update_labels(layer, run)
        if not len(layer.features["index"].to_numpy().nonzero()[0]):
            self._gateway.remove_ours(layer)

    def remove(self, run: Run) -> None:
        """Take away the layer of a run that was undone."""
        if (layer := self.layer_of(run)) is not None:
            self._gateway.remove_ours(layer)

    def stop(self) -> None:
        """Paint nothing any more."""
        self._refresh.cancel()
        self.running = None

    def _paint(self) -> None:
        run = self.running
        layer = None if run is None else self.layer_of(run)
        if run is not None and layer is not None:
            shown = self._gateway.current_index(run.job.volume, run.job.request.plane)
            self._gateway.update_labels(layer, run, shown)
