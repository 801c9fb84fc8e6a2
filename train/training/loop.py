"""The whole loop, top to bottom: plan, deal, collate, forward, losses, step, log, validate, checkpoint.

A step shows the same samples however many processes share it: the plan is made for all, and dealt. Losses are sums
divided by the whole step's counts, so that one process and many give one result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn
from torch.utils.data import DataLoader, Dataset

from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.model.unibiomed import UniBiomed

from ..config import RunConfig, Stage
from .checkpoint import (
    Checkpoints,
    Loaded,
    optimiser_tensors,
    random_state,
    restore_optimiser,
    restore_random,
    restore_weights,
    whole,
)
from .checkpoint import load as load_checkpoint
from .curves import draw_curves
from .made_from import begin_stage
from .progress import StageProgress, count_flops, measured_peak
from .stage import StageTask, TrainingData, moved
from .stages import KINDS
from .validate import Validation

CLIP_NORM = 1.0
FIRST_BETA = 0.9

ENCODER = "tower.encoder."
"""What the names of a shared tower's encoder have in common."""


@dataclass(frozen=True)
class TrainingRun:
    """What every stage of a run shares.

    Args:
        inputs: What it learns from, as :mod:`train.training.made_from` has it; empty where nothing is trained.
    """

    model: UniBiomed
    material: TrainingData
    validation: Validation | None
    folder: Path
    config: RunConfig
    accelerator: Accelerator
    say: Callable[[str], None] = field(repr=False)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of every parameter only (FSDP2)."""
        return bool(self.accelerator.is_fsdp2)


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < stage.warmup:
        done = step / stage.warmup if stage.warmup_start else (step + 1) / stage.warmup
        return stage.learning_rate * (stage.warmup_start + (1 - stage.warmup_start) * done)
    progress = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def run_stage(run: TrainingRun, stage: Stage) -> None:
    """Train one stage from where its folder stands to its last step.

    Raises:
        DataError: The loss is not finite, or a checkpoint does not fit.
        WriteError: A checkpoint cannot be written.
    """
    accelerator, config = run.accelerator, run.config
    task = KINDS[stage.kind](run.model, run.material, stage)
    stage = task.stage = resolved(stage, task.samples_per_pass)
    run.model.requires_grad_(False)
    task.select_trained()
    task.train()
    if config.checkpointing:
        run.model.vlm.activation_checkpointing_enable()
    optimiser = torch.optim.AdamW(
        parameter_groups(task, stage), lr=stage.learning_rate, betas=(FIRST_BETA, stage.second_beta)
    )
    checkpoints = Checkpoints(run.folder / stage.name, config.keep, run.say)
    resumed = _resumed_weights(checkpoints, task)
    start = resumed.step if resumed else 0
    before = config.stages[: [s.name for s in config.stages].index(stage.name)]
    begin_stage(run.folder, stage, before, run.inputs, start, run.say, accelerator.is_main_process)
    accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=task.skips_parts)
    prepared, optimiser = accelerator.prepare(task, optimiser)
    if resumed:  # after preparing, which may put shards in place of the parameters
        restore_optimiser(optimiser, resumed.optimiser)
        restore_random(resumed.random)
    steps = Steps(task, accelerator.process_index, accelerator.num_processes)
    progress = _progress(run, stage, start)
    for step, micro_batches in steps.from_step(start, config.workers):
        micro_batches = [moved(batch, accelerator.device) for batch in micro_batches]
        rate = learning_rate(stage, step)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        totals = _totals(accelerator, task, micro_batches)
        # What dropout draws follows from the step and the process, not from what ran before.
        torch.manual_seed(config.seed + step * accelerator.num_processes + accelerator.process_index)

        if step == start:
            # Outside the step, so that counting cannot change it; what dropout drew is put back.
            flops = _counted(partial(_accumulate, accelerator, prepared, micro_batches, totals))
            optimiser.zero_grad(set_to_none=True)
            if progress is not None:
                progress.flops_per_step = flops
        parts = _accumulate(accelerator, prepared, micro_batches, totals)
        losses = _over_processes(accelerator, parts)
        if not all(map(math.isfinite, losses.values())):
            raise DataError(
                "Loss is not finite",
                f"stage {stage.name}, step {step}: " + ", ".join(f"{k} {v:.3g}" for k, v in losses.items()),
                "a finite loss",
                "Lower learning_rate; the last checkpoint is kept.",
            )
        accelerator.clip_grad_norm_(prepared.parameters(), CLIP_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if progress is not None:
            progress.step(step + 1, losses, rate, stage.batch_size)
        if (step + 1) % config.save_every == 0 or step + 1 == stage.steps:
            _save(run, stage, checkpoints, prepared, optimiser, progress, step + 1)
    if progress is not None:
        progress.close()
    run.model.eval()


def resolved(stage: Stage, samples: int) -> Stage:
    """The stage with its steps and warm-up, where they are given as passes over ``samples`` and as a share."""
    steps = stage.steps or max(1, math.ceil(stage.epochs * samples / stage.batch_size))
    warmup = round(stage.warmup_share * steps) if stage.warmup_share else stage.warmup
    return replace(stage, steps=steps, warmup=warmup)


def take_over(run: TrainingRun, stage: Stage) -> bool:
    """Load what a stage trained into the model; False where it was not run.

    Raises:
        DataError: Its checkpoint does not fit.
    """
    newest = Checkpoints(run.folder / stage.name, run.config.keep, run.say).newest()
    if newest is None:
        return False
    task = KINDS[stage.kind](run.model, run.material, stage)
    run.model.requires_grad_(False)
    task.select_trained()
    restore_weights(task, load_checkpoint(newest).weights)
    return True


def parameter_groups(module: nn.Module, stage: Stage) -> list[dict[str, object]]:
    """Weight decay on matrices only, unless the stage wants it on all: norms, biases, embeddings of single vectors and
    layer scales are left alone."""
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    rates = (1.0,) if stage.tower_rate == 1.0 else (1.0, stage.tower_rate)
    for rate in rates:
        kinds |= {(rate, stage.weight_decay): [], (rate, 0.0): []}
    for name, p in module.named_parameters():
        if p.requires_grad:
            rate = stage.tower_rate if ENCODER in name else 1.0
            kinds[rate, stage.weight_decay if stage.decay_all or p.ndim >= 2 else 0.0].append(p)
    return [{"params": own, "weight_decay": decay, "rate": rate} for (rate, decay), own in kinds.items()]


def _resumed_weights(checkpoints: Checkpoints, task: StageTask) -> Loaded | None:
    """The newest checkpoint, its weights put into the task; None where a stage begins."""
    newest = checkpoints.newest()
    if newest is None:
        return None
    loaded = load_checkpoint(newest)
    restore_weights(task, loaded.weights)
    return loaded


def _save(
    run: TrainingRun,
    stage: Stage,
    checkpoints: Checkpoints,
    prepared: nn.Module,
    optimiser: Any,
    progress: StageProgress | None,
    step: int,
) -> None:
    """Validate and write a checkpoint of what is trained, on the main process; the others wait, or gather shards."""
    accelerator = run.accelerator
    weights = {name: whole(value) for name, value in accelerator.get_state_dict(prepared).items()}
    optimised = optimiser_tensors(optimiser)
    task: StageTask = accelerator.unwrap_model(prepared)
    losses: dict[str, float] = {}
    if run.validation and (run.sharded or progress is not None):
        # A sheet of overlays calls parts of the model apart, which sharded parameters do not allow.
        losses = run.validation.losses(task, stage, step, draws=not run.sharded)
    if progress is not None:
        if losses:
            progress.scores(step, losses)
        trained = {name for name, p in task.named_parameters() if p.requires_grad}
        state = {"stage": stage.name, "recipe": run.config.recipe, "processes": accelerator.num_processes}
        kept = {name: value for name, value in weights.items() if name in trained}
        score = -sum(losses.values()) if losses else None
        checkpoints.save(step, kept, optimised, state, score)
        draw_curves(run.folder, [s.name for s in run.config.stages])
    accelerator.wait_for_everyone()


def _totals(accelerator: Accelerator, task: StageTask, batches: Sequence[Any]) -> dict[str, float]:
    """Loss name -> its count over the whole step and all processes; at least 1, so that an absent loss is 0."""
    counts: dict[str, float] = {}
    for batch in batches:
        for name, count in task.counts(batch).items():
            counts[name] = counts.get(name, 0.0) + count
    return {name: max(1.0, total) for name, total in _over_processes(accelerator, counts).items()}


def _accumulate(
    accelerator: Accelerator, prepared: nn.Module, batches: Sequence[Any], totals: dict[str, float]
) -> dict[str, float]:
    """Gradients of all micro-batches, synchronised with the last one; returns this process's share of each loss."""
    parts: dict[str, float] = dict.fromkeys(totals, 0.0)
    for number, batch in enumerate(batches):
        last = number + 1 == len(batches)
        with nullcontext() if last else accelerator.no_sync(prepared):
            with accelerator.autocast():
                sums = prepared(batch)
            shares = {name: value / totals[name] for name, value in sums.items()}
            # Gradients are averaged over processes; the factor makes a sum of that.
            accelerator.backward(torch.stack(list(shares.values())).sum() * accelerator.num_processes)
        for name, share in shares.items():
            parts[name] += share.item()
    return parts


def _over_processes(accelerator: Accelerator, parts: dict[str, float]) -> dict[str, float]:
    """The sums over all processes of what each has under a name; all have the same names."""
    names = sorted(parts)
    summed = accelerator.reduce(torch.tensor([parts[n] for n in names], device=accelerator.device), "sum")
    return {name: float(value) for name, value in zip(names, summed, strict=True)}


def _counted(compute: Callable[[], object]) -> float:
    before = random_state()
    flops = count_flops(compute)
    restore_random(before)
    return flops


def _progress(run: TrainingRun, stage: Stage, start: int) -> StageProgress | None:
    """The log of the stage; None in other processes than the main one."""
    accelerator, bfloat16 = run.accelerator, run.config.precision == "bfloat16"
    if not accelerator.is_main_process:
        return None
    return StageProgress(
        run.folder / stage.name,
        stage.steps,
        start=start,
        log_every=run.config.log_every,
        say=run.say,
        tensorboard=True,
        peak_flops=measured_peak(accelerator.device, torch.bfloat16 if bfloat16 else torch.float32),
    )


class Steps(Dataset[list[Any]]):
    """The steps of a stage for one process: item ``n`` is the micro-batches of step ``n``.

    The plan is cut into runs of like length, which are dealt to the processes in turn; so rows of one micro-batch are
    little padded, and every process has as many micro-batches.

    Raises:
        ConfigError: The batch cannot be dealt evenly.
    """

    def __init__(self, task: StageTask, process: int, processes: int) -> None:
        stage = task.stage
        self.micro = stage.micro_batch or max(1, stage.batch_size // processes)
        if stage.batch_size % (self.micro * processes):
            raise ConfigError(
                "Batch cannot be dealt",
                f"batch_size {stage.batch_size} to {processes} processes in micro-batches of {self.micro}",
                f"a multiple of {self.micro * processes}",
                f"Set {stage.name}.batch_size or {stage.name}.micro_batch.",
            )
        self.task, self.process, self.processes = task, process, processes

    def __len__(self) -> int:
        return self.task.stage.steps

    def __getitem__(self, step: int) -> list[Any]:
        items = self.task.plan(step)
        order = sorted(range(len(items)), key=lambda n: (self.task.length(items[n]), n))
        runs = [order[start : start + self.micro] for start in range(0, len(order), self.micro)]
        return [self.task.collate([items[n] for n in run]) for run in runs[self.process :: self.processes]]

    def from_step(self, start: int, workers: int) -> Iterator[tuple[int, list[Any]]]:
        """(step, micro-batches), read ahead by ``workers`` processes; the data position is the step."""
        numbers = range(start, len(self))
        loader = DataLoader(self, batch_size=None, sampler=list(numbers), num_workers=workers, collate_fn=_as_it_is)
        return zip(numbers, loader, strict=True)


def _as_it_is(batches: list[Any]) -> list[Any]:
    return batches
