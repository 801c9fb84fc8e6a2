"""Phrases in the dock: suggestions while typing, and unknown ones that stop nothing and leave nothing (ux 8)."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari.layers")
from napari_unibiomed.runs.outcome import closing_messages
from napari_unibiomed.runs.requests import suggestions
from napari_unibiomed.widgets.task_section import TaskSection
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from tests.napari_unibiomed.hand_runs import a_report, a_run

__all__ = ["open_dock"]

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

TARGETS = ("soft-tissue sarcoma", "lung tumour", "liver")


@pytest.fixture
def section(qtbot: Any) -> TaskSection:
    made = TaskSection()
    qtbot.addWidget(made)
    made.set_targets(TARGETS)
    made.choose("segment")
    made.show()
    return made


def offered(section: TaskSection) -> list[str]:
    model = section.completer.completionModel()
    return [model.index(row, 0).data() for row in range(model.rowCount())]


def taken(section: TaskSection) -> str:
    """The text once the first suggestion is taken, as Qt asks for it."""
    return section.completer.pathFromIndex(section.completer.completionModel().index(0, 0))


def test_names_and_synonyms_are_suggested_for_the_phrase_in_work(section: TaskSection, qtbot: Any) -> None:
    line = section.prompt.lineEdit()
    qtbot.keyClicks(line, "liver, SARC")
    assert offered(section)[0] == "soft-tissue sarcoma"
    assert set(offered(section)) == {text for text in suggestions(TARGETS) if "sarc" in text}
    assert taken(section) == "liver, soft-tissue sarcoma", "what stood before it is kept"


def test_a_synonym_gives_the_name_it_stands_for(section: TaskSection, qtbot: Any) -> None:
    line = section.prompt.lineEdit()
    qtbot.keyClicks(line, "hepa")
    assert offered(section) == ["hepar (liver)"]
    assert taken(section) == "liver"


def test_a_phrase_of_the_list_joins_what_was_typed(section: TaskSection, qtbot: Any) -> None:
    qtbot.keyClicks(section.prompt.lineEdit(), "femur")
    place = section.prompt.findText("liver")
    section.prompt.setCurrentIndex(place)
    section.prompt.activated.emit(place)
    assert section.prompt.currentText() == "femur, liver"


def test_questions_are_not_completed_with_targets(section: TaskSection) -> None:
    section.choose("ask")
    assert section.prompt.lineEdit().completer() is None


def test_a_run_that_fails_leaves_no_layer(open_dock: Open) -> None:
    kit = open_dock(FakeEngine(), image=ct())
    kit.dock.task.choose("segment")
    kit.dock.task.prompt.setEditText("nonsense")
    before = [layer.name for layer in kit.viewer.layers]
    kit.dock.run.run.click()
    kit.until(lambda: kit.session.messages and not kit.session.phase.busy)
    assert kit.session.messages[-1].kind == "error"
    assert [layer.name for layer in kit.viewer.layers] == before


def test_unknown_phrases_are_named_at_the_end_of_a_run() -> None:
    told = [{"name": "femur", "code": "not_in_vocabulary", "nearest": ["liver"]}]
    run = a_run(kind="segment")
    run.report = a_report(run.volume, settings={"unknown_targets": told})
    said = [message for message in closing_messages(run) if message.title == "Not known to the model"]
    assert len(said) == 1
    assert "“femur” (nearest: liver)" in said[0].text
