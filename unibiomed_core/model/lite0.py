"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excite, ReLU6) as a tower that both sides of the model share.

Legend: N pictures, S side in pixels, C mask decoder width, P tokens of the language side.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unibiomed_core.model.towers import LEVEL_STAGES, TOKEN_STRIDE, TowerSizes

KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
EXPANSION = 6
NORM_EPS = 1e-3
NORM_GROUP = 8
"""Channels that are normalised together in the neck."""


class ConvNorm(nn.Module):
    """A convolution without bias, BatchNorm, and ReLU6 where ``active``."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=NORM_EPS)
        self.active = active
        # The weights were trained with as much padding as keeps size / stride, the odd pixel at the lower right.
        total = kernel - stride
        self.padding = (total // 2, total - total // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.padding
        if first == last:
            x = F.conv2d(x, self.conv.weight, None, self.conv.stride, first, 1, self.conv.groups)
        else:
            x = self.conv(F.pad(x, (first, last, first, last)))
        x = self.norm(x)
        return F.relu6(x) if self.active else x


class Block(nn.Module):
    """Inverted bottleneck: widen, look around in each channel, narrow; added to its input where the shapes allow."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = ConvNorm(before, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, after, 1, active=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Lite0(nn.Module):
    """The encoder: stem and seven stages. Its BatchNorm keeps the statistics it came with, in training as well: those
    of a few pictures of mixed modalities would be worse."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.stem = ConvNorm(3, sizes.stem, 3, 2)
        stages, before = [], sizes.stem
        for number, (after, repeats) in enumerate(zip(sizes.widths, sizes.repeats, strict=True)):
            expansion = EXPANSION if number else 1
            blocks = []
            for block in range(repeats):
                stride = 1 if block else STRIDES[number]
                blocks.append(Block(before, after, KERNELS[number], stride, expansion))
                before = after
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(N, 3, S, S) normalised -> levels at strides 2, 4, 8, 16 and 32, (N, width, S / stride, S / stride) each."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        levels = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in LEVEL_STAGES:
                levels.append(x)
        return levels

    def train(self, mode: bool = True) -> Lite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def freeze(self, stages: int) -> None:
        """No gradient for the first so many stages, and for the stem where there is one at all."""
        frozen: list[nn.Module] = [self.stem, *self.stages[:stages]] if stages else []
        for part in frozen:
            part.requires_grad_(False)


class _Smooth(nn.Module):
    """What comes from below, twice as large, and the level beside it, mixed by a 3 x 3 convolution."""

    def __init__(self, below: int, beside: int, width: int) -> None:
        super().__init__()
        self.below = nn.Conv2d(below, width, 1)
        self.beside = nn.Conv2d(beside, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(max(1, width // NORM_GROUP), width)

    def forward(self, below: Tensor, beside: Tensor) -> Tensor:
        x = F.interpolate(self.below(below), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = x + self.beside(beside)
        return x + F.relu(self.norm(self.mix(F.relu(x))))


class SharedTower(nn.Module):
    """The encoder, and the way back up to the levels that SAM 2's mask decoder reads.

    Args:
        width: C.
    """

    def __init__(self, sizes: TowerSizes, width: int) -> None:
        super().__init__()
        self.encoder = Lite0(sizes)
        fine, quarter, middle = sizes.neck
        two, four, eight, sixteen, last = sizes.level_widths
        self.to_sixteen = _Smooth(last, sixteen, width)
        self.to_eight = _Smooth(width, eight, middle)
        self.to_four = _Smooth(middle, four, quarter)
        self.to_two = _Smooth(quarter, two, fine)

    def neck(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Levels of the encoder -> (N, fine, S/2, S/2), (N, middle, S/8, S/8) and (N, C, S/16, S/16)."""
        two, four, eight, sixteen, last = levels
        embedding = self.to_sixteen(last, sixteen)
        middle = self.to_eight(embedding, eight)
        return self.to_two(self.to_four(middle, four), two), middle, embedding


def pooled_tokens(levels: list[Tensor]) -> Tensor:
    """All levels averaged over the cells of the coarsest: (N, P, sum of the level widths).

    Fine levels stay in, since a thin line (a drawn box) is gone from the coarse ones.
    """
    side = levels[-1].shape[-1]
    pooled = [F.avg_pool2d(level, level.shape[-1] // side) if level.shape[-1] > side else level for level in levels]
    return torch.cat(pooled, dim=1).flatten(2).transpose(1, 2)


class TokenProjector(nn.Module):
    """Pooled levels to the language model's width."""

    def __init__(self, sizes: TowerSizes, width: int) -> None:
        super().__init__()
        before = sum(sizes.level_widths)
        self.layers = nn.Sequential(nn.LayerNorm(before), nn.Linear(before, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Any:
        """(N, P, levels) -> (N, P, width)."""
        return self.layers(tokens)


def tokens_per_picture(side: int) -> int:
    """P of a picture of so many pixels a side."""
    return (side // TOKEN_STRIDE) ** 2
