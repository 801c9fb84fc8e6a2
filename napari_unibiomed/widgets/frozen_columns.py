"""The first columns of a table stay where they are while the others scroll sideways."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QTableView


class FrozenColumns(QTableView):
    """A second view of the first columns, laid over a table while it is scrolled; at its left end nothing is laid over.

    Args:
        table: Has its models set. It owns this widget.
        count: Number of columns that stay.
    """

    def __init__(self, table: QTableView, count: int) -> None:
        super().__init__(table)
        self._table, self._count = table, count
        self.setModel(table.model())
        self.setSelectionModel(table.selectionModel())
        self.setSelectionBehavior(table.selectionBehavior())
        self.setSelectionMode(table.selectionMode())
        self.setEditTriggers(QTableView.EditTrigger.NoEditTriggers)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFrameShape(QTableView.Shape.NoFrame)
        self.setWordWrap(table.wordWrap())
        self.setShowGrid(table.showGrid())
        self.setIconSize(table.iconSize())
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName("Names of the findings")
        for view in (self, table):
            view.setVerticalScrollMode(QTableView.ScrollMode.ScrollPerPixel)
        header, theirs = self.horizontalHeader(), table.horizontalHeader()
        side, bar, across = self.verticalHeader(), table.verticalScrollBar(), table.horizontalScrollBar()
        own_bar = self.verticalScrollBar()
        assert header is not None
        assert theirs is not None
        assert side is not None
        assert bar is not None
        assert own_bar is not None
        assert across is not None
        side.hide()
        header.setHighlightSections(False)
        header.setSectionsClickable(True)
        header.sectionClicked.connect(self._sort)
        bar.valueChanged.connect(own_bar.setValue)
        own_bar.valueChanged.connect(bar.setValue)
        across.valueChanged.connect(self._follow)
        across.rangeChanged.connect(self._follow)
        theirs.sectionResized.connect(self._follow)
        table.installEventFilter(self)
        self.hide()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the size of the table."""
        if event is not None and event.type() in (QEvent.Type.Resize, QEvent.Type.Show):
            self._follow()
        return False

    def _follow(self, *_: int) -> None:
        """Lie over the columns that stay, or go away while they are in view."""
        table = self._table
        across, header, viewport = table.horizontalScrollBar(), table.horizontalHeader(), table.viewport()
        model = table.model()
        if across is None or header is None or viewport is None or model is None:
            return
        if not across.value():
            self.hide()
            return
        width = 0
        for number in range(model.columnCount()):
            stays = number < self._count and not table.isColumnHidden(number)
            self.setColumnHidden(number, not stays)
            if stays:
                self.setColumnWidth(number, table.columnWidth(number))
                width += table.columnWidth(number)
        frame = table.frameWidth()
        own = self.horizontalHeader()
        assert own is not None
        own.setFixedHeight(header.height())
        self.setGeometry(frame, frame, width, header.height() + viewport.height())
        self.show()
        self.raise_()

    def _sort(self, column: int) -> None:
        header = self._table.horizontalHeader()
        if header is None:
            return
        down = header.sortIndicatorSection() == column and header.sortIndicatorOrder() == Qt.SortOrder.AscendingOrder
        self._table.sortByColumn(column, Qt.SortOrder.DescendingOrder if down else Qt.SortOrder.AscendingOrder)
