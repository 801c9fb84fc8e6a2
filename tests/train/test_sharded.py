"""Sharded parameters (FSDP 2): the losses of one process, and checkpoints that any number of processes goes on from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from tiny_data import write_tree

from train.checkpoint import Checkpoints
from train.prepare import prepare
from train.run import run


def losses(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["losses"] for line in lines if "losses" in line}


def tensors(folder: Path, file: str) -> dict[str, torch.Tensor]:
    newest = Checkpoints(folder).newest()
    assert newest is not None
    return load_file(newest / file)


def test_two_processes_with_shards_give_the_run_of_one(tmp_path: Path, root: Path) -> None:
    torch.set_num_threads(1)
    prepare(write_tree(tmp_path / "tree"), tmp_path / "records", 64, lambda line: None)
    common = [
        f"data={tmp_path / 'records'}", "only=language,joint", "log_every=1", "threads=1",
        "joint.batch_size=4", "joint.micro_batch=1", "joint.boxed_share=0.25",
        "language.batch_size=4", "language.micro_batch=1",
    ]  # fmt: skip
    run("toy", [*common, f"out={tmp_path / 'one'}"])

    def sharded() -> None:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29633"]
        done = subprocess.run(
            [*launch, str(root / "tests/train/sharded_run.py"), "toy", *common, f"out={tmp_path / 'two'}"],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]

    sharded()
    for stage in ("language", "joint"):
        one, two = losses(tmp_path / "one" / stage), losses(tmp_path / "two" / stage)
        assert sorted(one) == sorted(two) == [1, 2, 3, 4]
        for step in one:
            assert two[step] == pytest.approx(one[step], rel=1e-4, abs=1e-5)
    # Half way: two processes go on from their own checkpoint, and one process from it as well.
    one, two = (tensors(tmp_path / name / "joint", "optimiser.safetensors") for name in ("one", "two"))
    assert one.keys() <= two.keys()
    assert all(two[name].shape == value.shape for name, value in one.items())  # whole, not one process's shard
    shutil.rmtree(tmp_path / "two" / "joint" / "step-00000004")
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    sharded()
    run("toy", [*common, f"out={tmp_path / 'three'}"])
    for folder in ("two", "three"):
        assert losses(tmp_path / folder / "joint")[4] == pytest.approx(
            losses(tmp_path / "one" / "joint")[4], rel=1e-4, abs=1e-5
        )
    a, b = (tensors(tmp_path / name / "joint", "weights.safetensors") for name in ("one", "two"))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)
