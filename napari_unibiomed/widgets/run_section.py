"""Section 4: run, cancel, how far it is, and what is said about it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QLabel, QProgressBar, QPushButton, QVBoxLayout

from napari_unibiomed.jobs import JobKind
from napari_unibiomed.messages.message import Link, Message
from napari_unibiomed.session.phases import Controls, Phase, enabled, status_line
from napari_unibiomed.shortcuts import SHORTCUTS, with_keys
from napari_unibiomed.widgets.section import LinkLabel, Section, describe, row

RUN_WORDS: dict[JobKind, str] = {"report": "Report", "segment": "Segment", "ask": "Ask", "roi": "Ask about box"}


MOST_MESSAGES = 4
FOLLOWED = frozenset(Link) - {Link.SAVE_PLAIN}
"""What can be clicked here; other words stay words."""


class RunSection(Section):
    """The message stays until the next action; it never takes the focus and is never a dialog."""

    run_requested = Signal()
    cancel_requested = Signal()
    retry_requested = Signal()
    link_clicked = Signal(object)
    segment_requested = Signal()

    def __init__(self) -> None:
        super().__init__("4 Run", foldable=False)
        self.run = QPushButton()
        self.cancel = QPushButton("Cancel")
        self.retry = QPushButton("Retry")
        self.estimate = QLabel()
        self.progress = QProgressBar()
        self.progress_words = QLabel()
        self.box = QFrame()
        self.message = LinkLabel()
        self.segment_it = QPushButton("Segment it")
        self.answer = QLabel()
        self.shown: tuple[Message, ...] = ()
        describe(self.cancel, "Cancel", with_keys("Stop after the slice in work and keep what is done", "cancel_run"))
        describe(self.retry, "Retry", "Do again what failed; slices that were finished are kept.")
        describe(self.estimate, "Estimate", "How long a run may take on this machine.")
        describe(self.progress, "Progress", "How far the run is.")
        describe(self.progress_words, "Progress in words", "How far the run is.")
        describe(self.segment_it, "Segment it", "Mark what the answer names, only where it meets the box.")
        self.progress.setTextVisible(False)
        self.message.linkActivated.connect(lambda name: self.link_clicked.emit(Link[name]))
        for label in (self.estimate, self.progress_words, self.answer):
            label.setWordWrap(True)
        self.box.setFrameShape(QFrame.Shape.StyledPanel)
        inside = QVBoxLayout(self.box)
        inside.setContentsMargins(6, 4, 6, 4)
        inside.addWidget(self.answer)
        inside.addWidget(self.message)
        inside.addWidget(self.segment_it)
        self.column.addLayout(row(self.run, self.retry, stretch=0))
        self.column.addWidget(self.estimate)
        self.column.addLayout(row(self.progress, self.cancel, stretch=0))
        self.column.addWidget(self.progress_words)
        self.column.addWidget(self.box)
        self.run.clicked.connect(self.run_requested)
        self.retry.clicked.connect(self.retry_requested)
        self.cancel.clicked.connect(self.cancel_requested)
        self.segment_it.clicked.connect(self.segment_requested)
        self.set_task("report")
        self.offer_segment("")
        self.show_answer("")
        self.show_messages(())

    def set_task(self, task: JobKind) -> None:
        """Name the button after the task."""
        keys = SHORTCUTS["run_task"].keys
        self.run.setText(f"{RUN_WORDS[task]}  ({keys})")
        describe(self.run, RUN_WORDS[task], with_keys("Start the task above on the chosen image", "run_task"))

    def set_estimate(self, words: str) -> None:
        """How long it may take; empty hides the line."""
        self.estimate.setText(words)
        self.estimate.setVisible(bool(words) and not self.run.isHidden())

    def offer_segment(self, phrase: str) -> None:
        """Offer to segment what a box was named; empty takes the offer away."""
        self.segment_it.setText(f"Segment “{phrase}”" if phrase else "Segment it")
        self.segment_it.setVisible(bool(phrase))

    def show_phase(self, phase: Phase) -> None:
        """Show and enable what belongs to a phase."""
        self.run.setVisible(not phase.busy)
        self.run.setEnabled(enabled(phase, Controls.RUN))
        self.retry.setVisible(enabled(phase, Controls.RETRY))
        self.cancel.setVisible(phase.busy)
        self.cancel.setEnabled(enabled(phase, Controls.CANCEL))
        self.cancel.setText("Cancelling…" if phase is Phase.CANCELLING else "Cancel")
        self.progress.setVisible(phase.busy)
        self.progress_words.setVisible(phase.busy)
        self.estimate.setVisible(not phase.busy and bool(self.estimate.text()))
        self.segment_it.setEnabled(enabled(phase, Controls.RUN))
        self.set_summary(status_line(phase))
        if phase.busy and phase is not Phase.CANCELLING:
            self.show_progress(status_line(phase), 0, 0)

    def show_progress(self, words: str, done: int, total: int) -> None:
        """How far it is; a total of 0 shows that it is busy."""
        self.progress.setRange(0, total)
        self.progress.setValue(done)
        self.progress_words.setText(words)

    def show_messages(self, shown: Sequence[Message]) -> None:
        """Show messages, the last ones below, until the next action; none leaves an empty place."""
        self.shown = tuple(shown[-MOST_MESSAGES:])
        self.message.setVisible(bool(self.shown))
        self._frame()
        self.message.set_template("<br>".join(as_html(message) for message in self.shown))
        self.message.setAccessibleName(" ".join(f"{message.word}: {message.text}" for message in self.shown))

    def show_answer(self, words: str) -> None:
        """What a box was named, as large as it deserves; empty takes it away."""
        self.answer.setText(words)
        self.answer.setVisible(bool(words))
        self._frame()

    def _frame(self) -> None:
        self.box.setVisible(bool(self.shown) or bool(self.answer.text()))


def as_html(message: Message) -> str:
    """Icon, bold title, meaning and action; the words of its links can be clicked."""
    title = message.title if message.title.endswith((".", "?", "!")) else f"{message.title}."
    action = html.escape(message.action, quote=False)
    for link in (link for link in message.links if link in FOLLOWED):
        words = html.escape(link.value, quote=False)
        action = action.replace(words, f'<a href="{link.name}" style="color:{{colour}}">{words}</a>', 1)
    body = " ".join(part for part in (html.escape(message.meaning, quote=False), action) if part)
    return f"{message.icon} <b>{html.escape(title, quote=False)}</b> {body}"
