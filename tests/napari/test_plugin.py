"""The plugin: manifest, layers and volumes, the session without Qt, and the dock in a window."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

try:
    for needed in ("napari.layers", "qtpy.QtWidgets"):
        importlib.import_module(needed)
except (ImportError, OSError) as error:  # napari's or Qt's system libraries may be missing
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from napari.components import ViewerModel
from toy import ct_volume, toy_engine

from napari_unibiomed.geometry import volume_of
from napari_unibiomed.layers import LayerGateway
from napari_unibiomed.placement import KEY, image_layer
from napari_unibiomed.state import Phase, Session, Status
from unibiomed_core.errors import UniBiomedError
from unibiomed_core.io import read
from unibiomed_core.samples import samples
from unibiomed_core.types import Volume
from unibiomed_core.updates import Done

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # napari, npe2 and pydantic warn of one another's changes
]
ROOT = Path(__file__).resolve().parents[2]


def manifest() -> Any:
    from npe2 import PluginManifest

    return PluginManifest.from_file(ROOT / "napari_unibiomed" / "napari.yaml")


def test_every_command_of_the_manifest_can_be_imported() -> None:
    commands = manifest().contributions.commands
    assert len(commands) == 2 + len(samples())
    for command in commands:
        module, name = command.python_name.split(":")
        assert len(name) > 1
        assert callable(getattr(importlib.import_module(module), name))


def test_every_shipped_sample_is_offered() -> None:
    assert {s.key for s in manifest().contributions.sample_data} == set(samples())


def test_the_plugin_modules_import_no_torch() -> None:
    code = (
        "import sys, napari_unibiomed.dock, napari_unibiomed.reading;"
        "print([m for m in ('torch', 'transformers', 'SimpleITK') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr[-500:]


@pytest.mark.parametrize("name", list(samples()))
def test_a_sample_goes_into_a_layer_and_back_exactly(name: str) -> None:
    volume = read(samples()[name].path, samples()[name].modality)
    data, about, kind = image_layer(volume)
    assert kind == "image"
    layer = ViewerModel().add_image(data, **about)
    again = volume_of(layer, volume.modality)
    assert np.array_equal(again.voxels, volume.voxels)
    assert np.array_equal(again.affine, volume.affine)
    assert again.stored is volume.stored
    if not volume.is_2d:
        assert tuple(layer.scale) == pytest.approx(volume.spacing_mm)
        assert layer.axis_labels == ("S-I", "A-P", "R-L")


def test_a_report_becomes_labels_on_the_image_and_changes_nothing_else() -> None:
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    volume = ct_volume(6)
    layer = gateway.add_image(volume)
    before = hashlib.sha256(np.ascontiguousarray(layer.data)).hexdigest()
    done = next(u for u in toy_engine().run(volume_of(layer, "ct"), ["liver", "spleen"]) if isinstance(u, Done))
    job = SimpleNamespace(volume=volume, label="", plane="axial")
    made = gateway.add_labels(SimpleNamespace(job=job, report=done.report, predictions={}), layer)
    assert made.data.shape == layer.data.shape
    assert tuple(made.scale) == tuple(layer.scale)
    assert list(made.features["index"]) == [0, *(f.number for f in done.report.findings)]
    assert set(np.unique(made.data)) <= {0, *(f.number for f in done.report.findings)}
    assert hashlib.sha256(np.ascontiguousarray(layer.data)).hexdigest() == before
    assert list(gateway.images()) == [layer]
    assert made.metadata[KEY]["run"].report is done.report


class Listener:
    """Collects statuses and lets a test wait for a phase."""

    def __init__(self) -> None:
        self.seen: list[Status] = []
        self.changed = threading.Event()

    def __call__(self, status: Status) -> None:
        self.seen.append(status)
        self.changed.set()

    def wait(self, phase: Phase, seconds: float = 60) -> Status:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := [s for s in self.seen if s.phase is phase]:
                return found[-1]
            self.changed.wait(0.05)
            self.changed.clear()
        raise AssertionError(f"{phase} was not reached: {[s.message for s in self.seen][-3:]}")


@pytest.fixture
def session() -> Iterator[Callable[..., tuple[Session, Listener]]]:
    made: list[Session] = []

    def make(load: Callable[[], Any]) -> tuple[Session, Listener]:
        listener = Listener()
        made.append(Session(listener, load))
        return made[-1], listener

    yield make
    for each in made:
        each.close()


def test_a_session_reports_and_refuses_a_second_job(session: Callable[..., tuple[Session, Listener]]) -> None:
    held, listener = session(toy_engine)
    assert held.start(ct_volume(5))
    assert not held.start(ct_volume(5))
    status = listener.wait(Phase.DONE)
    assert status.report is not None
    assert len(status.report.slices_done) == 5
    assert held.start(ct_volume(2))  # the thread and the model last


def test_a_session_cancels_and_keeps_what_is_done(session: Callable[..., tuple[Session, Listener]]) -> None:
    held, listener = session(lambda: toy_engine(batch_size=1))
    held.start(ct_volume(60))
    listener.wait(Phase.RUNNING)
    held.cancel()
    end = time.monotonic() + 60
    while not (reports := [s.report for s in listener.seen if s.report is not None]) and time.monotonic() < end:
        time.sleep(0.05)
    assert reports
    assert reports[0].cancelled
    assert len(reports[0].slices_done) < 60
    assert not held.phase.busy


@pytest.mark.parametrize(
    ("error", "said"),
    [(UniBiomedError("Weights damaged", "the checksum differs"), "checksum"), (ZeroDivisionError("x"), "went wrong")],
)
def test_errors_end_in_words(error: Exception, said: str, session: Callable[..., tuple[Session, Listener]]) -> None:
    def fail() -> Any:
        raise error

    held, listener = session(fail)
    held.start(ct_volume(2))
    assert said in listener.wait(Phase.FAILED).message
    assert not held.phase.busy


def wait_for(condition: Callable[[], bool], process: Callable[[], None], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process()
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.window
def test_report_in_a_window(make_napari_viewer: Callable[..., Any], tmp_path: Path) -> None:
    from qtpy.QtWidgets import QApplication

    from napari_unibiomed.dock import ReportDock

    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    dock = ReportDock(viewer)
    viewer.window.add_dock_widget(dock, name="UniBiomed", area="right")
    process = QApplication.processEvents
    dock.sample.setCurrentIndex(dock.sample.findData("ct"))
    dock.load_button.click()
    process()
    source = viewer.layers[0]
    before = source.data.copy()
    assert dock.modality.currentData() == "ct"
    dock.report_button.click()
    assert not dock.report_button.isEnabled()
    assert wait_for(lambda: len(viewer.layers) == 2 and not dock.session.phase.busy, process), dock.message.text()
    made = viewer.layers[1]
    assert made.name == "STS_006_CT findings"
    assert made.data.shape == source.data.shape
    assert np.array_equal(source.data, before)
    assert "Research use only" in dock.findings.toPlainText()
    assert "slices" in dock.message.text()
    assert not dock.cancel_button.isVisible()
    for _ in range(5):
        process()
    picture = viewer.screenshot(str(tmp_path / "report.png"), canvas_only=False, flash=False)
    assert (tmp_path / "report.png").stat().st_size > 10_000
    assert picture[..., :3].std() > 10
    assert dock.width() < 500


@pytest.mark.window
def test_the_dock_says_what_is_missing_and_leaves_no_thread(make_napari_viewer: Callable[..., Any]) -> None:
    from qtpy.QtWidgets import QApplication

    from napari_unibiomed.dock import ReportDock

    viewer = make_napari_viewer()
    dock = ReportDock(viewer, toy_engine)
    dock.run()
    assert "No image" in dock.message.text()
    viewer.add_image(np.zeros((4, 40, 40), np.int16))
    dock.run()
    assert "Modality unknown" in dock.message.text()
    viewer.layers.clear()
    LayerGateway(viewer).add_image(ct_volume(3))
    assert dock.modality.currentData() == "ct"
    dock.run()
    assert wait_for(lambda: len(viewer.layers) == 2, QApplication.processEvents)
    dock.session.close()
    assert wait_for(lambda: not [t for t in threading.enumerate() if "unibiomed" in t.name], QApplication.processEvents)


def test_volume_type_is_what_layers_carry() -> None:
    volume = read(samples()["ct"].path, "ct")
    assert isinstance(image_layer(volume)[1]["metadata"][KEY]["volume"], Volume)
