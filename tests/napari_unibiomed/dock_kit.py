"""What tests of the dock share: a viewer with the plugin's manifest, a dock on a scripted engine, and waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_unibiomed import commands
from tests.napari_unibiomed.fake_engine import FakeEngine
from tests.patience import GUARD_MS

ROOT = Path(__file__).resolve().parents[2]

Open = Callable[..., SimpleNamespace]


@pytest.fixture
def open_dock(
    make_napari_viewer: Callable[..., Any], npe2pm: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Opens a viewer with the dock: ``kit.viewer``, ``kit.dock``, ``kit.session``, ``kit.engine``, ``kit.until``.

    ``before`` is called with the viewer while there is no dock yet.
    """
    from napari_unibiomed.session.session import session_of

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sessions = []
    with npe2pm.tmp_plugin(manifest=ROOT / "napari_unibiomed" / "napari.yaml"):

        def make(
            engine: FakeEngine | None = None,
            *,
            show: bool = False,
            image: Any = None,
            before: Callable[[Any], object] = lambda viewer: None,
        ) -> SimpleNamespace:
            viewer = make_napari_viewer(show=show)
            before(viewer)
            session = session_of(viewer)
            engine = engine or FakeEngine()
            session._model._load_engine = engine.load
            sessions.append(session)
            dock = commands.open_dock(viewer)
            if image is not None:
                dock.gateway.add_image(image)

            def until(condition: Callable[[], object]) -> None:
                qtbot.waitUntil(lambda: bool(condition()), timeout=GUARD_MS)

            def until_idle() -> None:
                until(lambda: not session.phase.busy)

            return SimpleNamespace(
                viewer=viewer, dock=dock, session=session, engine=engine, until=until, until_idle=until_idle
            )

        yield make
        for session in sessions:
            session.close()
