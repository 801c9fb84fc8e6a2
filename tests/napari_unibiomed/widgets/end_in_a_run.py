"""python end_in_a_run.py HOW: a process with a real window in which a run of 500 slices is in work when something ends.

PYTHONPATH has the repository. HOW is "last window", "one window of two" or "program".
Prints whether the run "stopped" or "went on", then "ended".
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import napari
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_unibiomed import commands
from napari_unibiomed.session.session import session_of
from napari_unibiomed.session.worker import THREAD_NAME
from tests.napari_unibiomed.fake_engine import FakeEngine, ct

BEFORE, MANY = 3, 20
"""Slices that are answered before the end, and so many that nobody has stopped the run."""

how = sys.argv[1]
engine = FakeEngine(held=True)
viewer = napari.Viewer()
other = napari.Viewer() if how == "one window of two" else None
window, application = viewer.window._qt_window, QApplication.instance()
session = session_of(viewer)
session._model._load_engine = engine.load
dock = commands.open_dock(viewer)
dock.gateway.add_image(ct(500, 16))
assert dock.run_report()
engine.let(BEFORE)


def watch_the_run() -> None:
    """No slice waits any more: a run that nobody stopped is seen to go on."""
    engine.let_all()
    stopped = threading.Event()
    try:
        session._model.submit(stopped.set)
    except RuntimeError:  # it takes no work any more, and its thread ends after what is in work
        for thread in threading.enumerate():
            if thread.name.startswith(THREAD_NAME):
                thread.join()
        stopped.set()
    while not stopped.is_set() and len(list(Path(os.environ["XDG_CACHE_HOME"]).rglob("slice_*.npz"))) < MANY:
        pass
    print("stopped" if stopped.is_set() else "went on", flush=True)
    if other is not None:
        other.close()


def end() -> None:
    """As its user ends it: the button of the window, or the system's wish that the program quits."""
    if how == "one window of two":
        window.destroyed.connect(lambda: QTimer.singleShot(0, watch_the_run))
    else:
        application.aboutToQuit.connect(watch_the_run)
    if how == "program":
        application.quit()
    else:
        window.close()


def wait_for_slices() -> None:
    run = session.current
    if run is not None and len(run.slices_done) >= BEFORE and run.folder is not None:
        end()
    else:
        QTimer.singleShot(20, wait_for_slices)


wait_for_slices()
napari.run()
print("ended", flush=True)
