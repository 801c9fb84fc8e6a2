"""Processes for tests of training: forked from one server, killed by progress, or joined into one group.

The server has imported torch and the training code, so a process costs no import. Nothing here is placed by time: a
kill comes at a count of calls, and a group meets at a port that the system chose.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore

from tests.patience import GUARD_S
from train.config import Stage
from train.training import loop
from train.training.checkpoint import Checkpoints
from train.training.loop import learning_rate

Ends = Sequence[type[BaseException] | None]

CAN_FORK = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server here")


@cache
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["train.run", "accelerate", "transformers", "datasets", "matplotlib.figure", "torch.distributed.fsdp"]
    )
    return context


def started(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = server().Process(target=target, args=arguments)
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """The exit code of a process; minus the signal where one killed it."""
    process.join(GUARD_S)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        raise AssertionError(f"the process did not end within {GUARD_S:.0f} s")
    return code


def die_after(calls: int) -> None:
    """SIGKILL to the own process at the so manieth call of a built-in function from here on."""
    left = calls

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        if event == "c_call":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def calls_of(work: Callable[[], object]) -> int:
    """How many built-in functions a piece of work calls."""
    made = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal made
        made += event == "c_call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


def train_until_killed(settings: Sequence[str], saves: int, calls: int) -> None:
    """A toy run that is killed so many calls after a number of its own saves."""
    from train.run import run

    torch.set_num_threads(1)
    save, left = Checkpoints.save, saves

    def counted(self: Checkpoints, *given: Any, **named: Any) -> Path:
        nonlocal left
        saved = save(self, *given, **named)
        left -= 1
        if left == 0:
            die_after(calls)
        return saved

    Checkpoints.save = counted  # type: ignore[method-assign]
    if saves == 0:
        die_after(calls)
    run("toy", settings)


def train_in_group(
    settings: Sequence[str], rank: int, count: int, port: int, sharded: bool, log: Path, fails: Ends
) -> None:
    """One process of a toy run of several, as torchrun starts it; its output goes to a file.

    Args:
        fails: As :func:`group_trains`.
    """
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    }  # fmt: skip
    if "lo" in {name for _, name in socket.if_nameindex()}:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # else the host's name is looked up, which can take minutes
    with log.open("w") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    faulthandler.enable()
    torch.set_num_threads(1)
    from train.run import run

    if sharded:
        from tests.train import sharded_run  # it puts its own accelerator into train.run

        assert sharded_run.run.Accelerator is sharded_run.sharding
    if fails[rank] is not None:
        loop.learning_rate = partial(_rate_until, fails[rank])  # type: ignore[assignment]
    if not any(fails):
        run("toy", settings)
    else:
        with pytest.raises((*filter(None, fails), RuntimeError)) as caught:  # of gloo, where another process is gone
            run("toy", settings)
        print(caught.typename)
    assert not torch.distributed.is_initialized()
    # Caches of sharded tensors, which nothing empties, hold their groups until the end of the program.
    assert sharded or "pt_gloo_runloop" not in thread_names(), "no thread of the group is left"


def _rate_until(error: type[BaseException], stage: Stage, step: int) -> float:
    if step:
        raise error
    return learning_rate(stage, step)


def thread_names() -> set[str]:
    """Of all threads of this process, those of libraries too; only Linux tells."""
    return {name.read_text("utf-8").strip() for name in Path("/proc/self/task").glob("*/comm")}


def group_trains(
    settings: Sequence[str],
    logs: Path,
    *,
    sharded: bool = False,
    count: int = 2,
    fails: Ends = (),
) -> list[str]:
    """A toy run by several processes that meet at a port which the system chose and this process holds.

    Args:
        fails: What each of them raises at its second step, None where it does not; empty for a run that finishes.

    Returns:
        What each has printed.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    logs.mkdir(parents=True, exist_ok=True)
    files = [logs / f"process-{rank}.txt" for rank in range(count)]
    members = [
        started(train_in_group, list(settings), rank, count, store.port, sharded, file, tuple(fails) or (None,) * count)
        for rank, file in enumerate(files)
    ]
    codes = [ended(member) for member in members]
    assert codes == [0] * count, "\n".join(file.read_text("utf-8")[-3000:] for file in files)
    return [file.read_text("utf-8") for file in files]


def losses(folder: Path) -> dict[int, dict[str, float]]:
    """Losses by step from the log of a stage."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return {line["step"]: line["losses"] for line in lines if "losses" in line}
