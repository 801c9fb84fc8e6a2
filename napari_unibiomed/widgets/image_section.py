"""Section 2: which image, which plane, which intensity window, and the picture that the model gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QPixmap, QResizeEvent
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QSizePolicy, QSpinBox

from napari_unibiomed.session.phases import Controls, Phase, enabled
from napari_unibiomed.widgets.plane_buttons import PlaneButtons
from napari_unibiomed.widgets.section import Chooser, Section, describe, pixmap_of, row
from napari_unibiomed.widgets.window_box import WindowBox
from unibiomed_core.modalities import MODALITIES, Window, choose_window, draw_box, to_rgb
from unibiomed_core.types import PLANES, Plane, Region, Volume

if TYPE_CHECKING:
    from napari.layers import Image

AUTOMATIC = "plane: auto"
AS_SHOWN = "as shown"
SHOWN = "shown"
NO_KIND = "kind of image…"


class ImageSection(Section):
    """Holds choices only; what they mean for a volume comes in through :meth:`show_volume`."""

    image_changed = Signal()
    """Another layer, kind or step of a 4D layer was chosen."""
    view_changed = Signal()
    """Another plane was chosen, or the preview opened."""
    window_changed = Signal()
    region_wanted = Signal()
    """What the canvas shows is wanted as a picture of its own."""
    follow_changed = Signal()
    """The image selected in napari is to be followed from now on."""

    def __init__(self, preset: str = "") -> None:
        super().__init__("2 Image")
        self.image = Chooser()
        self.follow = QCheckBox("follow")
        self.follow.setChecked(True)
        self.kind = Chooser()
        self.plane = Chooser()
        self.planes = PlaneButtons()
        self.step_words = QLabel("Volume")
        self.step = QSpinBox()
        self.window_box = WindowBox(preset)
        self.linked = QCheckBox("link to display")
        self.linked.setChecked(True)
        self.preview_button = QPushButton("What the model sees")
        self.preview_button.setCheckable(True)
        self.region_button = QPushButton("Take the shown region")
        self.preview = Preview()
        self.preview.hide()
        describe(self.image, "Image", "The image layer that is asked about. It is never changed.")
        describe(
            self.follow,
            "Follow the selected image",
            "Take the image that is selected in napari's list of layers. An image that is chosen here stays.",
        )
        describe(
            self.kind,
            "Kind of image",
            "How it was taken; filled in where the file says so. Of a picture the model tells it.",
        )
        describe(
            self.plane,
            "Plane",
            "The plane of the slices that the model is given. Auto: that of the acquisition for all slices, the "
            "one that is shown for a slice or a range.",
        )
        describe(self.step, "Volume of the layer", "Which page, time point or channel is taken; napari counts from 0.")
        describe(self.linked, "Link window to display", "A window that is chosen here also sets the layer's contrast.")
        describe(self.preview_button, "What the model sees", "Show exactly the picture that the model is given.")
        describe(
            self.region_button,
            "Take the shown region",
            "Make a layer of the part of the picture that the canvas shows, at full resolution. The model then sees "
            "its details, and what it finds lies in its place in the whole picture.",
        )
        self.image.setPlaceholderText("no image is open")
        self.kind.fill([(NO_KIND, ""), *((m.label, m.name) for m in MODALITIES.values())])
        self.plane.fill([(AUTOMATIC, None), (AS_SHOWN, SHOWN), *((name, name) for name in PLANES)])
        self.waiting = False
        """Another image is selected in napari, and the run that goes on holds this one."""
        self.column.addLayout(row(self.image, self.follow, stretch=0))
        self.column.addLayout(row(self.kind, self.plane))
        self.column.addWidget(self.planes)
        self.column.addLayout(row(self.step_words, self.step, stretch=1))
        self.column.addWidget(self.window_box)
        self.column.addLayout(row(self.linked, self.preview_button))
        self.column.addWidget(self.region_button)
        self.column.addWidget(self.preview)
        self._show_step(False)
        self.image.activated.connect(lambda: self.follow.setChecked(False))  # by the user, never by the program
        self.follow.toggled.connect(self._on_follow)
        for box in (self.image, self.kind):
            box.currentIndexChanged.connect(self.image_changed)
        self.step.valueChanged.connect(self.image_changed)
        self.plane.currentIndexChanged.connect(self.view_changed)
        self.window_box.changed.connect(self.window_changed)
        self.preview_button.toggled.connect(self._on_preview)
        self.region_button.clicked.connect(self.region_wanted)

    @property
    def layer(self) -> Image | None:
        """The chosen image layer."""
        chosen: Image | None = self.image.currentData()
        return chosen

    @property
    def modality(self) -> str:
        """Its kind; empty while it is not chosen."""
        return str(self.kind.currentData() or "")

    @property
    def chosen_plane(self) -> Plane | None:
        """The chosen plane, None where the volume or the view decides."""
        return next((plane for plane in PLANES if plane == self.plane.currentData()), None)

    @property
    def plane_as_shown(self) -> bool:
        """Whether the plane that is shown is taken for everything."""
        return bool(self.plane.currentData() == SHOWN)

    @property
    def chosen_window(self) -> Window | None:
        """What the model is given; None where a picture goes in as it is."""
        return self.window_box.chosen_window

    @property
    def previewing(self) -> bool:
        return self.preview_button.isChecked()

    def choice(self) -> dict[int, int] | None:
        """{layer axis: index} of a layer with more dimensions than a volume has; None for any other."""
        layer = self.layer
        if layer is None or layer.ndim <= (2 if layer.rgb else 3):
            return None
        # The first axis is chosen here; of more axes the viewer's sliders tell the others.
        return {0: self.step.value()}

    @property
    def following(self) -> bool:
        """Whether the image selected in napari is the one that is asked about."""
        return self.follow.isChecked()

    def set_layers(self, layers: Sequence[Image], active: Image | None = None, *, held: bool = False) -> bool:
        """Keep the list in step with the viewer.

        Args:
            active: The image that is selected in napari. It is chosen where it is followed, and where the one that was
                chosen is gone.
            held: The choice stays while its layer is there.

        Returns:
            Whether another layer is chosen now.
        """
        before = self.layer
        stays = before in layers and (held or active is None or not self.following)
        keep = before if stays else active
        self.image.fill([(layer.name, layer) for layer in layers], keep)
        return self.layer is not before

    def set_modality(self, name: str) -> None:
        """Fill in the kind without a signal."""
        self.kind.blockSignals(True)
        self.kind.choose(name)
        self.kind.blockSignals(False)

    def prepare_step(self) -> None:
        """Offer the steps of a 4D layer, for a layer that was just chosen."""
        layer = self.layer
        needed = layer is not None and layer.ndim > (2 if layer.rgb else 3)
        self._show_step(needed)
        if layer is not None and needed:
            self.step.blockSignals(True)
            self.step.setMaximum(int(layer.data.shape[0]) - 1)
            self.step.blockSignals(False)
            self.step.setSuffix(f" of {self.step.maximum()}")
            self.step_words.setText(step_words(layer.axis_labels[0]))

    def show_volume(self, volume: Volume | None, plane: Plane) -> None:
        """Offer the windows of a volume, and say in one line what is chosen."""
        self.plane.setVisible(volume is None or not volume.is_2d)
        self.planes.setVisible(volume is not None and not volume.is_2d)
        # Also of a picture that is too large to be taken whole.
        flat = volume.is_2d if volume is not None else self.layer is not None and self.layer.ndim == 2
        self.region_button.setVisible(flat)
        self.window_box.set_volume(volume)
        self.linked.setVisible(self.chosen_window is not None)
        self.say(volume, plane)

    def say(self, volume: Volume | None, plane: Plane) -> None:
        """``ct_042 – axial, soft tissue 400/40``."""
        if volume is None:
            self.set_summary("no image")
            return
        if self.waiting:
            self.set_summary(f"{volume.name} until the run ends")
            return
        details = ", ".join(part for part in ("" if volume.is_2d else plane, self.window_box.words) if part)
        self.set_summary(f"{volume.name} – {details}" if details else volume.name)

    def show_phase(self, phase: Phase) -> None:
        """Enable what can be used."""
        usable = enabled(phase, Controls.IMAGE)
        chosen = (self.image, self.follow, self.kind, self.plane, self.step, self.window_box, self.linked)
        for widget in (*chosen, self.region_button):
            widget.setEnabled(usable)
        self.preview_button.setEnabled(enabled(phase, Controls.PREVIEW))

    def _show_step(self, shown: bool) -> None:
        self.step_words.setVisible(shown)
        self.step.setVisible(shown)

    def _on_follow(self, on: bool) -> None:
        if on:
            self.follow_changed.emit()

    def _on_preview(self, shown: bool) -> None:
        self.preview.setVisible(shown)
        self.view_changed.emit()


def step_words(axis_label: str) -> str:
    """What the steps of an axis are called; napari's own labels ("-3", "axis 0") say nothing to people."""
    named = bool(re.search(r"[^\W\d_]", axis_label)) and not re.fullmatch(r"(?i)axis[ _-]*-?\d+", axis_label.strip())
    return axis_label if named else "Page, time or channel"


LARGEST_HEIGHT = 220


class Preview(QLabel):
    """A copy of the picture; what is shown can be read back for a test."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: NDArray[np.uint8] | None = None
        self._pixels = QPixmap()
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setWordWrap(True)
        self.setAccessibleName("Picture that the model gets")
        self.setToolTip(WAY_ROUND)

    def show_picture(self, rgb: NDArray[np.uint8]) -> None:
        """Show an (H, W, 3) picture."""
        self.shown = np.ascontiguousarray(rgb)
        self._pixels = pixmap_of(self.shown)
        self._fit()

    def say(self, words: str) -> None:
        """Show words instead of a picture."""
        self.shown = None
        self._pixels = QPixmap()
        self.setMaximumHeight(LARGEST_HEIGHT)
        self.setText(words)

    def sizeHint(self) -> QSize:
        """As high as the picture at the dock's width, never higher than ``LARGEST_HEIGHT``."""
        if self._pixels.isNull():
            return super().sizeHint()
        width = max(1, self.width())
        return QSize(width, min(LARGEST_HEIGHT, round(width * self._pixels.height() / self._pixels.width())))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Fit the picture to the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if not self._pixels.isNull():
            size = self.sizeHint()
            kept = Qt.AspectRatioMode.KeepAspectRatio
            self.setPixmap(self._pixels.scaled(size, kept, Qt.TransformationMode.SmoothTransformation))
            self.updateGeometry()


WAY_ROUND = "Rows run towards Inferior or Posterior, columns towards Left or Posterior: as radiologists read them."
"""Slices go to the model in canonical order, in each plane the order that the viewer shows them in."""


def model_picture(
    volume: Volume, plane: Plane, index: int, window: Window | None = None, region: Region | None = None
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the windowed slice as RGB, with the box burnt in where the region lies on this slice.

    Args:
        window: None takes the modality's.
    """
    rgb = to_rgb(volume.slice(index, plane).pixels, window or choose_window(volume))
    if region is None or (region.plane, region.index) != (plane, index):
        return rgb
    return draw_box(rgb, region)
