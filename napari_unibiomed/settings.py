"""The user's preferences: a plain record of defaults, and napari's stored values where napari is there."""

from __future__ import annotations

from dataclasses import dataclass, fields

PLUGIN = "napari-unibiomed"
GROUP = "preferences"
"""The key of our preferences under ``contributions.configurations`` of the manifest."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user prefers. Names and defaults are those of the manifest (a test compares them).

    Args:
        device: "auto", "cpu" or a torch device as "cuda:0".
        dtype: "auto", "float32", "bfloat16", "float16" or "int8" (on a CPU).
        weights_folder: A folder of weights to offer besides the embedded model; empty for none.
        offline: No code path opens a socket while it is on.
        autosave_folder: Where runs are kept; empty for the user's cache folder.
        autosave: Whether runs are kept at all.
        window: A CT window preset that the dock starts with; empty for the modality's default.
        labels_opacity: Of result layers, 0..1.
        outline_px: Width of the outline of the selected finding, in voxels of its slice.
    """

    device: str = "auto"
    dtype: str = "auto"
    weights_folder: str = ""
    offline: bool = True
    autosave_folder: str = ""
    autosave: bool = True
    window: str = ""
    labels_opacity: float = 0.45
    outline_px: int = 2


def read_settings() -> Settings:
    """The stored preferences; the defaults where napari is not installed or does not know the plugin."""
    try:
        from napari.settings import get_plugin_settings

        stored = getattr(get_plugin_settings(PLUGIN), GROUP)
    except (ImportError, KeyError, AttributeError):
        return Settings()
    return Settings(**{field.name: getattr(stored, field.name) for field in fields(Settings)})
