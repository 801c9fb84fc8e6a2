"""Batches of text: several questions about one picture share its image tokens, and see nothing of one another.

A row is ``prefix | question answer | question answer ...``. Every question sees the prefix (chat opening and image)
and itself, with positions that go on from the prefix, so that each answer has exactly the probabilities it would have
in a row of its own.

Legend: B rows, T tokens, P prefix, N tiles, K ``[SEG]`` tokens, S side of SAM 2's pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core.modalities import draw_box
from unibiomed_core.model.processor import CHAT, Processor
from unibiomed_core.model.unibiomed import Batch
from unibiomed_core.tasks import IMAGE
from unibiomed_core.types import Region

from .augment import augment, may_mirror, mirror_words, normalise, picture_tensor, tone
from .examples import Example, boxed_examples, pick_targets, plain_examples
from .negatives import negatives
from .records import Record
from .targets import CODE_SCALE, NOTHING

IGNORED = -100


@dataclass(frozen=True)
class Sheet:
    """One picture with its questions; what a row is made of.

    Args:
        region: A box that is drawn on the picture for the language side.
        mirror: Whether picture and words are mirrored.
    """

    record: Record
    examples: tuple[Example, ...]
    region: Region | None
    mirror: bool
    rng: np.random.Generator


@dataclass(frozen=True)
class TextBatch:
    """Rows of questions with answers.

    Args:
        batch: For the model; its grounding pictures are empty unless masks were asked for.
        target: (K,) int64, target of each ``[SEG]`` in reading order, as its number in the run's table.
        truth: (K', A, A) float32, share of foreground, for the ``[SEG]`` tokens that have a grounding picture.
        present: (K,) bool.
    """

    batch: Batch
    target: Tensor
    truth: Tensor
    present: Tensor


def make_sheet(
    record: Record, rng: np.random.Generator, known: Mapping[str, Sequence[str]], boxed: bool, segments: int
) -> Sheet:
    """Questions about one picture: about a region where ``boxed`` and it has one, else about the whole."""
    region = None
    if boxed and record.regions:
        region, examples = boxed_examples(record, rng)
    else:
        examples = plain_examples(record, rng, known, segments)
    return Sheet(record, tuple(examples), region, may_mirror(record) and rng.random() < 0.5, rng)


def text_batch(
    sheets: Sequence[Sheet], processor: Processor, numbers: Mapping[str, int], mask_side: int = 0
) -> TextBatch:
    """Rows for the language and joint stages.

    Only tone and mirrors are augmented: place and side in the answers stay true.

    Args:
        numbers: Target name -> its number.
        mask_side: Side of the true masks, where pictures for SAM 2 and masks are needed; 0 leaves both out.
    """
    rows = [_row(sheet, processor) for sheet in sheets]
    pictures = [_picture(sheet) for sheet in sheets]
    one_tower = processor.config.tower.shared
    tiles, grounding, image_of, shared = [], [], [], []
    targets, truth, present = [], [], []
    for sheet, rgb in zip(sheets, pictures, strict=True):
        boxed = draw_box(rgb, _region(sheet, rgb.shape[1])) if sheet.region else rgb
        tiles.append(processor.tiles(boxed))
        asked = [t for example in sheet.examples for t in example.targets]
        there = {r.target for r in sheet.record.regions}
        # A target that the source says nothing of may be there or not: its phrase is learnt, its mask is not.
        told = there | negatives(sheet.record).all() | {NOTHING}
        grounded = [t for t in asked if mask_side and t in told]
        if grounded:
            # Only a picture as it is has masks to learn, so that with one tower its tile is what both sides see.
            shared.append(len(tiles) - 1)
            if not one_tower:
                grounding.append(processor.grounding_pixels(rgb))
            truth.append(_masks(sheet, grounded, mask_side))
        targets += [numbers[t] for t in asked]
        present += [t in there for t in asked]
        image_of += [len(shared) - 1 if t in grounded else -1 for t in asked]
    side = processor.config.grounding.image_size
    batch = Batch(
        *_padded(rows, processor.ids.pad),
        tiles=torch.cat(tiles),
        grounding_pixels=torch.stack(grounding) if grounding else torch.zeros(0, 3, side, side),
        seg_image=torch.tensor(image_of, dtype=torch.int64),
        position_ids=_positions(rows),
        grounding_tile=torch.tensor(shared, dtype=torch.int64) if one_tower else None,
    )
    return TextBatch(
        batch,
        torch.tensor(targets, dtype=torch.int64),
        torch.cat(truth) if truth else torch.zeros(0, mask_side, mask_side),
        torch.tensor(present, dtype=torch.bool),
    )


@dataclass(frozen=True)
class _Row:
    """Ids of one row; ``segment`` is 0 for the prefix and the number of the question behind it."""

    ids: list[int]
    labels: list[int]
    segment: list[int]
    positions: list[int]


def row_length(sheet: Sheet, processor: Processor) -> int:
    """Tokens of a sheet's row: what rows of like length are found by."""
    return len(_row(sheet, processor).ids)


def _row(sheet: Sheet, processor: Processor) -> _Row:
    opening, closing = CHAT.split("{input}")
    tiles = processor.tile_count(sheet.record.stored_size)
    prefix = processor.encode(opening + processor.expand_image(IMAGE, [tiles]))
    ids, labels, segment = list(prefix), [IGNORED] * len(prefix), [0] * len(prefix)
    positions = list(range(len(prefix)))
    for number, example in enumerate(sheet.examples, 1):
        words = mirror_words if sheet.mirror else str
        question = processor.encode(words(example.question).removeprefix(IMAGE) + closing)
        answer = processor.encode(words(example.answer))
        ids += question + answer
        labels += [IGNORED] * len(question) + (answer if example.learn_words else [IGNORED] * len(answer))
        segment += [number] * (len(question) + len(answer))
        positions += range(len(prefix), len(prefix) + len(question) + len(answer))
    return _Row(ids, labels, segment, positions)


def _padded(rows: Sequence[_Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention and labels at the length of the longest row."""
    width = max(len(row.ids) for row in rows)
    fill = [width - len(row.ids) for row in rows]
    ids = torch.tensor([row.ids + [pad] * n for row, n in zip(rows, fill, strict=True)])
    labels = torch.tensor([row.labels + [IGNORED] * n for row, n in zip(rows, fill, strict=True)])
    segment = torch.tensor([row.segment + [-1] * n for row, n in zip(rows, fill, strict=True)])  # (B, T)
    query, key = segment.unsqueeze(2), segment.unsqueeze(1)
    # Padding sees padding, since a position that sees nothing has no attention to share out.
    sees = (query == key) | ((key == 0) & (query > 0))  # (B, T, T)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    return ids, (sees & causal).unsqueeze(1), labels


def _positions(rows: Sequence[_Row]) -> Tensor:
    width = max(len(row.ids) for row in rows)
    return torch.tensor([row.positions + [0] * (width - len(row.ids)) for row in rows])


def _picture(sheet: Sheet) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, its tone changed, mirrored where the words are."""
    rgb = (tone(picture_tensor(sheet.record), sheet.rng) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(rgb[:, ::-1]) if sheet.mirror else rgb


def _region(sheet: Sheet, width: int) -> Region:
    assert sheet.region is not None
    if not sheet.mirror:
        return sheet.region
    x0, y0, x1, y1 = sheet.region.box
    return Region(width - 1 - x1, y0, width - 1 - x0, y1)


def _masks(sheet: Sheet, asked: Sequence[str], side: int) -> Tensor:
    """(len(asked), side, side) float32, share of foreground; all zeros for what is not there."""
    known = sheet.record.masks()
    height, width = sheet.record.stored_size
    layers = np.stack([known.get(t, np.zeros((height, width), bool)) for t in asked]).astype(np.float32)
    masks = torch.from_numpy(np.ascontiguousarray(layers[..., ::-1]) if sheet.mirror else layers)
    return F.interpolate(masks[None], size=(side, side), mode="area")[0]


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
    chosen = [pick_targets(record, rng, most, numbers) for record, rng in samples]
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
