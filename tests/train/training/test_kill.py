"""A process that does nothing but save is killed at chosen points of a save; what it leaves is whole each time."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.train.processes import CAN_FORK, calls_of, die_after, ended, started
from train.training.checkpoint import NAME, Checkpoints, load


def save_until_killed(folder: Path, told: Path, first: int, whole: int, share: float) -> None:
    """Save ``whole`` steps and append each number to ``told``; die in the next save, this share of its calls in,
    or right after it."""
    torch.set_num_threads(1)
    calls = 0
    checkpoints = Checkpoints(folder)
    with told.open("ab", buffering=0) as handle:
        for step in range(first, first + whole + 1):
            values = torch.full((20_000,), float(step))
            save = partial(
                checkpoints.save, step, {"w": values}, {"0.exp_avg": -values}, {"at": step}, score=float(step % 7)
            )
            if step == first + whole:
                die_after(int(share * calls))
                save()
                os.kill(os.getpid(), signal.SIGKILL)  # it had fewer calls than the one before
            calls = calls_of(save)
            handle.write(f"{step}\n".encode())


@CAN_FORK
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_after_each_kill_the_newest_is_whole(kills: int, tmp_path: Path) -> None:
    """At as many points from the first to the last call of a save, each after 1 to 4 whole ones."""
    folder, said, left_overs, step = tmp_path / "checkpoints", list[str](), 0, 0
    for kill in range(kills):
        whole, told = 1 + 3 * kill % 4, tmp_path / f"told-{kill}"
        process = started(save_until_killed, folder, told, step + 1, whole, (kill + 0.5) / kills)
        assert ended(process) == -signal.SIGKILL
        last = step + whole
        assert told.read_text("utf-8").split()[-1] == str(last)
        left_overs += any(not NAME.fullmatch(path.name) for path in folder.glob("*"))
        checkpoints = Checkpoints(folder, say=said.append)
        newest, best = checkpoints.newest(), checkpoints.best()
        assert newest is not None
        for path in filter(None, (newest, best)):
            found = load(path)
            assert found.state == {"at": found.step}
            assert found.weights["w"].unique().tolist() == [found.step]
            assert found.optimiser["0.exp_avg"].unique().tolist() == [-found.step]
        step = load(newest).step
        assert step in (last, last + 1), "what was told of is kept, and nothing is skipped"
        if step >= 7:
            assert best is not None
            assert load(best).score == 6
    assert not said, "no left-over is taken for a checkpoint"
    assert left_overs >= kills // 2, "most kills came in the middle of a save"
