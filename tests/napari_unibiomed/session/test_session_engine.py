"""The session with the real engine: the same report as the engine gives by itself, and boxes in another plane."""

from __future__ import annotations

import pytest

pytest.importorskip("psygnal")
from napari_unibiomed.jobs import Job
from napari_unibiomed.session.phases import Phase
from napari_unibiomed.session.session import Session
from napari_unibiomed.settings import Settings
from tests.alike import differences
from tests.napari_unibiomed.session_kit import Watch
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.report import to_json
from unibiomed_core.types import Prompt, Region
from unibiomed_core.updates import Done


def test_report_and_boxes_of_the_real_engine() -> None:
    volume, engine = ct_volume(4), toy_engine(batch_size=1)
    session = Session(load_engine=lambda choice, settings: engine, settings=Settings(autosave=False))
    watch = Watch(session)
    try:
        session.set_image(volume)
        session.start(Job("report", volume, RunRequest.segment("liver")))
        watch.until_phase(Phase.DONE)
        stream = toy_engine(batch_size=1).run(volume, RunRequest.segment("liver"))
        direct = [u.report for u in stream if isinstance(u, Done)]
        run = session.current
        assert run is not None
        assert run.report is not None
        assert not list(differences(to_json(run.report) | {"wall_time_s": 0}, to_json(direct[0]) | {"wall_time_s": 0}))
        box = Region(4, 4, 30, 15, "coronal", 9)
        session.start(Job("roi", ct_volume(20), RunRequest((Prompt("roi_class", region=box, max_new_tokens=4),))))
        watch.until(lambda: len(watch.finished) == 2)
        watch.until_phase(Phase.DONE)
        assert [(a.region, a.index) for a in session.runs[-1].answers] == [(box, 9)]
    finally:
        session.close()
