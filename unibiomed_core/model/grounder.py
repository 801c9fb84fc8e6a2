"""SAM 2 prompted by a language embedding.

Legend: B images, K prompts over all images, C decoder width, S model side in pixels, M mask stride (4 as published),
H W mask logits (S / M), h w embedding grid (S / 16).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Sam2Model, Sam2VideoConfig, Sam2VideoModel

from unibiomed_core.model.config import GroundingSizes
from unibiomed_core.model.library_config import sam_config
from unibiomed_core.model.lite0 import SharedTower
from unibiomed_core.model.towers import TowerSizes

_LIBRARY_MEMORY_DIM = 64
"""The library's memory attention takes memories of this width whatever its configuration says."""

_MASK_STRIDE = 4
"""Of the library's mask decoder."""

_NO_TRUNK: dict[str, Any] = {
    "trunk_width": 8, "trunk_heads": 1, "stages": (1, 1, 1, 1), "global_blocks": (), "memory": False,
}  # fmt: skip
"""The least that the library builds; a shared tower takes its place at once."""


@dataclass(frozen=True, slots=True)
class GroundingFeatures:
    """One encoded image each; serves any number of prompts.

    Args:
        fine: (B, C/8, S/M, S/M), through the decoder's ``conv_s0``.
        middle: (B, C/4, S/8, S/8), through ``conv_s1``.
        embedding: (B, C, h, w), "no memory" vector not yet added.
    """

    fine: Tensor
    middle: Tensor
    embedding: Tensor

    def __len__(self) -> int:
        return self.embedding.shape[0]

    def take(self, index: Tensor) -> GroundingFeatures:
        """Rows by image number; (K,) int64 -> features of K rows."""
        return GroundingFeatures(self.fine[index], self.middle[index], self.embedding[index])

    @property
    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.fine, self.middle, self.embedding))


@dataclass(frozen=True, slots=True)
class MaskOutput:
    """What the mask decoder says for K prompts.

    Args:
        logits: (K, 3, H, W), the three candidate masks.
        quality: (K, 3), the predicted IoU of each.
        tokens: (K, 3, C), the decoder's mask tokens (object pointers are made of them).
        object_score: (K,), logit that the object is there. It never changes the mask.
    """

    logits: Tensor
    quality: Tensor
    tokens: Tensor
    object_score: Tensor

    @property
    def best(self) -> Tensor:
        """(K,) number of the candidate with the highest predicted IoU."""
        return self.quality.argmax(dim=1)

    @property
    def selected(self) -> Tensor:
        """(K, H, W) logits of the best candidates."""
        return self.logits[torch.arange(len(self.logits), device=self.logits.device), self.best]


class Grounder(nn.Module):
    """SAM 2's image encoder, prompt encoder and mask decoder, with a language vector as the only prompt.

    Where the model's tower is shared, it stands in the place of SAM 2's image encoder and belongs to this module.
    """

    def __init__(self, sizes: GroundingSizes, tower: TowerSizes | None = None) -> None:
        super().__init__()
        self.sizes = sizes
        shared = tower is not None and tower.shared
        config = sam_config(replace(sizes, **_NO_TRUNK) if shared else sizes)
        self.sam: Sam2Model | Sam2VideoModel = (
            Sam2VideoModel(config) if isinstance(config, Sam2VideoConfig) else Sam2Model(config)
        )
        if sizes.memory and sizes.memory_dim != _LIBRARY_MEMORY_DIM:
            attention_stack: Any = self.sam.memory_attention
            for layer in attention_stack.layers:
                attention = layer.cross_attn_image
                attention.k_proj = nn.Linear(sizes.memory_dim, attention.k_proj.out_features)
                attention.v_proj = nn.Linear(sizes.memory_dim, attention.v_proj.out_features)
        decoder = self.sam.mask_decoder
        if sizes.mask_stride != _MASK_STRIDE:
            # The last step up is larger, onto the finer level: sharper masks for a tenth of the decoder's arithmetic.
            up = 8 // sizes.mask_stride  # from stride 8
            decoder.upscale_conv2 = nn.ConvTranspose2d(sizes.hidden // 4, sizes.hidden // 8, up, stride=up)
        self.tower: SharedTower | None = None
        if tower is not None and shared:
            self.sam.vision_encoder = nn.Identity()
            self.tower = SharedTower(tower, sizes.hidden)
            decoder.conv_s0 = nn.Conv2d(tower.neck[0], sizes.hidden // 8, 1)
            decoder.conv_s1 = nn.Conv2d(tower.neck[-1], sizes.hidden // 4, 1)

    def encode(self, pixels: Tensor) -> GroundingFeatures:
        """(B, 3, S, S) normalised pixels -> features. The only call that runs the image encoder."""
        if self.tower is not None:
            return self.from_levels(self.tower.encoder(pixels))
        levels = self.sam.vision_encoder(pixels, return_dict=True).fpn_hidden_states
        decoder = self.sam.mask_decoder
        return GroundingFeatures(decoder.conv_s0(levels[0]), decoder.conv_s1(levels[1]), levels[2])

    def from_levels(self, levels: list[Tensor]) -> GroundingFeatures:
        """The same from what the shared tower's encoder gave, (B, width, S / stride, S / stride) each."""
        assert self.tower is not None
        fine, middle, embedding = self.tower.neck(levels)
        decoder = self.sam.mask_decoder
        return GroundingFeatures(decoder.conv_s0(fine), decoder.conv_s1(middle), embedding)

    def decode(self, features: GroundingFeatures, prompts: Tensor, image_index: Tensor) -> MaskOutput:
        """Decode all prompts of all images in one batch.

        The sparse prompt is two "not a point" embeddings followed by the language vector, the dense prompt the
        "no mask" embedding, as the published model has it.

        Args:
            prompts: (K, C) language vectors.
            image_index: (K,) int64, which image each belongs to.
        """
        rows = features.take(image_index)
        embedding = rows.embedding + self.sam.no_memory_embedding.reshape(1, -1, 1, 1)  # (K, C, h, w)
        return self._decode_rows(rows, embedding, self.sparse_prompt(prompts))

    def decode_conditioned(self, features: GroundingFeatures, embedding: Tensor) -> MaskOutput:
        """Decode with memory-conditioned embeddings (B, C, h, w) and no language vector: propagated slices."""
        padding = self.sam.prompt_encoder.not_a_point_embed.weight.expand(len(features), 2, -1)
        return self._decode_rows(features, embedding, padding)

    def sparse_prompt(self, prompts: Tensor) -> Tensor:
        """(K, C) -> (K, 3, C)."""
        padding = self.sam.prompt_encoder.not_a_point_embed.weight.expand(len(prompts), 2, -1)
        return torch.cat([padding, prompts.unsqueeze(1)], dim=1)

    def _decode_rows(self, rows: GroundingFeatures, embedding: Tensor, sparse: Tensor) -> MaskOutput:
        count, _, height, width = embedding.shape
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(count, -1, height, width)
        logits, quality, tokens, object_score = self.sam.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=self.dense_positions(height, width).expand(count, -1, -1, -1),
            sparse_prompt_embeddings=sparse.unsqueeze(1),
            dense_prompt_embeddings=dense,
            multimask_output=True,
            high_resolution_features=[rows.fine, rows.middle],
        )
        return MaskOutput(logits[:, 0], quality[:, 0], tokens[:, 0], object_score[:, 0, 0])

    def dense_positions(self, height: int, width: int) -> Tensor:
        """(1, C, h, w) random Fourier encoding of the cell centres; works at any grid, so training may start small."""
        matrix = self.sam.shared_image_embedding.positional_embedding
        y = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 0.5) / height
        x = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2) as (x, y)
        return self.sam.shared_image_embedding(grid).permute(2, 0, 1).unsqueeze(0)


def upsample(logits: Tensor, model_side: int, size: tuple[int, int]) -> Tensor:
    """(K, H, W) float32 mask logits to image size in two bilinear steps, through the model's own side.

    The intermediate step is what the published model does and moves the outline by fractions of a pixel.
    """
    up = nn.functional.interpolate(
        logits.float().unsqueeze(1), size=(model_side, model_side), mode="bilinear", align_corners=False
    )
    return nn.functional.interpolate(up, size=size, mode="bilinear", align_corners=False)[:, 0]
