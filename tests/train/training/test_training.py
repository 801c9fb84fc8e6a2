"""The whole training path at toy size, from a folder of data sets to an exported model, as people run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train.tiny_data import write_tree
from train.config import override
from train.data import records as record_files
from train.evaluation.predict import predict
from train.recipes import RECIPES
from train.run import run
from train.training.checkpoint import Checkpoints
from unibiomed_core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the toy recipe."""
    torch.set_num_threads(1)
    return run("toy", [f"data={data}", f"out={tmp_path_factory.mktemp('run')}", "record_side=64"]).parent


def test_toy_recipe_exports_a_model_that_answers(finished: Path, tmp_path: Path) -> None:
    from unibiomed_core.engine.engine import Engine

    engine = Engine.load(str(finished / "export"), device="cpu")
    assert engine.info.targets["endoscopy"] == ("polyp",)
    test = record_files.load(finished / "records" / "test.parquet")
    asked = predict(engine, test, tmp_path, lambda line: None)
    assert asked.records == len(test)
    assert asked.masks > 0
    assert asked.answers > 0


def test_a_run_leaves_what_people_look_at(finished: Path) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert [s["name"] for s in config["stages"]] == ["grounding", "language", "joint"]
    for name in ("curves.png", "grounding/overlays-00000004.png", "joint/overlays-00000004.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert list((finished / "language" / "tensorboard").iterdir())
    log = [json.loads(line) for line in (finished / "joint" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "losses" in line] == [2, 4]
    assert set(log[0]["losses"]) == {"text", "mask", "dice", "quality", "object"}


def test_a_finished_run_is_not_trained_again(finished: Path, data: Path) -> None:
    before = (finished / "grounding" / "log.jsonl").read_bytes()
    newest = Checkpoints(finished / "grounding").newest()
    assert newest is not None
    changed = (newest / "weights.safetensors").stat().st_mtime_ns
    run("toy", [f"data={data}", f"out={finished}", "record_side=64", "only=grounding"])
    assert (newest / "weights.safetensors").stat().st_mtime_ns == changed
    assert (finished / "grounding" / "log.jsonl").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    settings = [f"data={data}", f"out={tmp_path}", "record_side=64", "only=grounding", "grounding.learning_rate=inf"]
    with pytest.raises(DataError, match="not finite"):
        run("toy", settings)


def test_the_commands_of_the_readme_run_as_files(data: Path, tmp_path: Path, root: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path)

    settings = [f"data={data}", "out=run", "record_side=64", "threads=1", "only=language"]
    done = call(str(root / "train" / "run.py"), "toy", *settings)
    assert done.returncode == 0, done.stderr[-800:]
    assert "language 4/4" in done.stdout
    done = call(str(root / "train" / "run.py"), "mimi")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "mini" in done.stderr
    done = call(str(root / "train" / "run.py"), "datasets")
    assert done.returncode == 0, done.stderr[-800:]
    assert "MSD" in done.stdout


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(ConfigError, match="mini"):
        run("mnii", [])
    with pytest.raises(ConfigError, match="save_every"):
        override(RECIPES["toy"](), ["save_evry=3"])
    with pytest.raises(ConfigError, match="int"):
        override(RECIPES["toy"](), ["save_every=often"])
    with pytest.raises(ConfigError, match="Unknown stage"):
        run("toy", ["only=grounding,languge"])
    with pytest.raises(ConfigError, match=r"No data named.*data=FOLDER"):
        run("toy", [])
    changed = {s.name: s.steps for s in override(RECIPES["toy"](), ["joint.steps=9"]).stages}
    assert changed["joint"] == 9


def test_a_record_file_of_another_version_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"id": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="lacks"):
        record_files.load(tmp_path / "train.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        record_files.load(tmp_path / "broken.parquet")
