"""Grounded biomedical image interpretation. Public names are imported on first use; this file loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "Engine": "engine.engine",
    "RunRequest": "engine.volume.request",
    "read": "io",
    **dict.fromkeys(
        ("Volume", "Slice", "Region", "Prompt", "Prediction", "Phrase", "Finding", "Absence", "Report", "NOTICE"),
        "types",
    ),
    **dict.fromkeys(("CancelToken", "Progress", "SliceDone", "FindingFound", "Done"), "updates"),
    "UniBiomedError": "errors",
    "models": "diagnostics",
    "download": "model.hub",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
