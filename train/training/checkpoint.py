"""Checkpoints of one stage: weights, optimiser, random and run state; whole or absent, whenever the process dies.

Each is a folder ``step-00000100`` of safetensors and JSON. It is written aside as ``step-00000100.new``, every file
synced, the manifest of sizes and SHA-256 last, and then renamed; only then are older ones removed.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from unibiomed_core.errors import ConfigError, DataError, WriteError
from unibiomed_core.files import describe_file, read_json

FORMAT = 1
WEIGHTS, OPTIMISER, RANDOM = "weights.safetensors", "optimiser.safetensors", "random.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"
# ".old" is what a save of the same step sets aside; it counts where a kill came before its successor was in place.
NAME = re.compile(r"step-(\d{8,})(\.old)?")
START_ANEW = "Move the folder away to start this stage anew."


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds: tensors by name, on the CPU, and the caller's own ``state``."""

    step: int
    score: float | None
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    random: dict[str, Tensor]
    state: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in ``folder``: the last ``keep`` and the one of the highest score.

    Args:
        say: Told of a damaged checkpoint that is passed over.
    """

    folder: Path
    keep: int = 2
    say: Callable[[str], None] = logging.getLogger(__name__).warning

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError("No checkpoint would be kept", f"keep is {self.keep}", "1 or more")

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        optimiser: Mapping[str, Tensor],
        state: Mapping[str, Any],
        score: float | None = None,
    ) -> Path:
        """Write a checkpoint of ``step``, with torch's random state, and remove those that are no longer kept.

        Args:
            state: What JSON can hold.
            score: The higher the better; None where this step was not validated.

        Raises:
            DataError: The score is not finite.
            WriteError: The disk is full or the folder cannot be written; the checkpoints before are kept.
        """
        if score is not None and not math.isfinite(score):
            raise DataError("Score is not finite", f"{score} at step {step}", "a number, or None where there is none")
        target = self.folder / f"step-{step:08d}"
        aside = target.with_name(target.name + ".new")
        head = {"format": FORMAT, "step": step, "score": score, "state": dict(state)}
        try:
            self._remove(p for p in self.folder.glob("step-*") if p.suffix in {".new", ".gone"})
            aside.mkdir(parents=True)
            for name, tensors in ((WEIGHTS, weights), (OPTIMISER, optimiser), (RANDOM, random_state())):
                save_file(storable(tensors), aside / name)
            _write_json(aside / STATE, head)
            for name in (WEIGHTS, OPTIMISER, RANDOM, STATE):
                _sync(aside / name)
            _write_json(aside / MANIFEST, {f: describe_file(aside / f) for f in (WEIGHTS, OPTIMISER, RANDOM, STATE)})
            _sync(aside / MANIFEST)
            _sync(aside)
            self._put(aside, target)
            self._prune()
        except (OSError, SafetensorError) as cause:
            shutil.rmtree(aside, ignore_errors=True)
            raise WriteError(
                "Checkpoint not written",
                f"{target}: {cause}",
                "a folder with space that may be written",
                "The last checkpoint is kept; once this is solved, start the same command again.",
            ) from cause
        return target

    def newest(self) -> Path | None:
        """The newest checkpoint that agrees with its manifest; None where there is none at all.

        Raises:
            DataError: There are some, and every one is damaged; or it is of another format.
        """
        found = self._by_step()
        return self._first_whole([found[step] for step in sorted(found, reverse=True)])

    def best(self) -> Path | None:
        """The whole checkpoint of the highest score, the earlier one of equals; None where none has a score.

        Raises:
            DataError: As for :meth:`newest`.
        """
        return self._first_whole(self._by_score())

    def _by_step(self) -> dict[int, Path]:
        found: dict[int, Path] = {}
        for path in sorted(self.folder.glob("step-*"), reverse=True):  # ".old" first: its successor takes its place
            if match := NAME.fullmatch(path.name):
                found[int(match[1])] = path
        return found

    def _by_score(self) -> list[Path]:
        scores = {path: _score(path) for _, path in sorted(self._by_step().items())}
        known = {path: score for path, score in scores.items() if score is not None}
        return sorted(known, key=known.__getitem__, reverse=True)  # stable: the earlier of equals comes first

    def _first_whole(self, paths: list[Path]) -> Path | None:
        for path in paths:
            damage = _damage(path)
            if not damage:
                _head(path)
                return path
            self.say(f"checkpoint {path.name} is damaged ({damage}); the one before is tried")
        if paths:
            found = f"{len(paths)} in {self.folder}, every one damaged"
            raise DataError("No whole checkpoint", found, "one that agrees with its manifest", START_ANEW)
        return None

    def _put(self, aside: Path, target: Path) -> None:
        old = target.with_name(target.name + ".old")
        if target.exists():
            self._remove([old])
            target.rename(old)
        aside.rename(target)
        _sync(self.folder)
        self._remove([old])

    def _prune(self) -> None:
        found = self._by_step()
        kept = {found[step] for step in sorted(found)[-self.keep :]} | set(self._by_score()[:1])
        self._remove(p for p in sorted(self.folder.glob("step-*")) if NAME.fullmatch(p.name) and p not in kept)

    def _remove(self, paths: Iterable[Path]) -> None:
        """Delete folders; each loses its name first, so that one half deleted is no checkpoint."""
        for path in paths:
            if path.exists():
                gone = path if path.suffix in {".new", ".gone"} else path.rename(path.with_suffix(".gone"))
                shutil.rmtree(gone)


def load(path: Path) -> Loaded:
    """Read a checkpoint that :meth:`Checkpoints.newest` or :meth:`Checkpoints.best` found whole.

    Raises:
        DataError: It cannot be read or is of another format.
    """
    head = _head(path)
    try:
        weights, optimiser, random = (load_file(path / name) for name in (WEIGHTS, OPTIMISER, RANDOM))
    except (OSError, SafetensorError) as cause:
        raise DataError("Checkpoint cannot be read", f"{path}: {cause}", "a whole checkpoint") from cause
    return Loaded(head["step"], head["score"], weights, optimiser, random, head["state"])


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1), "utf-8")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _damage(path: Path) -> str:
    """What is wrong with the files; empty where all agree with the manifest."""
    try:
        manifest = read_json(path / MANIFEST, DataError)
        if STATE not in manifest:
            return f"{MANIFEST} does not name {STATE}"
        return ", ".join(f"{name} differs" for name in manifest if describe_file(path / name) != manifest[name])
    except (OSError, ValueError, TypeError) as cause:
        return str(cause)
    except DataError as cause:
        return cause.found


def _head(path: Path) -> dict[str, Any]:
    head = read_json(path / STATE, DataError, "Checkpoint cannot be read", f"a whole checkpoint in {path}")
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        found = head.get("format") if isinstance(head, dict) else type(head).__name__
        raise DataError("Checkpoint of another version", f"{path}: format {found}", f"format {FORMAT}", START_ANEW)
    return head


def _score(path: Path) -> float | None:
    try:
        score = _head(path)["score"]
    except DataError:
        return None  # newest() tells the user
    return None if score is None else float(score)


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
        raise DataError("Checkpoint does not fit", "; ".join(wrong[:3]) + more, "one of the same model", START_ANEW)
