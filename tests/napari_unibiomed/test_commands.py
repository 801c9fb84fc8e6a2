"""What menus and palette call: each opens the dock where it is closed, and does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unibiomed import commands

pytest.importorskip("napari.layers")
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, ct

__all__ = ["open_dock"]

pytestmark = [pytest.mark.window, pytest.mark.filterwarnings("ignore")]

FOUND = {"liver": dict.fromkeys(range(2, 6), (10, 10, 30, 30)), "spleen": dict.fromkeys(range(7, 9), (35, 35, 45, 45))}


def test_commands_open_the_dock_and_do_what_they_say(open_dock: Open) -> None:
    kit = open_dock(FakeEngine(FOUND), image=ct(12, 64))
    viewer = kit.viewer
    assert commands.open_dock(viewer) is kit.dock  # never a second one
    commands.segment_layer(viewer)
    assert kit.dock.task.task == "segment"
    commands.classify_region(viewer)
    assert kit.dock.task.task == "roi"
    assert "UniBiomed ROI" in viewer.layers
    commands.run_report(viewer)
    kit.until_idle()
    assert len(kit.session.runs) == 1
    labels = kit.dock.running.layers.layer_of(kit.session.runs[0])
    commands.next_finding(viewer)
    assert viewer.dims.current_step[0] in range(2, 6)
    commands.next_finding(viewer)
    assert viewer.dims.current_step[0] in range(7, 9)
    commands.previous_finding(viewer)
    assert viewer.dims.current_step[0] in range(2, 6)
    commands.show_or_hide_findings(viewer)
    assert not labels.visible
    commands.show_or_hide_findings(viewer)
    assert labels.visible
    commands.undo_last_run(viewer)
    assert labels not in viewer.layers


def test_cancel_is_a_command(open_dock: Open) -> None:
    kit = open_dock(FakeEngine(FOUND, held=True), image=ct(12, 64))
    kit.dock.choose_task("report")
    commands.run_task(kit.viewer)
    kit.engine.wait_until_in_work()
    commands.cancel_run(kit.viewer)
    kit.engine.let(1)
    kit.until_idle()
    assert len(kit.engine.asked) == 1


def test_the_selected_image_is_the_one_that_is_asked_about(open_dock: Open) -> None:
    kit = open_dock()
    first = kit.dock.gateway.add_image(ct(4, 32, "first"))
    kit.viewer.add_image(np.zeros((4, 32, 32)), name="second")
    kit.viewer.layers.selection.active = first
    commands.segment_layer(kit.viewer)
    assert kit.dock.image.layer is first


def test_napari_hands_its_viewer_to_menu_entries(open_dock: Open) -> None:
    from napari._app_model import get_app_model

    kit = open_dock(image=ct(4, 32))
    get_app_model().commands.execute_command("napari-unibiomed.segment").result()
    assert kit.dock.task.task == "segment"
