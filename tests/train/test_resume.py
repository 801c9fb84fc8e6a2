"""Stopped, killed and dealt otherwise: a run ends with the weights it would have had."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from tiny_data import write_tree

from train.checkpoint import Checkpoints
from train.prepare import prepare
from train.run import run

KILLS = 20


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("data")
    prepare(write_tree(folder / "tree"), folder / "records", 64, lambda line: None)
    return folder / "records"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = Checkpoints(folder).newest()
    assert newest is not None
    return load_file(newest / "weights.safetensors")


def losses(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["losses"] for line in lines if "losses" in line}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a training process is forked to be killed")
def test_killed_at_20_random_points_a_run_ends_with_the_same_weights(records: Path, tmp_path: Path) -> None:
    """SIGKILL, wherever it strikes; the bits of every trained tensor are those of a run that nobody disturbed."""
    common = [
        f"data={records}", "only=grounding,joint", "grounding.steps=24", "joint.steps=12",
        "save_every=1", "log_every=1", "validation_share=0",
    ]  # fmt: skip
    began = time.monotonic()
    run("toy", [*common, f"out={tmp_path / 'whole'}"])
    seconds = time.monotonic() - began
    rng, kills, steps = random.Random(5), 0, set()
    while kills < KILLS:
        child = os.fork()
        if child == 0:
            os.close(1)
            try:
                run("toy", [*common, f"out={tmp_path / 'killed'}"])
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.01, 0.12) * seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break  # it was done before its time
        kills += 1
        steps |= {p.name for p in (tmp_path / "killed").glob("*/step-*[0-9]")}
    run("toy", [*common, f"out={tmp_path / 'killed'}"])
    assert kills >= KILLS // 2, "the run ended before it was killed often enough to tell"
    assert len(steps) > 3, "no kill came after a checkpoint"
    for stage in ("grounding", "joint"):
        whole, killed = weights(tmp_path / "whole" / stage), weights(tmp_path / "killed" / stage)
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole), stage
        assert losses(tmp_path / "whole" / stage) == losses(tmp_path / "killed" / stage)


def test_two_processes_give_the_losses_of_one_and_one_goes_on_from_two(
    records: Path, tmp_path: Path, root: Path
) -> None:
    common = [f"data={records}", "only=joint", "log_every=1", "threads=1", "joint.batch_size=4", "joint.micro_batch=1"]
    run("toy", [*common, f"out={tmp_path / 'one'}"])
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631"]
    done = subprocess.run(
        [*launch, str(root / "train" / "run.py"), "toy", *common, f"out={tmp_path / 'two'}"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = losses(tmp_path / "one" / "joint"), losses(tmp_path / "two" / "joint")
    assert sorted(one) == sorted(two) == [1, 2, 3, 4]
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=1e-5, abs=1e-6)
    # Half way: the checkpoint of two processes is gone on from by one, which shows the same samples.
    shutil.rmtree(tmp_path / "two" / "joint" / "step-00000004")
    run("toy", [*common, f"out={tmp_path / 'two'}"])
    assert losses(tmp_path / "two" / "joint")[4] == pytest.approx(one[4], rel=1e-5, abs=1e-6)
    a, b = weights(tmp_path / "one" / "joint"), weights(tmp_path / "two" / "joint")
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)


def test_a_ctrl_c_leaves_a_run_that_goes_on(records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = [f"data={records}", "only=grounding", "validation_share=0"]
    run("toy", [*common, f"out={tmp_path / 'whole'}"])
    original = Checkpoints.save

    def save_then_stop(self: Checkpoints, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_then_stop)
    with pytest.raises(KeyboardInterrupt):
        run("toy", [*common, f"out={tmp_path / 'half'}"])
    monkeypatch.undo()
    run("toy", [*common, f"out={tmp_path / 'half'}"])
    whole, half = weights(tmp_path / "whole" / "grounding"), weights(tmp_path / "half" / "grounding")
    assert all(torch.equal(whole[name], half[name]) for name in whole)
