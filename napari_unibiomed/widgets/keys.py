"""Makes the shortcuts of ``shortcuts.py`` live while a dock is open, and drops them with it."""

from __future__ import annotations

import contextlib
import weakref
from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QDockWidget, QShortcut, QWidget

from napari_unibiomed.shortcuts import SHORTCUTS


class Keys:
    """Shortcuts of one dock. They live in its window, so that they work too while another tab is in front of it.

    Args:
        dock: Has a method for every name in ``SHORTCUTS``; held weakly.
    """

    def __init__(self, dock: QWidget) -> None:
        self._dock = weakref.ref(dock)
        self.shortcuts: list[QShortcut] = []

    def live_in(self, frame: QDockWidget) -> None:
        """Create the shortcuts in the window that a frame belongs to."""
        window = frame.parentWidget() or frame
        for shortcut in SHORTCUTS.values():
            keys = QShortcut(QKeySequence(shortcut.keys), window)
            keys.setContext(Qt.ShortcutContext.WindowShortcut)
            keys.setWhatsThis(shortcut.title)
            keys.activated.connect(partial(self._call, shortcut.name))
            self.shortcuts.append(keys)

    def close(self) -> None:
        """Drop the shortcuts; may be called twice, and after the window went."""
        while self.shortcuts:
            keys = self.shortcuts.pop()
            with contextlib.suppress(RuntimeError):  # Qt deleted it together with the window
                keys.setEnabled(False)
                keys.deleteLater()

    def _call(self, name: str) -> None:
        dock = self._dock()
        if dock is not None:
            getattr(dock, name)()
