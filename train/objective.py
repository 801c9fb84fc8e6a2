"""The training objective of models trained from scratch.

The published losses (``losses.py``) never train the IoU head nor the object score and sample points; a small model
needs both heads, because they choose the mask and tell absence, and sees every pixel.

Legend: K prompts, H W mask logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unibiomed_core.model.grounder import MaskOutput

ABSENT_WEIGHT = 0.5
QUALITY_WEIGHT = 0.5
OBJECT_WEIGHT = 0.5


def mask_objective(masks: MaskOutput, truth: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Named losses of one batch of prompts.

    Args:
        truth: (K, H, W) float32, the share of each logit's area that is foreground.
        present: (K,) bool.

    Returns:
        "mask" (cross-entropy), "dice" (1 - soft Dice with squared denominators, Milletari et al. 2016), "quality"
        (squared error of the predicted IoU) and "object" (cross-entropy of presence). All three candidates are
        trained, since a named target has one right mask.
    """
    logits = masks.logits.float()
    wanted = truth.unsqueeze(1).expand_as(logits)  # (K, 3, H, W)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2, 3))  # (K,)
    weight = torch.where(present, 1.0, ABSENT_WEIGHT)
    losses = {
        "mask": (entropy * weight).sum() / weight.sum(),
        "object": F.binary_cross_entropy_with_logits(masks.object_score.float(), present.float()) * OBJECT_WEIGHT,
    }
    if present.any():
        chance, there = logits[present].sigmoid(), wanted[present]
        overlap = (chance * there).sum(dim=(2, 3))
        losses["dice"] = (1 - (2 * overlap + 1) / (chance.square().sum((2, 3)) + there.square().sum((2, 3)) + 1)).mean()
        hard, hard_there = (chance > 0.5).float(), (there > 0.5).float()
        union = torch.maximum(hard, hard_there).sum((2, 3)).clamp(min=1)
        iou = (hard * hard_there).sum((2, 3)) / union
        losses["quality"] = F.mse_loss(masks.quality[present].float(), iou) * QUALITY_WEIGHT
    return losses
