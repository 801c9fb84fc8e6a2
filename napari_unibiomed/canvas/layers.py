"""Result layers of one viewer. :class:`LayerGateway` is the only code that touches ``viewer.layers``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unibiomed.canvas import lazy_layers, painting, view
from napari_unibiomed.canvas.placement import KEY, Placement, image_layer
from napari_unibiomed.canvas.volumes import placement_of
from napari_unibiomed.jobs import layer_name, unused_name
from napari_unibiomed.settings import Settings
from unibiomed_core.report import colour
from unibiomed_core.types import CroppedMask, Plane, Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

    from napari_unibiomed.canvas.shown_region import ShownRegion
    from napari_unibiomed.jobs import Run

ROI = "UniBiomed ROI"
OUTLINE = "UniBiomed outline"
BOX_COLOUR = "#00FF00"
"""Pure green, as the box is drawn on the picture that the model gets."""

Role = Literal["findings", "measured", "outline", "roi"]


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


class LayerGateway(LayerEvents):
    """Reads image layers, adds and updates result layers. It never changes or removes a layer of the user's.

    Args:
        viewer: Held as long as the gateway lives.
        settings: Opacity and outline of result layers.
    """

    def __init__(self, viewer: ViewerModel, settings: Settings | None = None) -> None:
        self.viewer = viewer
        self.settings = settings or Settings()

    def images(self) -> Iterator[Image]:
        """Image layers that can be asked about, top one first."""
        from napari.layers import Image

        yield from (layer for layer in reversed(self.viewer.layers) if isinstance(layer, Image))

    def holds(self, layer: Layer) -> bool:
        """Whether a layer is still in this viewer."""
        return layer in self.viewer.layers

    def is_ours(self, layer: Layer, role: Role | None = None) -> bool:
        """Whether we made this very layer; a duplicate that the user made of it is the user's."""
        made = layer.metadata.get(KEY, {}).get("made")
        return made is not None and made() is layer and role in (None, layer.metadata[KEY]["role"])

    def ours(self, role: Role) -> Iterator[Any]:
        """Our layers of one role, top one first."""
        yield from (layer for layer in reversed(self.viewer.layers) if self.is_ours(layer, role))

    def active_image(self) -> Image | None:
        """The image layer that is selected in the list of layers."""
        return next((layer for layer in self.images() if layer is self.viewer.layers.selection.active), None)

    def active_labels(self) -> Labels | None:
        """The labels layer that is selected in the list of layers."""
        from napari.layers import Labels

        layer = self.viewer.layers.selection.active
        return layer if isinstance(layer, Labels) else None

    def add_image(self, volume: Volume) -> Image:
        """Show a volume; a volume starts at its middle slice."""
        data, about, _ = image_layer(volume)
        return self.viewer.add_image(data, **about)

    def add_region(self, source: Image, region: ShownRegion) -> Image:
        """Show a part of a picture where it was taken from."""
        data, about, _ = image_layer(region.volume)
        about |= self._same_transform(source)
        about["scale"] = np.asarray(source.scale) * region.step
        about["translate"] = np.asarray(source.translate) + view.turned(source, region.start)
        return self.viewer.add_image(data, **about)

    def remove_ours(self, layer: Layer) -> bool:
        """Remove a layer that we made, and the outline with the findings it belongs to; False for any other layer."""
        if not self.holds(layer) or not self.is_ours(layer):
            return False
        if self.is_ours(layer, "findings"):
            self._drop_outline(layer)
        self.viewer.layers.remove(layer)
        return True

    def add_labels(self, run: Run, source: Image) -> Labels:
        """A labels layer that lies on its source, for the findings of a run; :meth:`update_labels` fills it.

        The layer carries the run, its volume and its placement in ``metadata["unibiomed"]``.
        """
        volume, taken = run.job.volume, {layer.name for layer in self.viewer.layers}
        placement = placement_of(source, volume)
        data = np.ascontiguousarray(placement.to_layer(np.zeros(volume.shape, np.uint16)))
        layer = self.viewer.add_labels(
            data,
            name=unused_name(run.title, taken) if run.renamed else layer_name(run.job, source.name, taken),
            opacity=self.settings.labels_opacity,
            # A colour table that is there from the start spares the run the building of a shader for every new target.
            colormap=painting.colormap((n, colour(n)) for n in range(1, painting.READY_COLOURS + 1)),
            features=painting.features(()),
            **self._lying_on(source, placement),
        )
        self._mark(
            layer, "findings", run=run, volume=volume, placement=placement, names={}, painted={}, shape=data.shape
        )
        self.update_labels(layer, run)
        return layer

    def add_measured(
        self, labels: Labels, volume: Volume, placement: Placement, rows: Sequence[Mapping[str, Any]]
    ) -> Labels:
        """A copy of a labels layer of the user's, in its colours, with a row of features for each of its numbers."""
        layer = self.viewer.add_labels(
            np.array(labels.data),
            name=f"{labels.name} measured",
            opacity=labels.opacity,
            colormap=labels.colormap,
            features=painting.features(rows),
            **self._same_transform(labels),
        )
        self._mark(layer, "measured", volume=volume, placement=placement)
        return layer

    def update_labels(self, layer: Labels, run: Run, shown_slice: int | None = None) -> bool:
        """Paint what a run has found so far: by phrase while it runs, by finding once its report is there.

        A report is painted once, and is the user's to change then. Returns whether the picture was refreshed.

        Args:
            shown_slice: The slice that is displayed; while the run's plane is shown, the picture is refreshed only
                where that slice changed. None refreshes always.
        """
        about = layer.metadata[KEY]
        if tuple(layer.data.shape) != about["shape"]:  # the user gave the layer another array
            return False
        # What is painted before the report is there would be lost when its masks are painted.
        layer.editable = run.report is not None
        if run.report is not None:
            if about.get("report") is not run.report:
                self.paint_masks(layer, {f.number: f.mask for f in run.report.findings})
                self.set_features(layer, painting.finding_rows(run.report.findings))
                about["report"] = run.report
            return True
        # A question about another box on the same slice adds to the slice's predictions.
        counts = {index: len(predictions) for index, predictions in run.predictions.items()}
        new = [index for index, count in counts.items() if about["painted"].get(index) != count]
        canonical = about["placement"].to_canonical(layer.data)
        for index in new:
            painting.paint_slice(canonical, run.job.request.plane, index, run.predictions[index], about["names"])
        about["painted"] = counts
        if len(about["names"]) + 1 != len(layer.features):
            rows = [{"index": number, "finding": name} for name, number in about["names"].items()]
            self.set_features(layer, rows)
        elsewhere = bool(new) and self.displayed_plane(run.job.volume) != run.job.request.plane
        if refreshed := shown_slice is None or shown_slice in new or elsewhere:
            layer.refresh()
        return refreshed

    def paint_masks(self, layer: Labels, masks: Mapping[int, CroppedMask], below: Collection[int] = ()) -> None:
        """Paint {number: canonical 3D mask} anew, smaller ones on top and those ``below`` under all others."""
        painting.paint_all(layer.metadata[KEY]["placement"].to_canonical(layer.data), masks, below)
        layer.metadata[KEY]["masks"] = dict(masks)
        layer.refresh()

    def mask_of(self, layer: Labels, number: int) -> CroppedMask:
        """The canonical 3D mask of one number as the layer holds it now, the user's edits included."""
        canonical = layer.metadata[KEY]["placement"].to_canonical(layer.data)
        return CroppedMask.from_full(canonical == number)

    def set_features(self, layer: Labels, rows: Sequence[Mapping[str, Any]]) -> None:
        """One row a finding, each with its ``index``; colours that are there already are kept."""
        kept = self.colours_of(layer)
        layer.features = painting.features(rows)
        colours = {int(r["index"]): kept.get(int(r["index"]), colour(int(r["index"]))) for r in rows}
        if colours != self.colours_of(layer):
            layer.colormap = painting.colormap(colours.items(), self.hidden(layer))

    def colours_of(self, layer: Labels) -> dict[int, str]:
        """{number: #RRGGBB} as the layer shows them, so that a recolouring in napari is seen."""
        return painting.colours_of(layer)

    def hidden(self, layer: Labels) -> frozenset[int]:
        """Numbers that :meth:`hide` made invisible."""
        return frozenset(layer.metadata[KEY].get("hidden", ()))

    def hide(self, layer: Labels, numbers: Iterable[int]) -> None:
        """Make exactly these numbers invisible; their voxels stay."""
        layer.metadata[KEY]["hidden"] = frozenset(numbers)
        layer.colormap = painting.colormap(self.colours_of(layer).items(), self.hidden(layer))

    def select_label(self, layer: Labels, number: int, mask: CroppedMask | None = None) -> None:
        """Select a number on our labels layer and outline it; 0 takes the outline away.

        Args:
            mask: Its canonical 3D mask; None takes it from the layer.
        """
        layer.selected_label = number
        mask = None if number == 0 else mask or self.mask_of(layer, number)
        if mask is None or not mask.count or self.settings.outline_px < 1:
            self._drop_outline(layer)
            return
        data, first = painting.outline_data(mask, layer.metadata[KEY]["placement"], self.settings.outline_px)
        self._outline(layer, data, first, painting.colormap([(1, self.colours_of(layer).get(number, "#FFFFFF"))]))

    def _outline(self, layer: Labels, data: NDArray[np.uint8], first: NDArray[np.float64], colours: Any) -> None:
        """Show an outline whose first element lies at data coordinates ``first`` of a labels layer."""
        there = self._outline_of(layer)
        translate = np.asarray(layer.translate) + view.turned(layer, first)
        if there is not None:
            there.data, there.translate, there.colormap = data, translate, colours
            return
        selected = set(self.viewer.layers.selection)
        about = self._same_transform(layer) | {"translate": translate}
        made = self.viewer.add_labels(data, name=OUTLINE, opacity=1.0, colormap=colours, **about)
        made.contour = self.settings.outline_px
        made.editable = False
        self._mark(made, "outline", of=weakref.ref(layer))
        # A new layer takes the selection, and with it the brush, away from the user.
        self.viewer.layers.selection = selected

        def follow(event: Any) -> None:
            if event.value is layer:
                self._drop_outline(layer)
            if event.value in (layer, made):
                forget()

        forget = view.connect([self.viewer.layers.events.removed], follow)

    def _outline_of(self, layer: Layer) -> Labels | None:
        return next((o for o in self.ours("outline") if o.metadata[KEY]["of"]() is layer), None)

    def _drop_outline(self, layer: Layer) -> None:
        if (there := self._outline_of(layer)) is not None:
            self.viewer.layers.remove(there)

    def roi_layer(self, source: Image) -> Shapes:
        """The layer to draw boxes on for an image, made where there is none yet, in rectangle mode and selected."""
        layer = next((r for r in self.ours("roi") if r.metadata[KEY]["source"]() is source), None)
        if layer is None:
            about = self._same_transform(source)
            layer = self.viewer.add_shapes(
                None, ndim=source.ndim, name=ROI, edge_color=BOX_COLOUR, face_color="transparent", **about
            )
            self._mark(layer, "roi", source=weakref.ref(source))
        self.viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        return layer

    def layer_of(self, volume: Volume) -> tuple[Layer, Placement] | None:
        """A layer of this viewer that shows a volume, with the volume's place in it."""
        for layer in self.ours("findings"):
            if layer.metadata[KEY]["volume"] is volume:
                return layer, layer.metadata[KEY]["placement"]
        for layer in self.images():
            placement = placement_of(layer, volume)
            if placement.from_file or lazy_layers.shows(layer, volume.voxels):
                return layer, placement
        return None

    def jump(self, volume: Volume, plane: Plane, index: int, centre: Sequence[float] | None = None) -> bool:
        """Show one slice of a volume without a change of zoom; False where no layer shows the volume.

        Args:
            index: Canonical index of the slice.
            centre: Canonical (z, y, x) voxel, fractions allowed, that the camera is centred on; None leaves the camera.
        """
        found = self.layer_of(volume)
        if found is None:
            return False
        view.jump(self.viewer, *found, volume.plane_axis(plane), index, centre)
        return True

    def show_plane(self, volume: Volume, plane: Plane) -> bool:
        """Show the slices of a plane upright; False where no layer shows the volume, or it is a picture."""
        found = self.layer_of(volume)
        if found is None or volume.is_2d:
            return False
        view.show_plane(self.viewer, *found, volume.plane_axis(plane))
        return True

    def stand_on_slices(self, volume: Volume) -> None:
        """Bring the sliders to whole slices of a volume, where a layer shows it."""
        if (found := self.layer_of(volume)) is not None:
            view.stand_on_slices(self.viewer, *found)

    def displayed_plane(self, volume: Volume) -> Plane | None:
        """The plane of a volume that is shown; None in 3D display, for a picture, or where no layer shows it."""
        found = self.layer_of(volume)
        return None if found is None or volume.is_2d else view.displayed_plane(self.viewer, *found)

    def current_index(self, volume: Volume, plane: Plane) -> int | None:
        """Canonical index of the slice at the sliders' position; None where no layer shows the volume."""
        found = self.layer_of(volume)
        if found is None:
            return None
        axis = volume.plane_axis(plane)
        voxel = found[1].to_voxel(found[0].world_to_data(view.point(self.viewer)))
        return int(np.clip(np.rint(voxel[axis]), 0, volume.shape[axis] - 1))

    def slider_number(self, volume: Volume, plane: Plane, index: int) -> int | None:
        """What the viewer's slider shows for a slice; None for a picture, or where no layer shows the volume."""
        found = self.layer_of(volume)
        if found is None or volume.is_2d:
            return None
        return view.slider_number(self.viewer, *found, volume.plane_axis(plane), index)

    @staticmethod
    def _mark(layer: Layer, role: Role, **about: Any) -> None:
        layer.metadata[KEY] = {"made": weakref.ref(layer), "role": role, **about}

    @staticmethod
    def _same_transform(source: Layer) -> dict[str, Any]:
        names = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
        return {name: getattr(source, name) for name in names}

    def _lying_on(self, source: Image, placement: Placement) -> dict[str, Any]:
        """The transform of a source, moved to the chosen step where the volume is one of several."""
        about = self._same_transform(source)
        if placement.choice:
            step = np.zeros(source.ndim)
            step[list(placement.choice)] = list(placement.choice.values())
            about["translate"] = np.asarray(source.translate) + view.turned(source, step)
        return about


def toggle_findings(gateway: LayerGateway) -> None:
    """Hide every layer of findings, or show them all where none is visible."""
    layers = list(gateway.ours("findings"))
    visible = any(layer.visible for layer in layers)
    for layer in layers:
        layer.visible = not visible
