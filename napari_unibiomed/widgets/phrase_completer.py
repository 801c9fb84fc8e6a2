"""Suggestions while phrases are typed: for the phrase at the cursor's end, by any part of a name or synonym."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QModelIndex, QStringListModel, Qt
from qtpy.QtWidgets import QCompleter

SEPARATORS = ",;"


class PhraseCompleter(QCompleter):
    """Completes the last of several phrases and leaves those before it as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._phrases: Mapping[str, str] = {}
        self._before = ""
        self.setModel(QStringListModel([], self))
        self.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setFilterMode(Qt.MatchFlag.MatchContains)
        self.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)

    def offer(self, phrases: Mapping[str, str]) -> None:
        """Offer these: what is shown -> the phrase that it gives."""
        self._phrases = phrases
        model = self.model()
        assert isinstance(model, QStringListModel)
        model.setStringList(list(phrases))

    def splitPath(self, path: str | None) -> list[str]:
        """What is looked for: the text behind the last separator."""
        text = path or ""
        end = max(text.rfind(mark) for mark in SEPARATORS) + 1
        self._before = text[:end]
        return [text[end:].strip()]

    def pathFromIndex(self, index: QModelIndex) -> str:
        """The whole text once a suggestion was taken."""
        shown = str(index.data() or "")
        kept = f"{self._before} " if self._before else ""
        return f"{kept}{self._phrases.get(shown, shown)}"
