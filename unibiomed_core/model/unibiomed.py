"""The joint model: a picture and a text go in, words and masks come out. Single-device code.

Legend: B sequences, T tokens, N tiles over all sequences, P image tokens a tile, D language width, V vocabulary,
G grounding images, K ``[SEG]`` tokens over all sequences, C decoder width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration
from transformers.cache_utils import Cache

from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.grounder import Grounder, GroundingFeatures, MaskOutput
from unibiomed_core.model.library_config import vlm_config
from unibiomed_core.model.lite0 import TokenProjector, pooled_tokens
from unibiomed_core.model.processor import TokenIds
from unibiomed_core.model.scene import SceneHead


@dataclass(frozen=True, slots=True)
class Batch:
    """A training batch; every tensor is on the model's device.

    Args:
        input_ids: (B, T) int64, padded on the right.
        attention_mask: (B, T) int64, 0 on padding; or (B, 1, T, T) bool, what each position sees, where a row holds
            several questions about one picture.
        labels: (B, T) int64, -100 where no loss is taken.
        tiles: (N, 3, S, S) float32, in the order of the image tokens; N may be 0.
        grounding_pixels: (G, 3, S', S') float32; G may be 0.
        seg_image: (K,) int64, the grounding image of each ``[SEG]`` in reading order; -1 for one without a mask.
        position_ids: (B, T) int64; None counts along the row.
        grounding_tile: (G,) int64, the tile that each grounding image is, where one tower serves both sides; its
            pixels are left out then, and it is encoded once.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    tiles: Tensor
    grounding_pixels: Tensor
    seg_image: Tensor
    position_ids: Tensor | None = None
    grounding_tile: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """What one forward pass gives.

    Args:
        hidden: (B, T, D), after the last norm.
        prompts: (K', C), the language vectors of the ``[SEG]`` tokens that have a grounding image.
        masks: Decoded in one batch; None where K' is 0: text-only batches never touch SAM 2.
    """

    hidden: Tensor
    prompts: Tensor
    masks: MaskOutput | None


class UniBiomed(nn.Module):
    """InternVL, the bridge and SAM 2.

    Args:
        ids: Token ids of the tokenizer that belongs to the weights.
    """

    def __init__(self, config: UniBiomedConfig, ids: TokenIds) -> None:
        super().__init__()
        self.config = config
        self.ids = ids
        width = config.language.hidden
        self.vlm = InternVLForConditionalGeneration(vlm_config(config, ids.image_context))
        if config.tower.shared:
            self.vlm.model.vision_tower = nn.Identity()
            self.vlm.model.multi_modal_projector = TokenProjector(config.tower, width)
        self.bridge = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=False), nn.Linear(width, config.grounding.hidden)
        )
        self.grounder = Grounder(config.grounding, config.tower)
        self.scene = SceneHead(config.scene) if config.scene is not None else None

    def encode_tiles(self, tiles: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, P, D) image tokens. The only call that runs the vision transformer."""
        if self.grounder.tower is not None:
            return self._tokens(self.grounder.tower.encoder(tiles.to(next(self.grounder.parameters()).dtype)))
        return self.vlm.model.get_image_features(pixel_values=tiles, return_dict=True).pooler_output

    def encode_shared(self, pixels: Tensor) -> tuple[Tensor, GroundingFeatures]:
        """(B, 3, S, S) -> image tokens (B, P, D) and the mask side's features, by one pass of the shared tower.

        Only for a model whose tower is shared.
        """
        assert self.grounder.tower is not None
        levels = self.grounder.tower.encoder(pixels)
        return self._tokens(levels), self.grounder.from_levels(levels)

    def _tokens(self, levels: list[Tensor]) -> Tensor:
        tokens: Tensor = self.vlm.model.multi_modal_projector(pooled_tokens(levels).to(self.vlm.dtype))
        return tokens

    def embed(self, input_ids: Tensor, image_tokens: Tensor | None) -> Tensor:
        """(B, T) ids -> (B, T, D) embeddings, image tokens put where the ids say, in order."""
        embeddings = self.vlm.get_input_embeddings()(input_ids)
        if image_tokens is None or image_tokens.numel() == 0:
            return embeddings
        where = (input_ids == self.ids.image_context).unsqueeze(-1)  # (B, T, 1)
        return embeddings.masked_scatter(where, image_tokens.reshape(-1, embeddings.shape[-1]).to(embeddings.dtype))

    def language(
        self,
        embeddings: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D) hidden states after the last norm; ``cache`` is extended in place."""
        return self.vlm.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V); call it on the positions that are needed only."""
        return self.vlm.lm_head(hidden)

    def forward(self, batch: Batch, features: GroundingFeatures | None = None) -> Output:
        """One training pass.

        Args:
            features: Image features made beforehand, in the order of the grounding images; the encoder is then not run.
        """
        image_tokens = None
        if batch.grounding_tile is not None and self.grounder.tower is not None:
            levels = self.grounder.tower.encoder(batch.tiles)
            image_tokens = self._tokens(levels)
            if features is None and len(batch.grounding_tile):
                features = self.grounder.from_levels([level[batch.grounding_tile] for level in levels])
        elif len(batch.tiles):
            image_tokens = self.encode_tiles(batch.tiles)
        hidden = self.language(self.embed(batch.input_ids, image_tokens), batch.attention_mask, batch.position_ids)
        states = hidden[batch.input_ids == self.ids.seg]  # (K, D)
        grounded = batch.seg_image >= 0
        prompts = self.bridge(states[grounded])  # (K', C)
        if len(prompts) == 0:
            return Output(hidden, prompts, None)
        if features is None:
            features = self.grounder.encode(batch.grounding_pixels)
        return Output(hidden, prompts, self.grounder.decode(features, prompts, batch.seg_image[grounded]))

    @property
    def device(self) -> torch.device:
        return next(self.bridge.parameters()).device

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
