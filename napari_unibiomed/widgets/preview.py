"""The picture that the model gets, shown pixel for pixel and fitted to the width of the dock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPixmap, QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy

from napari_unibiomed.picture import WAY_ROUND

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
        height, width = self.shown.shape[:2]
        image = QImage(self.shown.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        self._pixels = QPixmap.fromImage(image)
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
