"""Downloads by an explicit call only; without one, no socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import GUARD_S
from tests.unibiomed_core.engine.toy import toy_engine
from tests.unibiomed_core.model.hub_server import REPOSITORY, Hub, serving
from unibiomed_core.errors import WeightsError
from unibiomed_core.model import hub
from unibiomed_core.model.folder import WEIGHTS
from unibiomed_core.model.weights import resolve, save

FETCH = f"""
import json, sys, time
from huggingface_hub import constants
from unibiomed_core.errors import Cancelled, WeightsError
from unibiomed_core.model import hub
constants.DOWNLOAD_CHUNK_SIZE = 4096  # the client's own is larger than the toy
time.sleep = lambda seconds: None  # between the client's own attempts
steps = []
def step(done, total):
    steps.append((done, total))
    if "cancel" in sys.argv:
        raise Cancelled(0, 1)
try:
    said = str(hub.download("{REPOSITORY}", step))
except (Cancelled, WeightsError) as error:
    said = f"{{type(error).__name__}}: {{error}} [{{error.code}} {{dict(error.values)}}]"
try:
    here = str(hub.cached("{REPOSITORY}"))
except WeightsError as error:
    here = f"WeightsError: {{error}} [{{error.code}} {{dict(error.values)}}]"
print(json.dumps([said, here, steps]))
"""

OFFLINE = """
import socket, sys
from pathlib import Path
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
class Refused(socket.socket):
    __init__ = refuse
socket.socket, socket.create_connection, socket.getaddrinfo = Refused, refuse, refuse
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import WeightsError
from unibiomed_core.modalities import Window
from tests.unibiomed_core.engine.toy import ct_slice, segment
engine = Engine.load(sys.argv[1], device="cpu")
answers = engine.predict([ct_slice()], segment("liver", "spleen"), Window("soft tissue", -160.0, 240.0))
assert len(answers[0]) == 2 and answers[0][0].text
for name in ("unibiomed-1b", "somebody/toy"):
    try:
        Engine.load(name, device="cpu")
    except WeightsError as error:
        assert "not downloaded" in str(error), error
    else:
        raise AssertionError(name)
from unibiomed_core import diagnostics
assert any(row.name == "unibiomed-1b" for row in diagnostics.models())
print("no socket")
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Without any switch that would keep the client offline by itself."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    root = str(Path(__file__).resolve().parents[3])
    return kept | {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": root, "NO_PROXY": "127.0.0.1", **more}


def fetch(home: Path, address: str, *words: str, **more: str) -> list[Any]:
    """[what download gave, what cached gave, steps], from a process of its own: the client reads its settings once."""
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *words],
        env=environment(home, HF_ENDPOINT=address, **more), capture_output=True, text=True, timeout=GUARD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with what a repository may hold besides."""
    folder = tmp_path_factory.mktemp("hub") / "toy"
    engine = toy_engine()
    save(engine.model, engine.processor, folder, dtype="float32")
    for name in ("pytorch_model.bin", "modeling.py", "training_args.pt", "README.md"):
        (folder / name).write_bytes(b"never fetched")
    return folder


def test_a_download_is_whole_found_again_and_holds_no_code(repository: Path, tmp_path: Path) -> None:
    with serving(Hub(repository)) as server:
        folder, here, steps = fetch(tmp_path, server.address)
        sent = dict(server.sent)
        again, _, _ = fetch(tmp_path, server.address)
        assert server.sent == sent  # nothing is fetched twice
    names = {WEIGHTS, "config.json", "tokenizer.json", "manifest.json"}
    assert folder == here == again
    assert {file.name for file in Path(folder).iterdir()} == names == sent.keys()
    assert (Path(folder) / WEIGHTS).read_bytes() == (repository / WEIGHTS).read_bytes()
    total = sum((repository / name).stat().st_size for name in names)
    assert steps[0] == [0, total]
    assert steps[-1] == [total, total]
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_a_stopped_download_says_where_and_keeps_whole_files(repository: Path, tmp_path: Path) -> None:
    size = (repository / WEIGHTS).stat().st_size
    with serving(Hub(repository, broken_after=size // 2)) as server:
        said, here, steps = fetch(tmp_path, server.address)
        assert "WeightsError: Download stopped at " in said
        share = int(said.split("stopped at ")[1].split(" %")[0])
        assert 30 < share < 80  # half of the weights, and the small files beside them
        assert steps[-1][0] * 100 // steps[-1][1] == share
        assert "files that arrived whole are kept" in said
        assert f"[download_stopped {{'percent': {share}}}]" in said
        assert "was not finished" in here
        assert "[download_unfinished {}]" in here
        server.broken_after = None
        server.sent.clear()
        folder, here, _ = fetch(tmp_path, server.address)
    assert folder == here
    assert server.sent.keys() == {WEIGHTS}
    assert (Path(folder) / WEIGHTS).read_bytes() == (repository / WEIGHTS).read_bytes()


def test_a_download_can_be_cancelled(repository: Path, tmp_path: Path) -> None:
    with serving(Hub(repository)) as server:
        said, here, _ = fetch(tmp_path, server.address, "cancel")
    assert said.startswith("Cancelled")
    assert "not downloaded" in here
    assert "[weights_not_found {'offline': True}]" in here
    assert not server.sent


def test_a_repository_of_pickles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"x")
    with serving(Hub(tmp_path / "pickles")) as server:
        said, _, _ = fetch(tmp_path / "home", server.address)
    assert "has no safetensors" in said
    assert "[no_safetensors {}]" in said
    assert not server.sent


def test_an_unreachable_hub(tmp_path: Path) -> None:
    said, _, steps = fetch(tmp_path, "http://127.0.0.1:9")
    assert "Download stopped before it began" in said
    assert "[download_stopped {'percent': None}]" in said
    assert not steps


def test_offline_settings_refuse_a_download(tmp_path: Path) -> None:
    said, _, steps = fetch(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "Offline mode is on" in said
    assert not steps
    with pytest.raises(WeightsError, match="Offline mode is on") as caught:
        hub.download("unibiomed-1b", lambda done, total: None, offline=True)
    assert caught.value.code == "offline"


def test_names() -> None:
    assert hub.hub_id("unibiomed-1b") == "Luffy503/UniBiomed"
    assert hub.hub_id(REPOSITORY) == REPOSITORY
    for name in ("huge", "../secret", "/absolute/path", "a/b/c"):
        with pytest.raises(WeightsError, match="no preset, folder, or model of the hub"):
            resolve(name)


def test_no_socket_without_a_download(repository: Path, tmp_path: Path) -> None:
    clean = tmp_path / "toy"
    engine = toy_engine()
    save(engine.model, engine.processor, clean)
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(clean)],
        env=environment(tmp_path / "home"), capture_output=True, text=True, timeout=GUARD_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "no socket"
