"""The end of a run by several processes: none leaves before all are done, and no thread of their group outlives it."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator


@contextmanager
def process_group(accelerator: Accelerator) -> Iterator[None]:
    """Wait for one another after the work inside, and take the group of processes apart however it ended.

    Who leaves early breaks the connections of a process that still writes, and gloo's threads, which live as long as
    their group does, must not meet the end of the program.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        yield
        return
    try:
        yield
        accelerator.wait_for_everyone()
    except BaseException as error:
        # Nobody is waited for: the others may never come. To take a group of NCCL apart would wait for them as well.
        traceback.clear_frames(error.__traceback__)
        if accelerator.device.type == "cpu":
            _end(accelerator)
        raise
    _end(accelerator)


def _end(accelerator: Accelerator) -> None:
    # Models that were prepared hold the group, and its threads with it.
    accelerator.free_memory()
    accelerator.end_training()
    gc.collect()
