"""Between tensors by name, as a checkpoint holds them, and a module, an optimiser and torch's random generators."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from unibiomed_core.errors import DataError


def restore_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load ``weights`` into ``module``; frozen parameters and buffers may be missing, trained parameters may not.

    Raises:
        DataError: Names or shapes differ; the module is as it was then.
    """
    there = module.state_dict()
    wrong = [f"{name} is missing" for name, p in module.named_parameters() if p.requires_grad and name not in weights]
    wrong += [f"{name} is unknown" for name in weights if name not in there]
    wrong += [
        f"{name} has {tuple(value.shape)}, the model {tuple(there[name].shape)}"
        for name, value in weights.items()
        if name in there and value.shape != there[name].shape
    ]
    _raise_unfit(wrong)
    module.load_state_dict(dict(weights), strict=False)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every parameter as "index.name" -> tensor; hyperparameters are the caller's, not the checkpoint's.

    Where parameters are sharded (FSDP2) the shards are gathered, so every process has to call it.
    """
    return {
        f"{index}.{name}": whole(torch.as_tensor(value).detach())
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what :func:`optimiser_tensors` gave; learning rate and weight decay stay as they are.

    Sharded parameters (FSDP2) get their own shard of it, whatever number of processes wrote it.

    Raises:
        DataError: A parameter is unknown or has another shape; the optimiser is as it was then.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    wrong = []
    for key, value in tensors.items():
        index, name = int(key.split(".", 1)[0]), key.split(".", 1)[1]
        state.setdefault(index, {})[name] = value
        if index >= len(parameters):
            wrong.append(f"optimiser state of parameter {index}, there are {len(parameters)}")
        elif value.ndim and value.shape != parameters[index].shape:
            wrong.append(f"{name} of parameter {index} has {tuple(value.shape)}, not {tuple(parameters[index].shape)}")
    _raise_unfit(wrong)
    for index, values in state.items():
        state[index] = {name: _sharded_like(parameters[index], value) for name, value in values.items()}
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def random_state() -> dict[str, Tensor]:
    """State of torch's global generators in this process, which dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random(state: Mapping[str, Tensor]) -> None:
    """Load what :func:`random_state` gave; a GPU's part is left out where there is no GPU."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in one memory, which safetensors refuses: tied weights are stored twice."""
    seen: set[int] = set()
    stored = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        stored[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return stored


def whole(value: Tensor) -> Tensor:
    """A sharded tensor gathered, which every process has to ask for; any other as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _sharded_like(parameter: Tensor, value: Tensor) -> Tensor:
    if isinstance(parameter, DTensor) and value.ndim:  # the count of steps is a number on every process
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def _raise_unfit(wrong: list[str]) -> None:
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise DataError(
            "Checkpoint does not fit",
            "; ".join(wrong[:3]) + more,
            "one of the same model",
            "Move the folder away to start this stage anew.",
        )
