"""Whether the fonts of this computer can draw a character, and its code in place of it where they cannot."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from qtpy.QtGui import QFont, QTextLayout


def note(count: int) -> str:
    """What is said above a text in which so many different characters stand as codes."""
    characters, stand = ("character", "stands as its code") if count == 1 else ("characters", "stand as their codes")
    return f"{count} {characters} that no font on this computer can draw {stand}, as in [U+0041]."


def is_drawn(character: str, font: QFont) -> bool:
    """Whether a font, or one that Qt takes in its place, has a glyph for a character."""
    return character.isascii() or character.isspace() or _has_glyph(character, font.key())


def with_codes(text: str, missing: Iterable[str]) -> str:
    """The text with its missing characters as codes, so that none is lost without a trace."""
    return text.translate({ord(character): f"[U+{ord(character):04X}]" for character in missing})


@lru_cache(maxsize=4096)
def _has_glyph(character: str, key: str) -> bool:
    font = QFont()
    font.fromString(key)
    layout = QTextLayout(character, font)
    layout.beginLayout()
    layout.createLine()
    layout.endLayout()
    glyphs = [index for run in layout.glyphRuns() for index in run.glyphIndexes()]
    return bool(glyphs) and 0 not in glyphs
