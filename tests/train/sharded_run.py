"""A toy run whose parameters are sharded (FSDP 2) over processes on CPUs.

accelerate offers FSDP on accelerators only; its own code for it works on CPUs as well, once it is told.
Started by torchrun, or imported before a run.
"""

from __future__ import annotations

import sys
from typing import Any

import accelerate
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from train import run


def sharding(**settings: Any) -> accelerate.Accelerator:
    """An accelerator that prepares models with FSDP 2."""
    made = accelerate.Accelerator(**settings)
    for state in (made.state, accelerate.PartialState()):  # the first is made anew from the second, now and then
        state.distributed_type = DistributedType.FSDP
    made.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    return made


run.Accelerator = sharding  # type: ignore[assignment,misc]
if __name__ == "__main__":
    sys.exit(run.main(sys.argv[1:]))
