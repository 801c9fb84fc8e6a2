"""The findings panel: runs, table, report text and detail card of one window. It assembles and connects."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QPoint, QSize, Qt, QTimer
from qtpy.QtGui import QPalette, QResizeEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QDockWidget,
    QLabel,
    QLineEdit,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import qthrottled

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.view import FittedView, plain_viewer
from napari_unibiomed.findings.export import edited_report
from napari_unibiomed.findings.linked_text import report_lines
from napari_unibiomed.jobs import Run
from napari_unibiomed.messages.message import Message
from napari_unibiomed.session.shared_findings import findings_of
from napari_unibiomed.widgets.canvas_link import CanvasLink
from napari_unibiomed.widgets.detail_card import DetailCard
from napari_unibiomed.widgets.docking import OneEach, arrange, leave_frame
from napari_unibiomed.widgets.empty_states import state_text
from napari_unibiomed.widgets.findings_table import FindingsTable
from napari_unibiomed.widgets.lifetime import FrameWatch
from napari_unibiomed.widgets.report_view import ReportView
from napari_unibiomed.widgets.row_actions import RowActions, entries, menu_of
from napari_unibiomed.widgets.section import Chooser, describe, row, wrapped_label
from napari_unibiomed.widgets.shared_session import shared_session
from unibiomed_core.types import NOTICE

if TYPE_CHECKING:
    import napari.viewer

TABLE_SHARE, TEXT_SHARE, CARD_SHARE = 300, 300, 400
"""Of the height; text and card share the width where there is enough of it."""

SIDE_BY_SIDE_PX = 600
"""From this width on text and card stand side by side, so that each of them shows more lines."""

ABOUT_RUNS = "Which run is shown. Every run keeps its own findings and edits."

TEXT_PAUSE_MS = 50
"""The text of a run is written anew no more often than this."""


class FindingsPanel(QWidget, metaclass=OneEach):
    """The findings of the runs in one viewer.

    Args:
        viewer: napari passes its own, which it knows by this very annotation.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        viewer = plain_viewer(viewer)
        self._viewer = weakref.ref(viewer)
        self.session = shared_session(viewer)
        self.session.attach()
        self.model = findings_of(self.session)
        self.gateway = LayerGateway(viewer, self.session.settings)
        self.fitted = FittedView(viewer)
        self.link = CanvasLink(self.gateway, self.model, self.say)
        self.actions_of_row = RowActions(self.session, self.model, self.link, self, self.say)
        self._build()
        self._assemble()
        self._refresh_text = qthrottled(self.refresh_text, timeout=TEXT_PAUSE_MS)
        self._connect()
        self._watch = FrameWatch(self, self.cleanup, self._on_shown)
        self._on_runs()
        self._on_changed()

    def sizeHint(self) -> QSize:
        return QSize(320, 560)

    def _build(self) -> None:
        self.runs = Chooser()
        self.undo = QPushButton("Undo")
        self.table = FindingsTable(self.model)
        self.state = wrapped_label(name="State of the findings")
        self.state.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.state.setMargin(6)
        self.stack = QStackedWidget()
        self.stack.addWidget(self.state)
        self.stack.addWidget(self.table)
        self.text = ReportView()
        self.card = DetailCard()
        self.counts = QLabel()
        self.counts.setAccessibleName("Counts")
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter")
        self.filter.setClearButtonEnabled(True)
        describe(self.filter, "Filter", "Show the rows that hold all these words: name, side or flag.")
        self.hide_rejected = QCheckBox("Hide rejected")
        describe(self.hide_rejected, "Hide rejected", "Leave rejected rows out of the table.")
        self.message = wrapped_label(name="Message")
        self.message.hide()

    def _assemble(self) -> None:
        splitter = QSplitter(Qt.Orientation.Vertical)
        self.below = QSplitter(Qt.Orientation.Vertical)
        for widget, share in ((self.text, TEXT_SHARE), (self.card, CARD_SHARE)):
            self.below.addWidget(widget)
            self.below.setStretchFactor(self.below.indexOf(widget), share)
            widget.setMinimumHeight(72)
        self.stack.setMinimumHeight(72)
        splitter.addWidget(self.stack)
        splitter.addWidget(self.below)
        for parts in (splitter, self.below):
            parts.setChildrenCollapsible(False)
        splitter.setSizes([TABLE_SHARE, TEXT_SHARE + CARD_SHARE])
        self.below.setSizes([TEXT_SHARE, CARD_SHARE])
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 4, 4, 4)
        column.setSpacing(4)
        column.addLayout(row(self.runs, self.undo, stretch=0))
        column.addWidget(splitter, 1)
        column.addLayout(row(self.counts, self.hide_rejected, stretch=0))
        column.addWidget(self.filter)
        column.addWidget(self.message)
        column.addWidget(wrapped_label(NOTICE, "Research use only"))
        self.setMinimumWidth(260)

    def _connect(self) -> None:
        self._signals: list[tuple[Any, Callable[..., Any]]] = [
            (self.session.runs_changed, self._on_runs),
            (self.session.finished, self._on_finished),
            (self.model.changed, self._on_changed),
            (self.model.row_changed, self._on_row),
            (self.model.selected, self._on_selected),
        ]
        for signal, slot in self._signals:
            signal.connect(slot)
        # Only own methods below: Qt would hold anything else that leads back here, and with it this widget, for ever.
        self._disconnect_view = self.gateway.on_view_changed(self._on_view)
        self.runs.currentIndexChanged.connect(self._on_run_chosen)
        self.undo.clicked.connect(self._on_undo)
        self.table.number_selected.connect(self.model.select)
        self.table.jump_requested.connect(self._on_jump)
        self.table.reject_requested.connect(self.reject_or_restore)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._on_menu)
        self.text.finding_clicked.connect(self._on_link)
        self.text.finding_hovered.connect(self._on_hovered)
        self.card.step_requested.connect(self._on_step)
        self.card.slice_requested.connect(self._on_slice_asked)
        self.filter.textChanged.connect(self._on_filter)
        self.hide_rejected.toggled.connect(self._on_hide_rejected)
        self.state.linkActivated.connect(self._on_clear_filter)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Text and card side by side or one below the other, as the width allows."""
        super().resizeEvent(event)
        way = Qt.Orientation.Horizontal if self.width() >= SIDE_BY_SIDE_PX else Qt.Orientation.Vertical
        if way != self.below.orientation():
            self.below.setOrientation(way)
            self.below.setSizes([TEXT_SHARE, CARD_SHARE])

    def changeEvent(self, event: QEvent | None) -> None:
        """Another theme: links are coloured to be read on its background."""
        super().changeEvent(event)
        if event is not None and event.type() is QEvent.Type.StyleChange and hasattr(self, "_refresh_text"):
            self._show_counts()
            self._refresh_text()

    def leave_frame(self) -> None:
        """Leave the dock frame for another one that napari is about to make; nothing else changes."""
        viewer = self._viewer()
        self._watch.release()
        if viewer is not None:
            leave_frame(viewer, self)

    def cleanup(self) -> None:
        """Disconnect from everything that lives longer; called once, when the dock frame ends."""
        for signal, slot in self._signals:
            signal.disconnect(slot, missing_ok=True)
        self._refresh_text.cancel()
        self._disconnect_view()
        self.fitted.close()
        self.link.cleanup()
        self.session.detach()

    def say(self, *said: Message) -> None:
        """Show messages until the next action."""
        self.message.setText("\n".join(message.text for message in said))
        self.message.setVisible(bool(said))

    def reject_or_restore(self, number: int) -> None:
        """Delete rejects a row, and restores one that is rejected."""
        found = self.model.row(number)
        if found is not None:
            (self.model.restore if found.rejected else self.model.reject)(number)

    def refresh_text(self) -> None:
        """Write the text of the shown run anew."""
        run = self.model.run
        if run is None:
            self.text.clear()
            return
        # While the last word of a run is on its way its report is there and its rows are not.
        report = edited_report(run, self.model.rows) if run.report is not None and self.model.finished else None
        self.text.show_lines(report_lines(run, report, self.model.rows), {r.number: r.colour for r in self.model.rows})

    # The model changed

    def _on_shown(self, frame: QDockWidget) -> None:
        QTimer.singleShot(0, self._place)  # napari is not done with the frame yet

    def _place(self) -> None:
        viewer = self._viewer()
        if viewer is not None:
            arrange(viewer, self, widen=True)

    def _on_runs(self) -> None:
        shown = self.model.run
        rows = [(run.entry, run.number) for run in self.session.runs]
        self.runs.fill(list(rows), None if shown is None else shown.number)
        describe(self.runs, "Run", f"{'' if shown is None else f'{shown.entry}. '}{ABOUT_RUNS}")
        self.runs.setEnabled(len(rows) > 1)

    def _on_changed(self) -> None:
        self._on_runs()
        self.table.reload()
        self.filter.setText(self.model.filter_text)
        self.hide_rejected.setChecked(self.model.hide_rejected)
        self._show_counts()
        self._on_selected(self.model.selection)
        self._refresh_text()

    def _on_row(self, number: int) -> None:
        self.table.reload_row(number)
        self._show_counts()
        if number == self.model.selection:
            self._on_selected(number)
        self._refresh_text()

    def _on_selected(self, number: int | None) -> None:
        self.table.show_selected(number)
        self.card.show_row(self.model.run, None if number is None else self.model.row(number))
        self._on_view()

    def _show_counts(self) -> None:
        self.counts.setText(self.model.counts_text if self.model.run is not None else "")
        words = self.model.undo_words
        self.undo.setEnabled(bool(words))
        describe(self.undo, "Undo edit", f"Take back: {words.lower()}." if words else "There is no edit to take back.")
        state = state_text(self.model, self.palette().color(QPalette.ColorRole.WindowText).name())
        self.state.setText(state)
        self.stack.setCurrentWidget(self.state if state else self.table)

    # The user did something

    def _on_run_chosen(self, _: int) -> None:
        number = self.runs.currentData()
        self.model.set_run(next((run for run in self.session.runs if run.number == number), None))

    def _on_finished(self, run: Run) -> None:
        self.actions_of_row.finish(run)

    def _on_view(self) -> None:
        self.table.show_sliders(self.link.sliders())
        if self.model.selection is not None:
            self.card.show_place(self.link.current_index(), self.link.current_slider())

    def _on_link(self, number: int) -> None:
        self.model.select(number)
        self.actions_of_row.jump(number)

    def _on_undo(self) -> None:
        self.model.undo()

    def _on_jump(self, number: int) -> None:
        self.actions_of_row.jump(number)

    def _on_hovered(self, number: int | None) -> None:
        self.link.highlight(number)

    def _on_step(self, direction: int) -> None:
        self.link.step(direction)

    def _on_clear_filter(self) -> None:
        self.model.clear_filter()

    def _on_slice_asked(self, index: int) -> None:
        selected = None if self.model.selection is None else self.model.row(self.model.selection)
        if selected is not None:
            self.link.show_slice(selected, index)

    def _on_filter(self, text: str) -> None:
        self.model.filter_text = text

    def _on_hide_rejected(self, hide: bool) -> None:
        self.model.hide_rejected = hide

    def _on_menu(self, where: QPoint) -> None:
        index = self.table.indexAt(where)
        found = self.model.row(self.table.number_at(index)) if index.isValid() else None
        if found is None:
            return
        menu = menu_of(entries(found, self.model, self.actions_of_row, lambda: self.table.rename(index)), self.table)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.table.mapToGlobal(where))
