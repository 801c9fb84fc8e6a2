"""What tests of sessions share: a session that is closed at the end, and waiting on conditions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from tests.patience import GUARD_S


class Watch:
    """Everything a session tells, and waiting for something of it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.phases: list[Phase] = []
        self.progress: list[tuple[str, int, int]] = []
        self.slices: list[int] = []
        self.findings: list[Any] = []
        self.finished: list[Any] = []
        self._changed = threading.Condition()
        session.phase_changed.connect(lambda phase: self._note(self.phases, phase))
        session.progressed.connect(lambda *told: self._note(self.progress, told))
        session.slice_done.connect(lambda run, index: self._note(self.slices, index))
        session.finding_found.connect(lambda run, finding: self._note(self.findings, finding))
        session.finished.connect(lambda run: self._note(self.finished, run))
        for signal in (session.message_shown, session.saved_found, session.restored, session.runs_changed):
            signal.connect(lambda *_: self._note([], None))

    def _note(self, where: list[Any], what: object) -> None:
        with self._changed:
            where.append(what)
            self._changed.notify_all()

    def until(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, GUARD_S), f"not reached; {self.phases}"

    def until_phase(self, phase: Phase) -> None:
        """Until the session is in a phase, at once where it is."""
        self.until(lambda: self.session.phase is phase)

    @property
    def titles(self) -> list[str]:
        return [message.title for message in self.session.messages]
