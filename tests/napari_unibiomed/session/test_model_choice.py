"""Which models are offered, downloads by a click only, and no socket without one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("psygnal")
from napari_unibiomed.session.models import EMBEDDED, ModelChoice, choices, device_names, folder_choice, model_line
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from napari_unibiomed.settings import Settings
from tests.napari_unibiomed.fake_engine import FakeEngine
from tests.napari_unibiomed.session_kit import Watch
from tests.patience import GUARD_S
from unibiomed_core.errors import WeightsError

ONLINE = Settings(offline=False, autosave=False)
PUBLISHED = ModelChoice("unibiomed-1b", "published", "unibiomed-1b", here=False)

NO_SOCKET = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
class Refused(socket.socket):
    __init__ = refuse
socket.socket, socket.create_connection, socket.getaddrinfo = Refused, refuse, refuse
from tests.napari_unibiomed.fake_engine import ct
from tests.napari_unibiomed.session_kit import Watch
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.jobs import Job
from napari_unibiomed.session.models import choices
from napari_unibiomed.session.session import Session
from napari_unibiomed.settings import Settings
from unibiomed_core.engine.volume.request import RunRequest
settings = Settings(autosave_folder=sys.argv[1])
offered = choices(settings)
session = Session(settings=settings)
watch = Watch(session)
assert session.settings.offline
for choice in offered:
    if choice.can_download:
        assert not session.download(choice)
        assert session.messages[-1].title == "Offline mode is on"
        assert session.load_model(choice)
        watch.until_phase(Phase.FAILED)
        assert session.messages[-1].title == "Weights not found"
volume = ct(2, size=64)
session.choice = offered[0]
session.set_image(volume)
session.start(Job("segment", volume, RunRequest.segment("liver")))
watch.until(lambda: watch.finished)
watch.until_phase(Phase.DONE)
assert session.current.complete
assert session.model_line.startswith("\\u25cf Ready \\u2013 ")
session.close()
print("no socket")
"""


@pytest.fixture(autouse=True)
def no_word_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test of this process may have loaded a torch for the CPU, which is said when a model is loaded."""
    monkeypatch.setattr("napari_unibiomed.session.models.torch_has_no_gpu_support", lambda: False)


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[Session, Watch]]]:
    made: list[Session] = []

    def session(**more: Any) -> tuple[Session, Watch]:
        made.append(Session(load_engine=FakeEngine().load, **more))
        return made[-1], Watch(made[-1])

    yield session
    for each in made:
        each.close()


def test_the_embedded_model_the_published_one_and_a_folder_are_offered(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}" + " " * 1_999_998)
    offered = {choice.name: choice for choice in choices(Settings(weights_folder=str(tmp_path)))}
    assert next(iter(offered)) == EMBEDDED.name
    mini, published, folder = offered["mini"], offered["unibiomed-1b"], offered[str(tmp_path)]
    assert (mini.kind, mini.here, mini.can_download) == ("embedded", True, False)
    assert mini.size.endswith("MB")
    assert mini.targets["ct"]
    assert published.kind == "published"
    assert "Apache-2.0" in published.licence
    assert published.size == "about 4 GB" or published.here
    assert (folder.kind, folder.label, folder.size) == ("folder", tmp_path.name, "2.0 MB")


def test_a_folder_that_is_not_there_can_be_named_and_fails_when_it_is_loaded(tmp_path: Path) -> None:
    assert folder_choice(tmp_path / "gone").size == "0.0 MB"


def test_devices_are_told_without_loading_torch() -> None:
    assert device_names()[0] == "auto"
    assert device_names()[-1] == "cpu"


def test_devices_are_told_while_another_thread_imports_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first load tells that the model before it is gone while the model thread is in the middle of the import."""
    half = ModuleType("torch")
    half.__spec__ = ModuleSpec("torch", None)
    half.__spec__._initializing = True
    monkeypatch.setitem(sys.modules, "torch", half)
    assert device_names() == ("auto", "cpu")


@pytest.mark.parametrize(
    ("about", "line"),
    [
        (("mini", "cpu", "float32"), "● Ready – mini, CPU, fp32"),
        (("unibiomed-1b", "cuda:1", "bfloat16", "5.1 of 24 GB"), "● Ready – unibiomed-1b, GPU 1, bf16, 5.1 of 24 GB"),
        (("mini", "mps", "float16"), "● Ready – mini, Apple GPU, fp16"),
    ],
)
def test_the_line_of_a_model(about: tuple[str, ...], line: str) -> None:
    assert model_line(*about) == line


def test_a_download_tells_its_bytes_and_loads_the_model(make: Callable[..., tuple[Session, Watch]]) -> None:
    asked = []

    def fetch(name: str, on_progress: Callable[[int, int], None]) -> Path:
        asked.append(name)
        for done in (0, 1_000_000, 4_000_000):
            on_progress(done, 4_000_000)
        return Path(name)

    session, watch = make(settings=ONLINE, download=fetch)
    assert session.download(PUBLISHED)
    watch.until_phase(Phase.NO_IMAGE)
    assert asked == ["unibiomed-1b"]
    assert watch.phases == [Phase.DOWNLOADING, Phase.LOADING, Phase.NO_IMAGE]
    assert watch.progress[0] == ("0 of 4 MB", 0, 4000)
    assert watch.progress[-1][1:] == (4000, 4000)
    assert session.choice.here


def test_a_download_can_be_cancelled(make: Callable[..., tuple[Session, Watch]]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fetch(name: str, on_progress: Callable[[int, int], None]) -> Path:
        begun.set()
        assert go_on.wait(GUARD_S)
        on_progress(1, 2)
        raise AssertionError("it went on")

    session, watch = make(settings=ONLINE, download=fetch)
    session.download(PUBLISHED)
    assert begun.wait(GUARD_S)
    session.cancel()
    assert session.phase is Phase.CANCELLING
    go_on.set()
    watch.until_phase(Phase.NO_MODEL)
    assert watch.titles == ["Loading cancelled"]


def test_a_download_that_breaks_is_said_and_tried_again(make: Callable[..., tuple[Session, Watch]]) -> None:
    tries = []

    def fetch(name: str, on_progress: Callable[[int, int], None]) -> Path:
        tries.append(name)
        if len(tries) == 1:
            raise WeightsError("Stopped", "reset", code="download_stopped", values={"percent": 41})
        return Path(name)

    session, watch = make(settings=ONLINE, download=fetch)
    session.download(PUBLISHED)
    watch.until_phase(Phase.FAILED)
    assert watch.titles == ["Download stopped at 41 %"]
    assert session.retry()
    watch.until_phase(Phase.NO_IMAGE)


def test_offline_mode_refuses_before_anything_is_asked(make: Callable[..., tuple[Session, Watch]]) -> None:
    session, watch = make(settings=Settings(autosave=False), download=lambda *_: pytest.fail("it was asked"))
    assert not session.download(PUBLISHED)
    assert watch.titles == ["Offline mode is on"]
    assert session.phase is Phase.NO_MODEL


def test_offline_everything_but_a_download_works_without_a_socket(tmp_path: Path) -> None:
    """With the real engine and the embedded model, in a process whose sockets refuse."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NO_SOCKET, str(tmp_path / "runs")],
        env=kept | {"HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=GUARD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "no socket"
