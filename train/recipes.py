"""One function a run. A recipe returns a complete configuration; running it is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from .config import RunConfig, Stage


def mini() -> RunConfig:
    """The embedded default: from random weights, or on from an earlier one with ``init=mini``.

    Image towers first: the grounding side learns masks from fixed target codes, small pictures before large ones, and
    the language side learns text and the same codes; a short joint stage then trains the way through.
    """
    return RunConfig(
        recipe="mini",
        preset="mini",
        out="runs/mini",
        licence="non-commercial research use, share-alike: see the model card",
        stages=(
            Stage("grounding-128", "grounding", steps=1000, batch_size=8, learning_rate=7e-4, warmup=100, side=128),
            Stage("grounding-256", "grounding", steps=2200, batch_size=8, learning_rate=5e-4, warmup=100),
            Stage("language", "language", steps=1700, batch_size=8, learning_rate=7e-4, warmup=100),
            Stage("joint", "joint", steps=800, batch_size=8, learning_rate=2e-4, warmup=50),
        ),
    )


def mini_lite0() -> RunConfig:
    """The next embedded default: one pre-trained tower for both sides, which ``mini`` becomes once it is better.

    The encoder learns at a third of the others' rate, its first stages stay. The language side then learns on what the
    masks have made of it, and a joint stage trains the way through.
    """
    stages = (
        Stage("grounding-128", "grounding", steps=5000, batch_size=8, learning_rate=1e-3, warmup=300, side=128),
        Stage("grounding-256", "grounding", steps=12000, batch_size=8, learning_rate=1e-3, warmup=300),
        Stage("language", "language", steps=5000, batch_size=8, learning_rate=7e-4, warmup=100),
        Stage("joint", "joint", steps=5000, batch_size=8, learning_rate=2e-4, warmup=100),
    )
    return replace(
        mini(),
        recipe="mini_lite0",
        preset="mini_lite0",
        tower="lite0/imagenet",
        out="runs/mini-lite0",
        save_every=250,
        stages=tuple(replace(stage, tower_rate=0.3, tower_frozen=2) for stage in stages),
    )


def toy() -> RunConfig:
    """Every path of ``mini`` in seconds, for tests."""
    return replace(
        mini(),
        recipe="toy",
        preset="toy",
        out="runs/toy",
        vocabulary=512,
        save_every=2,
        log_every=2,
        limit_records=24,
        validation_share=0.2,
        stages=(
            Stage("grounding", "grounding", steps=4, batch_size=2, learning_rate=1e-3, warmup=2, side=64),
            Stage("language", "language", steps=4, batch_size=2, learning_rate=1e-3, warmup=2, targets_per_picture=2),
            Stage("joint", "joint", steps=4, batch_size=2, learning_rate=1e-4, warmup=2, targets_per_picture=2),
        ),
    )


def finetune() -> RunConfig:
    """A lab's own data, from image and mask folders or nnU-Net layout, onto the embedded default: some hundred steps of
    the whole model at a low rate. Set ``data``; ``init`` names another model to start from."""
    return RunConfig(
        recipe="finetune",
        preset="mini",
        init="mini",
        out="runs/finetune",
        validation_share=0.15,
        save_every=100,
        log_every=10,
        licence="that of the data and of the model it started from",
        stages=(Stage("joint", "joint", steps=400, batch_size=8, learning_rate=2e-4, warmup=20, boxed_share=0.25),),
    )


BASES = "OpenGVLab/InternVL2_5-1B,facebook/sam2-hiera-large"
"""What the paper starts from; 'unibiomed models download' fetches each of them once."""


def unibiomed_1b() -> RunConfig:
    """The published size, trained our way: the same parts, nothing computed that no loss needs.

    Eight processes of 16 pictures a step; all targets of a picture in one row; of the token tables the new rows alone.
    """
    return RunConfig(
        recipe="unibiomed_1b",
        preset="1b",
        init=BASES,
        data="data/records",
        out="runs/unibiomed-1b",
        precision="bfloat16",
        checkpointing=True,
        adapters=128,
        record_side=0,
        workers=4,
        keep=3,
        validation_share=0.01,
        licence="follows from the data: set it",
        stages=(
            Stage(
                "joint", "joint", steps=0, epochs=10, batch_size=128, micro_batch=4, learning_rate=4e-5,
                warmup_share=0.05, second_beta=0.999, trained="ours",
            ),
        ),
    )  # fmt: skip


def as_published() -> RunConfig:
    """The published training, waste included: see ``train/training/published/stage.py``."""
    return replace(
        unibiomed_1b(),
        recipe="as_published",
        out="runs/as-published",
        seed=42,
        validation_share=0.0,
        stages=(
            Stage(
                "published", "published", steps=0, epochs=10, batch_size=128, micro_batch=4, learning_rate=4e-5,
                warmup_share=0.05, warmup_start=1e-5, weight_decay=0.05, second_beta=0.999, decay_all=True,
                trained="published",
            ),
        ),
    )  # fmt: skip


RECIPES: Mapping[str, Callable[[], RunConfig]] = MappingProxyType(
    {
        "toy": toy,
        "mini": mini,
        "mini_lite0": mini_lite0,
        "finetune": finetune,
        "unibiomed_1b": unibiomed_1b,
        "as_published": as_published,
    }
)
