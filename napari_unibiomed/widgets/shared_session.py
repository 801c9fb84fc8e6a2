"""The one session of a viewer, which speaks in the window's thread."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

from napari.viewer import Viewer
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QApplication

from napari_unibiomed.canvas.view import plain_viewer
from napari_unibiomed.session.session import Session, call_now, session_of


class Mailbox(QObject):
    """Runs calls from any thread in the window's thread, in order. Calls that arrive after its end are dropped."""

    _arrived = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._arrived.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def deliver(self, call: Callable[[], None]) -> None:
        """Post a call; may be used from every thread."""
        with contextlib.suppress(RuntimeError):  # the window is gone, and with it whoever would have listened
            self._arrived.emit(call)

    def _run(self, call: Callable[[], None]) -> None:
        call()


def shared_session(viewer: Viewer) -> Session:
    """The session of a viewer, which from now on speaks in the window's thread. Call it in that thread."""
    session = session_of(plain_viewer(viewer))
    if session.deliver is call_now:
        session.deliver = Mailbox().deliver
        application = QApplication.instance()
        if application is not None:
            # The window's last events are not delivered when it was the last window, and Python waits for the thread.
            stop = weakref.WeakMethod(session.stop_for_exit)
            application.aboutToQuit.connect(lambda: None if (call := stop()) is None else call())
    return session
