"""Batches for the three stages of a model trained from scratch. Order and augmentation follow from (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from train.data.examples import (
    NOTHING,
    Example,
    draw,
    make_example,
    pick_targets,
    segment_example,
    trained_targets,
)
from train.data.records import Record
from unibiomed_core import vocabulary
from unibiomed_core.model.config import IMAGENET_MEAN, IMAGENET_STD
from unibiomed_core.model.processor import Processor, draw_box
from unibiomed_core.model.unibiomed import Batch

IGNORED = -100
_TRUNK = {"chest", "abdomen", "heart", "body"}
"""Body parts that are not alike when mirrored; no flip there."""


@dataclass(frozen=True)
class MaskBatch:
    """Pictures with several targets each.

    Args:
        pixels: (G, 3, S, S) normalised.
        codes: (K,) int64, number of the target in ``target_names()``.
        image: (K,) int64, which picture.
        truth: (K, S / 4, S / 4) float32, share of foreground.
        present: (K,) bool.
    """

    pixels: Tensor
    codes: Tensor
    image: Tensor
    truth: Tensor
    present: Tensor


@cache
def target_names() -> tuple[str, ...]:
    """Every target a ``[SEG]`` can stand for."""
    return (*vocabulary.targets(), NOTHING)


def may_mirror(record: Record) -> bool:
    """Whether a left-right flip leaves every word about the picture true."""
    known = vocabulary.targets()
    names = [*(r.target for r in record.regions), *record.absent]
    return bool(names) and all(known[n].side is None and known[n].anatomy not in _TRUNK for n in names)


def augment(
    pictures: Tensor, masks: Tensor, mirror: NDArray[np.bool_], side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random affine map on pictures and masks, then brightness, contrast and gamma on pictures.

    Args:
        pictures: (G, 3, A, A) float32 in 0..1.
        masks: (G, M, A, A) float32.
        mirror: (G,), whether a flip is allowed.
        side: Side of the result.

    Returns:
        (G, 3, side, side) in 0..1 and (G, M, side, side).
    """
    count = len(pictures)
    if side < pictures.shape[-1]:
        factor = pictures.shape[-1] // side
        pictures, masks = F.avg_pool2d(pictures, factor), F.avg_pool2d(masks, factor)
    angle = rng.uniform(-0.26, 0.26, count) * (rng.random(count) < 0.5)
    scale = np.exp(rng.uniform(-0.25, 0.25, (count, 2)) * (rng.random((count, 1)) < 0.8))
    shift = rng.uniform(-0.12, 0.12, (count, 2)) * (rng.random((count, 1)) < 0.8)
    flip = np.where(mirror & (rng.random(count) < 0.5), -1.0, 1.0)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) * scale[:, 0] * flip, -np.sin(angle) * scale[:, 1]
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) * scale[:, 0] * flip, np.cos(angle) * scale[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(torch.from_numpy(theta), [count, 1, side, side], align_corners=False)
    pictures = F.grid_sample(pictures, grid, align_corners=False, padding_mode="zeros")
    masks = F.grid_sample(masks, grid, align_corners=False, padding_mode="zeros")
    return tone(pictures, rng), masks


def tone(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Random gamma, gain and offset per picture; (G, 3, H, W) in 0..1."""
    count = len(pictures)

    def per_picture(values: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).reshape(count, 1, 1, 1)

    pictures = pictures.clamp(0, 1) ** per_picture(np.exp(rng.uniform(-0.35, 0.35, count)))
    gain, offset = rng.uniform(0.8, 1.2, count), rng.uniform(-0.08, 0.08, count)
    return (pictures * per_picture(gain) + per_picture(offset)).clamp(0, 1)


def normalise(pictures: Tensor) -> Tensor:
    """(G, 3, H, W) in 0..1 -> ImageNet mean and deviation."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (pictures - mean[:, None, None]) / std[:, None, None]


def mask_batch(
    records: Sequence[Record], indices: Sequence[int], side: int, most: int, rng: np.random.Generator
) -> MaskBatch:
    """A batch for the grounding stage."""
    chosen = [pick_targets(records[i], rng, most) for i in indices]
    layers = max(len(c) for c in chosen)
    pictures = torch.stack([_picture(records[i]) for i in indices])
    masks = torch.zeros(len(indices), max(layers, 1), *pictures.shape[-2:])
    rows: list[tuple[int, int, int, bool]] = []
    names = target_names()
    for g, (i, targets) in enumerate(zip(indices, chosen, strict=True)):
        known = records[i].masks()
        for m, (target, present) in enumerate(targets):
            if present:
                masks[g, m] = torch.from_numpy(known[target])
            rows.append((g, m, names.index(target), present))
    mirror = np.array([may_mirror(records[i]) for i in indices])
    pictures, masks = augment(pictures, masks, mirror, side, rng)
    small = F.avg_pool2d(masks, 4)
    image = torch.tensor([r[0] for r in rows], dtype=torch.int64)
    truth = small[image, torch.tensor([r[1] for r in rows], dtype=torch.int64)]
    visible = truth.sum(dim=(1, 2)) > 0.5  # augmentation may have moved a target out of the picture
    asked = torch.tensor([r[3] for r in rows], dtype=torch.bool)
    keep = ~asked | visible  # a target that was moved out is neither there nor absent
    codes = torch.tensor([r[2] for r in rows], dtype=torch.int64)
    return MaskBatch(normalise(pictures), codes[keep], image[keep], truth[keep], (asked & visible)[keep])


def _picture(record: Record) -> Tensor:
    return torch.from_numpy(record.pixels().copy()).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class LanguageBatch:
    """Questions with answers.

    Args:
        batch: For the model; its grounding pictures are empty unless masks were asked for.
        codes: (K,) int64, target of each ``[SEG]`` in reading order.
        truth: (K, S / 4, S / 4) float32; empty without masks.
        present: (K,) bool.
    """

    batch: Batch
    codes: Tensor
    truth: Tensor
    present: Tensor


def language_batch(
    records: Sequence[Record],
    examples: Sequence[Example],
    processor: Processor,
    rng: np.random.Generator,
    with_masks: bool,
) -> LanguageBatch:
    """A batch for the language and joint stages. Answers carry loss, questions and padding do not.

    Only the tone is augmented: place and side in the answers stay true.
    """
    ids, labels, tiles, grounding = [], [], [], []
    codes, seg_image, truth, present = [], [], [], []
    names, side = target_names(), processor.config.grounding.image_size
    for example in examples:
        record = records[example.record]
        picture = tone(_picture(record).unsqueeze(0), rng)[0]
        rgb = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        boxed = draw_box(rgb, example.region) if example.region else rgb
        tiles.append(processor.tiles(boxed))
        question = processor.encode(processor.expand_image(processor.chat(example.question), [len(tiles[-1])]))
        answer = processor.encode(example.answer)
        ids.append(question + answer)
        labels.append([IGNORED] * len(question) + answer)
        if example.targets and with_masks:
            known = record.masks()
            for target in example.targets:
                mask = known.get(target)
                layer = torch.zeros(side, side) if mask is None else torch.from_numpy(mask.astype(np.float32))
                truth.append(F.adaptive_avg_pool2d(layer[None], side // 4)[0])
            grounding.append(processor.grounding_pixels(rgb))
        for target in example.targets:
            codes.append(names.index(target))
            present.append(any(r.target == target for r in record.regions))
            seg_image.append(len(grounding) - 1 if with_masks else -1)
    width = max(len(i) for i in ids)
    pad = processor.ids.pad
    side_shape = (0, 3, side, side)
    batch = Batch(
        input_ids=torch.tensor([i + [pad] * (width - len(i)) for i in ids]),
        attention_mask=torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in ids]),
        labels=torch.tensor([i + [IGNORED] * (width - len(i)) for i in labels]),
        tiles=torch.cat(tiles),
        grounding_pixels=torch.stack(grounding) if grounding else torch.zeros(side_shape),
        seg_image=torch.tensor(seg_image, dtype=torch.int64),
    )
    shape = (0, side // 4, side // 4)
    return LanguageBatch(
        batch,
        torch.tensor(codes, dtype=torch.int64),
        torch.stack(truth) if truth else torch.zeros(shape),
        torch.tensor(present, dtype=torch.bool),
    )


def phrase_batch(
    records: Sequence[Record], processor: Processor, rng: np.random.Generator, pictures: int, per_picture: int
) -> tuple[LanguageBatch, Tensor]:
    """Many referring questions about a few pictures, every target of a modality alike often, present or not.

    What a phrase means does not depend on the picture, so rare targets need not wait for their own.

    Returns:
        The batch, whose tiles are those of the pictures alone, and (B,) int64, the picture of each question.
    """
    known = trained_targets(records)
    modalities = sorted(known)
    chances = np.sqrt([len(known[m]) for m in modalities])
    examples, tiles, owner = [], [], []
    for number in range(pictures):
        kind = modalities[int(rng.choice(len(modalities), p=chances / chances.sum()))]
        own = [i for i, r in enumerate(records) if r.modality == kind]
        index = own[int(rng.integers(len(own)))]
        tiles.append(processor.tiles(records[index].pixels()))
        for target in rng.choice(known[kind], size=per_picture, replace=len(known[kind]) < per_picture):
            examples.append(segment_example(records[index], index, str(target), rng))
            owner.append(number)
    return _texts(examples, [len(tiles[n]) for n in owner], tiles, processor), torch.tensor(owner)


def _texts(
    examples: Sequence[Example], tiles_of: Sequence[int], tiles: Sequence[Tensor], processor: Processor
) -> LanguageBatch:
    """Questions and answers as ids, without masks."""
    ids, labels, codes = [], [], []
    for example, count in zip(examples, tiles_of, strict=True):
        question = processor.encode(processor.expand_image(processor.chat(example.question), [count]))
        answer = processor.encode(example.answer)
        ids.append(question + answer)
        labels.append([IGNORED] * len(question) + answer)
        codes += [target_names().index(t) for t in example.targets]
    width, pad, side = max(len(i) for i in ids), processor.ids.pad, processor.config.grounding.image_size
    batch = Batch(
        input_ids=torch.tensor([i + [pad] * (width - len(i)) for i in ids]),
        attention_mask=torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in ids]),
        labels=torch.tensor([i + [IGNORED] * (width - len(i)) for i in labels]),
        tiles=torch.cat(list(tiles)),
        grounding_pixels=torch.zeros(0, 3, side, side),
        seg_image=torch.full((len(codes),), -1),
    )
    return LanguageBatch(
        batch, torch.tensor(codes), torch.zeros(0, side // 4, side // 4), torch.zeros(0, dtype=torch.bool)
    )


def draw_examples(
    records: Sequence[Record], weights: NDArray[np.float64], count: int, seed: int, step: int
) -> list[Example]:
    """``count`` examples of one step; records that no task fits are passed over for the next in order."""
    rng = np.random.default_rng([seed, step, 1])
    examples: list[Example] = []
    for index in draw(weights, count * 3, seed, step):
        example = make_example(records[int(index)], int(index), rng)
        if example is not None:
            examples.append(example)
        if len(examples) == count:
            break
    return examples
