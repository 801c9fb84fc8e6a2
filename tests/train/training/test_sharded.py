"""Sharded parameters (FSDP 2): the losses of one process, and checkpoints that any number of processes goes on from."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.processes import CAN_FORK, group_trains, losses
from tests.train.tiny_data import write_tree
from train.prepare import prepare
from train.run import run
from train.training.checkpoint import Checkpoints


def tensors(folder: Path, file: str) -> dict[str, torch.Tensor]:
    newest = Checkpoints(folder).newest()
    assert newest is not None
    return load_file(newest / file)


@CAN_FORK
@pytest.mark.parametrize(
    ("stages", "steps", "go_on"),
    [(("joint",), 2, ["three"]), pytest.param(("language", "joint"), 4, ["two", "three"], marks=pytest.mark.slow)],
)
def test_two_processes_with_shards_give_the_run_of_one(
    stages: tuple[str, ...], steps: int, go_on: list[str], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    prepare(write_tree(tmp_path / "tree"), tmp_path / "records", 64, lambda line: None)
    common = [
        f"data={tmp_path / 'records'}", f"only={','.join(stages)}", "log_every=1", "threads=1",
        f"save_every={steps // 2}", "joint.boxed_share=0.25", "validation_share=0",
        *(f"{stage}.{name}={value}" for stage in stages for name, value in
          (("steps", steps), ("warmup", 1), ("batch_size", 4), ("micro_batch", 1))),
    ]  # fmt: skip
    run("toy", [*common, f"out={tmp_path / 'one'}"])
    two_processes = partial(group_trains, [*common, f"out={tmp_path / 'two'}"], tmp_path / "logs", sharded=True)
    two_processes()
    for stage in stages:
        one, two = losses(tmp_path / "one" / stage), losses(tmp_path / "two" / stage)
        assert sorted(one) == sorted(two) == list(range(1, steps + 1))
        for step in one:
            assert two[step] == pytest.approx(one[step], rel=1e-4, abs=1e-5)
    # Half way: two processes go on from their own checkpoint, and one process from it as well.
    one, two = (tensors(tmp_path / name / "joint", "optimiser.safetensors") for name in ("one", "two"))
    assert one.keys() <= two.keys()
    assert all(two[name].shape == value.shape for name, value in one.items())  # whole, not one process's shard
    shutil.rmtree(tmp_path / "two" / "joint" / f"step-{steps:08d}")
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    if "two" in go_on:
        two_processes()
    run("toy", [*common, f"out={tmp_path / 'three'}"])
    for folder in go_on:
        assert losses(tmp_path / folder / "joint")[steps] == pytest.approx(
            losses(tmp_path / "one" / "joint")[steps], rel=1e-4, abs=1e-5
        )
    a, b = (tensors(tmp_path / name / "joint", "weights.safetensors") for name in ("one", go_on[0]))
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)
