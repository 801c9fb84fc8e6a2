"""When a widget's life in the window ends.

A dock's close button hides the widget and destroys its frame. No close event reaches the widget, its own ``destroyed``
waits for the last Python reference, and it is hidden too when another tab is in front. So the clean-up hangs on the
enclosing frame's ``destroyed``, found when the widget is first shown, and holds the widget weakly.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QWidget


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
        shown: A bound method that takes the frame, called once for every frame.
    """

    def __init__(
        self, widget: QWidget, cleanup: Callable[[], None], shown: Callable[[QDockWidget], None] | None = None
    ) -> None:
        super().__init__(widget)
        self.cleanup = Once(cleanup)
        self._shown = None if shown is None else weakref.WeakMethod(shown)
        self._bound: QDockWidget | None = None
        self._settled = False
        self._widget = weakref.ref(widget)
        widget.installEventFilter(self)
        # A window that is not shown yet sends no show event; by the next turn of the event loop the widget is docked.
        QTimer.singleShot(0, self._look)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Wait until the widget is in a frame, and the frame in a window."""
        if event is not None and event.type() in (QEvent.Type.Show, QEvent.Type.ParentChange):
            self._look()
        return False

    def _look(self) -> None:
        widget = self._widget()
        frame = None if widget is None else frame_of(widget)
        if widget is None or frame is None:
            return
        if self._bound is None:
            self._bound = frame
            frame.destroyed.connect(self.cleanup)
        if frame.parentWidget() is None or self._settled:
            return
        self._settled = True
        widget.removeEventFilter(self)
        shown = None if self._shown is None else self._shown()
        if shown is not None:
            shown(frame)

    def release(self) -> None:
        """The widget leaves its frame for another one: the end of the old one means nothing any more."""
        if self._bound is not None:
            self._bound.destroyed.disconnect(self.cleanup)
        self._bound, self._settled = None, False
        widget = self._widget()
        if widget is not None:
            widget.installEventFilter(self)
