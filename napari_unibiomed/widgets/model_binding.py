"""Ties the model section to the session: what is asked for, what is loaded, what can be told about it."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING

from napari_unibiomed.messages.message import Message
from napari_unibiomed.runs.requests import offered_targets
from napari_unibiomed.session.models import ModelChoice, choices
from napari_unibiomed.session.phases import Phase, status_line
from napari_unibiomed.widgets.section import to_clipboard

if TYPE_CHECKING:
    from napari_unibiomed.session.session import Session
    from napari_unibiomed.widgets.model_section import ModelSection

PACKAGES = ("napari-unibiomed", "torch", "transformers", "napari", "qtpy", "numpy")
COPIED = Message("info", "Details copied", "What is known about model and versions is on the clipboard.")


class ModelBinding:
    """Requests go up to the session; its phase and model come down to the section."""

    def __init__(self, session: Session, section: ModelSection) -> None:
        self.session, self.section = session, section
        section.load_requested.connect(self._load)
        section.unload_requested.connect(session.unload)
        section.download_requested.connect(self._download)
        section.placement_changed.connect(self._place)
        section.details_requested.connect(self._copy)
        section.model.currentIndexChanged.connect(self._choose)
        session.phase_changed.connect(self._on_phase)
        session.model_changed.connect(self._on_model)
        self._on_phase(session.phase)

    def targets(self, modality: str) -> tuple[str, ...]:
        """Phrases to offer for a modality."""
        chosen = self.section.choice
        info = self.session.info
        learnt = info.targets if info is not None else chosen.targets if chosen is not None else {}
        return offered_targets(modality, learnt.get(modality, ()))

    def close(self) -> None:
        """Listen no more."""
        self.session.phase_changed.disconnect(self._on_phase, missing_ok=True)
        self.session.model_changed.disconnect(self._on_model, missing_ok=True)

    def details(self) -> str:
        """Model, device and versions as text; no file and no patient is named."""
        info = self.session.info
        about = {
            "model": "none loaded" if info is None else info.provenance(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "seconds_per_slice": dict(self.session.pace),
        }
        return json.dumps(about, indent=2)

    def _choose(self) -> None:
        """Another model was chosen: it is the one that the next run loads where none is in memory."""
        choice = self.section.choice
        if choice is not None and not choice.can_download and self.session.info is None:
            self.session.choice = choice

    def _load(self, choice: ModelChoice) -> None:
        self.session.load_model(choice)

    def _download(self, choice: ModelChoice) -> None:
        self.session.download(choice)

    def _place(self, device: str, dtype: str) -> None:
        """Device and precision count from the next time that a model is loaded."""
        self.session.settings = replace(self.session.settings, device=device, dtype=dtype)
        if self.session.info is not None:
            self.session.load_model(self.session.choice)

    def _copy(self) -> None:
        to_clipboard(self.details())
        self.session.message_shown.emit(COPIED)

    def _on_phase(self, phase: Phase) -> None:
        loaded = self.session.info is not None
        choice = self.session.choice
        waits = not loaded and phase in (Phase.NO_MODEL, Phase.NO_IMAGE) and not choice.can_download
        line = f"{choice.label}, loads when needed" if waits else status_line(phase)
        self.section.show_phase(phase, loaded, self.session.model_line if loaded else line)

    def _on_model(self) -> None:
        self.section.fill_devices()
        self.section.set_choices(choices(self.session.settings))
        self._on_phase(self.session.phase)
