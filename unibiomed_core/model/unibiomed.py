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

from unibiomed_core.model.config import UniBiomedConfig, vlm_config
from unibiomed_core.model.grounder import Grounder, GroundingFeatures, MaskOutput
from unibiomed_core.model.processor import TokenIds


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
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    tiles: Tensor
    grounding_pixels: Tensor
    seg_image: Tensor
    position_ids: Tensor | None = None


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
        self.bridge = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(inplace=False), nn.Linear(width, config.grounding.hidden)
        )
        self.grounder = Grounder(config.grounding)

    def encode_tiles(self, tiles: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, P, D) image tokens. The only call that runs the vision transformer."""
        return self.vlm.model.get_image_features(pixel_values=tiles, return_dict=True).pooler_output

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
        image_tokens = self.encode_tiles(batch.tiles) if len(batch.tiles) else None
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
