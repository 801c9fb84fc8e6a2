"""python benchmarks/arms.py DATA OUT [seconds=200] [side=128] [seed=N] [ARM ...]: image towers after equal work.

Each arm trains the grounding stage of its recipe on DATA (records, or data sets) for as many seconds of processor
time on one thread, and is scored on the training patients that are held out: Dice of what a picture shows, mean over
pictures, then over data sets. OUT gets ``arms.json`` and ``arms.md``. The test split is never opened.

python benchmarks/arms.py score RUN OUT           the same score for the newest grounding stage of a run
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from train.config import RunConfig, Stage, override
from train.data.examples import vocabulary_texts
from train.data.targets import trained_targets
from train.recipes import RECIPES
from train.run_records import training_records
from train.training.export import read_run
from train.training.initialise import initial_model
from train.training.loop import CLIP_NORM, FIRST_BETA, TrainingRun, parameter_groups, take_over
from train.training.stage import TrainingData
from train.training.stages import Grounding
from unibiomed_core.model.unibiomed import UniBiomed

ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "two-towers-random": ("mini", ()),
    "lite0-imagenet": ("mini_lite0", ()),
    "lite0-imagenet-all-trained": ("mini_lite0", ("grounding-256.tower_frozen=0",)),
    "lite0-imagenet-one-rate": ("mini_lite0", ("grounding-256.tower_rate=1",)),
}
"""Name -> recipe, and what of it is changed; the stage is the recipe's second, whatever the side."""

STAGE = "grounding-256"
WARMUP_SHARE = 0.05


def main(arguments: Sequence[str]) -> int:
    """Train and score the arms, or score a run; returns the exit status."""
    torch.set_num_threads(1)
    if len(arguments) == 3 and arguments[0] == "score":
        found = score_run(Path(arguments[1]), Path(arguments[2]))
        write({Path(arguments[1]).name: found}, Path(arguments[2]))
        return 0
    if len(arguments) < 2:
        print(__doc__)
        return 2
    settings = dict(word.split("=", 1) for word in arguments[2:] if "=" in word)
    names = [word for word in arguments[2:] if "=" not in word] or list(ARMS)
    seconds, side = float(settings.get("seconds", 200)), int(settings.get("side", 128))
    results: dict[str, dict[str, object]] = {}
    for name in names:
        results[name] = run_arm(
            name, Path(arguments[0]), Path(arguments[1]) / name, seconds, side, int(settings.get("seed", 20261124))
        )
        write(results, Path(arguments[1]))
    return 0


def run_arm(name: str, data: Path, folder: Path, seconds: float, side: int, seed: int) -> dict[str, object]:
    """Train one arm from its start and score it."""
    recipe, changes = ARMS[name]
    config = override(RECIPES[recipe](), [f"data={data}", f"seed={seed}", *changes])
    stage = next(replace(s, side=side) for s in config.stages if s.name == STAGE)
    folder.mkdir(parents=True, exist_ok=True)
    model, material = prepared(config, folder)
    task = Grounding(model, material, stage)
    model.requires_grad_(False)
    task.select_trained()
    steps = trained(task, stage, seconds)
    found = scored(task)
    return {"steps": steps, "seconds": seconds, "side": side, "seed": seed, **found}


def prepared(config: RunConfig, folder: Path) -> tuple[UniBiomed, TrainingData]:
    """The model of a run before its first step, and what it draws from."""
    records = training_records(config, folder, print)
    known = trained_targets(records)
    model, processor = initial_model(config, folder, lambda: vocabulary_texts(records, known, config.seed))
    return model, TrainingData(records, processor, config.seed, config.validation_share)


def trained(task: Grounding, stage: Stage, seconds: float) -> int:
    """Train until the processor time is used; the learning rate follows the time. Returns the steps."""
    task.train()
    optimiser = torch.optim.AdamW(parameter_groups(task, stage), lr=0.0, betas=(FIRST_BETA, stage.second_beta))
    began, step = time.process_time(), 0
    while (share := (time.process_time() - began) / seconds) < 1:
        rate = stage.learning_rate * min(1.0, share / WARMUP_SHARE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["rate"]
        batch = task.collate(task.plan(step))
        counts = task.counts(batch)
        torch.stack([value / max(1.0, counts[name]) for name, value in task(batch).items()]).sum().backward()
        nn.utils.clip_grad_norm_(task.parameters(), CLIP_NORM)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
    return step


@torch.no_grad()
def scored(task: Grounding) -> dict[str, object]:
    """Dice on the held-out patients' pictures: macro over data sets, and each data set with its pictures."""
    task.eval()
    material = task.material
    dices: dict[str, list[float]] = defaultdict(list)
    targets: dict[str, list[float]] = defaultdict(list)
    for index in np.nonzero(material.held_out)[0]:
        record = material.records[int(index)]
        own = []
        for name, truth in record.masks().items():
            found = task.segment(record, name)
            own.append(2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
            targets[name].append(own[-1])
        if own:
            dices[record.dataset].append(float(np.mean(own)))
    return {
        "macro": float(np.mean([np.mean(own) for own in dices.values()])),
        "sets": {name: [round(float(np.mean(own)), 3), len(own)] for name, own in sorted(dices.items())},
        "targets": {name: [round(float(np.mean(own)), 3), len(own)] for name, own in sorted(targets.items())},
    }


def score_run(folder: Path, out: Path) -> dict[str, object]:
    """The newest grounding stage of a run, as it stands, at its own side."""
    config = read_run(folder)
    out.mkdir(parents=True, exist_ok=True)
    model, material = prepared(config, folder)
    run = TrainingRun(model, material, None, folder, config, Accelerator(cpu=True), print)
    last = [stage for stage in config.stages if stage.kind == "grounding" and take_over(run, stage)][-1]
    return {"stage": last.name, "side": last.side, **scored(Grounding(model, material, last))}


def write(results: Mapping[str, Mapping[str, object]], out: Path) -> None:
    """``arms.json`` with everything, ``arms.md`` with a column an arm and a row a data set."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "arms.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    sets: dict[str, dict[str, Sequence[float]]] = {name: dict(found["sets"]) for name, found in results.items()}  # type: ignore[call-overload]
    lines = [f"| data set (pictures) | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    lines.append("| **macro** | " + " | ".join(f"**{found['macro']:.3f}**" for found in results.values()) + " |")
    for name in sorted({name for own in sets.values() for name in own}):
        count = next(own[name][1] for own in sets.values() if name in own)
        cells = (f"{own[name][0]:.2f}" if name in own else "" for own in sets.values())
        lines.append(f"| {name} ({count}) | {' | '.join(cells)} |")
    (out / "arms.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
