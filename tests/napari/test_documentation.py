"""The plugin's page: every message has its heading, every shortcut its row, every picture its maker."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "napari.md").read_text("utf-8")


def titles() -> set[str]:
    """Titles of the messages, up to the first value that is filled in."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "napari_unibiomed" / "messages.py").read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Message":
            title = node.args[1]
            part = title.values[0] if isinstance(title, ast.JoinedStr) else title
            if isinstance(part, ast.Constant):
                found.add(re.sub(r"[ (\u201c]+$", "", str(part.value)))
    return found


def test_headings_of_the_troubleshooting_list_are_the_titles_of_the_messages() -> None:
    headings = set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE))
    assert len(titles()) > 15
    assert headings == titles()


def test_every_shortcut_is_listed() -> None:
    from napari_unibiomed.shortcuts import SHORTCUTS

    for shortcut in SHORTCUTS.values():
        assert shortcut.keys in PAGE


def test_pictures_are_there_and_are_made_by_the_script() -> None:
    names = re.findall(r"\(screenshots/([\w-]+)\.png\)", PAGE)
    assert len(names) >= 6
    script = (ROOT / "docs" / "make_screenshots.py").read_text("utf-8")
    for name in names:
        assert f'"{name}": (' in script
        assert (ROOT / "docs" / "screenshots" / f"{name}.png").stat().st_size > 10_000
