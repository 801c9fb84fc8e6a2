"""python benchmarks/unet.py RECORDS OUT CPU_MINUTES: a plain U-Net on the same records, to set a model's masks beside.

Ronneberger et al. 2015 with batch normalisation, one output channel a target, about as many parameters as mini's
segmentation side. It is trained like the grounding stages of ``train/recipes.py`` (same samples, augmentation, losses,
optimiser; three tenths of the time at 128 px, the rest at 256) for a given processor time on one thread, and writes
``masks.jsonl`` for the test records, which ``train/evaluate.py score OUT`` scores. Stopped, it goes on where it was.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.data import records as record_files
from train.data.augment import normalise, picture_tensor
from train.data.batches import MaskBatch, mask_batch
from train.data.records import Record, RecordSet
from train.data.sampler import Sampler
from train.data.targets import trained_targets
from train.evaluation.prediction_files import MASK_FILE, Row, mask_row, write_rows
from train.training.checkpoint import Checkpoints, load, optimiser_tensors, restore_optimiser, restore_weights
from train.training.objective import ABSENT_WEIGHT
from unibiomed_core import vocabulary

WIDTH, DEPTH = 18, 5
BATCH, PEAK_RATE, WARMUP_SHARE, MOST_TARGETS = 8, 1e-3, 0.03, 4
SMALL_SHARE, SIDES = 0.3, (128, 256)
SEED, SAVE_EVERY = 20261124, 200


class UNet(nn.Module):
    """(G, 3, S, S) normalised -> (G, targets, S, S) logits."""

    def __init__(self, targets: int) -> None:
        super().__init__()
        widths = [WIDTH * 2**level for level in range(DEPTH)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(widths))
        self.join = nn.ModuleList(_block(2 * a, a) for a in widths[:-1])
        self.out = nn.Conv2d(WIDTH, targets, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            pixels = block(F.max_pool2d(pixels, 2) if level else pixels)
            kept.append(pixels)
        for level in reversed(range(DEPTH - 1)):
            pixels = self.join[level](torch.cat([self.up[level](pixels), kept[level]], dim=1))
        return self.out(pixels)


def _block(given: int, made: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (given, made):
        layers += [nn.Conv2d(width, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def loss(logits: Tensor, batch: MaskBatch) -> Tensor:
    """Cross-entropy and soft Dice of the asked channels, weighted as in ``train/training/objective.py``."""
    asked = logits[batch.image, batch.target]  # (K, S, S)
    there = batch.present.float()
    weight = there + ABSENT_WEIGHT * (1 - there)
    entropy = F.binary_cross_entropy_with_logits(asked, batch.truth, reduction="none").mean(dim=(1, 2))
    chance = asked.sigmoid()
    overlap = (chance * batch.truth).sum(dim=(1, 2))
    dice = 1 - (2 * overlap + 1) / (chance.square().sum((1, 2)) + batch.truth.square().sum((1, 2)) + 1)
    return (entropy * weight).sum() / weight.sum() + (dice * there).sum() / there.sum().clamp(min=1)


def train(records: RecordSet, out: Path, seconds: float) -> tuple[UNet, dict[str, int]]:
    """Train until ``seconds`` of processor time are used, earlier calls counted in."""
    known = trained_targets(records)
    numbers = {name: n for n, name in enumerate(dict.fromkeys(t for names in known.values() for t in names))}
    torch.manual_seed(SEED)
    model = UNet(len(numbers))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    sampler = Sampler(records, SEED, (records.lengths("regions") > 0) | (records.lengths("absent") > 0))
    checkpoints = Checkpoints(out / "checkpoints", 1, _say)
    step, used = _resume(checkpoints, model, optimiser)
    began = time.process_time() - used
    _say(f"U-Net, {sum(p.numel() for p in model.parameters())} parameters, {len(numbers)} targets, step {step}")
    while (used := time.process_time() - began) < seconds:
        share = used / seconds
        rate = PEAK_RATE * min(1.0, share / WARMUP_SHARE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = rate
        side = SIDES[share >= SMALL_SHARE]
        batch = mask_batch(list(sampler.samples(step, BATCH)), numbers, side, MOST_TARGETS, side)
        step += 1
        if not len(batch.target):
            continue
        value = loss(model(batch.pixels), batch)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % SAVE_EVERY == 0:
            _save(checkpoints, model, optimiser, step, time.process_time() - began)
            _say(f"step {step}, {used / 60:.1f} of {seconds / 60:.0f} min, {side} px, loss {value.item():.3f}")
    _save(checkpoints, model, optimiser, step, used)
    return model.eval(), numbers


def _save(checkpoints: Checkpoints, model: UNet, optimiser: torch.optim.Optimizer, step: int, used: float) -> None:
    checkpoints.save(step, model.state_dict(), optimiser_tensors(optimiser), {"seconds": used})


def _resume(checkpoints: Checkpoints, model: UNet, optimiser: torch.optim.Optimizer) -> tuple[int, float]:
    newest = checkpoints.newest()
    if newest is None:
        return 0, 0.0
    loaded = load(newest)
    restore_weights(model, loaded.weights)
    restore_optimiser(optimiser, loaded.optimiser)
    return loaded.step, float(loaded.state["seconds"])


@torch.no_grad()
def predictions(model: UNet, numbers: dict[str, int], records: RecordSet) -> Iterator[Row]:
    """Every annotated target of every record, there or not; presence is the highest probability."""
    for record in records:
        names = _asked(record, numbers)
        if names:
            logits = model(normalise(picture_tensor(record)[None]))[0, [numbers[n] for n in names]]
            for name, found in zip(names, logits, strict=True):
                yield mask_row(record, name, np.asarray(found > 0), float(found.max().sigmoid()))


def _asked(record: Record, numbers: dict[str, int]) -> list[str]:
    names = [*(r.target for r in record.regions if r.counts), *record.absent]
    return [n for n in names if n in numbers and vocabulary.find(n) is not None]


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """See the top of the file."""
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    torch.set_num_threads(1)
    folder, out, minutes = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    model, numbers = train(record_files.load(folder / "train.parquet"), out, minutes * 60)
    write_rows(out / MASK_FILE, predictions(model, numbers, record_files.load(folder / "test.parquet")))
    _say(f"wrote {out / MASK_FILE}")


if __name__ == "__main__":
    main()
