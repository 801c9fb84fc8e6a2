"""One function a run. A recipe returns a complete configuration; running it is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from train.config import RunConfig, Stage


def mini() -> RunConfig:
    """The embedded default, from scratch.

    Image towers first: the grounding side learns masks from fixed target codes, small pictures before large ones, and
    the language side learns text and the same codes; the phrase stage makes it tell rare names apart.
    """
    return RunConfig(
        recipe="mini",
        preset="mini",
        out="runs/mini",
        licence="non-commercial research use, share-alike: see the model card",
        stages=(
            Stage("grounding-128", "grounding", steps=4500, batch_size=8, learning_rate=1e-3, warmup=300, side=128),
            Stage("grounding-256", "grounding", steps=1300, batch_size=8, learning_rate=4e-4, warmup=100),
            Stage("language", "language", steps=2800, batch_size=8, learning_rate=1e-3, warmup=300),
            Stage("phrases", "phrases", steps=260, batch_size=32, learning_rate=5e-4, warmup=30, targets_per_picture=8),
        ),
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
        stages=(
            Stage("grounding", "grounding", steps=4, batch_size=2, learning_rate=1e-3, warmup=2, side=64),
            Stage("language", "language", steps=4, batch_size=2, learning_rate=1e-3, warmup=2),
            Stage("phrases", "phrases", steps=4, batch_size=4, learning_rate=1e-3, warmup=2, targets_per_picture=2),
            Stage("joint", "joint", steps=4, batch_size=2, learning_rate=1e-4, warmup=2),
        ),
    )


RECIPES: Mapping[str, Callable[[], RunConfig]] = MappingProxyType({"toy": toy, "mini": mini})
