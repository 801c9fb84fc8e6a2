"""The published losses and their gradients against the numbers of the published training code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from train.training.published.losses import as_published_objects, mask_losses, text_loss, uncertain_points
from unibiomed_core.model.published import published_name
from unibiomed_core.model.unibiomed import Batch
from unibiomed_core.model.weights import load


@pytest.fixture(scope="module")
def stored(shared: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = shared / "parity" / "tiny-a"
    return json.loads((folder / "expected.json").read_text())["train"], load_file(folder / "expected.safetensors")


def relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / max(1e-9, abs(theirs))


def test_mask_losses_of_stored_logits(stored: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    facts, tensors = stored
    logits, truth = tensors["train/mixed/pred_low_res_masks"], tensors["train/mixed/gt_low_res_masks"]
    points = mask_losses(logits, truth, coordinates=tensors["train/mixed/point_coords"])
    dense = mask_losses(logits, truth, dense=True)
    assert relative(points["mask"].value.item(), facts["mixed"]["loss_mask"]) < 1e-4
    assert relative(points["dice"].value.item(), facts["mixed"]["loss_dice"]) < 1e-4
    assert relative(dense["mask"].value.item(), facts["mixed_dense"]["loss_mask"]) < 1e-4
    assert relative(dense["dice"].value.item(), facts["mixed_dense"]["loss_dice"]) < 1e-4


@pytest.mark.parametrize("case", ["mixed", "mixed_dense", "text_only"])
def test_losses_and_gradients_of_the_whole_model(
    case: str, stored: tuple[dict[str, Any], dict[str, Tensor]], shared: Path
) -> None:
    torch.set_num_threads(1)
    facts, tensors = stored
    folder = shared / "parity" / "tiny-a"
    model, processor = load(folder)
    model.requires_grad_(True)
    names = ["image_0", "image_1", "image_2"]
    pictures = [np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in names]
    ids = tensors[f"train/{case}/input_ids"].long()
    tiles = [processor.tiles(pictures[0]), processor.tiles(pictures[1]), processor.frame(pictures[2])]
    per_tile = model.config.vision.tokens_per_tile
    shown = int((ids == processor.ids.image_context).sum()) // per_tile
    used = torch.cat(tiles) if shown == 5 else torch.cat(tiles[2:])[:shown]
    assert len(used) == shown
    segs = int((ids == processor.ids.seg).sum())
    grounding = torch.stack([processor.grounding_pixels(p) for p in pictures[:2]]) if segs else torch.zeros(0, 3, 1, 1)
    batch = Batch(
        input_ids=ids,
        attention_mask=tensors[f"train/{case}/attention_mask"].long(),
        labels=tensors[f"train/{case}/labels"].long(),
        tiles=used,
        grounding_pixels=grounding,
        seg_image=torch.tensor([0, 1, 1][:segs]),
    )
    output = model(batch)
    losses = {"text": text_loss(model.logits(output.hidden), batch.labels)}
    assert losses["text"].count == facts[case]["num_label_tokens"]
    if output.masks is not None:
        order = as_published_objects([1, 2])
        side = output.masks.logits.shape[-1]
        truth = torch.stack([_truth(folder / n, side) for n in ("mask_0_0.png", "mask_1_0.png", "mask_1_1.png")])
        coordinates = tensors["train/mixed/point_coords"] if case == "mixed" else None
        losses |= mask_losses(
            output.masks.selected[order], truth[order], dense=case == "mixed_dense", coordinates=coordinates
        )
    else:
        assert facts[case]["loss_mask"] == 0  # and SAM 2 was not run for it
    total = torch.stack([loss.value for loss in losses.values()]).sum()
    assert relative(losses["text"].value.item(), facts[case]["llm_loss"]) < 1e-4
    assert relative(total.item(), facts[case]["total"]) < 1e-4
    total.backward()
    if case == "text_only":
        assert all(p.grad is None for p in model.grounder.parameters())
    else:
        check_gradients(model, case, facts[case]["grad_norms"], tensors)


def _truth(file: Path, side: int) -> Tensor:
    mask = torch.from_numpy(np.asarray(Image.open(file)) > 0).float()
    return F.interpolate(mask[None, None], size=(side, side), mode="nearest")[0, 0]


def check_gradients(
    model: torch.nn.Module, case: str, norms: dict[str, float | None], tensors: dict[str, Tensor]
) -> None:
    """Gradient norms of every parameter that one of ours stands for alone, and the stored gradients whole."""
    checked = 0
    for name, parameter in model.named_parameters():
        theirs = published_name(name)
        if theirs in norms and ".attn.qkv." not in theirs:
            norm = norms[theirs]
            ours = 0.0 if parameter.grad is None else parameter.grad.norm().item()
            if norm is None:
                assert ours == 0.0, theirs
            else:
                assert abs(ours - norm) <= 5e-3 * max(1.0, norm), (theirs, ours, norm)
            checked += 1
        if (want := tensors.get(f"train/{case}/grad/{theirs}")) is not None:
            assert parameter.grad is not None
            difference = (parameter.grad - want.reshape(parameter.grad.shape)).abs().max().item()
            assert difference <= 5e-3 * max(1.0, want.abs().max().item()), theirs
    assert checked > 100


def test_points_are_where_the_logits_are_uncertain() -> None:
    logits = torch.linspace(-8, 8, 64).expand(1, 64, 64)
    points = uncertain_points(logits, 1000, torch.Generator().manual_seed(0))
    assert points.shape == (1, 1000, 2)
    near = ((points[0, :750, 0] - 0.5).abs() < 0.2).float().mean()
    assert near > 0.95


def test_five_objects_a_sample() -> None:
    assert as_published_objects([1, 2]).tolist() == [0] * 5 + [1, 2, 1, 2, 1]
    many = as_published_objects([9], torch.Generator().manual_seed(0)).tolist()
    assert len(set(many)) == 5
