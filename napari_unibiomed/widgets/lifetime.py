"""When a widget's life in the window ends.

A dock's close button hides the widget and destroys its frame. No close event reaches the widget, its own ``destroyed``
waits for the last Python reference, and it is hidden too when another tab is in front. So the clean-up hangs on the
enclosing frame's ``destroyed``, found when the widget is first shown, and holds the widget weakly.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_unibiomed.session import Session, call_now, session_of

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Once:
    """Calls a bound method at most once, and not at all when its object is gone; never keeps the object alive."""

    def __init__(self, method: Callable[[], None]) -> None:
        self._method = weakref.WeakMethod(method)
        self.done = False

    def __call__(self, *_: Any) -> None:
        method = self._method()
        if self.done or method is None:
            return
        self.done = True
        method()


def frame_of(widget: QWidget) -> QDockWidget | None:
    """The dock frame around a widget, or None while it has none."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


class FrameWatch(QObject):
    """Calls ``shown(frame)`` when a widget first appears in a dock frame and ``cleanup()`` when that frame ends.

    Args:
        widget: Both methods may be its own: they are held weakly. It owns this object.
        cleanup: A bound method; called at most once.
        shown: A bound method that takes the frame, called before the first event loop turn that shows the widget.
    """

    def __init__(
        self, widget: QWidget, cleanup: Callable[[], None], shown: Callable[[QDockWidget], None] | None = None
    ) -> None:
        super().__init__(widget)
        self.cleanup = Once(cleanup)
        self._shown = None if shown is None else weakref.WeakMethod(shown)
        self._found = False
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait for the first show inside of a frame."""
        if not self._found and event is not None and event.type() == QEvent.Type.Show and isinstance(watched, QWidget):
            frame = frame_of(watched)
            if frame is not None:
                self._found = True
                watched.removeEventFilter(self)
                frame.destroyed.connect(self.cleanup)
                shown = None if self._shown is None else self._shown()
                if shown is not None:
                    shown(frame)
        return False


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
    """The session of a viewer, which from now on speaks in the window's thread. Call it in that thread.

    Menus hand over a proxy of the viewer; both have one session.
    """
    session = session_of(getattr(viewer, "__wrapped__", viewer))
    if session.deliver is call_now:
        session.deliver = Mailbox().deliver
    return session
