"""One dock and one findings panel in a window, however they are opened, and where they stand in it.

napari knows a docked widget by its title, and gives it one title from its Plugins menu and another one from ``-w`` and
``add_plugin_dock_widget``: whoever asks by title gets a second one. So ours are known by their type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

from napari_unibiomed.canvas.view import plain_viewer
from napari_unibiomed.widgets.lifetime import frame_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

    QWidgetMeta = type
else:
    QWidgetMeta = type(QWidget)

DOCK, PANEL = "UniBiomed", "UniBiomed findings"
"""Names of the two widgets in the manifest."""

Docked = TypeVar("Docked", bound=QWidget)

MENU_TITLE = "{} (UniBiomed)"
"""The title that napari's Plugins menu gives a widget. One that we open has it too: the menu shows and hides it."""

TALL_PX = 1300
"""In a window as high as this the panel stands below the dock, else both are tabs."""

PANEL_WIDTH_PX = 760
"""All columns of the table fit into this."""

CANVAS_SIDES = 0.47
"""Width to height that the canvas keeps when the panel opens; beside it the whole table fits at 1366 x 768."""


class OneEach(QWidgetMeta):
    """Metaclass of a widget that there is once in a viewer: a second call takes the one that is there out of its frame
    and returns it, for whatever frame it is wanted in now. Its class has ``leave_frame()``."""

    def __call__(cls, viewer: Viewer) -> Any:
        there: Any = docked(viewer, cls)
        if there is not None:
            there.leave_frame()
            return there
        return _with_sign_of_life(viewer, lambda: super(OneEach, cls).__call__(viewer))


def docked(viewer: Viewer, kind: type[Docked]) -> Docked | None:
    """The widget of a type in a viewer's docks, whatever their titles; None where there is none."""
    return next((widget for widget in _ours(viewer) if isinstance(widget, kind)), None)


def open_one(viewer: Viewer, kind: type[Docked], name: str) -> Docked:
    """The widget of a type, opened where there is none, and brought to the front.

    Args:
        name: Of the widget in the manifest.
    """
    widget = docked(viewer, kind)
    if widget is None:
        widget = kind(viewer)
        plain_viewer(viewer).window.add_dock_widget(widget, name=MENU_TITLE.format(name))
    frame = frame_of(widget)
    if frame is not None:
        frame.show()
        frame.raise_()
    return widget


def leave_frame(viewer: Viewer, widget: QWidget) -> None:
    """Take a widget out of its dock frame, which goes; the widget stays as it is."""
    frame = frame_of(widget)
    if frame is not None:
        plain_viewer(viewer).window.remove_dock_widget(frame)


def arrange(viewer: Viewer, widget: QWidget, *, widen: bool = False) -> None:
    """Find a place for a widget that was just docked: a tab beside the other one of ours, or below it in a tall window.

    Args:
        widen: Take as much width as leaves the canvas nearly as wide as high.
    """
    frame = frame_of(widget)
    main = None if frame is None else frame.parentWidget()
    if frame is None or not isinstance(main, QMainWindow) or frame.isFloating():
        return
    area = main.dockWidgetArea(frame)
    for other in _ours(viewer):
        beside = frame_of(other)
        if beside is None or beside is frame or beside.isFloating() or main.dockWidgetArea(beside) != area:
            continue
        if main.height() < TALL_PX and frame not in main.tabifiedDockWidgets(beside):
            main.tabifyDockWidget(beside, frame)
            frame.raise_()
    canvas = main.centralWidget()
    if widen and canvas is not None:
        room = frame.width() + canvas.width() - round(CANVAS_SIDES * canvas.height())
        main.resizeDocks([frame], [max(frame.width(), min(room, PANEL_WIDTH_PX))], Qt.Orientation.Horizontal)


def _ours(viewer: Viewer) -> Iterator[QWidget]:
    """The docked widgets of which there is one each."""
    window = getattr(plain_viewer(viewer), "window", None)
    widgets = () if window is None else tuple(window.dock_widgets.values())
    yield from (widget for widget in widgets if isinstance(type(widget), OneEach))


def _with_sign_of_life(viewer: Viewer, make: Callable[[], Docked]) -> Docked:
    """Make a widget, which takes a moment: the pointer and napari's status line say so."""
    application = QApplication.instance()
    plain_viewer(viewer).status = "Opening UniBiomed…"
    if isinstance(application, QApplication):
        application.setOverrideCursor(Qt.CursorShape.WaitCursor)
    try:
        return make()
    finally:
        plain_viewer(viewer).status = "Ready"
        if isinstance(application, QApplication):
            application.restoreOverrideCursor()
