"""The table of phases: what is shown and what can be used, row by row."""

from __future__ import annotations

import pytest

from napari_unibiomed.session.phases import ENABLED, SHOWN, Controls, Phase, enabled, status_line

MODEL = {"model", "load", "download", "folder"}
IMAGE = {"image", "preview"}
REST = {"task", "run", "undo", "save", "export", "panel"}

ROWS = {
    Phase.NO_MODEL: ("● Ready; model loads by itself", MODEL | IMAGE | REST),
    Phase.DOWNLOADING: ("● Downloading", IMAGE | {"panel", "cancel"}),
    Phase.LOADING: ("● Loading weights (first run takes about a minute)", IMAGE | {"panel", "cancel"}),
    Phase.LOOKING: ("● The model looks which kind of image this is", IMAGE | {"panel", "cancel"}),
    Phase.NO_IMAGE: (
        "● Open an image or try File ▸ Open Sample ▸ UniBiomed.",
        MODEL | IMAGE | {"undo", "save", "export", "panel"},
    ),
    Phase.READY: ("● Ready", MODEL | IMAGE | REST),
    Phase.RUNNING: ("● Running", {"preview", "panel", "cancel"}),
    Phase.CANCELLING: ("● Cancelling…", {"preview", "panel"}),
    Phase.DONE: ("● Done", MODEL | IMAGE | REST),
    Phase.FAILED: ("✕ Failed", MODEL | IMAGE | REST | {"retry"}),
}


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_a_row_of_the_table(phase: Phase) -> None:
    shown, controls = ROWS[phase]
    assert status_line(phase) == shown
    assert {control.value for control in Controls if enabled(phase, control)} == controls


def test_every_phase_has_its_row() -> None:
    assert ENABLED.keys() == SHOWN.keys() == set(Phase) == ROWS.keys()


def test_a_busy_phase_never_offers_to_begin_something() -> None:
    begins = {Controls.RUN, Controls.LOAD, Controls.DOWNLOAD, Controls.RETRY, Controls.UNDO}
    assert {phase for phase in Phase if phase.busy} == {
        Phase.DOWNLOADING,
        Phase.LOADING,
        Phase.LOOKING,
        Phase.RUNNING,
        Phase.CANCELLING,
    }
    assert not [phase for phase in Phase if phase.busy and ENABLED[phase] & begins]
    assert all(enabled(phase, Controls.CANCEL) == (phase.busy and phase is not Phase.CANCELLING) for phase in Phase)
