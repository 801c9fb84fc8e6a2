"""The intensity window as a preset, or as width and centre."""

from __future__ import annotations

from dataclasses import replace

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QLabel, QVBoxLayout, QWidget

from napari_unibiomed.widgets.section import Chooser, describe, row
from unibiomed_core.modalities import CT_WINDOWS, Window, choose_window
from unibiomed_core.types import Volume

OWN = "own window"
LARGEST = 1e7


class WindowBox(QWidget):
    """Offers the windows that fit a volume; a number that is changed makes a window of the user's own.

    Args:
        preset: Name of the CT window to begin with; empty for the modality's default.
    """

    changed = Signal()

    def __init__(self, preset: str = "") -> None:
        super().__init__()
        self._first = preset
        self._volume: Volume | None = None
        self.chosen_window: Window | None = None
        self.preset = Chooser()
        self.width_box, self.centre_box = QDoubleSpinBox(), QDoubleSpinBox()
        self.width_box.setRange(1e-3, LARGEST)
        self.centre_box.setRange(-LARGEST, LARGEST)
        describe(self.preset, "Window", "Intensities that become black and white on the picture the model gets.")
        describe(self.width_box, "Window width", "White minus black, in the image's own unit.")
        describe(self.centre_box, "Window centre", "The intensity that becomes middle grey.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addWidget(self.preset)
        self.numbers = QWidget()
        line = row(QLabel("W"), self.width_box, QLabel("C"), self.centre_box)
        for number, stretch in enumerate((0, 1, 0, 1)):
            line.setStretch(number, stretch)
        self.numbers.setLayout(line)
        column.addWidget(self.numbers)
        self.preset.currentIndexChanged.connect(self._on_preset)
        self.width_box.valueChanged.connect(self._on_number)
        self.centre_box.valueChanged.connect(self._on_number)
        self.set_volume(None)

    @property
    def words(self) -> str:
        """``soft tissue 400/40``; empty where a picture goes in as it is."""
        return "" if self.chosen_window is None else _words(self.chosen_window)

    def set_volume(self, volume: Volume | None) -> None:
        """Offer the windows of another volume, its default chosen; the same volume keeps the choice."""
        if volume is self._volume and volume is not None:
            return
        self._volume = volume
        offered: list[Window] = []
        if volume is not None and not volume.is_rgb:
            default = choose_window(volume)
            offered = [default]
            if volume.intensity_unit == "HU":
                offered = list(CT_WINDOWS.values())
                default = CT_WINDOWS.get(self._first, default)
            self.chosen_window = default
        else:
            self.chosen_window = None
        self.setVisible(bool(offered))
        self.preset.fill([*((_words(w), w) for w in offered), (OWN, None)], self.chosen_window)
        self._fill_numbers()

    def use_percentiles(self) -> None:
        """Take the percentile window of an image whose values are no Hounsfield units."""
        if self._volume is not None:
            # Without a unit and as MRI the rule is that of percentiles.
            self._own(choose_window(replace(self._volume, intensity_unit="intensity", modality="mri")))

    def _own(self, window: Window) -> None:
        self.chosen_window = window
        self.preset.blockSignals(True)
        self.preset.setCurrentIndex(self.preset.count() - 1)
        self.preset.blockSignals(False)
        self._fill_numbers()
        self.changed.emit()

    def _fill_numbers(self) -> None:
        if self.chosen_window is None:
            return
        width = self.chosen_window.high - self.chosen_window.low
        decimals = 0 if width >= 20 else 2 if width >= 0.5 else 5
        for box, value in (
            (self.width_box, width),
            (self.centre_box, (self.chosen_window.high + self.chosen_window.low) / 2),
        ):
            box.blockSignals(True)
            box.setDecimals(decimals)
            box.setSingleStep(max(10.0**-decimals, round(width / 40, decimals)))
            box.setValue(value)
            box.blockSignals(False)

    def _on_preset(self) -> None:
        chosen = self.preset.currentData()
        if chosen is not None:
            self.chosen_window = chosen
            self._fill_numbers()
            self.changed.emit()

    def _on_number(self) -> None:
        self._own(Window.from_width_center(OWN, self.width_box.value(), self.centre_box.value()))


def _words(window: Window) -> str:
    """Name, width and centre of a preset; the name alone where it says it all."""
    if window.name in CT_WINDOWS:
        return f"{window.name} {window.high - window.low:g}/{(window.high + window.low) / 2:g}"
    if window.name.startswith("percentiles"):
        return "percentiles 0.5–99.5"
    return window.name
