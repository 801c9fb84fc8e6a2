"""The whole loop, top to bottom: draw, forward, losses, step, log, checkpoint."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from train import checkpoint
from train.config import Stage
from train.data.batches import draw_examples, language_batch, mask_batch, phrase_batch, target_names
from train.data.examples import draw, sampling_weights
from train.data.records import Record
from train.objective import mask_objective
from unibiomed_core.errors import DataError
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

CODE_SEED, CODE_SCALE = 7, 0.5
CLIP_NORM = 1.0

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Run:
    """What every stage of a run shares."""

    model: UniBiomed
    processor: Processor
    records: Sequence[Record]
    folder: Path
    seed: int
    save_every: int
    log_every: int
    say: Callable[[str], None]


def target_codes(width: int) -> Tensor:
    """(targets, C) fixed random vectors, one a target.

    The grounding stage learns to answer them and the language stage to produce them, so that the two need not wait
    for one another; the joint stage then trains the way through.
    """
    generator = torch.Generator().manual_seed(CODE_SEED)
    return torch.randn(len(target_names()), width, generator=generator) * CODE_SCALE


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    progress = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def trained_part(model: UniBiomed, stage: Stage) -> nn.Module:
    """The module a stage trains and checkpoints; the others take no memory and no time."""
    if stage.kind == "grounding":
        return model.grounder
    if stage.kind in {"language", "phrases"}:
        return nn.ModuleDict({"vlm": model.vlm, "bridge": model.bridge})
    return model


def run_stage(run: Run, stage: Stage) -> None:
    """Train one stage from where its folder stands to its last step.

    Raises:
        DataError: The loss is not finite.
        WriteError: A checkpoint cannot be written.
    """
    accelerator = Accelerator()
    module = trained_part(run.model, stage)
    module.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(_groups(module, stage.weight_decay), lr=stage.learning_rate, betas=(0.9, 0.98))
    folder = run.folder / stage.name
    state = checkpoint.load(folder / "checkpoint", module, optimiser)
    step = state["step"] if state else 0
    prepared, optimiser = accelerator.prepare(module, optimiser)
    kinds = {"grounding": _grounding, "language": _language, "phrases": _phrases, "joint": _joint}
    compute = kinds[stage.kind]
    weights = sampling_weights(run.records)
    log = folder / "log.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    sums: dict[str, float] = {}
    began, seen = time.monotonic(), 0
    while step < stage.steps:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(stage, step)
        losses = compute(run, stage, weights, step)
        if not losses:  # none of the pictures drawn has a target to ask for
            step += 1
            continue
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise DataError(
                "Loss is not finite",
                f"stage {stage.name}, step {step}: " + ", ".join(f"{k} {v.item():.3g}" for k, v in losses.items()),
                "a finite loss",
                "Lower learning_rate; the last checkpoint is kept.",
            )
        accelerator.backward(total)
        accelerator.clip_grad_norm_(prepared.parameters(), CLIP_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + stage.batch_size
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if step % run.log_every == 0 or step == stage.steps:
            _log(run, stage, log, step, sums, seen, began)
            sums.clear()
        if step % run.save_every == 0 or step == stage.steps:
            checkpoint.save(folder / "checkpoint", module, optimiser, {"step": step, "stage": stage.name})
    module.eval()


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices only: norms, biases, embeddings of single vectors and layer scales are left alone."""
    matrices = [p for p in module.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in module.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _grounding(run: Run, stage: Stage, weights: np.ndarray, step: int) -> Losses:
    rng = np.random.default_rng([run.seed, step, 2])
    indices = [int(i) for i in draw(weights, stage.batch_size, run.seed, step)]
    batch = mask_batch(run.records, indices, stage.side, stage.targets_per_picture, rng)
    if len(batch.codes) == 0:
        return {}
    codes = target_codes(run.model.config.grounding.hidden)[batch.codes]
    codes = codes + 0.1 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(step)) * CODE_SCALE
    features = run.model.grounder.encode(batch.pixels)
    return mask_objective(run.model.grounder.decode(features, codes, batch.image), batch.truth, batch.present)


def _language(run: Run, stage: Stage, weights: np.ndarray, step: int) -> Losses:
    rng = np.random.default_rng([run.seed, step, 3])
    examples = draw_examples(run.records, weights, stage.batch_size, run.seed, step)
    given = language_batch(run.records, examples, run.processor, rng, with_masks=False)
    hidden = run.model.language(
        run.model.embed(given.batch.input_ids, run.model.encode_tiles(given.batch.tiles)), given.batch.attention_mask
    )
    losses = {"text": text_loss(run.model, hidden, given.batch.labels)}
    states = hidden[given.batch.input_ids == run.model.ids.seg]
    if len(states):
        wanted = target_codes(run.model.config.grounding.hidden)[given.codes]
        losses["code"] = F.mse_loss(run.model.bridge(states), wanted) / CODE_SCALE**2
    return losses


def _phrases(run: Run, stage: Stage, weights: np.ndarray, step: int) -> Losses:
    rng = np.random.default_rng([run.seed, step, 5])
    pictures = max(1, stage.batch_size // stage.targets_per_picture)
    given, owner = phrase_batch(run.records, run.processor, rng, pictures, stage.targets_per_picture)
    tokens = run.model.encode_tiles(given.batch.tiles)[owner]
    hidden = run.model.language(run.model.embed(given.batch.input_ids, tokens), given.batch.attention_mask)
    states = hidden[given.batch.input_ids == run.model.ids.seg]
    wanted = target_codes(run.model.config.grounding.hidden)[given.codes]
    return {
        "text": text_loss(run.model, hidden, given.batch.labels),
        "code": F.mse_loss(run.model.bridge(states), wanted) / CODE_SCALE**2,
    }


def _joint(run: Run, stage: Stage, weights: np.ndarray, step: int) -> Losses:
    rng = np.random.default_rng([run.seed, step, 4])
    examples = draw_examples(run.records, weights, stage.batch_size, run.seed + 1, step)
    given = language_batch(run.records, examples, run.processor, rng, with_masks=True)
    output = run.model(given.batch)
    losses = {"text": text_loss(run.model, output.hidden, given.batch.labels)}
    if output.masks is not None:
        losses |= mask_objective(output.masks, given.truth, given.present)
    return losses


def text_loss(model: UniBiomed, hidden: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next token over answer positions; logits are made for those positions only."""
    wanted = labels[:, 1:]
    where = wanted != -100
    return F.cross_entropy(model.logits(hidden[:, :-1][where]).float(), wanted[where])


def _log(run: Run, stage: Stage, log: Path, step: int, sums: dict[str, float], seen: int, began: float) -> None:
    per_step = {k: v / run.log_every for k, v in sums.items()}
    rate = seen / max(1e-9, time.monotonic() - began)
    left = (stage.steps - step) * stage.batch_size / max(rate, 1e-9)
    with log.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps({"step": step, "pictures_per_second": round(rate, 2), **per_step}) + "\n")
    parts = "  ".join(f"{k} {v:.4f}" for k, v in per_step.items())
    run.say(f"{stage.name} {step}/{stage.steps}  {parts}  {rate:.1f} pictures/s  {left / 60:.0f} min left")
