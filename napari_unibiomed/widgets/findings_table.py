"""The table of findings: an item model over the rows, sorted by value and filtered, and its view."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QEvent,
    QModelIndex,
    QPersistentModelIndex,
    QSize,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QFont, QKeyEvent, QPalette, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QTableView,
    QWidget,
)

from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.rows import (
    COLUMNS,
    DASH,
    TEXT_COLUMNS,
    Column,
    FindingRow,
    cell_text,
    cell_value,
    column_title,
    common_units,
    depths,
    short_text,
)
from napari_unibiomed.widgets.contrast import readable
from napari_unibiomed.widgets.frozen_columns import FrozenColumns

Role = Qt.ItemDataRole
NAME_WIDTH_PX, FLAGS_WIDTH_PX = 96, 48
"""Name and flags have at least this much, and more where there is room; all of it is in the tooltip."""

GREY = "#808080"
"""Of rejected and hidden rows, before it is made readable on the table's background."""

CHIP_PX = 12

INDENT = "\u2003"
"""Before the name of a part, once for each whole that it lies within, while rows are in the order of the report."""

PADDING_PX = 6
"""Room beside the widest text of a column."""

TITLE_PADDING_PX, ARROW_PX = 10, 14
"""Room beside a title for its margins, and beside that of the sorted column for the arrow."""

ROW_PADDING_PX = 8
"""Room above and below the text of a row."""

Index = QModelIndex | QPersistentModelIndex

TOOLTIPS = {
    Column.NUMBER: "Number of the label. Untick it to take the finding off the canvas.",
    Column.FINDING: "What the model named. F2 renames it.",
    Column.KIND: (
        "The section of the report: abnormal, or a structure that was measured. Unsure: outlined as abnormal, but the "
        "checks do not agree. Sort by this column for the order of the report."
    ),
    Column.SLICES: "Slices that contain it, as the viewer's slider counts them.",
    Column.SIDE: "Side of the patient, from the geometry of the file.",
    Column.SIZE: "Volume; for pictures the area.",
    Column.DIAMETERS: "Longest axial diameter, and the extent at right angles to it, in millimetres.",
    Column.INTENSITY: "Mean and standard deviation of the voxels inside.",
    Column.SCORE: "The model's own score, 0 to 1. It is not a calibrated probability.",
    Column.FLAGS: "What to be careful about, and what you did.",
}


class FindingsTableModel(QAbstractTableModel):
    """The rows of a :class:`FindingsModel` for Qt, in their order; it holds nothing of its own but how they are shown.

    Attributes:
        nested: Whether parts are shown indented below their wholes.
    """

    def __init__(self, model: FindingsModel) -> None:
        super().__init__()
        self.model = model
        self.rows: list[FindingRow] = list(model.rows)
        self.depths = depths(self.rows)
        self.nested = True
        self.units = common_units(self.rows)
        self.grey = QColor(GREY)
        self.sliders: dict[int, str] = {}

    def reload(self) -> None:
        """Take all rows anew."""
        self.beginResetModel()
        self.rows = list(self.model.rows)
        self.depths = depths(self.rows)
        self.units = common_units(self.rows)
        self.endResetModel()

    def is_rearranged(self) -> bool:
        """Whether rows stand in another order now, or within other wholes, as after a name was changed."""
        rows = self.model.rows
        return [row.number for row in rows] != [row.number for row in self.rows] or depths(rows) != self.depths

    def show_nested(self, nested: bool) -> None:
        """Indent parts below their wholes, or not."""
        if nested != self.nested:
            self.nested = nested
            place = COLUMNS.index(Column.FINDING)
            self.dataChanged.emit(self.index(0, place), self.index(len(self.rows) - 1, place))

    def reload_row(self, number: int) -> None:
        """Take one row anew."""
        row = self.model.row(number)
        for place, old in enumerate(self.rows):
            if row is not None and old.number == number:
                self.rows[place] = row
                self.dataChanged.emit(self.index(place, 0), self.index(place, len(COLUMNS) - 1))
        if (units := common_units(self.rows)) != self.units:  # one row was drawn away, or has another size
            self.units = units
            self.headerDataChanged.emit(Qt.Orientation.Horizontal, 0, len(COLUMNS) - 1)

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Role.DisplayRole) -> Any:
        if orientation is not Qt.Orientation.Horizontal:
            return None
        column = COLUMNS[section]
        if role == Role.DisplayRole:
            return column_title(column, self.units.get(column, ""))
        return TOOLTIPS[column] if role == Role.ToolTipRole else None

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        flags = super().flags(index)
        if not index.isValid():
            return flags
        column, row = COLUMNS[index.column()], self.rows[index.row()]
        if column is Column.NUMBER and row.has_mask:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        if column is Column.FINDING and self.model.finished:
            flags |= Qt.ItemFlag.ItemIsEditable
        return flags

    def data(self, index: Index, role: int = Role.DisplayRole) -> Any:
        if not index.isValid():
            return None
        row, column = self.rows[index.row()], COLUMNS[index.column()]
        if role == Role.DisplayRole and column is Column.SLICES and (sliders := self.sliders.get(row.number)):
            return f"{cell_text(row, column)} (slider {sliders})"
        if role == Role.DisplayRole and column is Column.FINDING and self.nested:
            return INDENT * self.depths.get(row.number, 0) + row.phrase
        if role in (Role.DisplayRole, Role.EditRole):
            return short_text(row, column, self.units.get(column, ""))
        if role == Role.UserRole:
            return float(index.row()) if column is Column.KIND else cell_value(row, column)
        if role == Role.ToolTipRole:
            return self._tooltip(row, column)
        if role == Role.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if column in TEXT_COLUMNS else Qt.AlignmentFlag.AlignRight
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == Role.FontRole:
            font = QFont()
            font.setStrikeOut(row.rejected)
            font.setBold(row.kind == "abnormal" and column is Column.FINDING)
            return font
        return self._colour(row, column, role)

    def setData(self, index: Index, value: Any, role: int = Role.EditRole) -> bool:
        row, column = self.rows[index.row()], COLUMNS[index.column()]
        if role == Role.CheckStateRole and column is Column.NUMBER:
            self.model.hide(row.number, Qt.CheckState(value) is Qt.CheckState.Unchecked)
            return True
        if role == Role.EditRole and column is Column.FINDING:
            self.model.rename(row.number, str(value))
            return True
        return False

    def _colour(self, row: FindingRow, column: Column, role: int) -> Any:
        if column is Column.NUMBER and role == Role.DecorationRole:
            return QColor(row.colour)
        if column is Column.NUMBER and role == Role.CheckStateRole and row.has_mask:
            return Qt.CheckState.Unchecked if row.hidden else Qt.CheckState.Checked
        return self.grey if role == Role.ForegroundRole and (row.rejected or row.hidden) else None

    def _tooltip(self, row: FindingRow, column: Column) -> str:
        if column is Column.FINDING:
            words = row.finding.phrase if row.finding is not None else row.phrase
            whole = row.finding.within if row.finding is not None and row.number in self.depths else None
            more = [f"The model's words: {words}"] if words != row.phrase else []
            more += [f"Part of No. {whole}"] if whole is not None else []
            return "\n".join([row.phrase, *more])
        if column in (Column.NUMBER, Column.KIND):
            return TOOLTIPS[column]
        return cell_text(row, column)


def _silent_columns(rows: list[FindingRow]) -> set[Column]:
    """Columns in which no row says anything; a volume keeps the side, whose dash means midline or unknown."""
    if not rows:
        return set()
    silent = {column for column in COLUMNS if all(cell_text(row, column) in ("", DASH) for row in rows)}
    silent.discard(Column.FINDING)  # an answer without words has a row too
    return silent if Column.SLICES in silent else silent - {Column.SIDE}


class FindingsProxy(QSortFilterProxyModel):
    """Sorted by value, unknown values last in both directions; filtered as the findings model says."""

    def filterAcceptsRow(self, source_row: int, source_parent: Index) -> bool:
        source = self.sourceModel()
        return not isinstance(source, FindingsTableModel) or source.model.passes(source.rows[source_row])

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:
        values = [index.data(Role.UserRole) for index in (left, right)]
        if None in values:
            ascending = self.sortOrder() is Qt.SortOrder.AscendingOrder
            return (values[1] is None) == ascending and values[0] is not values[1]
        return bool(values[0] < values[1])


class FindingsTable(QTableView):
    """The view. It says what was asked for and changes nothing itself, but for ticks and names."""

    jump_requested = Signal(int)
    reject_requested = Signal(int)
    number_selected = Signal(object)

    _telling = True  # Qt selects before the constructor is done

    def __init__(self, model: FindingsModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.table = FindingsTableModel(model)
        self.proxy = FindingsProxy()
        self.proxy.setSourceModel(self.table)
        self.setModel(self.proxy)
        self.setAccessibleName("Findings")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setSortingEnabled(True)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setIconSize(QSize(CHIP_PX, CHIP_PX))
        self.setTabKeyNavigation(False)
        side, header = self.verticalHeader(), self.horizontalHeader()
        assert side is not None
        assert header is not None
        side.hide()
        side.setMinimumSectionSize(0)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        header.setHighlightSections(False)
        header.setMinimumSectionSize(24)
        header.sortIndicatorChanged.connect(self._on_sorted)
        self.sortByColumn(COLUMNS.index(Column.KIND), Qt.SortOrder.AscendingOrder)
        self.doubleClicked.connect(self._on_double_click)
        self.frozen = FrozenColumns(self, COLUMNS.index(Column.FINDING) + 1)
        self.frozen.doubleClicked.connect(self._on_double_click)

    def rename(self, index: QModelIndex) -> None:
        """Edit the name of the row of an index; it is scrolled into view, where its columns lie over no others."""
        bar = self.horizontalScrollBar()
        assert bar is not None
        bar.setValue(0)
        self.edit(index.siblingAtColumn(COLUMNS.index(Column.FINDING)))

    def number_at(self, index: QModelIndex) -> int:
        """The number of the finding at a place of the view."""
        return self.table.rows[self.proxy.mapToSource(index).row()].number

    def reload(self) -> None:
        """Show all rows anew, keeping the order that was chosen."""
        self._telling = False
        self.table.reload()
        self._telling = True
        self.fit_columns()

    def reload_row(self, number: int) -> None:
        """Show one row anew, and all where it stands elsewhere now; the selection stays."""
        if self.table.is_rearranged():
            self.reload()
            self.show_selected(self.table.model.selection)
        else:
            self.table.reload_row(number)
            self.refilter()

    def changeEvent(self, event: QEvent | None) -> None:
        """Another theme: grey is taken anew from its background."""
        super().changeEvent(event)
        if event is not None and event.type() is QEvent.Type.StyleChange and self.model() is not None:
            background = self.palette().color(QPalette.ColorRole.Base).name()
            self.table.grey = QColor(readable(GREY, background))

    def show_sliders(self, told: dict[int, str]) -> None:
        """Tell the slider's numbers beside the slices of rows; none while they are the slices' own."""
        if told != self.table.sliders:
            self.table.sliders = told
            place = COLUMNS.index(Column.SLICES)
            last = self.table.rowCount() - 1
            self.table.dataChanged.emit(self.table.index(0, place), self.table.index(last, place))
            self.fit_columns()

    def refilter(self) -> None:
        self.proxy.invalidate()

    def show_selected(self, number: int | None) -> None:
        """Select the row of a number, without saying so again."""
        self._telling = False
        place = next((p for p, row in enumerate(self.table.rows) if row.number == number), None)
        index = QModelIndex() if place is None else self.proxy.mapFromSource(self.table.index(place, 1))
        if index.isValid():
            if index.row() not in {chosen.row() for chosen in self.selectedIndexes()}:
                self.setCurrentIndex(index)
            self.scrollTo(index)
        else:
            self.clearSelection()
        self._telling = True

    def fit_columns(self) -> None:
        """Make every column as wide as what it says; name and flags share what is left, the name first.

        What has no room at their least width is scrolled to. A column that has nothing to say is left out.
        """
        header, side, viewport = self.horizontalHeader(), self.verticalHeader(), self.viewport()
        assert header is not None
        assert side is not None
        assert viewport is not None
        metrics, silent = header.fontMetrics(), _silent_columns(self.table.rows)
        side.setDefaultSectionSize(metrics.height() + ROW_PADDING_PX)
        wanted = {}
        for number, column in enumerate(COLUMNS):
            self.setColumnHidden(number, column in silent)
            if column not in silent:
                words = column_title(column, self.table.units.get(column, ""))
                title = metrics.horizontalAdvance(words) + TITLE_PADDING_PX
                title += ARROW_PX * (header.sortIndicatorSection() == number)
                wanted[column] = max(self.sizeHintForColumn(number) + PADDING_PX, title)
        least = {Column.FINDING: NAME_WIDTH_PX, Column.FLAGS: FLAGS_WIDTH_PX}
        left = viewport.width() - sum(width for column, width in wanted.items() if column not in least)
        name, flags = wanted[Column.FINDING], wanted.get(Column.FLAGS, 0)
        wanted[Column.FINDING] = max(NAME_WIDTH_PX, min(name, left - min(flags, FLAGS_WIDTH_PX)), left - flags)
        if flags:
            wanted[Column.FLAGS] = max(FLAGS_WIDTH_PX, left - wanted[Column.FINDING])
        for number, column in enumerate(COLUMNS):
            if column in wanted:
                self.setColumnWidth(number, wanted[column])

    def selectionChanged(self, selected: Any, deselected: Any) -> None:
        super().selectionChanged(selected, deselected)
        if self._telling:
            chosen = self.selectedIndexes()
            self.number_selected.emit(self.number_at(chosen[0]) if chosen else None)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        index = self.currentIndex()
        if event is not None and index.isValid() and self.state() != QAbstractItemView.State.EditingState:
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.jump_requested.emit(self.number_at(index))
                return
            if event.key() == Qt.Key.Key_Delete:
                self.reject_requested.emit(self.number_at(index))
                return
            if event.key() == Qt.Key.Key_F2:
                self.rename(index)  # whatever cell of the row has the focus
                return
        super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self.fit_columns()

    def _on_sorted(self, column: int, order: Qt.SortOrder) -> None:
        in_order = column == COLUMNS.index(Column.KIND) and order is Qt.SortOrder.AscendingOrder
        self.table.show_nested(in_order)

    def _on_double_click(self, index: QModelIndex) -> None:
        self.jump_requested.emit(self.number_at(index))
