"""A picture whose kind nobody tells: the model does, the user's word wins, and nothing waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_unibiomed import reading
from napari_unibiomed.canvas.placement import KEY
from napari_unibiomed.messages.message import Link
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.worker import THREAD_NAME
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from unibiomed_core.errors import WeightsError

__all__ = ["open_dock"]

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

FOUND = {"liver": {0: (4, 4, 20, 20)}}
UNDECIDED = (("mri", 0.4), ("ct", 0.35), ("xray", 0.25))


def picture_file(folder: Path) -> str:
    pixels = np.random.default_rng(4).integers(0, 255, (40, 56), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return str(folder / "photo.png")


def opened(kit: Any, folder: Path) -> Any:
    """Open a picture that tells no modality, as napari's reader does."""
    ((data, about, _),) = reading.read_layers(picture_file(folder))
    return kit.viewer.add_image(data, **about)


def load(kit: Any) -> None:
    kit.session.load_model()
    kit.until_idle()


def words(kit: Any) -> str:
    return " ".join(message.text for message in kit.dock.run.shown)


def test_a_picture_that_tells_nothing_is_read_without_a_modality(tmp_path: Path) -> None:
    ((_, about, _),) = reading.read_layers(picture_file(tmp_path))
    volume = about["metadata"][KEY]["volume"]
    assert (volume.modality, volume.modality_by) == ("", "model")
    assert about["contrast_limits"] == (0, 255)
    assert "modality_assumed" not in [note.code for note in volume.notes]


def test_a_report_loads_the_model_lets_it_tell_and_runs(open_dock: Open, tmp_path: Path) -> None:
    kit = open_dock(FakeEngine(FOUND))
    opened(kit, tmp_path)
    assert "Kind of image unknown" in words(kit)
    assert kit.dock.run.shown[-1].links == (Link.LET_MODEL_TELL,)
    assert kit.engine.loads == [], "no model is loaded for this alone"

    assert kit.dock.run_report()
    kit.until(lambda: kit.session.phase is Phase.DONE)
    assert len(kit.engine.looks) == len(kit.engine.loads) == 1
    volume = kit.session.current.volume
    assert (volume.modality, volume.modality_by) == ("xray", "model")
    assert volume.modality_shares == (("xray", 0.98), ("mri", 0.02))
    assert kit.dock.image.modality == "xray"
    assert "The model sees X-ray (0.98). Choose another under Image if that is wrong." in words(kit)
    assert kit.session.current.findings
    assert threading.current_thread().name not in kit.engine.threads
    assert all(name.startswith(THREAD_NAME) for name in kit.engine.threads)


def test_a_model_that_is_there_tells_at_once_and_the_user_has_the_last_word(open_dock: Open, tmp_path: Path) -> None:
    kit = open_dock(FakeEngine(FOUND))
    load(kit)
    layer = opened(kit, tmp_path)
    kit.until(lambda: kit.dock.image_binding.volume is not None)
    assert kit.dock.image_binding.volume.modality_by == "model"
    assert "The model sees X-ray (0.98)" in words(kit)
    assert kit.session.runs == []

    kit.dock.image.kind.choose("oct")
    volume = kit.dock.image_binding.volume
    assert (volume.modality, volume.modality_by, volume.modality_shares) == ("oct", "user", ())
    kit.viewer.add_image(layer.data.copy(), name="another")
    kit.until(lambda: kit.dock.image_binding.volume is not None and kit.dock.image_binding.volume.name == "another")
    assert kit.dock.image_binding.volume.modality_by == "model", "a layer of another reader"
    kit.viewer.layers.selection.active = layer
    kit.until(lambda: kit.dock.image_binding.volume.name == layer.name)
    assert kit.dock.image_binding.volume.modality_by == "user", "what was said of a layer holds"

    asked = len(kit.engine.looks)
    kit.dock.image.kind.choose("")
    kit.until(lambda: kit.dock.image_binding.volume is not None)
    assert len(kit.engine.looks) == asked + 1
    assert kit.dock.image_binding.volume.modality_by == "model", "no kind is chosen, so the model tells it"


def test_an_undecided_model_offers_the_likely_kinds_in_order_and_is_not_asked_twice(
    open_dock: Open, tmp_path: Path
) -> None:
    kit = open_dock(FakeEngine(FOUND, sees=UNDECIDED))
    opened(kit, tmp_path)
    assert kit.dock.run_report()
    kit.until(lambda: "most likely" in words(kit))
    assert "in this order: MRI, CT, X-ray" in words(kit)
    assert kit.session.runs == []
    assert not kit.dock.run_report()
    assert "most likely" in words(kit)
    assert len(kit.engine.looks) == 1
    kit.dock.image.kind.choose("mri")
    assert kit.dock.image_binding.volume.modality_by == "user"
    assert kit.dock.run_report()
    kit.until(lambda: kit.session.phase is Phase.DONE)


def test_what_the_user_says_while_the_model_looks_stands(open_dock: Open, tmp_path: Path) -> None:
    kit = open_dock(FakeEngine(FOUND, held=True))
    opened(kit, tmp_path)
    assert kit.dock.run_report()
    kit.engine.wait_until_in_work()
    kit.until(lambda: kit.session.phase is Phase.LOOKING)
    kit.dock.image.kind.choose("ultrasound")
    kit.engine.let_all()
    kit.until_idle()
    volume = kit.dock.image_binding.volume
    assert (volume.modality, volume.modality_by) == ("ultrasound", "user")
    assert kit.session.runs == []
    assert "The model sees" not in words(kit)


def test_a_look_can_be_cancelled(open_dock: Open, tmp_path: Path) -> None:
    kit = open_dock(FakeEngine(FOUND, held=True))
    opened(kit, tmp_path)
    assert kit.dock.run_report()
    kit.engine.wait_until_in_work()
    kit.until(lambda: kit.session.phase is Phase.LOOKING)
    kit.dock.cancel_run()
    assert kit.session.phase is Phase.CANCELLING
    kit.engine.let_all()
    kit.until_idle()
    assert kit.session.runs == []


def test_a_model_that_does_not_load_is_tried_again_and_the_run_goes_on(open_dock: Open, tmp_path: Path) -> None:
    failing = WeightsError("Weights not found", "no file", "a file", "Choose another folder.")
    kit = open_dock(FakeEngine(FOUND, load_fails=failing))
    opened(kit, tmp_path)
    assert kit.dock.run_report()
    kit.until(lambda: kit.session.phase is Phase.FAILED)
    kit.dock.run.retry.click()
    kit.until(lambda: kit.session.phase is Phase.DONE)
    assert kit.session.current.volume.modality_by == "model"


def test_other_pixels_are_looked_at_anew(open_dock: Open, tmp_path: Path) -> None:
    kit = open_dock(FakeEngine(FOUND))
    load(kit)
    layer = opened(kit, tmp_path)
    kit.until(lambda: kit.dock.image_binding.volume is not None)
    layer.data = 255 - np.asarray(layer.data)
    kit.until(lambda: len(kit.engine.looks) == 2 and kit.dock.image_binding.volume is not None)
    assert kit.dock.image_binding.volume.modality_by == "model"


def test_what_the_file_says_is_not_asked(open_dock: Open) -> None:
    kit = open_dock(FakeEngine(FOUND))
    load(kit)
    kit.dock.gateway.add_image(ct())
    assert kit.dock.image_binding.volume.modality_by == "header"
    kit.viewer.add_image(np.zeros((5, 40, 40), np.int16) + np.arange(40, dtype=np.int16), name="foreign volume")
    assert kit.dock.image_binding.volume is None
    assert "Kind of image unknown" in words(kit)
    assert kit.dock.run.shown[-1].links == (), "volumes are chosen by hand"
    assert kit.engine.looks == []
