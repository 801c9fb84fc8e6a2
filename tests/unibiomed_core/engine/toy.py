"""A toy model with random weights and a tokenizer of its own, for tests of the engine."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.presets import toy
from unibiomed_core.model.processor import ADDED_TOKENS, BASE_TOKENS, CHAT, Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import TASKS
from unibiomed_core.types import Prompt, Slice, StoredOrder, Volume

torch.set_num_threads(1)

SOFT_TISSUE = Window("soft tissue", -160.0, 240.0)
NAMES = (
    "liver", "spleen", "right kidney", "left kidney", "pancreas", "aorta", "stomach", "gallbladder", "oesophagus",
    "bladder", "heart", "lung tumour",
)  # fmt: skip


@cache
def tokenizer() -> Tokenizer:
    """A byte-level BPE trained on the product's own texts."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    texts = [CHAT, *(t.instruction + t.example_answer + (t.known_answer or "") for t in TASKS.values()), *NAMES] * 3
    built.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=480, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    built.add_special_tokens([*BASE_TOKENS, *ADDED_TOKENS])
    return built


def toy_config(**changes: Any) -> UniBiomedConfig:
    """The toy preset; every mask is kept unless a test asks otherwise."""
    return replace(toy(vocabulary=512), **{"presence": Presence(source="object", threshold=0.0), **changes})


def toy_engine(seed: int = 1, batch_size: int | None = None, **changes: Any) -> Engine:
    """An engine with random weights, always the same for one seed."""
    config = toy_config(**changes)
    processor = Processor(config, tokenizer())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UniBiomed(config, processor.ids)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Larger than the library's start values, so that different inputs give clearly different outputs.
                torch.nn.init.normal_(parameter, std=0.15)
    return Engine(model, processor, device="cpu", batch_size=batch_size)


def body(size: int = 48, seed: int = 0) -> NDArray[np.int16]:
    """(size, size) HU: a bright, textured disc in air."""
    rows, columns = np.mgrid[:size, :size]
    picture = np.full((size, size), -1000.0)
    inside = np.hypot(rows - size / 2, columns - size / 2) < size * 0.4
    noise = np.random.default_rng(seed).normal(40, 60, (size, size))
    picture[inside] = noise[inside]
    return picture.astype(np.int16)


def ct_slice(size: int = 48, seed: int = 0, index: int = 0) -> Slice:
    return Slice(body(size, seed), "axial", index, (1.0, 1.0), "ct")


def ct_volume(count: int = 6, size: int = 48, empty: tuple[int, ...] = ()) -> Volume:
    """(count, size, size) CT in HU, 5 mm slices; the slices in ``empty`` hold air only."""
    voxels = np.stack([np.full((size, size), -1000, np.int16) if i in empty else body(size, i) for i in range(count)])
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    stored = StoredOrder((2, 1, 0), (False, False, False), (size, size, count), np.eye(4))
    return Volume(voxels, affine, "ct", "HU", "mm", True, stored, name="phantom")


def rgb_picture(size: tuple[int, int] = (40, 56)) -> Volume:
    """A 2D RGB picture without a pixel size."""
    pixels = np.random.default_rng(5).integers(0, 255, (1, *size, 3), dtype=np.uint8)
    stored = StoredOrder((0, 1, 2), (False, False, False), size, np.eye(4))
    return Volume(pixels, np.eye(4), "pathology", "intensity", "px", False, stored, name="picture")


def segment(*names: str) -> list[Prompt]:
    return [Prompt("segment", name) for name in names or NAMES]
