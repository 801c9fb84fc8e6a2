"""Checkpoints: weights, optimiser and data position as safetensors and JSON; written aside, synced, renamed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unibiomed_core.errors import DataError, WriteError


def save(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Replace the checkpoint in ``folder`` by a new one; a kill at any moment leaves the old or the new one whole.

    Args:
        state: What JSON can hold, the step among it.

    Raises:
        WriteError: The disk is full or the folder cannot be written.
    """
    aside = folder.with_name(folder.name + ".new")
    old = folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, aside / "model.safetensors")
        save_file(_optimiser_tensors(optimiser), aside / "optimiser.safetensors")
        (aside / "state.json").write_text(json.dumps(state, indent=1), "utf-8")
        for file in aside.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as cause:
        raise WriteError(
            "Checkpoint not written", f"{folder}: {cause.strerror or cause}", "a folder with space"
        ) from cause


def load(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> dict[str, Any] | None:
    """Restore the newest whole checkpoint; None where there is none yet.

    Raises:
        DataError: The checkpoint does not fit the model.
    """
    old = folder.with_name(folder.name + ".old")
    if not folder.is_dir() and old.is_dir():
        old.rename(folder)  # killed between the two renames
    if not (folder / "state.json").is_file():
        return None
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, OSError) as cause:
        raise DataError("Checkpoint does not fit", f"{folder}: {str(cause)[:200]}", "one of the same model") from cause
    if optimiser is not None:
        _restore(optimiser, load_file(folder / "optimiser.safetensors"))
    return dict(json.loads((folder / "state.json").read_text("utf-8")))


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
    }


def _restore(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
