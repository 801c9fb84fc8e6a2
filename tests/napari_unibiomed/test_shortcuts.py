"""No shortcut clashes with napari's, each calls its command, and none outlives the dock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("napari.layers")
from napari_unibiomed.shortcuts import SHORTCUTS, TAKEN, with_keys
from tests.napari_unibiomed.dock_kit import Open, open_dock

__all__ = ["open_dock"]


def plain(keys: Any) -> str:
    """Modifiers in one order and spelling."""
    parts = re.split(r"\+(?=.)", str(keys))
    spelt = {"control": "ctrl", "cmd": "ctrl", "meta": "ctrl", "ctrlcmd": "ctrl"}
    *modifiers, key = [spelt.get(part.lower(), part.lower()) for part in parts]
    return "+".join((*sorted(modifiers), key))


def test_the_keys_of_a_tooltip_are_those_of_the_shortcut() -> None:
    assert with_keys("Stop", "cancel_run") == "Stop (Ctrl+Shift+X)"


@pytest.mark.window
def test_no_shortcut_is_taken_by_napari_or_twice() -> None:
    from napari._app_model import get_app_model
    from napari._qt._qapp_model.qactions import init_qactions
    from napari.utils.shortcuts import default_shortcuts

    ours = [plain(shortcut.keys) for shortcut in SHORTCUTS.values()]
    assert len(set(ours)) == len(ours)
    theirs = {plain(keys) for bound in default_shortcuts.values() for keys in bound} | {plain(keys) for keys in TAKEN}
    init_qactions()
    theirs |= {plain(binding.keybinding) for binding in get_app_model().keybindings}
    assert "ctrl+shift+p" in theirs
    assert "ctrl+o" in theirs
    assert not theirs & set(ours)


@pytest.mark.window
def test_every_shortcut_has_a_command_of_the_dock_and_of_the_palette() -> None:
    from npe2 import PluginManifest

    from napari_unibiomed.widgets.dock import UniBiomedDock

    root = Path(__file__).resolve().parents[2]
    manifest = PluginManifest.from_file(root / "napari_unibiomed" / "napari.yaml")
    titles = {command.title for command in manifest.contributions.commands or ()}
    for shortcut in SHORTCUTS.values():
        assert callable(getattr(UniBiomedDock, shortcut.name))
        assert shortcut.title in titles


@pytest.mark.window
@pytest.mark.filterwarnings("ignore")
def test_each_fires_and_none_is_left(open_dock: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtpy.QtWidgets import QShortcut

    kit = open_dock()
    dock, window = kit.dock, kit.viewer.window._qt_window
    kit.until(lambda: dock.keys.shortcuts)
    mine = [s for s in window.findChildren(QShortcut) if s in dock.keys.shortcuts]
    assert {s.key().toString() for s in mine} == {s.keys for s in SHORTCUTS.values()}
    called = []
    for name in SHORTCUTS:
        monkeypatch.setattr(type(dock), name, lambda self, name=name: called.append(name))
    for shortcut in mine:
        shortcut.activated.emit()
    assert called == list(SHORTCUTS)
    kit.viewer.window.remove_dock_widget(dock)
    kit.until(lambda: kit.session.closed)
    keys = {s.keys for s in SHORTCUTS.values()}
    kit.until(lambda: not [s for s in window.findChildren(QShortcut) if s.key().toString() in keys])
