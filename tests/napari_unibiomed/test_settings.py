"""Preferences: defaults without napari, the manifest's are the same, and stored values come back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from napari_unibiomed.settings import GROUP, PLUGIN, Settings, read_settings
from unibiomed_core.modalities import CT_WINDOWS

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes
MANIFEST = Path(__file__).resolve().parents[2] / "napari_unibiomed" / "napari.yaml"


def properties() -> dict[str, Any]:
    npe2 = pytest.importorskip("npe2")
    configurations = npe2.PluginManifest.from_file(MANIFEST).contributions.configurations
    return dict(configurations[GROUP].properties)


def test_the_manifest_has_the_same_names_and_defaults() -> None:
    assert {name: row.default for name, row in properties().items()} == asdict(Settings())


def test_every_preference_is_explained() -> None:
    assert all(row.title and row.description for row in properties().values())


def test_the_windows_offered_are_those_there_are() -> None:
    assert properties()["window"].enum == ["", *CT_WINDOWS]


def test_without_napari_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "napari.settings", None)
    assert read_settings() == Settings()


def test_stored_values_are_read_in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pytest.importorskip("napari.settings")
    npe2 = pytest.importorskip("npe2")
    manager = npe2.PluginManager()
    manager.register(npe2.PluginManifest.from_file(MANIFEST))
    monkeypatch.setattr(settings, "plugin_configuration_generator", lambda: generated(settings, manager))
    monkeypatch.setattr(settings, "_PLUGIN_SETTINGS", {})
    stored = getattr(settings.get_plugin_settings(PLUGIN, path_dir=tmp_path), GROUP)
    assert read_settings() == Settings()
    stored.device, stored.offline, stored.labels_opacity, stored.window = "cpu", False, 0.7, "lung"
    assert read_settings() == Settings(device="cpu", offline=False, labels_opacity=0.7, window="lung")
    assert "lung" in (tmp_path / f"{PLUGIN}.yaml").read_text("utf-8")
    with pytest.raises(ValueError, match="allowed enum values"):
        stored.window = "no such window"
    monkeypatch.setattr(settings, "_PLUGIN_SETTINGS", {})
    settings.get_plugin_settings(PLUGIN, path_dir=tmp_path)
    assert read_settings().device == "cpu"  # as after a restart


def generated(settings: Any, manager: Any) -> dict[str, Any]:
    """Settings models of the plugins of one manager."""
    from napari.settings._plugin_config_generator import plugin_configuration_generator

    return plugin_configuration_generator(manager)
