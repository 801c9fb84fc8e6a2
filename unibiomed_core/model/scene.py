"""A first look at a picture: its modality, the part of the body, and what may be wrong, from one small frozen tower.

A linear rule on the pooled features of an EfficientNet-Lite0 that was trained on ImageNet. It needs no words, so a
picture is placed before any question is asked, at about a thirtieth of what an answer costs.

Legend: N pictures, S side in pixels, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibiomed_core.model.config import IMAGENET_MEAN, IMAGENET_STD, SceneSizes
from unibiomed_core.model.lite0 import Lite0
from unibiomed_core.model.towers import TowerSizes

POOLED_LEVELS = 3
"""The last levels of the tower (strides 8, 16, 32) that are averaged; finer ones are edges alone."""


@dataclass(frozen=True, slots=True)
class SceneLogits:
    """What a first look gives, by the names of ``SceneSizes``.

    Args:
        modality: (N, modalities), for a softmax.
        part: (N, parts), for a softmax.
        finding: (N, findings), for a sigmoid each.
    """

    modality: Tensor
    part: Tensor
    finding: Tensor


class SceneHead(nn.Module):
    """The tower and its three linear rules; it takes no part in training, which fits the rules afterwards."""

    def __init__(self, sizes: SceneSizes) -> None:
        super().__init__()
        self.sizes = sizes
        tower = TowerSizes(name="lite0")
        self.tower = Lite0(tower)
        width = sum(tower.level_widths[-POOLED_LEVELS:]) + tower.level_widths[-1]
        self.modality = nn.Linear(width, len(sizes.modalities))
        self.part = nn.Linear(width, len(sizes.parts))
        self.finding = nn.Linear(width, len(sizes.findings))
        self.requires_grad_(False)

    def features(self, rgb: Tensor) -> Tensor:
        """(N, 3, H, W) of 0..255, any size -> (N, F): means of the last levels and the maximum of the last one."""
        side = self.sizes.image_size
        pixels = F.interpolate(rgb.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (pixels.new_tensor(values).mul(255).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        levels = self.tower(((pixels - mean) / std).to(self.part.weight.dtype))
        pooled = [level.mean(dim=(2, 3)) for level in levels[-POOLED_LEVELS:]]
        return torch.cat([*pooled, levels[-1].amax(dim=(2, 3))], dim=1)

    def forward(self, rgb: Tensor) -> SceneLogits:
        """(N, 3, H, W) of 0..255 -> logits."""
        features = self.features(rgb)
        return SceneLogits(self.modality(features).float(), self.part(features).float(), self.finding(features).float())
