"""Typed run configuration: a recipe makes one, ``name=value`` changes it, an unknown name is an error."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unibiomed_core.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One stretch of training.

    Args:
        name: Folder of its checkpoints; also what ``only=`` selects.
        kind: A row of ``train.training.stages.KINDS``: "grounding" (masks from fixed target codes), "language" (text,
            and the bridge onto the codes), "joint" (text and masks through the whole model) or "published".
        steps: Optimiser steps; 0 takes them from ``epochs``.
        epochs: Passes over the records, where ``steps`` is 0.
        batch_size: Pictures a step, over all processes.
        micro_batch: Pictures of one forward pass; 0 takes a process's whole share. Gradients are accumulated over the
            others.
        learning_rate: Peak, reached after ``warmup`` steps, then cosine to zero.
        warmup: Steps of linear warm-up.
        side: Side of the grounding pictures in pixels; smaller than the model's is faster.
        targets_per_picture: Most targets that are there; one or two that are not come on top.
        boxed_share: Share of a language step's pictures that have a box drawn in.
        trained: A rule of ``train.training.trainable.RULES`` for stages that train the whole model.
        warmup_share: Warm-up as a share of all steps, in place of ``warmup``, where it is above 0.
        warmup_start: Learning rate of the first step as a share of the peak; 0 starts one step above nothing.
        second_beta: Decay of the squared gradients' mean in AdamW.
        tower_frozen: Stages of a shared tower, from the first, that stay as they came.
        tower_rate: Learning rate of a shared tower's encoder as a share of the others'.
        decay_all: Weight decay on vectors, too, and not on matrices alone.
    """

    name: str
    kind: str
    steps: int
    batch_size: int
    learning_rate: float
    epochs: float = 0.0
    micro_batch: int = 0
    warmup: int = 100
    side: int = 256
    weight_decay: float = 0.05
    targets_per_picture: int = 4
    boxed_share: float = 0.5
    trained: str = "all"
    warmup_share: float = 0.0
    warmup_start: float = 0.0
    second_beta: float = 0.98
    tower_frozen: int = 0
    tower_rate: float = 1.0
    decay_all: bool = False


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Args:
        recipe: Name of the recipe that made it.
        preset: Model size.
        data: Folder of data sets, or of records made before; a run without it is refused.
        modality: Of a data folder that does not tell, e.g. "ultrasound".
        labels: JSON file, target name -> label values, for masks that name nothing.
        out: Run folder; a run that stopped goes on from it.
        stages: In order; only those named by ``only`` are run where that is set.
        only: Comma-separated stage names, "" for all; "export" is a stage, too.
        init: What the weights start from: "" (random), a preset or model folder, or "INTERNVL,SAM2", two folders.
        tower: What a shared tower starts from where ``init`` is random: "" (random) or a name of ``train/towers``.
        precision: "float32" or "bfloat16" (mixed, by autocast; for GPUs).
        checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        adapters: Rank of LoRA adapters on the language model; 0 trains its weights themselves.
        record_side: Side of the records in pixels; 0 keeps the source's size.
        validation_share: Share of the training patients whose pictures are held out to validate with.
        save_every: Steps between checkpoints; each is validated.
        keep: Newest checkpoints that are kept beside the best.
        workers: Processes that read ahead; 0 reads in the training process.
        threads: Threads of the computing library; 0 leaves it alone.
        licence: Terms of the weights, which follow from the data; written beside them.
    """

    recipe: str
    preset: str
    data: str = ""
    modality: str = ""
    labels: str = ""
    out: str = ""
    stages: tuple[Stage, ...] = field(default=())
    only: str = ""
    init: str = ""
    tower: str = ""
    precision: str = "float32"
    checkpointing: bool = False
    adapters: int = 0
    seed: int = 20261124
    vocabulary: int = 2048
    record_side: int = 256
    validation_share: float = 0.04
    save_every: int = 500
    keep: int = 2
    log_every: int = 50
    workers: int = 0
    threads: int = 0
    limit_records: int = 0
    licence: str = "not stated"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """What :meth:`to_dict` gave, as it is saved in a run folder.

        Raises:
            ConfigError: A name is missing, or is not one of this version.
        """
        try:
            stages = tuple(Stage(**stage) for stage in values["stages"])
            return cls(**{**values, "stages": stages})
        except (TypeError, KeyError) as cause:
            raise ConfigError(
                "Run of another version", f"config.json: {cause}", "the settings of this version"
            ) from cause


def named_value(setting: str) -> tuple[str, str]:
    """Name and value of a ``name=value`` word of a command line.

    Raises:
        ConfigError: It has no value.
    """
    name, found, value = setting.partition("=")
    if not found:
        raise ConfigError("Setting without a value", f"'{setting}'", "name=value")
    return name, value


def override(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Apply ``name=value`` settings; ``stage.name=value`` reaches into one stage.

    Raises:
        ConfigError: A name is unknown (the nearest is offered) or a value has another type.
    """
    stages = {stage.name: stage for stage in config.stages}
    for setting in settings:
        name, value = named_value(setting)
        stage, dot, inner = name.partition(".")
        if dot and stage in stages:
            stages[stage] = _replace(stages[stage], inner, value, prefix=f"{stage}.")
        else:
            config = _replace(config, name, value, extra=[f"{s}.steps" for s in stages])
    return dataclasses.replace(config, stages=tuple(stages.values()))


_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _replace(target: Any, name: str, value: str, prefix: str = "", extra: Sequence[str] = ()) -> Any:
    kinds = {f.name: type(getattr(target, f.name)) for f in dataclasses.fields(target)}
    kinds = {k: v for k, v in kinds.items() if v in (str, int, float, bool)}
    if name not in kinds:
        near = difflib.get_close_matches(prefix + name, [*(prefix + k for k in kinds), *extra], n=3, cutoff=0.3)
        raise ConfigError("Unknown setting", f"'{prefix}{name}'", f"nearest: {', '.join(near) or ', '.join(kinds)}")
    try:
        made = _TRUTH[value.lower()] if kinds[name] is bool else kinds[name](value)
    except (ValueError, KeyError) as cause:
        raise ConfigError("Setting of another type", f"{prefix}{name}={value}", kinds[name].__name__) from cause
    return dataclasses.replace(target, **{name: made})
