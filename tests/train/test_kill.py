"""A process that does nothing but save is killed at random moments; what it leaves is whole each time."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import torch

from train.checkpoint import NAME, Checkpoints, load

KILLS = 20
LONGEST_S = 0.4


def save_for_ever(folder: Path, told: Path, first: int) -> None:
    """Save step after step and append each number to ``told`` once its checkpoint is whole."""
    torch.set_num_threads(1)
    checkpoints = Checkpoints(folder)
    with told.open("ab", buffering=0) as handle:
        handle.write(f"{first - 1}\n".encode())
        for step in range(first, first + 1_000_000):
            values = torch.full((20_000,), float(step))
            checkpoints.save(step, {"w": values}, {"0.exp_avg": -values}, {"at": step}, score=float(step % 7))
            handle.write(f"{step}\n".encode())


def killed(context: ForkServerContext, folder: Path, told: Path, first: int, after_s: float) -> int:
    """Let a process save, SIGKILL it; returns the last step it told of."""
    told.unlink(missing_ok=True)
    process = context.Process(target=save_for_ever, args=(folder, told, first))
    process.start()
    while not told.exists() or not told.stat().st_size:
        assert process.exitcode is None, "the process ended by itself"
        time.sleep(0.002)
    process.join(after_s)
    assert process.exitcode is None, "the process ended by itself"
    process.kill()
    process.join()
    return int(told.read_text("utf-8").split()[-1])


def test_after_each_of_20_kills_the_newest_is_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and then forked
    context.set_forkserver_preload(["train.checkpoint"])
    rng = np.random.default_rng(20)
    folder, said, left_overs, step = tmp_path / "checkpoints", list[str](), 0, 0
    for after_s in rng.uniform(0, LONGEST_S, KILLS):
        told = killed(context, folder, tmp_path / "told", step + 1, after_s)
        left_overs += sum(not NAME.fullmatch(path.name) for path in folder.glob("*"))
        checkpoints = Checkpoints(folder, say=said.append)
        newest, best = checkpoints.newest(), checkpoints.best()
        if told:
            assert newest is not None
        for path in filter(None, (newest, best)):
            found = load(path)
            assert found.state == {"at": found.step}
            assert found.weights["w"].unique().tolist() == [found.step]
            assert found.optimiser["0.exp_avg"].unique().tolist() == [-found.step]
        step = load(newest).step if newest else 0
        assert step in (told, told + 1), "what was told of is kept, and nothing is skipped"
        if step >= 7:
            assert best is not None
            assert load(best).score == 6
    assert not said, "no left-over is taken for a checkpoint"
    assert left_overs > KILLS // 4, "most kills came in the middle of a save"
    assert step > KILLS, "the process saved between the kills"
