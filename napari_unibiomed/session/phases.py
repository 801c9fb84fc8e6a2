"""Where the work stands, what is shown then, and which controls can be used: two tables, no widget."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from napari_unibiomed.messages.catalogue import SAMPLES


class Phase(Enum):
    """Where the work stands; the value is its name for people."""

    NO_MODEL = "no model"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    LOOKING = "looking at the image"
    NO_IMAGE = "no image"
    READY = "ready"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"

    @property
    def busy(self) -> bool:
        """Whether the model thread is at work."""
        return self in {Phase.DOWNLOADING, Phase.LOADING, Phase.LOOKING, Phase.RUNNING, Phase.CANCELLING}


class Controls(Enum):
    """Groups of controls that are enabled together; the value names the section they stand in."""

    MODEL = "model"
    LOAD = "load"
    DOWNLOAD = "download"
    FOLDER = "folder"
    IMAGE = "image"
    PREVIEW = "preview"
    TASK = "task"
    RUN = "run"
    CANCEL = "cancel"
    RETRY = "retry"
    UNDO = "undo"
    SAVE = "save"
    EXPORT = "export"
    PANEL = "panel"


_MODEL = frozenset({Controls.MODEL, Controls.LOAD, Controls.DOWNLOAD, Controls.FOLDER})
_IMAGE = frozenset({Controls.IMAGE, Controls.PREVIEW})
_OUTPUT = frozenset({Controls.UNDO, Controls.SAVE, Controls.EXPORT})
_PANEL = frozenset({Controls.PANEL})
_ALL = _MODEL | _IMAGE | _OUTPUT | _PANEL | {Controls.TASK, Controls.RUN}

ENABLED: Mapping[Phase, frozenset[Controls]] = MappingProxyType(
    {
        Phase.NO_MODEL: _ALL,
        Phase.DOWNLOADING: _IMAGE | _PANEL | {Controls.CANCEL},
        Phase.LOADING: _IMAGE | _PANEL | {Controls.CANCEL},
        Phase.LOOKING: _IMAGE | _PANEL | {Controls.CANCEL},
        Phase.NO_IMAGE: _MODEL | _IMAGE | _OUTPUT | _PANEL,
        Phase.READY: _ALL,
        Phase.RUNNING: _PANEL | {Controls.CANCEL, Controls.PREVIEW},
        Phase.CANCELLING: _PANEL | {Controls.PREVIEW},
        Phase.DONE: _ALL,
        Phase.FAILED: _ALL | {Controls.RETRY},
    }
)
"""The panel can always be opened. A job that is being cancelled cannot be cancelled again. A run loads the chosen model
first where none is in memory, so that one click is enough; what a run gave needs no model and no image."""

SHOWN: Mapping[Phase, tuple[str, str]] = MappingProxyType(
    {
        Phase.NO_MODEL: ("\u25cf", "Ready; model loads by itself"),
        Phase.DOWNLOADING: ("\u25cf", "Downloading"),
        Phase.LOADING: ("\u25cf", "Loading weights (first run takes about a minute)"),
        Phase.LOOKING: ("\u25cf", "The model looks which kind of image this is"),
        Phase.NO_IMAGE: ("\u25cf", f"Open an image or try {SAMPLES}."),
        Phase.READY: ("\u25cf", "Ready"),
        Phase.RUNNING: ("\u25cf", "Running"),
        Phase.CANCELLING: ("\u25cf", "Cancelling\u2026"),
        Phase.DONE: ("\u25cf", "Done"),
        Phase.FAILED: ("\u2715", "Failed"),
    }
)
"""Icon and words of each phase; a message with more is shown beside them where there is one."""


def enabled(phase: Phase, control: Controls) -> bool:
    """Whether a control can be used in a phase."""
    return control in ENABLED[phase]


def status_line(phase: Phase) -> str:
    """Icon and words of a phase."""
    return " ".join(SHOWN[phase])
