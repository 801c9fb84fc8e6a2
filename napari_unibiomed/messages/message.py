"""The shape of what the plugin says to people: title, what it means, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Kind = Literal["info", "warning", "error"]

ICONS: dict[Kind, tuple[str, str]] = {
    "info": ("\u25cf", "Ready"),
    "warning": ("\u25b2", "Warning"),
    "error": ("\u2715", "Error"),
}
"""Icon and word of each kind."""


class Link(Enum):
    """Something to click in a message; the value is the words as they stand in its text."""

    RESUME = "Resume"
    DISCARD = "Discard"
    RESTORE = "Restore"
    SAVED_RUNS = "Saved runs"
    RETRY = "Retry"
    COPY_DETAILS = "Copy details"
    USE_PERCENTILES = "Use percentile window instead?"
    SAVE_PLAIN = "Save as plain array?"
    CHOOSE_FOLDER = "Choose a folder"
    CHOOSE_ANOTHER_FOLDER = "choose another folder"
    DOWNLOAD = "Download"
    LET_MODEL_TELL = "Let the model tell"


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Args:
        title: The case, in a few words; troubleshooting lists use it as a heading.
        meaning: What it means, one sentence or two.
        action: What to do; may hold the words of ``links``.
        details: More for a report of the problem, shown on request.
        links: What can be clicked in ``action``.
    """

    kind: Kind
    title: str
    meaning: str
    action: str = ""
    details: str = ""
    links: tuple[Link, ...] = ()

    @property
    def icon(self) -> str:
        return ICONS[self.kind][0]

    @property
    def word(self) -> str:
        return ICONS[self.kind][1]

    @property
    def text(self) -> str:
        """Title, meaning and action as one line of plain text, the icon before it."""
        title = self.title if self.title.endswith((".", "?", "!")) else f"{self.title}."
        return " ".join(part for part in (self.icon, title, self.meaning, self.action) if part)
