"""One dock and one findings panel in a window, however they are opened: by the menu's own action, by the name of the
plugin as ``-w`` does, by our commands (ux 2 and ux 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from napari_unibiomed import commands

pytest.importorskip("napari.layers")
from napari_unibiomed.canvas.orientation import POSITIONS
from napari_unibiomed.shortcuts import SHORTCUTS
from tests.napari_unibiomed.dock_kit import ROOT
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.patience import GUARD_MS

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

PLUGIN = "napari-unibiomed"
COMMANDS = {"UniBiomed": "napari-unibiomed.dock", "UniBiomed findings": "napari-unibiomed.panel"}
"""Name of the widget -> id of the action that napari registers for its entry in the Plugins menu."""


@pytest.fixture
def viewer(
    make_napari_viewer: Callable[..., Any], npe2pm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A shown viewer with the plugin and a CT, and no dock of ours."""
    from napari_unibiomed.canvas.layers import LayerGateway
    from napari_unibiomed.session.session import session_of

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with npe2pm.tmp_plugin(manifest=ROOT / "napari_unibiomed" / "napari.yaml"):
        viewer = make_napari_viewer(show=True)
        session_of(viewer)._model._load_engine = FakeEngine().load
        LayerGateway(viewer).add_image(ct(12, 64))
        yield viewer
        session_of(viewer).close()


def by_menu(viewer: Any, name: str) -> None:
    """What a click on Plugins > UniBiomed > name does."""
    from napari._app_model import get_app_model

    get_app_model().commands.execute_command(COMMANDS[name]).result()


def by_name(viewer: Any, name: str) -> None:
    """What ``napari -w`` and other plugins do."""
    viewer.window.add_plugin_dock_widget(PLUGIN, name)


def by_command(viewer: Any, name: str) -> None:
    """What our own commands and buttons do."""
    commands.open_dock(viewer) if name == "UniBiomed" else commands.open_panel(viewer)


WAYS = (by_menu, by_name, by_command)


def ours(viewer: Any, name: str) -> list[Any]:
    """The docks of ours that a user sees, by type; every dock frame of the window is looked into."""
    from qtpy.QtWidgets import QDockWidget

    from napari_unibiomed.widgets.dock import UniBiomedDock
    from napari_unibiomed.widgets.panel import FindingsPanel

    kind = UniBiomedDock if name == "UniBiomed" else FindingsPanel
    main = viewer.window._qt_window
    frames = [
        frame for frame in main.findChildren(QDockWidget) if main.dockWidgetArea(frame).value or frame.isFloating()
    ]
    return [made for frame in frames for made in frame.findChildren(kind)]


def keys_of(viewer: Any) -> list[str]:
    """The keys of all live shortcuts of ours in a window."""
    from qtpy.QtWidgets import QShortcut

    texts = {shortcut.keys for shortcut in SHORTCUTS.values()}
    found = viewer.window._qt_window.findChildren(QShortcut)
    return [keys.key().toString() for keys in found if keys.isEnabled() and keys.key().toString() in texts]


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize("first", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_open_leads_to_the_one_widget(viewer: Any, qtbot: Any, name: str, first: Any) -> None:
    """ux 2: the tutorial opens the dock from the menu, and then ROI or Ask opened a second one."""
    first(viewer, name)
    (widget,) = ours(viewer, name)
    for way in (by_command, by_name, by_command, by_menu, by_command):
        way(viewer, name)
        assert ours(viewer, name) == [widget], way.__name__
        qtbot.waitUntil(widget.isVisible, timeout=GUARD_MS)
    assert widget.session.phase.value != "closed"
    assert not widget.session.closed


def test_the_menu_shows_and_hides_the_dock_that_a_command_opened(viewer: Any, qtbot: Any) -> None:
    commands.open_dock(viewer)
    (dock,) = ours(viewer, "UniBiomed")
    qtbot.waitUntil(dock.isVisible, timeout=GUARD_MS)
    by_menu(viewer, "UniBiomed")
    qtbot.waitUntil(lambda: not dock.isVisible(), timeout=GUARD_MS)
    by_menu(viewer, "UniBiomed")
    qtbot.waitUntil(dock.isVisible, timeout=GUARD_MS)
    assert ours(viewer, "UniBiomed") == [dock]


def test_the_tutorial_by_the_menu_has_one_dock_and_every_key_once(viewer: Any, qtbot: Any) -> None:
    """ux 2 and ux 3: menu, then a box, then a question; the keys stay unambiguous and the letters stay."""
    from napari._app_model import get_app_model

    by_menu(viewer, "UniBiomed")
    (dock,) = ours(viewer, "UniBiomed")
    qtbot.waitUntil(lambda: len(keys_of(viewer)) == len(SHORTCUTS), timeout=GUARD_MS)
    for command in ("napari-unibiomed.classify", "napari-unibiomed.segment", "napari-unibiomed.draw_box"):
        get_app_model().commands.execute_command(command).result()
    by_name(viewer, "UniBiomed")
    qtbot.waitUntil(lambda: len(keys_of(viewer)) == len(SHORTCUTS), timeout=GUARD_MS)
    assert ours(viewer, "UniBiomed") == [dock]
    assert sorted(keys_of(viewer)) == sorted(shortcut.keys for shortcut in SHORTCUTS.values())
    assert {viewer.canvas.overlays[f"unibiomed_{edge}"].text for edge in POSITIONS} <= set("LRAP")
    assert dock.task.task == "roi"


def test_what_was_chosen_and_run_survives_another_way_of_opening(viewer: Any, qtbot: Any) -> None:
    by_name(viewer, "UniBiomed")
    (dock,) = ours(viewer, "UniBiomed")
    assert dock.run_report()
    qtbot.waitUntil(lambda: not dock.session.phase.busy, timeout=GUARD_MS)
    dock.choose_task("segment")
    dock.task.prompt.setEditText("liver")
    by_menu(viewer, "UniBiomed")
    assert ours(viewer, "UniBiomed") == [dock]
    assert dock.task.prompt.currentText() == "liver"
    assert len(dock.session.runs) == 1
    assert dock.run_task()
    qtbot.waitUntil(lambda: not dock.session.phase.busy, timeout=GUARD_MS)
    assert len(dock.session.runs) == 2


def test_closed_by_its_cross_the_dock_comes_back_new_and_whole(viewer: Any, qtbot: Any) -> None:
    """The one that was closed is not the one that comes back, and it has its keys once."""
    from napari_unibiomed.widgets.lifetime import frame_of

    by_menu(viewer, "UniBiomed")
    (dock,) = ours(viewer, "UniBiomed")
    qtbot.waitUntil(lambda: len(keys_of(viewer)) == len(SHORTCUTS), timeout=GUARD_MS)
    by_name(viewer, "UniBiomed")
    frame_of(dock).destroyOnClose()
    qtbot.waitUntil(lambda: not keys_of(viewer), timeout=GUARD_MS)
    assert not ours(viewer, "UniBiomed")
    by_menu(viewer, "UniBiomed")
    (again,) = ours(viewer, "UniBiomed")
    assert again is not dock
    qtbot.waitUntil(lambda: len(keys_of(viewer)) == len(SHORTCUTS), timeout=GUARD_MS)


def test_two_viewers_have_a_dock_each_and_neither_takes_from_the_other(
    viewer: Any, make_napari_viewer: Any, qtbot: Any
) -> None:
    """ux 3: closing one dock removes neither keys nor letters of the other."""
    from napari_unibiomed.canvas.layers import LayerGateway
    from napari_unibiomed.session.session import session_of
    from napari_unibiomed.widgets.lifetime import frame_of

    other = make_napari_viewer(show=True)
    session_of(other)._model._load_engine = FakeEngine().load
    LayerGateway(other).add_image(ct(12, 64))
    docks = [commands.open_dock(each) for each in (viewer, other)]
    assert docks[0] is not docks[1]
    qtbot.waitUntil(lambda: len(keys_of(other)) == len(SHORTCUTS) == len(keys_of(viewer)), timeout=GUARD_MS)
    frame_of(docks[1]).destroyOnClose()
    qtbot.waitUntil(lambda: not keys_of(other), timeout=GUARD_MS)
    assert len(keys_of(viewer)) == len(SHORTCUTS)
    assert {viewer.canvas.overlays[f"unibiomed_{edge}"].text for edge in POSITIONS} <= set("LRAP")
    session_of(other).close()
