"""Ties the image section to the viewer: which volume the chosen layer is, which slice is shown, what the model sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from superqt.utils import qthrottled

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.placement import volumes_in
from napari_unibiomed.canvas.shown_region import shown_region
from napari_unibiomed.canvas.volumes import volume_of
from napari_unibiomed.messages import catalogue
from napari_unibiomed.messages.from_error import from_error
from napari_unibiomed.messages.message import Message
from napari_unibiomed.widgets.image_section import ImageSection, model_picture
from napari_unibiomed.widgets.lazy_reading import READING, LazyReading
from unibiomed_core.errors import UniBiomedError
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.types import Plane, Region, Volume
from unibiomed_core.updates import CancelToken

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_unibiomed.runs.requests import Slices

PREVIEW_MS = 100


def _nobody() -> None:
    """Who listens while no dock does."""


class ImageBinding:
    """Reads the viewer and writes the section; never changes a layer but its contrast, and that only while linked.

    Attributes:
        volume: The volume of the chosen layer, None where there is none or it cannot be used.
        problem: Why it cannot be used.
        undecided: A picture whose kind nobody told and the model was not asked about; it has an empty modality.
    """

    def __init__(self, section: ImageSection, gateway: LayerGateway) -> None:
        self.section, self.gateway = section, gateway
        self.volume: Volume | None = None
        self.problem: Message | None = catalogue.no_image()
        self.undecided: Volume | None = None
        self.region: Region | None = None
        self._taken: tuple[Any, ...] = ()
        self._kinds: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        """What the user said of a layer's kind; it holds when the layer is chosen again."""
        self._seen: WeakKeyDictionary[Image, Volume] = WeakKeyDictionary()
        """Layers whose kind the model told, as it saw them."""
        self._not_seen: WeakKeyDictionary[Image, Message] = WeakKeyDictionary()
        """Layers that the model is undecided about, and what is said of that."""
        self.arrived: Callable[[], None] = _nobody
        """Called when a lazy layer was read, or could not be, some time after it was chosen."""
        self.reading = LazyReading()
        self.reading.finished.connect(self._on_read)
        self._show_preview = qthrottled(self._preview, timeout=PREVIEW_MS)

    @property
    def plane(self) -> Plane:
        """The plane of the slices: the chosen one, else the one that is shown."""
        if self.volume is None or self.volume.is_2d:
            return "axial"
        return self.section.chosen_plane or self.gateway.displayed_plane(self.volume) or "axial"

    def plane_of(self, slices: Slices) -> Plane:
        """The plane of a run: over all slices that of the acquisition, unless a plane was chosen."""
        if self.volume is None or self.section.chosen_plane or self.section.plane_as_shown or slices.span != "all":
            return self.plane
        return self.volume.default_plane

    @property
    def current(self) -> int | None:
        """Canonical index of the shown slice."""
        if self.volume is None:
            return None
        return 0 if self.volume.is_2d else self.gateway.current_index(self.volume, self.plane)

    def take_layers(self, held: bool = False) -> bool:
        """Follow the viewer's layers; True where another layer is chosen now.

        Args:
            held: A run is going on: the chosen image stays while it is there, and the section says so.
        """
        active = self.gateway.active_image()
        changed = self.section.set_layers(list(self.gateway.images()), active, held=held)
        waits = held and self.section.following and active is not None and active is not self.section.layer
        if waits != self.section.waiting:
            self.section.waiting = waits
            self.section.say(self.volume, self.plane)
        if changed:
            self._adopt()
            return True
        return False

    def take_choice(self) -> None:
        """Take the volume of the layer, kind and step that are chosen."""
        layer = self.section.layer
        if layer is not None and self._taken and self._taken[0] is layer:
            self._take_kind(layer)
        if layer is not None and self._taken and self._taken[0] is not layer:
            self._adopt()
        else:
            self._take()

    def take_seen(self, seen: Volume) -> None:
        """The model told the kind of the undecided picture."""
        layer = self.section.layer
        if layer is not None:
            self._seen[layer] = seen
            self.section.set_modality(seen.modality)
            self._take()

    def take_not_seen(self, likely: Sequence[str]) -> None:
        """The model is undecided about the picture, too.

        Args:
            likely: Modalities, the likeliest first.
        """
        layer = self.section.layer
        if layer is not None:
            self.problem = catalogue.kind_unknown([MODALITIES[name].label for name in likely])
            self._not_seen[layer], self.undecided = self.problem, None

    @property
    def is_replaced(self) -> bool:
        """Whether the chosen layer was given another array since its volume was taken."""
        layer = self.section.layer
        return layer is not None and bool(self._taken) and self._taken[0] is layer and self._taken[3] is not layer.data

    def take_region(self) -> Message | None:
        """Show what the canvas shows of the chosen picture as a layer of its own, and choose that; why not, if not."""
        layer = self.section.layer
        if layer is None or not self.section.modality:
            return self.problem
        try:
            region = shown_region(self.gateway.viewer, layer, self.section.modality)
        except UniBiomedError as error:
            return from_error(error)
        if (whole := self.volume) is not None:  # who told the kind of the picture told that of its part
            told = replace(region.volume, modality_by=whole.modality_by, modality_shares=whole.modality_shares)
            region = replace(region, volume=told)
        self.section.follow.setChecked(True)
        self.gateway.add_region(layer, region)
        return None

    def follow_view(self) -> None:
        """Another slice, plane or box: say so, and show the picture anew where it is open."""
        self.section.say(self.volume, self.plane)
        if self.section.previewing:
            self._show_preview()

    def show_region(self, region: Region | None) -> None:
        """The box to burn into the preview."""
        self.region = region
        self.follow_view()

    def follow_window(self) -> None:
        """Another window: show it on the canvas while it is linked."""
        window, layer = self.section.chosen_window, self.section.layer
        if window is not None and layer is not None and self.section.linked.isChecked():
            layer.contrast_limits = (window.low, window.high)
        self.follow_view()

    def close(self) -> None:
        self.arrived = _nobody
        self.reading.close()
        self._show_preview.cancel()

    def _adopt(self) -> None:
        """Take up another layer: its kind where it is known, its steps where it has some."""
        layer = self.section.layer
        known = None if layer is None else next(iter(volumes_in(layer)), None)
        if layer is not None and layer in self._seen:
            known = self._seen[layer]
        told = "" if known is None else known.modality
        self.section.set_modality(told if layer is None else self._kinds.get(layer, told))
        self.section.prepare_step()
        self._take()

    def _take(self) -> None:
        layer = self.section.layer
        wanted = (layer, self.section.modality, self._choice(layer), None if layer is None else layer.data)
        if self._is_taken(wanted):
            return
        self._taken = wanted
        self.reading.stop()
        self.volume, self.problem, self.undecided = None, None, None
        if layer is None:
            self.problem = catalogue.no_image()
        elif not self.section.modality and not self._is_picture(layer, wanted[2] or {}):
            self.problem = catalogue.kind_unknown()
        else:
            try:
                self._take_volume(layer, wanted[2] or {})
            except UniBiomedError as error:
                self.problem = from_error(error)
        self.section.show_volume(self.volume, self.plane)
        self.follow_view()

    def _take_volume(self, layer: Image, choice: dict[int, int]) -> None:
        if lazy_layers.is_lazy(layer) and lazy_layers.kept(layer, choice) is None:
            self.reading.begin(layer, choice)
            self.problem = READING
            return
        seen = None if layer in self._kinds else self._seen.get(layer)
        shares = () if seen is None else seen.modality_shares
        volume = volume_of(layer, self.section.modality, choice=choice, shares=shares)
        if not volume.modality:
            self.problem = self._not_seen.get(layer, catalogue.kind_unknown(model_can_tell=True))
            self.undecided = None if layer in self._not_seen else volume
            return
        self.section.set_modality(volume.modality)  # values may tell it
        self.volume = volume

    def _take_kind(self, layer: Image) -> None:
        """The kind that the user chose, if that is what changed; none lets the model tell it again."""
        if self.is_replaced:  # what was seen is not there any more
            if layer in self._seen and layer not in self._kinds:
                self.section.set_modality("")
            self._seen.pop(layer, None)
            self._not_seen.pop(layer, None)
        elif self.section.modality != self._taken[1]:
            for known in (self._kinds, self._seen, self._not_seen):
                known.pop(layer, None)
            if self.section.modality:
                self._kinds[layer] = self.section.modality

    def _is_picture(self, layer: Image, choice: dict[int, int]) -> bool:
        return bool(layer.ndim - len(choice) == 2)

    def _on_read(self, token: CancelToken, found: Any) -> None:
        """The values of a lazy layer have come, or the error instead; of another choice by now they are dropped."""
        if token is not self.reading.token or token.cancelled or not self._taken:
            return
        layer, _, choice, _ = self._taken
        if isinstance(found, UniBiomedError):
            self.problem = from_error(found)
        else:
            lazy_layers.keep(layer, choice or {}, found)
            self._taken = ()
            self._take()
        self.arrived()

    def _is_taken(self, wanted: tuple[Any, ...]) -> bool:
        """Whether this very choice was taken before; data are compared by identity."""
        return bool(self._taken) and all(
            a is b or (not isinstance(a, np.ndarray) and isinstance(a, str | dict) and a == b)
            for a, b in zip(wanted, self._taken, strict=True)
        )

    def _choice(self, layer: Image | None) -> dict[int, int] | None:
        """The chosen step of the first axis; of further axes, where the sliders stand."""
        choice = self.section.choice()
        if layer is None or choice is None:
            return None
        spare = layer.ndim - (2 if layer.rgb else 3)
        point = np.asarray(self.gateway.viewer.dims.point)[-layer.ndim :]
        at = np.rint(layer.world_to_data(point)).astype(int)
        return choice | {axis: int(np.clip(at[axis], 0, layer.data.shape[axis] - 1)) for axis in range(1, spare)}

    def _preview(self) -> None:
        volume, index, plane = self.volume, self.current, self.plane
        if volume is None or index is None:
            self.section.preview.say("Nothing to show yet.")
            return
        region = self.region
        if region is not None and self.section.chosen_plane is None and region.plane != plane:
            region = None
        self.section.preview.show_picture(model_picture(volume, plane, index, self.section.chosen_window, region))
