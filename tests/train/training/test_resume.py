"""Stopped, killed and dealt otherwise: a run ends with the weights it would have had."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.patience import GUARD_S
from tests.train.processes import CAN_FORK, Ends, ended, group_trains, losses, started, train_until_killed
from tests.train.tiny_data import write_tree
from train.prepare import prepare
from train.run import run
from train.training.checkpoint import Checkpoints

CALLS_TO_A_SAVE, CALLS_OF_A_STEP = 500_000, 130_000
"""Calls of built-in functions, counted once: from the start of a run to its first save, and in a step with its save."""


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


@CAN_FORK
@pytest.mark.parametrize(("kills", "grounding", "joint"), [(2, 3, 2), pytest.param(20, 24, 12, marks=pytest.mark.slow)])
def test_killed_at_random_points_a_run_ends_with_the_same_weights(
    kills: int, grounding: int, joint: int, records: Path, tmp_path: Path
) -> None:
    """SIGKILL, wherever it strikes; the bits of every trained tensor are those of a run that nobody disturbed."""
    common = [
        f"data={records}", "only=grounding,joint", f"grounding.steps={grounding}", f"joint.steps={joint}",
        "grounding.warmup=1", "joint.warmup=1", "save_every=1", "log_every=1", "validation_share=0",
    ]  # fmt: skip
    run("toy", [*common, f"out={tmp_path / 'whole'}"])
    rng, struck, steps = random.Random(5), 0, set()
    for kill in range(kills):
        # The first ones strike before anything is saved; the others within the step and the save after their first.
        saves, calls = (0, rng.randrange(CALLS_TO_A_SAVE)) if kill % 4 == 1 else (1, rng.randrange(CALLS_OF_A_STEP))
        process = started(train_until_killed, [*common, f"out={tmp_path / 'killed'}"], saves, calls)
        code = ended(process)
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break  # it was done before its time
        struck += 1
        steps |= {p.name for p in (tmp_path / "killed").glob("*/step-*[0-9]")}
    run("toy", [*common, f"out={tmp_path / 'killed'}"])
    assert struck > kills // 2, "the run ended before it was killed often enough to tell"
    assert len(steps) >= kills // 4 + 1, "no kill came after a checkpoint"
    for stage in ("grounding", "joint"):
        whole, killed = weights(tmp_path / "whole" / stage), weights(tmp_path / "killed" / stage)
        assert whole.keys() == killed.keys()
        # Bit for bit, though in several processes: the same operations on one machine, in one order, in one thread.
        assert all(torch.equal(whole[name], killed[name]) for name in whole), stage
        assert losses(tmp_path / "whole" / stage) == losses(tmp_path / "killed" / stage)


@CAN_FORK
@pytest.mark.parametrize("steps", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_two_processes_give_the_losses_of_one_and_one_goes_on_from_two(
    steps: int, records: Path, tmp_path: Path
) -> None:
    common = [
        f"data={records}", "only=joint", "log_every=1", "threads=1", "joint.batch_size=4", "joint.micro_batch=1",
        f"joint.steps={steps}", f"save_every={steps // 2}", "joint.warmup=1",
    ]  # fmt: skip
    run("toy", [*common, f"out={tmp_path / 'one'}"])
    group_trains([*common, f"out={tmp_path / 'two'}"], tmp_path / "logs")
    one, two = losses(tmp_path / "one" / "joint"), losses(tmp_path / "two" / "joint")
    assert sorted(one) == sorted(two) == list(range(1, steps + 1))
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=1e-5, abs=1e-6)
    # Half way: the checkpoint of two processes is gone on from by one, which shows the same samples.
    shutil.rmtree(tmp_path / "two" / "joint" / f"step-{steps:08d}")
    run("toy", [*common, f"out={tmp_path / 'two'}"])
    assert losses(tmp_path / "two" / "joint")[steps] == pytest.approx(one[steps], rel=1e-5, abs=1e-6)
    a, b = weights(tmp_path / "one" / "joint"), weights(tmp_path / "two" / "joint")
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)


@CAN_FORK
@pytest.mark.parametrize(
    "fails", [(KeyboardInterrupt, KeyboardInterrupt), (ValueError, ValueError), (ValueError, None), (None, ValueError)]
)
@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_of_two_processes_that_is_stopped_or_fails_takes_its_group_apart(
    fails: Ends, sharded: bool, records: Path, tmp_path: Path
) -> None:
    """Each asserts that nothing is left of its group; one that waits for another which has failed is told so."""
    settings = [
        f"data={records}", "only=joint", "joint.steps=3", "joint.warmup=0", "threads=1", "validation_share=0",
        "joint.batch_size=4", "joint.micro_batch=1", f"out={tmp_path / 'two'}",
    ]  # fmt: skip
    said = group_trains(settings, tmp_path / "logs", fails=fails, sharded=sharded)
    for error, text in zip(fails, said, strict=True):
        assert text.endswith(f"{error.__name__ if error else 'RuntimeError'}\n")


@pytest.mark.slow
def test_the_launcher_of_several_processes_starts_a_run(records: Path, tmp_path: Path, root: Path) -> None:
    """As people start it; the port is the system's choice. What the processes compute is tested without a launcher."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    settings = [f"data={records}", "only=joint", "joint.steps=1", "joint.warmup=0", "threads=1", "validation_share=0"]
    done = subprocess.run(
        [*launch, "--nproc_per_node", "2", str(root / "train" / "run.py"), "toy", *settings, f"out={tmp_path / 'two'}"],
        capture_output=True, text=True, timeout=GUARD_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("joint 1/1") == 1, "one of the two tells"


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
