"""The end of a widget by its dock frame, and calls from other threads; a plain main window stands for napari's."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QTabBar, QVBoxLayout, QWidget

from napari_unibiomed.widgets.lifetime import FrameWatch, Once, frame_of
from napari_unibiomed.widgets.shared_session import Mailbox
from tests.patience import GUARD_MS


class Watched(QWidget):
    def __init__(self) -> None:
        super().__init__()
        self.ends = 0
        self.frames: list[QDockWidget] = []
        self.watch = FrameWatch(self, self.cleanup, self.on_shown)

    def cleanup(self) -> None:
        self.ends += 1

    def on_shown(self, frame: QDockWidget) -> None:
        self.frames.append(frame)


def docked(window: QMainWindow, widget: QWidget) -> QDockWidget:
    """In a frame, one holder between them, as napari puts it."""
    from qtpy.QtCore import Qt

    frame, holder = QDockWidget(window), QWidget()
    QVBoxLayout(holder).addWidget(widget)
    frame.setWidget(holder)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, frame)
    return frame


@pytest.fixture
def window(qtbot: Any) -> QMainWindow:
    made = QMainWindow()
    qtbot.addWidget(made)
    made.show()
    return made


def test_the_cleanup_waits_for_the_end_of_the_frame(window: QMainWindow, qtbot: Any) -> None:
    widget = Watched()
    frame = docked(window, widget)
    frame.show()
    qtbot.waitUntil(lambda: bool(widget.frames), timeout=GUARD_MS)
    assert widget.frames == [frame]
    assert frame_of(widget) is frame
    frame.hide()
    other = docked(window, QLabel("other"))
    window.tabifyDockWidget(other, frame)
    frame.show()
    other.raise_()
    qtbot.waitUntil(lambda: bool(window.findChildren(QTabBar)), timeout=GUARD_MS)
    assert widget.ends == 0  # hidden and behind a tab, but alive
    widget.setParent(None)  # as napari does when a dock is closed
    frame.deleteLater()
    qtbot.waitUntil(lambda: widget.ends == 1, timeout=GUARD_MS)
    widget.watch.cleanup()
    assert widget.ends == 1
    assert len(widget.frames) == 1


def test_the_end_of_the_window_is_an_end_too(qtbot: Any) -> None:
    made = QMainWindow()
    widget = Watched()
    docked(made, widget)
    made.show()
    qtbot.waitUntil(lambda: bool(widget.frames), timeout=GUARD_MS)
    made.deleteLater()
    qtbot.waitUntil(lambda: widget.ends == 1, timeout=GUARD_MS)


def test_the_watch_keeps_no_widget_alive(window: QMainWindow, qtbot: Any) -> None:
    widget = Watched()
    frame, frames = docked(window, widget), widget.frames
    qtbot.waitUntil(lambda: bool(frames), timeout=GUARD_MS)
    held = weakref.ref(widget)
    widget.setParent(None)
    widget.deleteLater()
    del widget
    qtbot.waitUntil(lambda: gc.collect() >= 0 and held() is None, timeout=GUARD_MS)
    frame.deleteLater()


def test_once_is_once() -> None:
    class Counted:
        calls = 0

        def call(self) -> None:
            self.calls += 1

    counted = Counted()
    once = Once(counted.call)
    once(1, 2)
    once()
    assert counted.calls == 1
    gone = Once(Counted().call)
    gone()
    assert not gone.done


def test_calls_of_other_threads_run_in_this_one_and_in_order(qtbot: Any) -> None:
    mailbox, seen = Mailbox(), []

    def work() -> None:
        for number in range(20):
            mailbox.deliver(lambda number=number: seen.append((number, threading.current_thread())))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not seen  # nothing runs in the thread that posts
    qtbot.waitUntil(lambda: len(seen) == 20, timeout=GUARD_MS)
    assert seen == [(number, threading.main_thread()) for number in range(20)]


def test_calls_after_the_end_are_dropped(qtbot: Any) -> None:
    mailbox = Mailbox()
    with qtbot.waitSignal(mailbox.destroyed, timeout=GUARD_MS):
        mailbox.deleteLater()
    mailbox.deliver(lambda: pytest.fail("nobody is there any more"))
