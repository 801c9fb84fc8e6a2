"""The session without a window: loading, running, cancelling, failing, resuming, undoing and closing."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psygnal")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fake_engine import FakeEngine, FakeInfo, ct
from session_kit import Watch

from napari_unibiomed.controls import Phase
from napari_unibiomed.jobs import Job
from napari_unibiomed.model_choice import EMBEDDED, ModelChoice
from napari_unibiomed.model_thread import THREAD_NAME
from napari_unibiomed.session import Session, session_of
from napari_unibiomed.settings import Settings
from unibiomed_core.errors import DeviceError, WeightsError
from unibiomed_core.report import to_json
from unibiomed_core.types import Prompt, Region

Make = Callable[..., tuple[Session, Watch]]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Session] = []

    def session(engine: FakeEngine, **more: Any) -> tuple[Session, Watch]:
        settings = more.pop("settings", Settings(autosave=False))
        made.append(Session(load_engine=engine.load, settings=settings, **more))
        return made[-1], Watch(made[-1])

    yield session
    for each in made:
        each.close()


def test_a_report_streams_in_and_ends_in_words(make: Make) -> None:
    engine = FakeEngine()
    session, watch = make(engine)
    session.set_image(ct(6))
    assert session.phase is Phase.NO_MODEL
    assert session.start(Job("report", ct(6)))
    watch.until_phase(Phase.DONE)
    run = session.current
    assert run is session.runs[-1]
    assert run is not None
    assert run.complete
    assert watch.slices == run.slices_done == [0, 1, 2, 3, 4, 5]
    assert [f.target for f in watch.findings] == [f.target for f in run.findings] == ["liver", "spleen"]
    assert watch.finished == [run]
    assert watch.phases == [Phase.LOADING, Phase.RUNNING, Phase.DONE]
    assert session.messages[-1].text.startswith("● 2 findings in 6 slices, 0:0")
    assert watch.progress[0] == ("slice 1 of 6 · 0:00 gone", 0, 6)
    assert watch.progress[-1][1:] == (6, 6)
    assert session.seconds_per_slice is not None


def test_the_model_is_loaded_once_and_lives_in_one_thread(make: Make) -> None:
    engine = FakeEngine()
    session, watch = make(engine)
    session.set_image(ct(2))
    for _ in range(3):
        session.start(Job("report", ct(2)))
        watch.until_phase(Phase.DONE)
    assert engine.loads == [(EMBEDDED, session.settings)]
    assert engine.threads == {f"{THREAD_NAME}_0"}
    assert [run.number for run in session.runs] == [1, 2, 3]


def test_a_second_job_is_refused_and_not_queued(make: Make) -> None:
    engine = FakeEngine(held=True)
    session, watch = make(engine)
    session.set_image(ct(2))
    session.start(Job("report", ct(2)))
    engine.wait_until_in_work()
    for refused in (
        session.start(Job("segment", ct(2), ("liver",))),
        session.load_model(),
        session.unload(),
        session.resume(),
        session.undo_last_run(),
        session.download(EMBEDDED),
    ):
        assert not refused
        assert session.messages[-1].text == (
            "▲ One job at a time. “Report” is still going on. Wait for it or cancel it."
        )
    engine.let_all()
    watch.until_phase(Phase.DONE)
    assert len(session.runs) == 1
    assert len(engine.asked) == 2
