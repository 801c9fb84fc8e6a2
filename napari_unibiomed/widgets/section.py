"""A titled part of the dock that folds to one summary line, and the small parts that sections are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QImage, QPalette, QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel


class Section(QFrame):
    """A header with a title; unfolded the body is below it, folded a summary stands beside it.

    A section that does not fold shows its summary always.

    Args:
        title: Number and name, as "1 Model".
        foldable: Whether the header folds it; else it stays open.
    """

    folded_changed = Signal(bool)

    def __init__(self, title: str, *, foldable: bool = True) -> None:
        super().__init__()
        self._foldable = foldable
        self._words = ""
        self._title = title
        self.header = QToolButton()
        self.header.setAutoRaise(True)
        self.header.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.header.setAccessibleName(title)
        if foldable:
            self.header.setToolTip("Fold or unfold.")
            self.header.clicked.connect(lambda: self.set_folded(not self.folded))
        else:
            self.header.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            self.header.setText(title)
        font = self.header.font()
        font.setBold(True)
        self.header.setFont(font)
        self.summary = QElidingLabel()
        self.summary.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.summary.setAccessibleName(f"{title}, summary")
        self.body = QWidget()
        self.column = QVBoxLayout(self.body)
        self.column.setContentsMargins(4, 0, 0, 2)
        self.column.setSpacing(3)
        self.top = top = QHBoxLayout()
        top.setSpacing(4)
        top.setContentsMargins(0, 0, 4, 0)
        top.addWidget(self.header)
        top.addWidget(self.summary, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addLayout(top)
        outer.addWidget(self.body)
        self.set_folded(False)

    @property
    def folded(self) -> bool:
        return self.body.isHidden()

    def set_folded(self, folded: bool) -> None:
        """Show the summary line only, or the controls."""
        folded = folded and self._foldable
        self.body.setVisible(not folded)
        if self._foldable:
            self.header.setText(f"{'▸' if folded else '▾'} {self._title}")
            self.summary.setText(self._words if folded else "")
        self.folded_changed.emit(folded)

    def set_summary(self, words: str) -> None:
        """The line that stands for the section while it is folded."""
        self._words = words
        self.summary.setText("" if self._foldable and not self.folded else words)
        self.summary.setToolTip(words)


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Widgets side by side.

    Args:
        stretch: Number of the one that takes the room that is left; None shares it.
    """
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for number, widget in enumerate(widgets):
        layout.addWidget(widget, int(stretch is None or number == stretch))
    return layout


def describe(widget: QWidget, name: str, tooltip: str) -> None:
    """Accessible name and tooltip of a control."""
    widget.setAccessibleName(name)
    widget.setToolTip(tooltip)


def wrapped_label(text: str = "", name: str = "") -> QLabel:
    """Words that may take several lines.

    Args:
        name: For screen readers, in place of the words.
    """
    label = QLabel(text)
    label.setWordWrap(True)
    label.setAccessibleName(name)
    return label


def to_clipboard(text: str) -> None:
    """Put words where they can be pasted from."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)


def pixmap_of(picture: NDArray[np.uint8]) -> QPixmap:
    """A picture (h, w, 3) for Qt."""
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture)
    return QPixmap.fromImage(QImage(data.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))


class ScrollColumn(QScrollArea):
    """Scrolls a column up and down, and is never narrower than the column with the scroll bar beside it."""

    def __init__(self, column: QWidget) -> None:
        super().__init__()
        self.setWidget(column)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        column, bar = self.widget(), self.verticalScrollBar()
        assert column is not None
        assert bar is not None
        return QSize(column.minimumSizeHint().width() + bar.sizeHint().width(), super().minimumSizeHint().height())

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """The column has other rows now."""
        if event is not None and event.type() is QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)


class LinkLabel(QLabel):
    """Rich text whose links have the colour of the text; napari's themes have none that can be read in both.

    ``{colour}`` in the text stands for it, and follows the theme.
    """

    def __init__(self) -> None:
        super().__init__()
        self._template = ""
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.RichText)
        flags = Qt.TextInteractionFlag
        self.setTextInteractionFlags(
            flags.TextSelectableByMouse | flags.LinksAccessibleByMouse | flags.LinksAccessibleByKeyboard
        )

    def set_template(self, template: str) -> None:
        """Show rich text; braces that are not ``{colour}`` stay as they are."""
        self._template = template
        colour = self.palette().color(QPalette.ColorRole.WindowText).name()
        text = template.replace("{colour}", colour)
        if text != self.text():
            self.setText(text)

    def changeEvent(self, event: QEvent | None) -> None:
        """Follow the theme."""
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.set_template(self._template)


class Chooser(QComboBox):
    """A list to choose from that never widens the dock: a long entry is whole in the list and in the tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def fill(self, entries: list[tuple[str, object]], keep: object = None) -> None:
        """Replace the entries without a signal; the choice stays on ``keep`` where it is still there."""
        self.blockSignals(True)
        self.clear()
        for words, value in entries:
            self.addItem(words, value)
        values = [value for _, value in entries]
        found = next((n for n, value in enumerate(values) if value is keep or value == keep), 0)
        self.setCurrentIndex(found if entries else -1)
        self.blockSignals(False)

    def choose(self, value: object) -> bool:
        """Choose the entry of a value; False where there is none."""
        for number in range(self.count()):
            if self.itemData(number) == value:
                self.setCurrentIndex(number)
                return True
        return False
