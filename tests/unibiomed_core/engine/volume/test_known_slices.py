"""A run that is taken up again: slices that were answered before are not computed a second time."""

from __future__ import annotations

from tests.alike import differences
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.report import to_json
from unibiomed_core.types import Prediction, Report
from unibiomed_core.updates import CancelToken, Done, SliceDone


def test_a_resumed_run_gives_the_report_of_an_unbroken_one() -> None:
    volume, request = ct_volume(6, empty=(0,)), RunRequest.segment("liver", "spleen", describe=False, check=False)
    whole = _run(volume, request)[0]
    cancel = CancelToken()
    known: dict[int, tuple[Prediction, ...]] = {}
    for update in toy_engine(batch_size=1).run(volume, request, cancel=cancel):
        if isinstance(update, SliceDone):
            known[update.index] = update.predictions
            if len(known) == 2:
                cancel.cancel()
    assert len(known) == 2
    engine = toy_engine(batch_size=1)
    resumed, order = _run(volume, request, engine, known)
    assert order[:2] == list(known)
    assert engine.counts.grounding_encodes == 3
    assert not list(differences(to_json(resumed) | {"wall_time_s": 0}, to_json(whole) | {"wall_time_s": 0}))


def _run(volume, request, engine=None, known=None) -> tuple[Report, list[int]]:  # type: ignore[no-untyped-def]
    order = []
    for update in (engine or toy_engine(batch_size=1)).run(volume, request, known=known):
        if isinstance(update, SliceDone):
            order.append(update.index)
        if isinstance(update, Done):
            return update.report, order
    raise AssertionError("no report")
