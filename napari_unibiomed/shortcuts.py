"""The keyboard shortcuts of the plugin as data: which keys, which command, which words. The dock makes them live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One shortcut.

    Args:
        name: Method of the dock that it calls.
        keys: As Qt writes them; Ctrl stands for Command on a Mac.
        title: What it does; the palette shows the same words.
    """

    name: str
    keys: str
    title: str


SHORTCUTS: Mapping[str, Shortcut] = MappingProxyType(
    {
        s.name: s
        for s in (
            Shortcut("run_report", "Ctrl+Shift+G", "Report on the image"),
            Shortcut("run_task", "Ctrl+Shift+R", "Run the chosen task"),
            Shortcut("draw_box", "Ctrl+Shift+B", "Draw a box"),
            Shortcut("next_finding", "Ctrl+Shift+J", "Next finding"),
            Shortcut("previous_finding", "Ctrl+Shift+K", "Previous finding"),
            Shortcut("show_or_hide_findings", "Ctrl+Shift+H", "Show or hide the findings"),
            Shortcut("cancel_run", "Ctrl+Shift+X", "Cancel the run"),
            Shortcut("undo_last_run", "Ctrl+Alt+Z", "Undo the last run"),
        )
    }
)

TAKEN = frozenset(
    {f"Ctrl+Shift+{key}" for key in "COPTZU"} | {f"Ctrl+Alt+{key}" for key in "OPST"} | {f"Alt+{key}" for key in "CST"}
)
"""Keys of napari, of its menus and of input methods that no shortcut of ours may use."""


def with_keys(words: str, name: str) -> str:
    """A tooltip that ends with the keys of a shortcut."""
    return f"{words} ({SHORTCUTS[name].keys})"
