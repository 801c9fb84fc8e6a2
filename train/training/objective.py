"""The training objective of models trained from scratch, as sums with their counts.

The published losses (``losses.py``) never train the IoU head nor the object score and sample points; a small model
needs both heads, because they choose the mask and tell absence, and sees every pixel. Sums and counts are kept apart,
so that a mean over processes and micro-batches is the mean over the whole step.

Legend: K prompts, H W mask logits, A side of the true masks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.model.grounder import MaskOutput

ABSENT_WEIGHT = 0.5
QUALITY_WEIGHT = 0.5
OBJECT_WEIGHT = 0.5
CANDIDATES = 3

Sums = dict[str, Tensor]


def mask_counts(present: Tensor) -> dict[str, float]:
    """What the sums of :func:`mask_objective` are divided by."""
    there = float(present.sum())
    return {
        "mask": there + ABSENT_WEIGHT * (len(present) - there),
        "dice": there * CANDIDATES,
        "quality": there * CANDIDATES,
        "object": float(len(present)),
    }


def mask_objective(masks: MaskOutput, truth: Tensor, present: Tensor) -> Sums:
    """Named sums of one batch of prompts.

    Args:
        truth: (K, A, A) float32, share of foreground; logits are brought to its size, so that a thin structure is
            learnt where its mask is finer than the logits.
        present: (K,) bool.

    Returns:
        "mask" (cross-entropy, mean over pixels and candidates), "dice" (1 - soft Dice with squared denominators,
        Milletari et al. 2016), "quality" (squared error of the predicted IoU) and "object" (cross-entropy of presence).
        All three candidates are trained, since a named target has one right mask.
    """
    logits = F.interpolate(masks.logits.float(), size=truth.shape[-2:], mode="bilinear", align_corners=False)
    wanted = truth.unsqueeze(1).expand_as(logits)  # (K, 3, A, A)
    there = present.float()
    weight = there + ABSENT_WEIGHT * (1 - there)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2, 3))  # (K,)
    chance = logits.sigmoid()
    overlap = (chance * wanted).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (chance.square().sum((2, 3)) + wanted.square().sum((2, 3)) + 1)  # (K, 3)
    with torch.no_grad():
        hard, hard_there = (logits > 0).float(), (wanted > 0.5).float()
        union = torch.maximum(hard, hard_there).sum((2, 3)).clamp(min=1)
        iou = (hard * hard_there).sum((2, 3)) / union  # (K, 3)
    return {
        "mask": (entropy * weight).sum(),
        "dice": (dice * there.unsqueeze(1)).sum(),
        "quality": ((masks.quality.float() - iou).square() * there.unsqueeze(1)).sum() * QUALITY_WEIGHT,
        "object": F.binary_cross_entropy_with_logits(masks.object_score.float(), there, reduction="sum")
        * OBJECT_WEIGHT,
    }
