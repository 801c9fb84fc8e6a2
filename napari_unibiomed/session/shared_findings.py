"""One findings model for each session, fed by the session's signals; the panel and the dock's export share it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from napari_unibiomed.findings.model import FindingsModel
from napari_unibiomed.findings.saved_edits import edits_of
from unibiomed_core.types import Finding

if TYPE_CHECKING:
    from napari_unibiomed.jobs import Run
    from napari_unibiomed.session.session import Session

_models: WeakKeyDictionary[Session, FindingsModel] = WeakKeyDictionary()


def findings_of(session: Session) -> FindingsModel:
    """The findings of a session, made on first use and fed by it from then on; panel and dock share them."""
    if session not in _models:
        _models[session] = FindingsModel()
        _follow(session, _models[session])
    return _models[session]


def _follow(session: Session, model: FindingsModel) -> None:
    """Feed a model by a session's signals; neither keeps the other alive."""
    held, known = ref(session), ref(model)
    model.kept_edits = session.kept_edits

    def on_runs() -> None:
        """Show a run that began, and drop those that were taken back."""
        session, model = held(), known()
        if session is None or model is None:
            return
        model.keep_only(session.runs)
        newest = session.runs[-1] if session.runs else None
        if newest is not None and newest.number > model.newest:
            model.set_run(newest)

    def on_slice(run: Run, _: int) -> None:
        if (model := known()) is not None and model.run is run:
            model.take_slice()

    def on_finding(run: Run, finding: Finding) -> None:
        if (model := known()) is not None and model.run is run:
            model.add(finding)

    def on_finished(run: Run) -> None:
        if (model := known()) is not None:
            model.finish(run)

    def on_row(_: int) -> None:
        session, model = held(), known()
        if session is not None and model is not None and model.run is not None and model.finished:
            session.keep_edits(model.run, edits_of(model.run, model.rows))

    model.row_changed.connect(on_row)
    session.runs_changed.connect(on_runs)
    session.slice_done.connect(on_slice)
    session.finding_found.connect(on_finding)
    session.finished.connect(on_finished)
    on_runs()
