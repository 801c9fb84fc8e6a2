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
    for node in ast.walk(ast.parse((ROOT / "napari_unibiomed" / "messages" / "catalogue.py").read_text("utf-8"))):
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


def menu_words(text: str) -> list[list[str]]:
    """Every "File ▸ Open Sample ▸ …" and "Plugins ▸ …" of a text, word by word."""
    found = re.findall(r"(?:File|Plugins) ▸ [^*.;\n]+", text)
    return [[word.strip() for word in path.split("▸")] for path in found]


def test_menus_that_the_page_and_the_messages_name_are_in_the_manifest() -> None:
    """ux 15: "Open Sample > UniBiomed phantom" was no item."""
    import yaml

    from napari_unibiomed.messages import catalogue
    from napari_unibiomed.session.phases import SHOWN

    manifest = yaml.safe_load((ROOT / "napari_unibiomed" / "napari.yaml").read_text("utf-8"))
    plugin = manifest["display_name"]
    samples = {sample["display_name"] for sample in manifest["contributions"]["sample_data"]}
    widgets = {f"{widget['display_name']} ({plugin})" for widget in manifest["contributions"]["widgets"]}
    said = [PAGE, catalogue.no_image().text, *(words for _, words in SHOWN.values())]
    paths = [path for text in said for path in menu_words(text)]
    assert len(paths) >= 4
    for first, *rest in paths:
        if first == "Plugins":
            assert rest[0] == plugin, rest
            assert all(word in widgets for word in rest[1:]), rest
        else:
            assert rest[:2] == ["Open Sample", plugin], rest
            assert all(word in samples for word in rest[2:]), rest


def test_no_word_of_the_plugin_is_dead() -> None:
    """ux 15: "GPU setup" was no link, and there is no phantom."""
    for file in (ROOT / "napari_unibiomed").rglob("*.py"):
        text = file.read_text("utf-8")
        assert "GPU setup" not in text, file.name
        assert "UniBiomed phantom" not in text, file.name
    assert "GPU setup" not in PAGE
