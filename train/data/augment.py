"""Augmentation on the fly: one affine map for picture and masks, tone, and mirrors that swap left and right in text.

Every number comes from the sample's own generator, so that a batch is the same however it is dealt to processes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core import vocabulary
from unibiomed_core.model.config import IMAGENET_MEAN, IMAGENET_STD

from .records import Record

_TRUNK = {"chest", "abdomen", "heart", "spine"}
"""Parts of the body that are not alike when mirrored; no flip there."""

_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}


def may_mirror(record: Record) -> bool:
    """Whether a left-right flip shows something that exists, and leaves the names of all targets true."""
    known = vocabulary.targets()
    names = [*(r.target for r in record.regions), *record.absent]
    found = [known.get(name) for name in names]
    return bool(names) and all(t is not None and t.side is None and t.parts[0] not in _TRUNK for t in found)


def mirror_words(text: str) -> str:
    """The text of a mirrored picture: "left" and "right" as whole words change places."""
    return re.sub(r"\b(left|right|Left|Right)\b", lambda m: _SIDES[m.group()], text)


def augment(
    pictures: Tensor, masks: Tensor, mirror: NDArray[np.bool_], side: int, rngs: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """The same random affine map on pictures and masks, then brightness, contrast and gamma on pictures.

    Args:
        pictures: (G, 3, A, A) float32 in 0..1.
        masks: (G, M, A, A) float32.
        mirror: (G,), whether a flip is allowed.
        side: Side of the pictures that come back; masks keep theirs.
        rngs: One generator a picture.

    Returns:
        (G, 3, side, side) in 0..1 and (G, M, A, A).
    """
    theta = torch.from_numpy(np.stack([_affine(rng, bool(m)) for rng, m in zip(rngs, mirror, strict=True)]))
    whole = masks.shape[-1]
    masks = F.grid_sample(
        masks,
        F.affine_grid(theta, [len(theta), 1, whole, whole], align_corners=False),
        align_corners=False,
        padding_mode="zeros",
    )
    if side < pictures.shape[-1]:
        pictures = F.interpolate(pictures, size=(side, side), mode="area")
    grid = F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)
    pictures = F.grid_sample(pictures, grid, align_corners=False, padding_mode="zeros")
    return torch.stack([tone(p, rng) for p, rng in zip(pictures, rngs, strict=True)]), masks


def _affine(rng: np.random.Generator, mirror: bool) -> NDArray[np.float32]:
    """(2, 3): rotation up to 15 degrees, scale 0.78 to 1.28 for each axis, shift up to 6 % of the side."""
    angle = rng.uniform(-0.26, 0.26) * (rng.random() < 0.5)
    scale = np.exp(rng.uniform(-0.25, 0.25, 2) * (rng.random() < 0.8))
    shift = rng.uniform(-0.12, 0.12, 2) * (rng.random() < 0.8)
    flip = -1.0 if mirror and rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    turn[:, 0] *= flip
    return np.concatenate([turn, shift[:, None]], axis=1).astype(np.float32)


def tone(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """Random gamma, gain and offset; (3, H, W) in 0..1."""
    gamma, gain, offset = np.exp(rng.uniform(-0.35, 0.35)), rng.uniform(0.8, 1.2), rng.uniform(-0.08, 0.08)
    return (picture.clamp(0, 1) ** float(gamma) * float(gain) + float(offset)).clamp(0, 1)


def normalise(pictures: Tensor) -> Tensor:
    """(G, 3, H, W) in 0..1 -> ImageNet mean and deviation."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pictures - mean[:, None, None]) / std[:, None, None]


def picture_tensor(record: Record) -> Tensor:
    """(3, H, W) float32 in 0..1."""
    return torch.from_numpy(record.pixels().copy()).permute(2, 0, 1).float() / 255
