"""Between the findings model and the labels on the canvas: selection, visibility, colours and painting, both ways."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from superqt.utils import qdebounced

from napari_unibiomed.canvas import lazy_layers, painting
from napari_unibiomed.canvas.layers import KEY, LayerGateway
from napari_unibiomed.findings import painted_masks
from napari_unibiomed.findings.details import slice_beside
from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import FindingRow, centre_of
from napari_unibiomed.jobs import Run
from napari_unibiomed.messages.message import Message
from napari_unibiomed.messages.notices import labels_on_another_grid, no_finding
from unibiomed_core.engine.volume import counting
from unibiomed_core.types import CroppedMask

if TYPE_CHECKING:
    from napari.layers import Image, Labels

PAINTING_PAUSE_MS = 300
"""A finding is measured anew when nobody painted for so long."""

_NOTHING = CroppedMask(np.zeros((0, 0, 0), bool), (0, 0, 0), (0, 0, 0))


class CanvasLink:
    """Follows the labels layer of the run that the model shows. It reads and recolours our own layers only.

    Args:
        say: Shows a message.
    """

    def __init__(self, gateway: LayerGateway, model: FindingsModel, say: Callable[[Message], None]) -> None:
        self.gateway, self.model, self._say = gateway, model, say
        self.layer: Labels | None = None
        self._layer_connections: list[Callable[[], None]] = []
        self._quiet = False
        self._touched: dict[int, painted_masks.Box] = {}
        """Number -> canonical box of all strokes with it or over it."""
        self._look_everywhere = False
        self._told: set[int] = set()
        """Numbers of no finding that were spoken of."""
        self._measuring = False
        self._label = 0
        self._connections = [
            gateway.on_layers_changed(self._find_layer),
            *_connected(
                (model.changed, self._on_changed),
                (model.row_changed, self._on_row),
                (model.mask_changed, self._on_mask_put_back),
                (model.selected, self._on_selected),
            ),
        ]
        self._on_changed()

    def cleanup(self) -> None:
        """Disconnect from model and layers; may be called twice."""
        for connections in (self._connections, self._layer_connections):
            while connections:
                connections.pop()()
        self.layer = None

    def jump(self, number: int) -> bool:
        """Show the slice with the finding's largest area and centre it; False where the image is not in the viewer."""
        row = self.model.row(number)
        if row is None or row.slice_largest is None:
            return False
        return self.show_slice(row, row.slice_largest)

    def show_slice(self, row: FindingRow, index: int) -> bool:
        """Show one slice of a row, centred on what it contains there."""
        if self.model.run is None:
            return False
        return self.gateway.jump(self.model.run.volume, row.plane, index, centre_of(row, index))

    def step(self, direction: int) -> bool:
        """Go to the next (1) or previous (-1) slice that contains the selected finding; False at its ends."""
        row, here = self._selected_row(), self.current_index()
        if row is None or here is None:
            return False
        beside = slice_beside(row, here, direction)
        return beside is not None and self.show_slice(row, beside)

    def current_index(self) -> int | None:
        """Canonical index of the slice shown, across the plane of the selected row."""
        row = self._selected_row()
        if row is None or self.model.run is None:
            return None
        return self.gateway.current_index(self.model.run.volume, row.plane)

    def sliders(self) -> dict[int, str]:
        """Number of a row -> the slider's numbers for its slices; empty while they are the slices' own."""
        run, rows = self.model.run, [row for row in self.model.rows if row.slice_indices]
        if run is None or run.volume.is_2d:
            return {}
        volume = run.volume
        ends = {row.plane: (0, volume.slice_count(row.plane) - 1) for row in rows}
        other = {p for p, both in ends.items() if [self.gateway.slider_number(volume, p, i) for i in both] != [*both]}
        told: dict[int, str] = {}
        for row in rows:
            first_last = sorted({row.slice_indices[0], row.slice_indices[-1]})
            sliders = [self.gateway.slider_number(volume, row.plane, i) for i in first_last if row.plane in other]
            if sliders and None not in sliders:
                told[row.number] = "\u2013".join(map(str, sliders))
        return told

    def current_slider(self) -> int | None:
        """What the viewer's slider shows for the slice shown; other layers can give it other steps."""
        row, here = self._selected_row(), self.current_index()
        if row is None or here is None or self.model.run is None:
            return None
        return self.gateway.slider_number(self.model.run.volume, row.plane, here)

    def highlight(self, number: int | None) -> None:
        """Outline a finding for a moment; None goes back to the selected one."""
        self._outline(self.model.selection if number is None else number)

    def own_layer(self, number: int) -> Labels | None:
        """A further labels layer with one finding alone; None where the image is not in the viewer.

        Of a population, such as nuclei, each single one has a number of its own there.
        """
        run, row = self.model.run, self.model.row(number)
        source = self.source()
        if run is None or run.report is None or row is None or row.finding is None or source is None:
            return None
        found = counting.singles(row.finding, run.volume) or (row.finding,)
        alone = Run(replace(run.job, label=row.phrase), run.number, report=replace(run.report, findings=found))
        return self.gateway.add_labels(alone, source)

    def source(self) -> Image | None:
        """The image layer that the shown run is about, where it is still in the viewer."""
        run = self.model.run
        if run is None:
            return None
        of_run = (i for i in self.gateway.images() if lazy_layers.shows(i, run.volume.voxels))
        return next(of_run, None)

    def repaint(self) -> None:
        """Paint the layer of the shown run anew."""
        if self.layer is not None and self.model.run is not None:
            with self._silence():
                self.gateway.update_labels(self.layer, self.model.run)

    # Layer to model

    def _find_layer(self) -> None:
        run = self.model.run
        layers = (layer for layer in self.gateway.ours("findings") if layer.metadata[KEY]["run"] is run)
        layer = next(layers, None) if run is not None else None
        if layer is self.layer:
            return
        while self._layer_connections:
            self._layer_connections.pop()()
        self.layer = layer
        self._touched.clear()
        self._told.clear()
        if layer is not None:
            self._label = layer.selected_label
            self._layer_connections = [
                self.gateway.on_selected_label(layer, self._on_picked),
                self.gateway.on_painted(layer, self._on_painted),
                self.gateway.on_data_replaced(layer, self._on_data_replaced),
                self.gateway.on_recoloured(layer, self._on_recoloured),
                self.gateway.on_redrawn(layer, self._on_redrawn),
            ]
            self._on_recoloured()
            # It may have been painted on while another run was shown.
            self._measure_everything()

    def _on_picked(self, number: int) -> None:
        # napari tells of the selected label after a change of colours too.
        if number != self._label and not self._quiet:
            self.model.select(number)
        self._label = number

    def _on_recoloured(self) -> None:
        if self.layer is not None and not self._quiet:
            self.model.set_colours(self.gateway.colours_of(self.layer))

    def _on_painted(self, stroke: painting.Stroke | None) -> None:
        if self.layer is None or self._quiet:
            return
        if stroke is None or not painted_masks.fits(self.layer):
            self._measure_everything()
            return
        corners = (stroke.low, stroke.high)
        ends = np.array([self.layer.metadata[KEY]["placement"].to_voxel(corner) for corner in corners]).astype(int)
        for number in stroke.numbers:
            known = [(b.start, b.stop - 1) for b in self._touched[number]] if number in self._touched else ends.T
            both = np.concatenate([np.asarray(known).T, ends])
            self._touched[number] = tuple(map(slice, both.min(axis=0), both.max(axis=0) + 1))
        self._measure_touched()

    def _on_data_replaced(self) -> None:
        if self.layer is not None and not painted_masks.fits(self.layer):
            self._say(labels_on_another_grid(self.layer.name))
        self._measure_everything()

    def _on_redrawn(self, same_place: bool) -> None:
        # An undone stroke, and a write into the array by anybody else, are told by a redraw and by nothing more. A
        # redraw for a slider that moves says nothing of the kind, and comes far too often for a look at everything.
        if self._quiet:
            return
        if same_place:
            self._measure_everything()
        elif self._touched:
            self._measure_touched()

    def _measure_everything(self) -> None:
        self._look_everywhere = True
        self._measure_touched()

    @qdebounced(timeout=PAINTING_PAUSE_MS)
    def _measure_touched(self) -> None:
        self.measure_painted()

    def measure_painted(self) -> None:
        """Measure the findings whose labels were changed, now; all of them where it is not known which."""
        layer = self.layer
        # Until the report's masks are on the layer, it shows what was gathered on the way.
        if layer is None or not self.model.finished or self.model.run is None or not self.gateway.holds(layer):
            return
        if layer.metadata[KEY].get("report") is not self.model.run.report or not painted_masks.fits(layer):
            return
        touched = None if self._look_everywhere else self._touched
        self._look_everywhere = False
        picture = painted_masks.canonical_picture(layer)
        strangers = set(painted_masks.strangers_in(picture, painted_masks.own_masks(self.model), touched))
        if strangers - self._told:
            self._say(no_finding(sorted(strangers - self._told)))
        self._told = strangers if touched is None else self._told | strangers
        self._measuring = True
        try:
            changed = painted_masks.measure(layer, self.model, touched, self.gateway.hidden(layer))
        finally:
            self._measuring = False
        if changed:
            self._mirror()

    # Model to layer

    def _on_changed(self) -> None:
        self._find_layer()
        self._mirror()

    def _on_row(self, number: int) -> None:
        self._mirror()
        if number == self.model.selection:
            self._outline(number)

    def _on_mask_put_back(self, number: int) -> None:
        if self.layer is not None and painted_masks.fits(self.layer):
            with self._silence():
                self.gateway.paint_masks(self.layer, painted_masks.own_masks(self.model), self.model.unseen)

    def _on_selected(self, number: int | None) -> None:
        self._outline(number)

    def _outline(self, number: int | None) -> None:
        if self.layer is None or not self.gateway.holds(self.layer):
            return
        row = None if number is None else self.model.row(number)
        mask = _NOTHING if row is None or row.finding is None or row.rejected else row.finding.mask
        # Without a row the number that the user paints with stays; an empty mask takes the outline away.
        label = self.layer.selected_label if row is None else row.number
        with self._silence():
            self.gateway.select_label(self.layer, label, mask)

    def _mirror(self) -> None:
        """Bring what the layer hides and tells of its numbers in line with the rows."""
        if self.layer is None or self._measuring:
            return
        self._paint_rows()
        with self._silence():
            if self.gateway.hidden(self.layer) != self.model.unseen:
                self.gateway.hide(self.layer, self.model.unseen)
            if self.model.finished and self.layer.metadata[KEY]["run"].report is not None:
                self.gateway.set_features(self.layer, feature_rows(self.model.rows))

    def _paint_rows(self) -> None:
        """Bring the voxels in line with the rows: masks of a restored run, and what is not seen under what is."""
        if self.layer is None or not self.model.finished or self.model.run is None:
            return
        about, own, unseen = self.layer.metadata[KEY], painted_masks.own_masks(self.model), self.model.unseen
        if not painted_masks.fits(self.layer):
            return
        if self.model.run.report is None or about.get("report") is not self.model.run.report:
            return
        if any(about["masks"].get(number) is not mask for number, mask in own.items()):
            with self._silence():
                self.gateway.paint_masks(self.layer, own, unseen)
        elif moved := self.gateway.hidden(self.layer) ^ unseen:
            if self._touched or self._look_everywhere:
                self.measure_painted()
            picture = about["placement"].to_canonical(self.layer.data)
            for number in moved & own.keys():
                painting.paint_again(picture, painted_masks.own_masks(self.model), own[number], unseen)
            with self._silence():
                self.layer.refresh()

    def _selected_row(self) -> FindingRow | None:
        return None if self.model.selection is None else self.model.row(self.model.selection)

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        """What we set on a layer does not come back as the user's doing."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _connected(*pairs: tuple[Any, Callable[..., None]]) -> list[Callable[[], None]]:
    """Connect signals to functions; returns what disconnects each."""

    def undo(signal: Any, call: Callable[..., None]) -> Callable[[], None]:
        signal.connect(call)
        return lambda: signal.disconnect(call)

    return [undo(signal, call) for signal, call in pairs]


def feature_rows(rows: tuple[FindingRow, ...]) -> list[dict[str, Any]]:
    """The panel's rows as napari's own table shows and saves them."""
    return [
        {
            "index": row.number,
            "finding": row.phrase,
            "presence": None if row.score is None else round(row.score, 3),
            "volume_ml": row.volume_ml,
            "side": row.side,
            "flags": ", ".join(row.all_flags),
        }
        for row in rows
        if row.has_mask
    ]
