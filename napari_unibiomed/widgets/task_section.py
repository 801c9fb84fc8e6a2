"""Section 3: what is asked, of which slices."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_unibiomed.jobs import JobKind
from napari_unibiomed.runs.requests import STARTERS, WITH_FINDINGS, Slices, Span, TaskOptions, phrases_in, suggestions
from napari_unibiomed.session.phases import Controls, Phase, enabled
from napari_unibiomed.shortcuts import with_keys
from napari_unibiomed.widgets.advanced_options import AdvancedOptions
from napari_unibiomed.widgets.phrase_completer import PhraseCompleter
from napari_unibiomed.widgets.section import Chooser, Section, describe, row
from unibiomed_core.engine.volume.request import RunRequest

TASKS: dict[JobKind, tuple[str, str]] = {
    "report": ("Report", "Look for everything the model knows, slice by slice, and write a report."),
    "segment": ("Segment", "Mark what you name, on every slice."),
    "ask": ("Ask", "Answer a question in words."),
    "roi": ("ROI", "Name and describe what lies in a box."),
}
SPANS: dict[Span, str] = {"all": "all slices", "current": "the shown slice", "range": "slices"}
HISTORY = 20


class TaskSection(Section):
    """Holds the wishes; every change is told by ``changed``."""

    changed = Signal()
    run_requested = Signal()
    draw_requested = Signal()
    from_view_requested = Signal()

    def __init__(self) -> None:
        super().__init__("3 Task", foldable=False)
        self._targets: tuple[str, ...] = ()
        self._histories: dict[JobKind, list[str]] = {"segment": [], "ask": []}
        self._texts: dict[JobKind, str] = {}
        self._task: JobKind = "report"
        self._picture = False
        self.buttons: dict[JobKind, QPushButton] = {}
        self._group = QButtonGroup(self)
        for task, (label, tooltip) in TASKS.items():
            button = QPushButton(label)
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            describe(button, f"Task: {label}", tooltip)
            button.clicked.connect(lambda _=False, task=task: self.choose(task))
            self._group.addButton(button)
            self.buttons[task] = button
        self.prompt = QComboBox()
        self.prompt.setEditable(True)
        self.prompt.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.prompt.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.prompt.setMinimumContentsLength(10)
        self.prompt.installEventFilter(self)
        self.completer = PhraseCompleter()
        self.draw = QPushButton("Draw box")
        describe(self.draw, "Draw a box", with_keys("Drag a box around the region; Esc leaves.", "draw_box"))
        self.live = QCheckBox("live")
        describe(self.live, "Ask again when the box moves", "Ask again half a second after the box was moved.")
        self.span = Chooser()
        self.span.fill([(words, span) for span, words in SPANS.items()])
        self.first, self.last, self.every = QSpinBox(), QSpinBox(), QSpinBox()
        self.from_view = QPushButton("from view")
        describe(self.span, "Slices", "Which slices are asked about; empty ones are skipped.")
        describe(self.first, "First slice", "Counted from 0, as reports and the slider do.")
        describe(self.last, "Last slice", "Counted from 0, as reports and the slider do; it is taken too.")
        describe(self.from_view, "Range from view", "The shown slice and five on either side.")
        describe(self.every, "Step between slices", "1 takes every slice; with more, slices between are filled in.")
        self.describe_box = QCheckBox("describe key slices in the model's words")
        self.describe_box.setChecked(True)
        describe(self.describe_box, "Describe key slices", "Adds the model's own sentences; takes some seconds more.")
        self.every.setMinimum(1)
        self.every.setMaximum(99)
        self.every.setPrefix("every ")
        self.range_row = _holder(row(self.first, QLabel("to"), self.last, self.from_view))
        self.slices_row = _holder(row(self.span, self.every))
        self.box_row = _holder(row(self.draw, self.live, stretch=0))
        self.advanced = AdvancedOptions()
        self.top.addWidget(self.advanced.toggle)
        self.column.addLayout(row(*self.buttons.values()))
        rows = (self.prompt, self.box_row, self.slices_row, self.range_row, self.describe_box, self.advanced)
        for widget in rows:
            self.column.addWidget(widget)
        self.span.currentIndexChanged.connect(self._on_span)
        for box in (self.first, self.last, self.every):
            box.valueChanged.connect(self.changed)
        self.advanced.changed.connect(self.changed)
        self.prompt.editTextChanged.connect(self.changed)
        self.prompt.activated.connect(self._on_picked)
        typed = self.prompt.lineEdit()
        assert typed is not None
        typed.textEdited.connect(self._on_typed)
        self.draw.clicked.connect(self.draw_requested)
        self.from_view.clicked.connect(self.from_view_requested)
        self.choose("report")

    @property
    def task(self) -> JobKind:
        return self._task

    @property
    def wishes(self) -> TaskOptions:
        """What the controls say."""
        slices = Slices(self.span.currentData(), self.first.value(), self.last.value(), self.every.value())
        options = self.advanced.options if self._task in WITH_FINDINGS else RunRequest()
        return TaskOptions(
            self._task, self.prompt.currentText(), slices, self.describe_box.isChecked(), options=options
        )

    def choose(self, task: JobKind) -> None:
        """Switch to a task; each keeps its own text, and Ask begins with the shown slice."""
        self._texts[self._task] = self.prompt.currentText()
        before, self._task = self._task, task
        self.buttons[task].setChecked(True)
        self._fill_prompt()
        if task != before and task in ("report", "segment", "ask"):
            self.span.choose("current" if task == "ask" else "all")
        self._show_rows()
        self.changed.emit()

    def set_targets(self, targets: Sequence[str]) -> None:
        """The phrases to offer for the image."""
        self._targets = tuple(targets)
        self.completer.offer(suggestions(self._targets))
        self._fill_prompt()

    def set_slices(self, count: int, is_picture: bool) -> None:
        """The number of slices in the plane; a new number resets the range to all of them."""
        self._picture = is_picture
        if count - 1 != self.last.maximum():
            for box, value in ((self.first, 0), (self.last, count - 1)):
                box.setRange(0, count - 1)
                box.setValue(value)
        self._show_rows()

    def set_range(self, first: int, last: int) -> None:
        """Take a range of slice numbers."""
        self.first.setValue(first)
        self.last.setValue(last)

    def remember(self) -> None:
        """Put the text on top of the task's history."""
        text, history = self.prompt.currentText().strip(), self._histories.get(self._task)
        if text and history is not None:
            history[:] = [text, *(t for t in history if t != text)][:HISTORY]
            self._texts[self._task] = text
            self._fill_prompt()

    def show_phase(self, phase: Phase) -> None:
        """Enable what can be used."""
        for part in (self.body, self.advanced.toggle):
            part.setEnabled(enabled(phase, Controls.TASK))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ctrl+Enter in the prompt runs."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            with_control = event.modifiers() & Qt.KeyboardModifier.ControlModifier
            if with_control and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.run_requested.emit()
                return True
        return False

    def _fill_prompt(self) -> None:
        offered = self._targets if self._task == "segment" else STARTERS
        history = self._histories.get(self._task, [])
        self.prompt.blockSignals(True)
        self.prompt.clear()
        self.prompt.addItems(list(dict.fromkeys([*history, *offered])))
        self.prompt.setEditText(self._texts.get(self._task, ""))
        self.prompt.blockSignals(False)
        words = "Phrases, separated by commas" if self._task == "segment" else "Your question"
        line = self.prompt.lineEdit()
        assert line is not None
        line.setPlaceholderText(words)
        # On the line and not on the list, which would put the one picked phrase in place of all that was typed.
        line.setCompleter(self.completer if self._task == "segment" else None)
        line.setCursorPosition(0)
        how = "The list offers what is known for this kind of image; Ctrl+Enter runs."
        describe(self.prompt, words, f"{words}. {how}" if self._task == "segment" else f"{words}. Ctrl+Enter runs.")

    def _on_typed(self, text: str) -> None:
        self._texts[self._task] = text

    def _on_picked(self, number: int) -> None:
        """A picked target joins the phrases that are there; a picked question or list replaces the text."""
        picked, before = self.prompt.itemText(number), self._texts.get(self._task, "")
        if self._task == "segment" and picked in self._targets:
            self.prompt.setEditText(", ".join(dict.fromkeys((*phrases_in(before), picked))))
        self._texts[self._task] = self.prompt.currentText()

    def _on_span(self) -> None:
        self._show_rows()
        self.changed.emit()

    def _show_rows(self) -> None:
        slices = self._task != "roi" and not self._picture
        self.prompt.setVisible(self._task in ("segment", "ask"))
        self.box_row.setVisible(self._task == "roi")
        self.slices_row.setVisible(slices)
        self.range_row.setVisible(slices and self.span.currentData() == "range")
        self.every.setVisible(self.span.currentData() != "current")
        self.describe_box.setVisible(self._task == "report")
        all_slices = self.span.currentData() == "all"
        self.advanced.offer(self._task in WITH_FINDINGS, picture=self._picture, all_slices=all_slices)


def _holder(layout: object) -> QWidget:
    holder = QWidget()
    holder.setLayout(layout)  # type: ignore[arg-type]
    return holder
