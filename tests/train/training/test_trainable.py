"""What each rule trains, at the published size; and token rows that are trained without their table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.train.toy_runs import toy_model
from train.training.trainable import RowsOfEmbedding, RowsOfHead, plain, select_trained
from unibiomed_core.errors import ConfigError
from unibiomed_core.model.adapters import add_lora, lora_parameter_count
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import TokenIds
from unibiomed_core.model.unibiomed import UniBiomed


@pytest.fixture(scope="module")
def full_size() -> UniBiomed:
    """The 1B model with adapters and without storage."""
    with torch.device("meta"):
        model = UniBiomed(preset("1b"), TokenIds(seg=151674, image_context=151667, end_of_turn=151645, pad=151643))
        add_lora(model)
    return model


def part(name: str) -> str:
    """The row of the published table that a parameter belongs to."""
    if "lora_" in name:
        return "adapters"
    for row, words in {
        "tables": ("embed_tokens", "lm_head"),
        "projector": ("multi_modal_projector",),
        "language": ("language_model",),
        "vision": ("vision_tower",),
        "bridge": ("bridge",),
        "image encoder": ("vision_encoder",),
        "SAM 2": ("mask_decoder.", "prompt_encoder.", "memory_attention.", "memory_encoder."),
        "SAM 2, pointer and vectors": ("",),
    }.items():
        if any(word in name for word in words):
            return row
    raise AssertionError(name)


def trained(model: UniBiomed) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[part(name)] = counts.get(part(name), 0) + parameter.numel()
    return counts


def test_the_published_set_at_1b(full_size: UniBiomed) -> None:
    assert lora_parameter_count(full_size) == 70_385_664
    select_trained(full_size, "published")
    assert trained(full_size) == {
        "adapters": 70_385_664,
        "tables": 2 * 135_904_384,
        "projector": 4_482_816,
        "bridge": 1_033_344,
        # Mask decoder, prompt encoder without its 256 fixed numbers, memory attention, memory encoder
        "SAM 2": 4_215_109 + 6_476 - 256 + 5_922_304 + 1_384_608,
    }
    # No part is trained by halves.
    sides = {part(n): set() for n, _ in full_size.named_parameters()}
    for name, parameter in full_size.named_parameters():
        sides[part(name)].add(parameter.requires_grad)
    assert all(len(side) == 1 for side in sides.values())


def test_our_set_at_1b_has_the_same_parts_and_five_rows(full_size: UniBiomed) -> None:
    select_trained(full_size, "ours")
    counts = trained(full_size)
    assert counts["tables"] == 2 * 5 * 896
    assert counts["SAM 2"] == 4_215_109 + 2 * 256
    assert {n: counts[n] for n in ("adapters", "projector", "bridge")} == {
        "adapters": 70_385_664,
        "projector": 4_482_816,
        "bridge": 1_033_344,
    }
    assert counts.keys() == {"adapters", "tables", "projector", "bridge", "SAM 2"}


def test_rows_get_the_gradient_that_they_had_in_the_whole_table() -> None:
    torch.manual_seed(0)
    embedding, head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20, bias=False)
    ids = torch.randint(0, 20, (3, 30))

    def loss(table: torch.nn.Module, out: torch.nn.Module) -> torch.Tensor:
        return F.cross_entropy(out(table(ids)).flatten(0, 1), ids.flatten())

    whole = loss(embedding, head)
    whole.backward()
    rows, row_logits = RowsOfEmbedding(embedding, 15), RowsOfHead(head, 15)
    rows.base.requires_grad_(False)
    row_logits.base.requires_grad_(False)
    ours = loss(rows, row_logits)
    ours.backward()
    assert torch.allclose(ours, whole)
    assert torch.allclose(rows.added.grad, embedding.weight.grad[15:], atol=1e-7)
    assert torch.allclose(row_logits.added.grad, head.weight.grad[15:], atol=1e-7)


def test_plain_adds_rows_and_adapters_to_the_weights() -> None:
    model, _ = toy_model()
    names = set(model.state_dict())
    ids = torch.tensor([[3, model.ids.seg, 5, model.ids.seg + 1]])
    add_lora(model, 2, 4)
    select_trained(model, "ours")
    select_trained(model, "ours")  # calling it again changes nothing
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ("lora_B" in name or "added" in name):
            torch.nn.init.normal_(parameter, std=0.1)
    model.eval()
    before = model.logits(model.language(model.embed(ids, None)))
    plain(model)
    assert set(model.state_dict()) == names
    after = model.logits(model.language(model.embed(ids, None)))
    assert torch.allclose(before, after, atol=1e-5)
    assert not torch.allclose(before, toy_model()[0].eval().logits(hidden(toy_model()[0].eval(), ids)), atol=1e-3)


def hidden(model: UniBiomed, ids: torch.Tensor) -> torch.Tensor:
    return model.language(model.embed(ids, None))


def test_frozen_image_encoders_keep_no_graph() -> None:
    model, _ = toy_model()
    add_lora(model, 2, 4)
    select_trained(model, "ours")
    features = model.grounder.encode(torch.zeros(1, 3, 64, 64))
    assert not features.embedding.requires_grad
    assert features.fine.requires_grad  # conv_s0 belongs to the decoder
    towers = model.vlm.model.vision_tower(torch.zeros(1, 3, 56, 56)).last_hidden_state
    assert not towers.requires_grad


def test_what_cannot_be_trained_is_an_error() -> None:
    model, _ = toy_model()
    with pytest.raises(ConfigError, match="ours"):
        select_trained(model, "everything")
    with pytest.raises(ConfigError, match="adapters=128"):
        select_trained(model, "published")
