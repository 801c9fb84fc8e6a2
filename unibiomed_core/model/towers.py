"""Image towers by name, and the sizes of the one that both sides share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TowerSizes:
    """What looks at the picture.

    Args:
        name: "internvit+hiera" has a tower for each side, as published, and their sizes stand with the sides;
            "lite0" is one EfficientNet-Lite0 for both, by which a picture is encoded once.
        stem: Channels of the first convolution (stride 2); this and all below belong to "lite0".
        widths: Channels of the seven stages, at strides 2, 4, 8, 16, 16, 32 and 32.
        repeats: Blocks of each stage.
        neck: Channels of the way back up, at strides 2, 4 and 8; stride 16 has the mask decoder's width.
    """

    name: Literal["internvit+hiera", "lite0"] = "internvit+hiera"
    stem: int = 32
    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    repeats: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    neck: tuple[int, ...] = (24, 32, 64)

    @property
    def shared(self) -> bool:
        """Whether one tower serves both sides."""
        return self.name != "internvit+hiera"

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of the feature levels at strides 2, 4, 8, 16 and 32."""
        return tuple(self.widths[stage] for stage in LEVEL_STAGES)


LEVEL_STAGES = (0, 1, 2, 4, 6)
"""The last stage at each stride."""

TOKEN_STRIDE = 32
"""A token of the language side covers so many pixels each way."""
