"""Typed run configuration: a recipe makes one, ``name=value`` changes it, an unknown name is an error."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unibiomed_core.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Args:
        name: Folder of its checkpoints; also what ``stages=`` selects.
        kind: "grounding" (masks from fixed target codes), "language" (text, and the bridge onto the codes), "phrases"
            (many target names on few pictures, onto the codes) or "joint".
        steps: Optimiser steps.
        batch_size: Pictures a step; questions a step for "phrases".
        learning_rate: Peak, reached after ``warmup`` steps, then cosine to zero.
        side: Side of the grounding pictures in pixels; smaller than the model's is faster.
    """

    name: str
    kind: str
    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    side: int = 256
    weight_decay: float = 0.05
    targets_per_picture: int = 4


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Args:
        recipe: Name of the recipe that made it.
        preset: Model size.
        data: Folder of data sets, or of records made before.
        out: Run folder; a run that stopped goes on from it.
        stages: In order; only those named by ``only`` are run where that is set.
        only: Comma-separated stage names, "" for all; "export" is a stage, too.
        save_every: Steps between checkpoints.
        threads: Threads of the computing library; 0 leaves it alone.
        licence: Terms of the weights, which follow from the data; written beside them.
    """

    recipe: str
    preset: str
    data: str = "../shared/data"
    out: str = ""
    stages: tuple[Stage, ...] = field(default=())
    only: str = ""
    seed: int = 20261124
    vocabulary: int = 2048
    record_side: int = 256
    save_every: int = 500
    log_every: int = 50
    threads: int = 0
    limit_records: int = 0
    licence: str = "not stated"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def override(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Apply ``name=value`` settings; ``stage.name=value`` reaches into one stage.

    Raises:
        ConfigError: A name is unknown (the nearest is offered) or a value has another type.
    """
    stages = {stage.name: stage for stage in config.stages}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found:
            raise ConfigError("Setting without a value", f"'{setting}'", "name=value")
        stage, dot, inner = name.partition(".")
        if dot and stage in stages:
            stages[stage] = _replace(stages[stage], inner, value, prefix=f"{stage}.")
        else:
            config = _replace(config, name, value, extra=[f"{s}.steps" for s in stages])
    return dataclasses.replace(config, stages=tuple(stages.values()))


def _replace(target: Any, name: str, value: str, prefix: str = "", extra: Sequence[str] = ()) -> Any:
    kinds = {f.name: type(getattr(target, f.name)) for f in dataclasses.fields(target)}
    kinds = {k: v for k, v in kinds.items() if v in (str, int, float, bool)}
    if name not in kinds:
        near = difflib.get_close_matches(prefix + name, [*(prefix + k for k in kinds), *extra], n=3, cutoff=0.3)
        raise ConfigError("Unknown setting", f"'{prefix}{name}'", f"nearest: {', '.join(near) or ', '.join(kinds)}")
    try:
        return dataclasses.replace(target, **{name: kinds[name](value)})
    except ValueError as cause:
        raise ConfigError("Setting of another type", f"{prefix}{name}={value}", kinds[name].__name__) from cause
