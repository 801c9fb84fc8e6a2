"""The joint model against numbers of the published implementation, tensor by tensor (tolerances of its README)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from unibiomed_core.modalities import draw_box
from unibiomed_core.model.grounder import MaskOutput, upsample
from unibiomed_core.model.processor import Processor, tile_grid
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import load
from unibiomed_core.types import Region

EXACT, FEATURES, LOGITS = 1e-6, 2e-5, 1e-3
CASES = ("one_seg", "two_seg", "no_seg", "one_seg_rounded_norm")

Fixture = tuple[UniBiomed, Processor, dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Fixture:
    torch.set_num_threads(1)
    folder = shared / "parity" / "tiny-a"
    model, processor = load(folder)
    return (
        model,
        processor,
        json.loads((folder / "expected.json").read_text()),
        load_file(folder / "expected.safetensors"),
    )


@pytest.fixture(scope="module")
def rounded(tiny: Fixture) -> Processor:
    from dataclasses import replace

    _, processor, _, _ = tiny
    config = processor.config
    return Processor(
        replace(config, preprocessing=replace(config.preprocessing, grounding_norm="rounded")), processor.tokenizer
    )


def close(ours: Tensor, theirs: Tensor | None, tolerance: float) -> None:
    """Compare with a stored tensor; a case stores the tensors in which it differs from the others only."""
    if theirs is None:
        return
    assert ours.numel() == theirs.numel()
    theirs = theirs.float().reshape(ours.shape)
    difference = (ours.float() - theirs).abs().max().item() / max(1.0, theirs.abs().max().item())
    assert difference <= tolerance, difference


def picture(shared: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(shared / "parity" / "tiny-a" / name).convert("RGB"))


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_case(case: str, tiny: Fixture, rounded: Processor, shared: Path) -> None:
    model, processor, facts, stored = tiny
    processor = rounded if case.endswith("rounded_norm") else processor
    about = facts[case]
    want = {k.removeprefix(f"{case}/"): v for k, v in stored.items() if k.startswith(f"{case}/")}
    rgb = picture(shared, about["image"])

    tiles = processor.tiles(rgb)
    close(tiles, want.get("pixel_values"), EXACT)
    close(model.vlm.model.vision_tower(tiles).last_hidden_state, want.get("vit_last_hidden_state"), FEATURES)
    tokens = model.encode_tiles(tiles)
    close(tokens, want.get("vit_embeds"), FEATURES)

    prompt = processor.encode(processor.expand_image(processor.chat(about["text"]), [len(tiles)]))
    assert prompt == about["input_ids"]
    answer = processor.encode(about["forced_answer"])
    assert answer == about["generated_ids"]
    assert [processor.stops(answer[: n + 1]) for n in range(len(answer))] == [False] * (len(answer) - 1) + [True]

    hidden = model.language(model.embed(torch.tensor([prompt + answer]), tokens))[0]
    start = len(prompt)
    close(model.logits(hidden[:start]), want.get("prefill_logits"), FEATURES)
    close(model.logits(hidden[start - 1]), want.get("prefill_logits_last"), FEATURES)
    close(hidden[:start], want.get("prefill_last_hidden"), FEATURES)
    close(model.logits(hidden[start - 1 : -1]), want.get("decode_logits"), FEATURES)
    close(hidden[start:-1], want.get("generated_last_hidden"), FEATURES)
    where = [start + n for n, i in enumerate(answer) if i == processor.ids.seg]
    if not where:
        assert about["num_masks"] == 0
        return

    close(hidden[where], want.get("seg_hidden_states"), FEATURES)
    prompts = model.bridge(hidden[where])
    close(prompts, want.get("seg_embeddings"), FEATURES)
    pixels = processor.grounding_pixels(rgb).unsqueeze(0)
    close(pixels, want.get("sam2_pixel_values"), EXACT)
    features = model.grounder.encode(pixels)
    for level, name in (
        (features.fine, "sam2_fpn_0"),
        (features.middle, "sam2_fpn_1"),
        (features.embedding, "sam2_fpn_2"),
    ):
        close(level, want.get(name), FEATURES)
    sam = model.grounder.sam
    close(features.embedding + sam.no_memory_embedding.reshape(1, -1, 1, 1), want.get("pix_feat_with_mem"), FEATURES)
    close(model.grounder.sparse_prompt(prompts)[:1, :2], want.get("prompt_sparse_points"), EXACT)
    close(sam.prompt_encoder.no_mask_embed.weight, want.get("prompt_dense"), EXACT)
    output = model.grounder.decode(features, prompts, torch.zeros(len(where), dtype=torch.int64))
    assert output.best.tolist() == about["best_mask_index"]
    check_heads(output, want, model.config.grounding.image_size, rgb.shape[:2], about)


def check_heads(
    output: MaskOutput, want: dict[str, Tensor], side: int, size: tuple[int, int], about: dict[str, Any]
) -> None:
    whole = upsample(output.selected, side, size)
    middle = torch.nn.functional.interpolate(output.selected.unsqueeze(1), size=(side, side), mode="bilinear")
    for k in range(len(output.logits)):
        close(output.logits[k], want.get(f"head_{k}_low_res_multimasks"), LOGITS)
        close(output.quality[k], want.get(f"head_{k}_ious"), LOGITS)
        close(output.selected[k], want.get(f"head_{k}_low_res_masks"), LOGITS)
        close(output.object_score[k], want.get(f"head_{k}_object_score_logits"), LOGITS)
        close(middle[k], want.get(f"logits_model_res_{k}"), LOGITS)
        close(whole[k], want.get(f"logits_image_res_{k}"), LOGITS)
        mask = (whole[k] > 0).numpy()
        assert (mask == want[f"mask_{k}"].numpy().reshape(mask.shape).astype(bool)).all()
        assert int(mask.sum()) == about["mask_area"][k]


def test_tile_grids(shared: Path) -> None:
    listed = json.loads((shared / "parity" / "tile-grids.json").read_text())
    assert len(listed["rows"]) == 68
    for width, height, columns, rows, tiles in listed["rows"]:
        assert tile_grid(width, height, 448, 12) == (columns, rows), (width, height)
        assert tiles == columns * rows + (columns * rows > 1)


def test_tokenizer(tiny: Fixture) -> None:
    _, processor, facts, _ = tiny
    for text, ids in facts["tokenizer_checks"].items():
        assert processor.encode(text) == ids
    for token, number in facts["token_ids"].items():
        assert processor.encode(token) == [number]


def test_box_overlay(tiny: Fixture, shared: Path) -> None:
    _, _, facts, _ = tiny
    x, y, width, height = facts["roi"]["contour_boxes_xywh"][1]
    boxed = draw_box(picture(shared, "roi_image.png"), Region(x, y, x + width, y + height))
    assert (boxed == picture(shared, "roi_boxed.png")).all()


@pytest.mark.parametrize("case", ["greedy", "text_only"])
@torch.inference_mode()
def test_greedy_choice_with_a_full_pass_a_token(case: str, tiny: Fixture, shared: Path) -> None:
    model, processor, facts, _ = tiny
    about = facts[case]
    tiles = processor.tiles(picture(shared, about["image"])) if "image" in about else None
    text = processor.chat(about["text"])
    ids = processor.encode(processor.expand_image(text, [len(tiles)]) if tiles is not None else text)
    assert ids == about["input_ids"]
    tokens = model.encode_tiles(tiles) if tiles is not None else None
    new: list[int] = []
    for _ in about["generated_ids"]:
        hidden = model.language(model.embed(torch.tensor([ids + new]), tokens))
        new.append(int(model.logits(hidden[0, -1]).argmax()))
    assert new == about["generated_ids"]
