"""The published volume path against its numbers: five prompted slices, two that SAM 2's memory carries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.alike import same_masks
from unibiomed_core.errors import ConfigError
from unibiomed_core.model.grounder import Grounder, upsample
from unibiomed_core.model.presets import preset
from unibiomed_core.model.video_memory import PROMPTED_SLICES, language_vector, propagate
from unibiomed_core.model.weights import load


@torch.inference_mode()
def test_volume_case(shared: Path) -> None:
    torch.set_num_threads(1)
    folder = shared / "parity" / "tiny-a"
    model, processor = load(folder)
    about = json.loads((folder / "expected.json").read_text())["volume"]
    want = {k.removeprefix("volume/"): v for k, v in load_file(folder / "expected.safetensors").items()}
    pictures = [np.asarray(Image.open(folder / name).convert("RGB")) for name in about["image"]]
    frames = torch.cat([processor.frame(p) for p in pictures[:PROMPTED_SLICES]])
    prompt = processor.encode(processor.expand_image(processor.chat(about["text"]), [1] * PROMPTED_SLICES))
    assert prompt == about["input_ids"]
    tokens = model.encode_tiles(frames)
    assert torch.allclose(tokens, want["vit_embeds"].reshape(tokens.shape), atol=2e-5)
    vector = language_vector(model, processor, tokens, [1] * PROMPTED_SLICES, about["text"], about["forced_answer"])
    assert torch.allclose(vector, want["seg_embeddings"].flatten(), atol=2e-5)

    encoded = (model.grounder.encode(processor.grounding_pixels(p).unsqueeze(0)) for p in pictures)
    outputs = [one for (one,) in propagate(model.grounder, encoded, vector.unsqueeze(0), len(pictures))]
    assert len(outputs) == len(pictures) == 7
    for index in (0, 4, 5, 6):
        tolerance = 1e-3 if index < PROMPTED_SLICES else 2e-2
        output = outputs[index]
        for ours, name in (
            (output.selected, "low_res_masks"),
            (output.quality, "ious"),
            (output.object_score, "object_score_logits"),
        ):
            theirs = want[f"head_{index}_{name}"].reshape(ours.shape)
            scale = max(1.0, theirs.abs().max().item())
            assert (ours - theirs).abs().max().item() / scale <= tolerance, (index, name)
    masks = torch.stack(
        [upsample(o.selected, model.config.grounding.image_size, pictures[0].shape[:2])[0] > 0 for o in outputs]
    )
    theirs = want["mask_0"].reshape(masks.shape).bool()
    assert same_masks(masks[:PROMPTED_SLICES], theirs[:PROMPTED_SLICES])
    different = (masks[PROMPTED_SLICES:] != theirs[PROMPTED_SLICES:]).float().mean().item()
    assert different <= 1e-3


def test_a_model_without_memory_says_so() -> None:
    grounder = Grounder(preset("toy").grounding)
    with pytest.raises(ConfigError, match="memory"):
        next(propagate(grounder, iter(()), torch.zeros(1, 32), 0))
