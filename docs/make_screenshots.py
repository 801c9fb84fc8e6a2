"""python docs/make_screenshots.py [OUT]: the pictures of the documentation, of shipped samples and the embedded model.

Needs a display: on a machine without one, ``xvfb-run -a -s "-screen 0 1920x1200x24" python docs/make_screenshots.py``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_unibiomed import commands
from napari_unibiomed.canvas.view import plain_viewer
from napari_unibiomed.session.shared_findings import findings_of

SMALL, LARGE = (1366, 768), (1920, 1080)
"""Width and height of the window in pixels."""

PLUGIN = "napari-unibiomed"

KEPT: set[Path] = set()
"""Folders of the reports that were made for pictures before."""


def until(condition: Callable[[], object]) -> None:
    """Let the window work until something holds."""
    while not condition():
        QApplication.processEvents()


@contextmanager
def window(size: tuple[int, int], theme: str, sample: str | None = None) -> Iterator[tuple[Any, Any]]:
    """A viewer with the dock, and a sample where one is named."""
    viewer = napari.Viewer(show=True)
    viewer.theme = theme
    viewer.window.resize(*size)
    if sample:
        viewer.open_sample(PLUGIN, sample)
    dock = commands.open_dock(viewer)
    settle()
    try:
        yield viewer, dock
    finally:
        viewer.close()
        settle()


def settle() -> None:
    """What is still to be drawn is drawn."""
    for _ in range(30):
        QApplication.processEvents()


def saved_folders(dock: Any) -> list[Path]:
    """Where the kept runs of the image lie, as soon as they were looked for."""
    listed: list[bool] = []
    dock.session.saved_listed.connect(lambda: listed.append(True))
    dock.session.list_saved()
    until(lambda: listed)
    return [saved.folder for saved in dock.session.saved_runs]


def finish(dock: Any) -> None:
    """Wait for the end of the job."""
    until(lambda: not dock.session.phase.busy)
    settle()


def report(dock: Any) -> None:
    """A whole report, its largest finding selected and shown; one that was made for an earlier picture comes back."""
    if KEPT & set(saved_folders(dock)):
        dock.session.restore_saved(next(saved for saved in dock.session.saved_runs if saved.folder in KEPT))
        until(lambda: dock.session.runs)
    else:
        dock.run_report()
    finish(dock)
    KEPT.update(run.folder for run in dock.session.runs if run.complete)
    if dock.image_binding.volume.is_2d:
        findings_of(dock.session).select(1)
        plain_viewer(dock.gateway.viewer).reset_view()  # the whole picture, as napari's home button shows it
    else:
        dock.next_finding()
    settle()


def empty(viewer: Any, dock: Any) -> None:
    """Nothing is open."""


def running(viewer: Any, dock: Any) -> None:
    """A report that has come half way."""
    dock.run_report()
    until(lambda: dock.session.current is not None and len(dock.session.current.slices_done) >= 12)
    shown = dock.session.current.slices_done[-1]
    viewer.dims.set_current_step(0, shown)
    painted = dock.running.layers.layer_of(dock.session.current)
    until(lambda: painted.data[shown].any() or not dock.session.phase.busy)
    settle()


def done(viewer: Any, dock: Any) -> None:
    """A report at its end."""
    report(dock)


def roi(viewer: Any, dock: Any) -> None:
    """A box around the largest finding, and what the model calls it."""
    report(dock)
    row = next(row for row in findings_of(dock.session).rows if row.slice_largest is not None)
    where = np.argwhere(row.finding.mask.full()[row.slice_largest])
    (y0, x0), (y1, x1) = where.min(0) - 4, where.max(0) + 4
    commands.open_dock(viewer)
    dock.draw_box()
    boxes = next(layer for layer in viewer.layers if "ROI" in layer.name)
    z = row.slice_largest
    boxes.add(np.array([[z, y0, x0], [z, y0, x1], [z, y1, x1], [z, y1, x0]], float), shape_type="rectangle")
    dock.run_task()
    finish(dock)
    commands.open_dock(viewer)
    settle()


def error(viewer: Any, dock: Any) -> None:
    """A box that is too small."""
    dock.draw_box()
    boxes = next(layer for layer in viewer.layers if "ROI" in layer.name)
    z = viewer.dims.current_step[0]
    boxes.add(np.array([[z, 60, 60], [z, 60, 64], [z, 63, 64], [z, 63, 60]], float), shape_type="rectangle")
    dock.run_task()
    settle()


SHOTS: dict[str, tuple[tuple[int, int], str, str | None, Callable[[Any, Any], None]]] = {
    "empty": (SMALL, "dark", None, empty),
    "running": (SMALL, "dark", "ct", running),
    "error": (SMALL, "light", "ct", error),
    "report": (LARGE, "dark", "ct", done),
    "report-small": (SMALL, "dark", "ct", done),
    "report-light": (LARGE, "light", "ct", done),
    "roi": (SMALL, "dark", "ct", roi),
    "roi-light": (LARGE, "light", "ct", roi),
    "picture": (SMALL, "dark", "xray-tuberculosis", done),
}
"""File name -> size of the window, theme, sample and what is done. Kept reports are offered: what has none is first."""


def main() -> None:
    """Write every picture, or those that are named."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "screenshots")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # runs of this user are neither offered nor touched
        for name in sys.argv[2:] or SHOTS:
            size, theme, sample, act = SHOTS[name]
            with window(size, theme, sample) as (viewer, dock):
                act(viewer, dock)
                viewer.screenshot(str(out / f"{name}.png"), canvas_only=False, flash=False)
                dock.session.cancel()
                finish(dock)
                while dock.session.runs and dock.session.runs[-1].folder not in KEPT:  # or the next window offers them
                    dock.undo_last_run()
                    settle()


if __name__ == "__main__":
    main()
