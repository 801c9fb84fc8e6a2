"""Batches of the grounding stage: pictures with several targets each, and no text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data.augment import augment, may_mirror, normalise, picture_tensor
from train.data.examples import pick_targets
from train.data.records import Record
from train.data.targets import CODE_SCALE

CODE_NOISE = 0.1
"""Deviation of the noise on target codes, in their own: the language side will not hit them exactly."""

SMALLEST_VISIBLE = 8.0
"""Pixels of a target that augmentation must leave in the picture for it to count as there."""


@dataclass(frozen=True)
class MaskBatch:
    """Pictures with several targets each.

    Args:
        pixels: (G, 3, S, S) normalised.
        target: (K,) int64, number of the target in the run's table.
        image: (K,) int64, which picture.
        truth: (K, A, A) float32, share of foreground.
        present: (K,) bool.
        noise: (K, C) float32, to be added to the target's code.
    """

    pixels: Tensor
    target: Tensor
    image: Tensor
    truth: Tensor
    present: Tensor
    noise: Tensor


def mask_batch(
    samples: Sequence[tuple[Record, np.random.Generator]],
    numbers: Mapping[str, int],
    side: int,
    most: int,
    mask_side: int,
    width: int = 0,
) -> MaskBatch:
    """Pick targets, augment, and leave out what augmentation moved out of sight: it is neither there nor absent.

    Args:
        numbers: Target name -> its number.
        side: Side of the pictures.
        most: Most targets of a picture that are there.
        mask_side: Side of the true masks.
        width: Of a target's code; 0 where no noise is wanted.
    """
    records = [record for record, _ in samples]
    rngs = [rng for _, rng in samples]
    chosen = [[(t, p) for t, p in pick_targets(r, rng, most) if t in numbers] for r, rng in samples]
    pictures = torch.stack([picture_tensor(record) for record in records])
    masks = torch.zeros(len(records), max(1, *map(len, chosen)), *pictures.shape[-2:])
    rows: list[tuple[int, int, int, bool]] = []
    noise: list[NDArray[np.float64]] = []
    for g, (record, targets) in enumerate(zip(records, chosen, strict=True)):
        known = record.masks() if any(present for _, present in targets) else {}
        for m, (target, present) in enumerate(targets):
            if present:
                masks[g, m] = torch.from_numpy(known[target])
            rows.append((g, m, numbers[target], present))
            noise.append(rngs[g].normal(0, CODE_NOISE * CODE_SCALE, width))
    pictures, masks = augment(pictures, masks, np.array([may_mirror(r) for r in records]), side, rngs)
    image, layer, target_number = (
        torch.tensor([row[column] for row in rows], dtype=torch.int64) for column in range(3)
    )
    asked = torch.tensor([row[3] for row in rows], dtype=torch.bool)
    truth = masks[image, layer]
    visible = truth.sum(dim=(1, 2)) > SMALLEST_VISIBLE
    truth = F.interpolate(truth[None], size=(mask_side, mask_side), mode="area")[0]
    keep = ~asked | visible
    spread = torch.from_numpy(np.stack(noise)).float() if noise else torch.zeros(0, width)
    return MaskBatch(
        normalise(pictures), target_number[keep], image[keep], truth[keep], (asked & visible)[keep], spread[keep]
    )
