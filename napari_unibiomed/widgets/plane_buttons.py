"""Three buttons that show a volume upright: axial, coronal, sagittal."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_unibiomed.widgets.section import describe
from unibiomed_core.types import PLANES


class PlaneButtons(QWidget):
    """Says which plane is wanted; showing it is the viewer's."""

    chosen = Signal(str)
    """A name of ``PLANES``."""

    def __init__(self) -> None:
        super().__init__()
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        self.buttons = {plane: QPushButton(plane.capitalize()) for plane in PLANES}
        for plane, button in self.buttons.items():
            describe(button, f"Show {plane} slices", f"Turn the view to {plane} slices, upright; nothing else changes.")
            button.clicked.connect(lambda _=False, plane=plane: self.chosen.emit(plane))
            line.addWidget(button)
