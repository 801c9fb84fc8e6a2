"""One model for each session, fed by what the session says, without keeping it alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from napari_unibiomed.jobs import Job
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from napari_unibiomed.session.shared_findings import findings_of
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.napari_unibiomed.session_kit import Watch
from unibiomed_core.engine.volume.request import RunRequest


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session(load_engine=FakeEngine(found={"liver": {1: (4, 4, 20, 20), 2: (4, 4, 20, 20)}}).load)
    made.set_image(ct())
    yield made
    made.close()


def test_a_run_fills_the_shared_model(session: Session) -> None:
    model, watch = findings_of(session), Watch(session)
    assert findings_of(session) is model
    assert session.start(Job("report", ct(), RunRequest.segment("liver")))
    watch.until(lambda: watch.finished)
    watch.until_phase(Phase.DONE)
    assert model.run is session.runs[0]
    assert [(row.phrase, row.slices) for row in model.rows] == [("liver", "1–2")]
    model.reject(1)
    assert session.start(Job("report", ct(), RunRequest.segment("liver")))
    watch.until(lambda: len(watch.finished) == 2)
    assert model.run is session.runs[1]
    assert not model.rows[0].rejected
    watch.until_phase(Phase.DONE)
    session.undo_last_run()
    assert model.run is session.runs[0]
    assert model.rows[0].rejected


def test_a_model_ends_with_its_session() -> None:
    session = Session(load_engine=FakeEngine().load)
    model = weakref.ref(findings_of(session))
    assert model() is not None
    session.close()
    del session
    gc.collect()
    assert model() is None
