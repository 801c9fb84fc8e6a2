"""The end of the model thread: after its work, twice, and when the interpreter ends first."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("psygnal")

from napari_unibiomed.session.worker import ModelThread
from tests.patience import GUARD_S

ROOT = Path(__file__).resolve().parents[3]
LIVES_TO_THE_END = """
from napari_unibiomed.session.session import session_of

class Viewer:
    pass

viewer = Viewer()
session_of(viewer)._model.submit(lambda: print("worked"))
"""


def a_thread() -> ModelThread:
    return ModelThread(lambda choice, settings: pytest.fail("nothing is loaded"), lambda name, tell: None)


def test_a_viewer_that_lives_until_the_interpreter_ends_is_closed_without_a_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIVES_TO_THE_END],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=GUARD_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "worked\n", "")


def test_the_end_comes_after_the_work_in_hand_and_may_come_twice() -> None:
    thread, go, order = a_thread(), threading.Event(), []
    thread.submit(lambda: order.append(go.wait(GUARD_S)))
    dropped = threading.Event()
    thread.drop = dropped.set
    thread.end()
    assert not dropped.is_set()
    go.set()
    assert dropped.wait(GUARD_S)
    assert order == [True]
    thread.end()


def test_another_error_of_the_thread_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = a_thread()

    def refuse(work: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread._thread, "submit", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        thread.end()
