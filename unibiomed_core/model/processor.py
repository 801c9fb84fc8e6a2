"""Pixels to both towers' inputs, and text to ids.

Pictures are (H, W, 3) uint8 RGB. Resizing is Pillow's antialiased bicubic on 8-bit values, as published: tensor
interpolation gives other pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from unibiomed_core.errors import WeightsError
from unibiomed_core.model.config import IMAGENET_MEAN, IMAGENET_STD, UniBiomedConfig
from unibiomed_core.tasks import END, IMAGE, PHRASE_CLOSE, PHRASE_OPEN, SEG, TASKS
from unibiomed_core.types import Prompt

IMAGE_OPEN, IMAGE_CONTEXT, IMAGE_CLOSE = "<img>", "<IMG_CONTEXT>", "</img>"
CHAT = "<|user|>\n{input}<|end|>\n<|assistant|>\n"
"""The published chat text. Its markers are ordinary text, not tokens; the newline after the end mark counts."""

ADDED_TOKENS = (SEG, PHRASE_OPEN, PHRASE_CLOSE, "<vp>", "</vp>")
BASE_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|im_start|>", IMAGE_OPEN, IMAGE_CLOSE, IMAGE_CONTEXT,
    "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>",
)  # fmt: skip
_TYPED_MARKS = re.compile(
    "|".join(re.escape(t) for t in (*ADDED_TOKENS, *BASE_TOKENS, IMAGE, END, "<|user|>", "<|assistant|>"))
)
_STOP_WINDOW = 10
"""Tokens that the stop test decodes; the stop text never spans more."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Ids read from the tokenizer, never assumed."""

    seg: int
    image_context: int
    end_of_turn: int
    pad: int


class Processor:
    """The one place where pictures and words become tensors; saved with the weights through its configuration.

    Args:
        tokenizer: A byte-level BPE that knows every special token above.

    Raises:
        WeightsError: The tokenizer lacks a token, or has more tokens than the model has rows.
    """

    def __init__(self, config: UniBiomedConfig, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        missing = [t for t in (*ADDED_TOKENS, *BASE_TOKENS[:6]) if tokenizer.token_to_id(t) is None]
        if missing:
            raise WeightsError("These weights do not fit this model", f"the tokenizer lacks {', '.join(missing)}")
        if tokenizer.get_vocab_size() > config.language.vocabulary:
            raise WeightsError(
                "These weights do not fit this model",
                f"the tokenizer has {tokenizer.get_vocab_size()} tokens",
                f"at most the model's {config.language.vocabulary}",
            )
        vocabulary = tokenizer.get_vocab()
        self.ids = TokenIds(
            seg=vocabulary[SEG],
            image_context=vocabulary[IMAGE_CONTEXT],
            end_of_turn=vocabulary["<|im_end|>"],
            pad=vocabulary["<|endoftext|>"],
        )
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self._mean, self._std = mean[:, None, None], std[:, None, None]
        if config.preprocessing.grounding_norm == "rounded":
            # The published inference code made these constants in bfloat16; the reference numbers round them alone.
            mean, std = mean.bfloat16().float(), std.bfloat16().float()
        self._grounding_mean, self._grounding_std = mean[:, None, None], std[:, None, None]

    # Pictures

    def tiles(self, rgb: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) -> (N, 3, S, S) float32, row-major tiles and, when there are several, the thumbnail last."""
        side, pre = self.config.vision.image_size, self.config.preprocessing
        image = Image.fromarray(rgb)
        if pre.tiling == "single":
            return self._normalised(_resize(image, side, side)).unsqueeze(0)
        columns, rows = tile_grid(image.width, image.height, side, pre.max_tiles)
        whole = _resize(image, side * columns, side * rows)
        parts = [
            whole[r : r + side, c : c + side]
            for r in range(0, side * rows, side)
            for c in range(0, side * columns, side)
        ]
        if pre.thumbnail and len(parts) > 1:
            parts.append(_resize(image, side, side))
        return torch.stack([self._normalised(part) for part in parts])

    def tile_count(self, size: tuple[int, int]) -> int:
        """How many tiles a picture of (height, width) becomes, the thumbnail among them."""
        pre = self.config.preprocessing
        if pre.tiling == "single":
            return 1
        columns, rows = tile_grid(size[1], size[0], self.config.vision.image_size, pre.max_tiles)
        return columns * rows + (pre.thumbnail and columns * rows > 1)

    def frame(self, rgb: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) -> (1, 3, S, S): one frame of the published volume path, never tiled."""
        side = self.config.vision.image_size
        return self._normalised(_resize(Image.fromarray(rgb), side, side)).unsqueeze(0)

    def grounding_pixels(self, rgb: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) -> (3, S, S) float32 for SAM 2; aspect ratio is not kept."""
        side = self.config.grounding.image_size
        pixels = torch.from_numpy(_resize(Image.fromarray(rgb), side, side)).permute(2, 0, 1).float() / 255
        return (pixels - self._grounding_mean) / self._grounding_std

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - self._mean) / self._std

    # Text

    def prompt_input(self, prompt: Prompt) -> str:
        """What stands between the chat markers for a prompt.

        Placeholders and special tokens that a user typed are made inert by a space after their first character,
        unless the prompt is ``exact``.
        """
        if prompt.exact:
            return prompt.question
        target, question = inert(prompt.target), inert(prompt.question)
        wording = self.config.wording.get(prompt.task, TASKS[prompt.task].instruction)
        if question and "{question}" not in wording:
            return f"{IMAGE}{question}"
        return wording.replace("{target}", target).replace("{question}", question)

    def known_answer(self, prompt: Prompt) -> str | None:
        """The answer's wording where it is known beforehand; None where the model has to write."""
        if prompt.answer is not None:
            return prompt.answer if END in prompt.answer else prompt.answer + END
        known = self.config.answers.get(prompt.task, TASKS[prompt.task].known_answer)
        return None if known is None or prompt.exact or prompt.question else known + END

    def chat(self, text: str) -> str:
        """The whole text the model is given, before ``<image>`` is expanded."""
        return CHAT.replace("{input}", text)

    def expand_image(self, text: str, tiles_per_frame: Sequence[int]) -> str:
        """Replace the first ``<image>`` by image tokens: one pair of marks per frame, frames joined by newlines."""
        per_tile = self.config.vision.tokens_per_tile
        frames = "\n".join(f"{IMAGE_OPEN}{IMAGE_CONTEXT * (per_tile * n)}{IMAGE_CLOSE}" for n in tiles_per_frame)
        return text.replace(IMAGE, frames, 1)

    def encode(self, text: str) -> list[int]:
        """Text to ids; special tokens in it count as such. No token is added in front or behind."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text, special tokens kept."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def stops(self, ids: Sequence[int]) -> bool:
        """Whether generation is over: the text ends with ``<|end|>`` (pieces merge, so ids cannot tell)."""
        if not ids:
            return False
        if ids[-1] == self.ids.end_of_turn:
            return True
        return self.decode(ids[-_STOP_WINDOW:]).replace("\r", "").replace("\n", "").endswith(END)


def inert(text: str) -> str:
    """Typed special tokens, tags and placeholders as harmless text."""
    return _TYPED_MARKS.sub(lambda m: f"{m.group()[0]} {m.group()[1:]}", text)


@cache
def tile_grid(width: int, height: int, side: int, max_tiles: int) -> tuple[int, int]:
    """(columns, rows) of the tiling for a picture, by the published rule.

    The grid whose aspect ratio is nearest wins; on an exact tie a later, larger one replaces it only if the picture
    has more than half of the pixels that grid would hold.
    """
    ratio = width / height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _GRID_ORDER:
        if columns * rows > max_tiles:
            continue
        difference = abs(ratio - columns / rows)
        if difference < best_difference:
            best, best_difference = (columns, rows), difference
        elif difference == best_difference and width * height > 0.5 * side * side * columns * rows:
            best = (columns, rows)
    return best


_GRID_ORDER = (
    (1, 1), (1, 2), (2, 1), (3, 1), (1, 3), (2, 2), (4, 1), (1, 4), (5, 1), (1, 5), (1, 6), (6, 1), (3, 2), (2, 3),
    (7, 1), (1, 7), (4, 2), (2, 4), (1, 8), (8, 1), (1, 9), (3, 3), (9, 1), (2, 5), (5, 2), (10, 1), (1, 10), (11, 1),
    (1, 11), (12, 1), (3, 4), (4, 3), (1, 12), (6, 2), (2, 6),
)  # fmt: skip
"""Grids of equal size are visited in the order seen in the published implementation; it decides ties."""


def _resize(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    if image.size == (width, height):
        return np.array(image)
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))
