"""Model sizes by name. A preset is data; adding one is adding a function and its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from unibiomed_core.errors import ConfigError
from unibiomed_core.model.config import (
    GroundingSizes,
    LanguageSizes,
    Preprocessing,
    Presence,
    UniBiomedConfig,
    VisionSizes,
)
from unibiomed_core.model.towers import TowerSizes


def toy(vocabulary: int = 512) -> UniBiomedConfig:
    """Well under a million parameters: every path of the product in a test."""
    return UniBiomedConfig(
        name="toy",
        vision=VisionSizes(hidden=32, layers=2, heads=2, mlp=64, image_size=56, patch_size=14),
        language=LanguageSizes(
            hidden=48, layers=2, heads=2, kv_heads=1, mlp=96, vocabulary=vocabulary, max_positions=2048
        ),
        grounding=GroundingSizes(
            image_size=64,
            hidden=32,
            trunk_width=8,
            trunk_heads=1,
            stages=(1, 1, 2, 1),
            global_blocks=(3,),
            windows=(8, 4, 4, 2),
            decoder_mlp=64,
            decoder_heads=4,
            iou_hidden=32,
            memory=False,
        ),
        preprocessing=Preprocessing(tiling="single"),
        presence=Presence(source="object", threshold=0.5),
    )


def mini(vocabulary: int = 2048) -> UniBiomedConfig:
    """The embedded default: small enough for two slow cores."""
    return UniBiomedConfig(
        name="mini",
        vision=VisionSizes(hidden=192, layers=6, heads=6, mlp=768, image_size=224, patch_size=14),
        language=LanguageSizes(
            hidden=256, layers=5, heads=4, kv_heads=2, mlp=704, vocabulary=vocabulary, max_positions=4096
        ),
        grounding=GroundingSizes(
            image_size=256,
            hidden=128,
            trunk_width=32,
            trunk_heads=1,
            stages=(1, 2, 4, 1),
            global_blocks=(4, 6),
            windows=(8, 4, 16, 8),
            decoder_mlp=512,
            decoder_heads=8,
            iou_hidden=128,
            memory=False,
        ),
        preprocessing=Preprocessing(tiling="single"),
        presence=Presence(source="object", threshold=0.5),
    )


def mini_lite0(vocabulary: int = 2048) -> UniBiomedConfig:
    """As large as ``mini``, with one tower for both sides that ImageNet can start, and masks at stride 2."""
    small = mini(vocabulary)
    return replace(
        small,
        name="mini_lite0",
        vision=VisionSizes(hidden=32, layers=1, heads=1, mlp=64, image_size=256, patch_size=16),
        grounding=replace(small.grounding, mask_stride=2),
        tower=TowerSizes("lite0"),
    )


def toy_lite0(vocabulary: int = 512) -> UniBiomedConfig:
    """``toy`` with a shared tower."""
    small = toy(vocabulary)
    return replace(
        small,
        name="toy_lite0",
        vision=VisionSizes(hidden=32, layers=1, heads=1, mlp=64, image_size=64, patch_size=16),
        grounding=replace(small.grounding, mask_stride=2),
        tower=TowerSizes("lite0", 8, (4, 8, 8, 8, 16, 16, 24), (1,) * 7, (8, 8, 8)),
    )


def one_billion() -> UniBiomedConfig:
    """The published checkpoint's size: InternVL2.5-1B and SAM 2 hiera-large."""
    return UniBiomedConfig(name="1b")


PRESETS: Mapping[str, Callable[[], UniBiomedConfig]] = MappingProxyType(
    {"toy": toy, "toy_lite0": toy_lite0, "mini": mini, "mini_lite0": mini_lite0, "1b": one_billion}
)


def preset(name: str) -> UniBiomedConfig:
    """A preset by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError("Unknown preset", f"'{name}'", f"one of {', '.join(PRESETS)}")
    return PRESETS[name]()
