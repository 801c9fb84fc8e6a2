"""The loop that the engine is set beside: one question at a time, everything about its picture computed anew.

It runs the same weights the way the published model is run: batch 1, one ``generate`` of the library a prompt, both
image towers for each prompt and SAM 2 once more for each ``[SEG]``, the hidden states of every layer kept, and a stop
test that decodes the whole answer at each step. The published loop also runs SAM 2's memory encoder for each ``[SEG]``;
it never changes a picture's mask, and the embedded model has none, so it is left out here, in the loop's favour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from unibiomed_core.model.grounder import upsample
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import END


@dataclass(frozen=True, slots=True)
class StraightAnswer:
    """Text with special tokens, and one (H, W) bool mask for each ``[SEG]`` that went in as input."""

    text: str
    masks: tuple[NDArray[np.bool_], ...]


class _WholeAnswerEnds(StoppingCriteria):
    def __init__(self, processor: Processor) -> None:
        self.processor = processor

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        text = self.processor.decode(input_ids[0].tolist()).replace("\r", "").replace("\n", "")
        return torch.tensor([text.endswith(END)], device=input_ids.device)


class StraightLoop:
    """Answers one prompt on one picture at a time.

    Args:
        model: As an engine placed it.
    """

    def __init__(self, model: UniBiomed, processor: Processor) -> None:
        self.model = model
        self.processor = processor

    @torch.inference_mode()
    def predict(self, rgb: NDArray[np.uint8], question: str, max_new_tokens: int = 256) -> StraightAnswer:
        """Answer one question.

        Args:
            rgb: (H, W, 3) uint8.
            question: What stands between the chat markers, with ``<image>`` where the picture goes.
        """
        ids, states = self._write(self.embeddings(rgb, question), max_new_tokens)
        return StraightAnswer(self.processor.decode(ids), tuple(self._mask(rgb, state) for state in states))

    def embeddings(self, rgb: NDArray[np.uint8], question: str) -> Tensor:
        """(1, T, D) embeddings of the whole prompt, the picture's tokens in their places."""
        weight = self.model.vlm.lm_head.weight
        tiles = self.processor.tiles(rgb).to(weight.device, weight.dtype)
        image_tokens = self.model.encode_tiles(tiles)  # (N, P, D)
        text = self.processor.expand_image(self.processor.chat(question), [len(tiles)])
        ids = torch.tensor([self.processor.encode(text)], device=weight.device)
        return self.model.embed(ids, image_tokens)

    def _write(self, embeddings: Tensor, max_new_tokens: int) -> tuple[list[int], list[Tensor]]:
        """The new ids and the last hidden state, (1, D), of each ``[SEG]``."""
        answer: Any = self.model.vlm.generate(  # type: ignore[operator]
            inputs_embeds=embeddings,
            attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.int64, device=embeddings.device),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=self.processor.ids.end_of_turn,
            pad_token_id=self.processor.ids.pad,
            output_hidden_states=True,
            return_dict_in_generate=True,
            stopping_criteria=StoppingCriteriaList([_WholeAnswerEnds(self.processor)]),
        )
        ids = answer.sequences[0].tolist()
        # Step 0 reads the prompt; step n reads the n-th new token, so the last one is never read.
        read = zip(ids[:-1], answer.hidden_states[1:], strict=True)
        return ids, [layers[-1][:, -1] for token, layers in read if token == self.processor.ids.seg]

    def _mask(self, rgb: NDArray[np.uint8], state: Tensor) -> NDArray[np.bool_]:
        pixels = self.processor.grounding_pixels(rgb).unsqueeze(0).to(state.device)
        features = self.model.grounder.encode(pixels)
        prompt = self.model.bridge(state.float())
        output = self.model.grounder.decode(features, prompt, torch.zeros(1, dtype=torch.int64, device=state.device))
        logits = upsample(output.selected, self.model.config.grounding.image_size, (rgb.shape[0], rgb.shape[1]))
        return (logits[0] > 0).cpu().numpy()


@contextmanager
def written(model: UniBiomed, ids: Sequence[int]) -> Iterator[None]:
    """Let the model write given ids, over and over: what it computes stays the same, only its choice is given.

    Both sides of a comparison then write the same answer, however the weights are.
    """
    step = 0

    def choose(module: nn.Module, given: Any, logits: Tensor) -> Tensor:
        nonlocal step
        chosen = torch.full_like(logits, float("-inf"))
        chosen[..., ids[step % len(ids)]] = 0.0
        step += 1
        return chosen

    handle = model.vlm.lm_head.register_forward_hook(choose)
    try:
        yield
    finally:
        handle.remove()
