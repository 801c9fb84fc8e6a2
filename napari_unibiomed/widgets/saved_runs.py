"""The list of the runs of the chosen image that are kept on the disk: bring one back, delete one or all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHeaderView,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unibiomed.autosave.autosave import Saved
from napari_unibiomed.jobs import moment_text
from napari_unibiomed.messages.catalogue import size_text
from napari_unibiomed.widgets.section import describe, row, wrapped_label

if TYPE_CHECKING:
    from napari_unibiomed.session.session import Session

HEADINGS = ("Saved", "Run", "Slices", "Size")
ABOUT = "Runs on this image that are kept on this computer until you delete them. Those that are open are not listed."


class SavedRuns(QDialog):
    """Stays open beside the window and follows the session."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self.session = session
        self.listed: list[Saved] = []
        self.setWindowTitle("Saved runs")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.about = wrapped_label(ABOUT)
        self.table = QTableWidget(0, len(HEADINGS))
        self.table.setHorizontalHeaderLabels(HEADINGS)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        side, header = self.table.verticalHeader(), self.table.horizontalHeader()
        assert side is not None
        assert header is not None
        side.hide()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.restore, self.delete = QPushButton("Restore"), QPushButton("Delete…")
        self.delete_all, self.leave = QPushButton("Delete all…"), QPushButton("Close")
        describe(self.table, "Saved runs", "The newest is on top.")
        describe(self.restore, "Restore", "Bring the selected run back, with your edits; no model is needed.")
        describe(self.delete, "Delete", "Delete the selected run from the disk, after a question.")
        describe(self.delete_all, "Delete all", "Delete all runs of this list from the disk, after a question.")
        column = QVBoxLayout(self)
        column.addWidget(self.about)
        column.addWidget(self.table)
        column.addLayout(row(self.restore, self.delete, self.delete_all, self.leave))
        self.table.itemSelectionChanged.connect(self._show_buttons)
        self.restore.clicked.connect(self._restore)
        self.delete.clicked.connect(self._delete)
        self.delete_all.clicked.connect(self._delete_all)
        self.leave.clicked.connect(self.close)
        session.saved_listed.connect(self.refresh)
        session.phase_changed.connect(self._show_buttons)
        self.destroyed.connect(self.forget)
        self.resize(520, 300)
        self.refresh()
        session.list_saved()

    def forget(self) -> None:
        """Listen no more."""
        self.session.saved_listed.disconnect(self.refresh, missing_ok=True)
        self.session.phase_changed.disconnect(self._show_buttons, missing_ok=True)

    def closeEvent(self, event: object) -> None:
        self.forget()
        super().closeEvent(event)  # type: ignore[arg-type]

    def refresh(self) -> None:
        """List what is kept now."""
        self.listed = list(self.session.saved_runs)
        self.table.setRowCount(len(self.listed))
        for place, saved in enumerate(self.listed):
            for column, words in enumerate(cells_of(saved)):
                self.table.setItem(place, column, QTableWidgetItem(words))
        if self.listed:
            self.table.selectRow(0)
        self._show_buttons()

    @property
    def chosen(self) -> Saved | None:
        """The run of the selected row."""
        rows = {item.row() for item in self.table.selectedItems()}
        return self.listed[rows.pop()] if rows else None

    def _show_buttons(self, *_: object) -> None:
        idle = not self.session.phase.busy
        for button in (self.restore, self.delete):
            button.setEnabled(idle and self.chosen is not None)
        self.delete_all.setEnabled(idle and bool(self.listed))

    def _restore(self) -> None:
        if self.chosen is not None and self.session.restore_saved(self.chosen):
            self.close()

    def _delete(self) -> None:
        chosen = self.chosen
        if chosen is not None and self._sure(
            f"Delete “{chosen.name}” of {moment_text(chosen.began)}, {size_text(chosen.size)}?"
        ):
            self.session.delete_saved((chosen,))

    def _delete_all(self) -> None:
        listed = tuple(self.listed)
        total = size_text(sum(saved.size for saved in listed))
        if listed and self._sure(f"Delete all {len(listed)} saved runs of this image, {total}?"):
            self.session.delete_saved(listed)

    def _sure(self, question: str) -> bool:
        answer = QMessageBox.question(self, "Delete saved runs", f"{question}\nThis cannot be taken back.")
        return answer == QMessageBox.StandardButton.Yes


def cells_of(saved: Saved) -> tuple[str, str, str, str]:
    """What a row says: date, run, slices, size on the disk."""
    return moment_text(saved.began), saved.name, f"{saved.done} of {saved.total}", size_text(saved.size)
