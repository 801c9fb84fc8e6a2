"""The manifest: every name imports, every sample and shortcut is there, napari's own open and save find us."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

try:
    for needed in ("napari.layers", "qtpy.QtWidgets"):
        importlib.import_module(needed)
except (ImportError, OSError) as error:  # Qt's system libraries may be missing
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari.components import ViewerModel
from npe2 import PluginManager, PluginManifest

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.volumes import volume_of
from napari_unibiomed.jobs import Job, Run
from napari_unibiomed.settings import PLUGIN
from napari_unibiomed.shortcuts import SHORTCUTS
from unibiomed_core.samples import samples

pytestmark = pytest.mark.filterwarnings("ignore")  # napari, npe2 and pydantic warn of one another's changes
ROOT = Path(__file__).resolve().parents[2]
MANIFEST = PluginManifest.from_file(ROOT / "napari_unibiomed" / "napari.yaml")
COMMANDS = {command.id.removeprefix(f"{PLUGIN}."): command for command in MANIFEST.contributions.commands}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported(name: str) -> None:
    module, function = COMMANDS[name].python_name.split(":")
    assert len(function) > 1
    assert callable(getattr(importlib.import_module(module), function))


def test_the_two_widgets_are_offered() -> None:
    widgets = {w.display_name: w.command for w in MANIFEST.contributions.widgets}
    assert widgets == {"UniBiomed": f"{PLUGIN}.dock", "UniBiomed findings": f"{PLUGIN}.panel"}


def test_every_shipped_sample_is_offered() -> None:
    assert {s.key for s in MANIFEST.contributions.sample_data} == set(samples())


def test_menus_hold_our_entries() -> None:
    entries = {menu: [item.command for item in items] for menu, items in MANIFEST.contributions.menus.items()}
    assert entries == {
        "napari/layers/segment": [f"{PLUGIN}.segment"],
        "napari/layers/classify": [f"{PLUGIN}.classify"],
        "napari/layers/measure": [f"{PLUGIN}.measure"],
    }


def test_every_shortcut_is_a_command_of_the_palette_in_the_same_words() -> None:
    assert {name: COMMANDS[name].title for name in SHORTCUTS} == {s.name: s.title for s in SHORTCUTS.values()}


@pytest.fixture
def registered() -> Any:
    """npe2 with our manifest and nothing else."""
    manager = PluginManager.instance()
    here = PLUGIN in manager
    if not here:
        manager.register(MANIFEST)
    yield manager
    if not here:
        manager.unregister(PLUGIN)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.dcm"])
def test_files_of_our_formats_are_offered_to_our_reader(name: str, registered: Any) -> None:
    assert PLUGIN in {reader.plugin_name for reader in registered.iter_compatible_readers([name])}


def test_a_file_is_opened_labelled_and_saved_by_napari(registered: Any, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-900, 900, (24, 20, 17), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, -2.0, 3.0, 1.0])), tmp_path / "a_ct.nii.gz")
    viewer = ViewerModel()
    (layer,) = viewer.open(tmp_path / "a_ct.nii.gz", plugin=PLUGIN)
    run = Run(Job("segment", volume_of(layer, "ct")), 1)
    labels = LayerGateway(viewer).add_labels(run, layer)
    labels.data[3:5, 6:9, 2:4] = 1
    assert labels.save(str(tmp_path / "labels.nii.gz")) == [str(tmp_path / "labels.nii.gz")]
    image = nibabel.Nifti1Image.from_filename(tmp_path / "labels.nii.gz")
    assert np.array_equal(image.affine, np.diag([1.5, -2.0, 3.0, 1.0]))
    assert int(np.asarray(image.dataobj).sum()) == 2 * 3 * 2


def test_a_sample_opens_from_the_menu(registered: Any) -> None:
    viewer = ViewerModel()
    (layer,) = viewer.open_sample(PLUGIN, "fundus")
    assert layer.rgb


def test_the_plugins_modules_import_nothing_heavy() -> None:
    modules = sorted({command.python_name.split(":")[0] for command in COMMANDS.values()})
    heavy = ("torch", "transformers", "SimpleITK", "sam2", "nibabel")
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr[-500:]
