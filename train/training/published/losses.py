"""The published losses, as the released training code computes them.

Legend: B sequences, T tokens, V vocabulary, K objects, H W low-resolution mask logits, P sampled points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_WEIGHT, DICE_WEIGHT = 2.0, 0.5
POINTS, OVERSAMPLE, UNCERTAIN_SHARE = 12544, 3, 0.75
OBJECTS_PER_SAMPLE = 5
EPSILON = 1e-4 + torch.finfo(torch.float32).eps
"""Added to every count that is divided by."""

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Loss:
    """A weighted loss and how many tokens or objects it is the mean of."""

    value: Tensor
    count: int


def text_loss(logits: Tensor, labels: Tensor) -> Loss:
    """Next-token cross-entropy, mean over all tokens of the micro-batch that carry loss.

    Args:
        logits: (B, T, V).
        labels: (B, T) int64, ``IGNORED`` where no loss is taken.
    """
    wanted = labels[:, 1:]
    where = wanted != IGNORED
    return Loss(F.cross_entropy(logits[:, :-1][where].float(), wanted[where]), int(where.sum()))


def as_published_objects(per_sample: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Which objects the published training decodes: exactly five a sample, repeated in turn or drawn at random.

    Args:
        per_sample: Number of objects of each sample.

    Returns:
        (5 x samples,) int64, object numbers over the whole batch.
    """
    chosen, first = [], 0
    for count in per_sample:
        if count > OBJECTS_PER_SAMPLE:
            own = torch.randperm(count, generator=generator)[:OBJECTS_PER_SAMPLE]
        else:
            own = torch.arange(OBJECTS_PER_SAMPLE) % count
        chosen.append(own + first)
        first += count
    return torch.cat(chosen)


@torch.no_grad()
def uncertain_points(logits: Tensor, count: int = POINTS, generator: torch.Generator | None = None) -> Tensor:
    """(K, H, W) logits -> (K, P, 2) coordinates (x, y) in 0..1: three quarters where the logits are nearest to 0
    among three times as many uniform draws, the rest uniform (PointRend, Kirillov et al. 2020)."""
    objects, device = len(logits), logits.device
    drawn = torch.rand(objects, count * OVERSAMPLE, 2, generator=generator, device=device)
    keep = int(UNCERTAIN_SHARE * count)
    nearest = sample_points(logits, drawn).abs().topk(keep, dim=1, largest=False).indices  # (K, keep)
    uncertain = drawn.gather(1, nearest.unsqueeze(-1).expand(-1, -1, 2))
    uniform = torch.rand(objects, count - keep, 2, generator=generator, device=device)
    return torch.cat([uncertain, uniform], dim=1)


def sample_points(maps: Tensor, coordinates: Tensor) -> Tensor:
    """Bilinear values of (K, H, W) at (K, P, 2) coordinates (x, y) in 0..1, zero outside -> (K, P)."""
    grid = (2 * coordinates - 1).unsqueeze(2)  # (K, P, 1, 2)
    return F.grid_sample(maps.unsqueeze(1), grid, align_corners=False, padding_mode="zeros")[:, 0, :, 0]


def mask_losses(
    logits: Tensor,
    truth: Tensor,
    *,
    dense: bool = False,
    coordinates: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Loss]:
    """Cross-entropy x 2 and Dice x 0.5 over sampled points, or over all pixels.

    Dice has first powers in the denominator and 1 added to both sides of the fraction.

    Args:
        logits: (K, H, W), of the candidate with the highest predicted IoU.
        truth: (K, H, W), 0 or 1, at the same size.
        dense: Take every pixel; plain means.
        coordinates: (K, P, 2) points to use in place of drawn ones.
    """
    objects = len(logits)
    logits, truth = logits.float(), truth.float()
    if dense:
        found, wanted = logits.flatten(1), truth.flatten(1)
    else:
        if coordinates is None:
            coordinates = uncertain_points(logits, generator=generator)
        found = sample_points(logits, coordinates)
        with torch.no_grad():
            wanted = sample_points(truth, coordinates)
    entropy = F.binary_cross_entropy_with_logits(found, wanted, reduction="sum")
    chance = found.sigmoid()
    overlap = (chance * wanted).sum(dim=1)
    dice = 1 - (2 * overlap + 1) / (chance.sum(dim=1) + wanted.sum(dim=1) + 1)  # (K,)
    slack = 0.0 if dense else EPSILON
    return {
        "mask": Loss(MASK_WEIGHT * entropy / (found.numel() + slack), objects),
        "dice": Loss(DICE_WEIGHT * dice.sum() / (objects + slack), objects),
    }
