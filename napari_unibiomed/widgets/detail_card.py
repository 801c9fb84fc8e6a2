"""The card of the selected row: name, facts, thumbnails, and the buttons that step through its slices."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QHBoxLayout, QScrollArea, QToolButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_unibiomed.findings.details import caption_of, facts_of, key_slices, place_text, slice_beside, thumbnail
from napari_unibiomed.findings.rows import FindingRow
from napari_unibiomed.widgets.contrast import ink
from napari_unibiomed.widgets.section import describe, pixmap_of, wrapped_label
from napari_unibiomed.widgets.section import row as side_by_side

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run

THUMBNAILS = 3
THUMBNAIL_WIDTH_PX = 96


class DetailCard(QScrollArea):
    """Shows one row of a run; what a click asks for is told and not done."""

    step_requested = Signal(int)
    slice_requested = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.title = wrapped_label()
        self.place = QElidingLabel()
        self.place.setAccessibleName("Slice shown")
        self.back, self.forth = _button("‹"), _button("›")
        describe(self.back, "Previous slice with it", "Go to the previous slice that contains this finding.")
        describe(self.forth, "Next slice with it", "Go to the next slice that contains this finding.")
        self.facts = wrapped_label(name="About the selected finding")
        self.facts.setTextFormat(Qt.TextFormat.RichText)
        self.facts.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.shots = [_Shot() for _ in range(THUMBNAILS)]
        body = QWidget()
        column = QVBoxLayout(body)
        column.setContentsMargins(2, 2, 2, 2)
        column.setSpacing(4)
        column.addWidget(self.title)
        column.addLayout(side_by_side(self.back, self.place, self.forth, stretch=1))
        pictures = QHBoxLayout()
        for shot in self.shots:
            pictures.addWidget(shot)
            shot.asked.connect(self.slice_requested)
        pictures.addStretch(1)
        column.addLayout(pictures)
        column.addWidget(self.facts)
        column.addStretch(1)
        self.setWidget(body)
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Details")
        self.back.clicked.connect(lambda: self.step_requested.emit(-1))
        self.forth.clicked.connect(lambda: self.step_requested.emit(1))
        self._shown: tuple[Run, FindingRow] | None = None
        self._waiting: list[tuple[_Shot, int, str]] = []
        # One thumbnail a turn of the event loop, so that no turn is long.
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._draw_next)

    def show_row(self, run: Run | None, row: FindingRow | None) -> None:
        """Show a row, or nothing; thumbnails follow one by one."""
        self._shown = None if run is None or row is None else (run, row)
        self._waiting.clear()
        for shot in self.shots:
            shot.hide()
        self.setVisible(self._shown is not None)
        if run is None or row is None:
            return
        chip = f"background-color:{row.colour};color:{ink(row.colour)}"
        self.title.setText(f'<b><span style="{chip}">&nbsp;{row.number}&nbsp;</span> {html.escape(row.phrase)}</b>')
        lines = (f"<b>{html.escape(name)}:</b> {_text(value)}" for name, value in facts_of(run, row))
        self.facts.setText("<br>".join(lines))
        steps = not run.volume.is_2d
        for widget in (self.back, self.forth, self.place):
            widget.setVisible(steps)
        self._waiting = [(s, i, w) for s, (i, w) in zip(self.shots, key_slices(run, row), strict=False)]
        self._timer.start()

    def show_place(self, index: int | None, slider: int | None = None) -> None:
        """Tell which slice is shown, what the slider shows for it where that differs, and which steps there are."""
        if self._shown is None:
            return
        run, row = self._shown
        self.place.setText(place_text(run, row, index, slider))
        for button, step in ((self.back, -1), (self.forth, 1)):
            button.setEnabled(index is not None and slice_beside(row, index, step) is not None)

    def _draw_next(self) -> None:
        if not self._waiting or self._shown is None:
            self._timer.stop()
            return
        shot, index, words = self._waiting.pop(0)
        run, row = self._shown
        shot.show_picture(thumbnail(run, row, index), index, caption_of(run, index, words))


class _Shot(QToolButton):
    """A thumbnail with its caption."""

    asked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.index = 0
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
        self.setAutoRaise(True)
        self.clicked.connect(lambda: self.asked.emit(self.index))

    def show_picture(self, picture: NDArray[np.uint8], index: int, caption: str) -> None:
        self.index = index
        pixmap = pixmap_of(picture).scaled(
            THUMBNAIL_WIDTH_PX,
            THUMBNAIL_WIDTH_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        self.setIcon(QIcon(pixmap))
        self.setIconSize(pixmap.size())
        self.setText(caption)
        describe(self, f"Slice {caption}" if caption else "Picture", "Show this slice.")
        self.show()


def _button(text: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    return button


def _text(value: str) -> str:
    return html.escape(value).replace("\n", "<br>")
