"""Work that is done once: equal answers whatever was kept or shared, and how often each part ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.alike import same_masks
from tests.unibiomed_core.engine.toy import NAMES, SOFT_TISSUE, ct_slice, segment, toy_engine
from unibiomed_core.engine import generate, masks, partial_forward
from unibiomed_core.engine.engine import Engine
from unibiomed_core.model.grounder import MaskOutput, upsample
from unibiomed_core.types import Prediction, Prompt, Region


@pytest.fixture
def engine() -> Engine:
    return toy_engine()


@pytest.fixture
def logits(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """(H, W) mask logits of every ``[SEG]`` in the order in which they are decoded."""
    seen: list[torch.Tensor] = []
    decode = engine.model.grounder.decode

    def noted(*given: torch.Tensor) -> MaskOutput:
        output = decode(*given)  # type: ignore[arg-type]
        seen.extend(output.selected)
        return output

    monkeypatch.setattr(engine.model.grounder, "decode", noted)
    return seen


def assert_equal(some: Sequence[Prediction], others: Sequence[Prediction]) -> None:
    assert [p.raw_text for p in some] == [p.raw_text for p in others]
    for a, b in zip(some, others, strict=True):
        assert [m.count for m in a.masks] != [0]
        assert all(same_masks(m.full(), n.full()) for m, n in zip(a.masks, b.masks, strict=True))


def assert_close(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    assert len(some) == len(others) > 0
    assert torch.allclose(torch.stack(list(some)), torch.stack(list(others)), atol=1e-4, rtol=0)


def test_batch_equals_single(engine: Engine, logits: list[torch.Tensor]) -> None:
    slices = [ct_slice(seed=s, index=s) for s in range(3)]
    together = engine.predict(slices, segment("liver", "aorta"), SOFT_TISSUE)
    engine.free()
    alone = [engine.predict([piece], segment("liver", "aorta"), SOFT_TISSUE)[0] for piece in slices]
    for a, b in zip(together, alone, strict=True):
        assert_equal(a, b)
    assert_close(logits[:6], logits[6:])


def test_cached_equals_fresh(engine: Engine, logits: list[torch.Tensor]) -> None:
    (fresh,) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    (cached,) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert_equal(fresh, cached)
    assert_close(logits[:1], logits[1:])


def test_prefix_shared_equals_separate(engine: Engine, logits: list[torch.Tensor]) -> None:
    (shared,) = engine.predict([ct_slice()], segment(), SOFT_TISSUE)
    separate = []
    for prompt in segment():
        engine.free()
        separate.extend(engine.predict([ct_slice()], [prompt], SOFT_TISSUE)[0])
    assert_equal(shared, separate)
    assert_close(logits[:12], logits[12:])


def test_read_equals_written(engine: Engine, logits: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The known wording, and the same wording chosen by the model token by token."""
    (read,) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    wanted = iter(engine.processor.encode(read[0].raw_text))

    def chosen(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(wanted)]), engine.config.language.vocabulary)

    monkeypatch.setattr(engine.model, "logits", chosen)
    ask = Prompt("segment", question="<image>Please segment liver in abdomen CT.", exact=True)
    (written,) = engine.predict([ct_slice()], [ask], SOFT_TISSUE)
    assert engine.counts.decode_steps > 0
    assert_equal(read, written)
    assert_close(logits[:1], logits[1:])


def test_a_second_question_on_a_seen_slice_costs_its_text(engine: Engine) -> None:
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    before = replace(engine.counts)
    engine.predict([ct_slice()], [*segment("spleen"), Prompt("vqa", question="?", max_new_tokens=3)], SOFT_TISSUE)
    after = engine.counts
    assert (after.vision_encodes, after.prefix_reads, after.grounding_encodes) == (1, 1, 1)
    assert 0 < after.text_tokens - before.text_tokens < 60


def test_a_prefix_is_kept_for_its_picture_and_its_ids(engine: Engine) -> None:
    ask = Prompt("vqa", question="Before <image> what?", exact=True, max_new_tokens=2)
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    engine.predict([ct_slice()], [ask], SOFT_TISSUE)
    assert (engine.counts.vision_encodes, engine.counts.prefix_reads) == (1, 2)
    engine.predict([ct_slice(seed=3)], [ask], SOFT_TISSUE)
    assert (engine.counts.vision_encodes, engine.counts.prefix_reads) == (2, 3)


def test_prefixes_count_towards_the_budget(engine: Engine) -> None:
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    kept = {key[0]: item.nbytes for key, item in engine.features._kept.items()}  # type: ignore[index]
    sizes = engine.config.language
    token = 2 * sizes.layers * sizes.kv_heads * (sizes.hidden // sizes.heads) * 4
    assert kept["prefix"] % token == 0
    assert engine.features.held_bytes == sum(kept.values())
    engine.features.budget_bytes = engine.features.held_bytes - 1
    engine.predict([ct_slice(seed=5)], segment("liver"), SOFT_TISSUE)
    assert engine.features.held_bytes <= engine.features.budget_bytes
    before = engine.counts.prefix_reads
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert engine.counts.prefix_reads == before + 1, "the oldest went first"


def test_a_dozen_targets_take_one_language_pass_and_one_mask_pass(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    shapes: list[tuple[int, ...]] = []
    read = partial_forward.read
    monkeypatch.setattr(partial_forward, "read", lambda m, ids, *a: shapes.append(tuple(ids.shape)) or read(m, ids, *a))
    decodes = engine.counts.mask_decodes
    engine.predict([ct_slice()], segment(*NAMES[1:]), SOFT_TISSUE)
    assert len(shapes) == 1
    assert shapes[0][0] == 1, "one sequence"
    assert shapes[0][1] <= generate._SHEET_NODES
    assert engine.counts.mask_decodes == decodes + 1


def test_slices_of_a_batch_go_through_every_part_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, list[int]] = {"tiles": [], "grounding": [], "embed": [], "logits": []}
    model = engine.model

    def counted(name: str, owner: object, method: str) -> None:
        run = getattr(owner, method)
        monkeypatch.setattr(owner, method, lambda x, *a, **o: calls[name].append(len(x)) or run(x, *a, **o))

    counted("tiles", model, "encode_tiles")
    counted("grounding", model.grounder, "encode")
    counted("embed", model, "embed")
    counted("logits", model, "logits")
    prompts = [*segment("liver", "spleen"), Prompt("vqa", question="Which?", max_new_tokens=4)]
    engine.predict([ct_slice(seed=s) for s in range(5)], prompts, SOFT_TISSUE)
    assert calls["tiles"] == calls["grounding"] == [5]
    steps = engine.counts.decode_steps
    assert calls["embed"] == [5] * (3 + steps), "prefixes, known answers, prompts of what is written, and each step"
    assert calls["logits"] == [5] * (steps + 1), "logits where a token is chosen, and nowhere else"


@pytest.mark.parametrize("source", ["object", "mask"])
def test_empty_masks_are_told_before_they_are_enlarged(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_engine().config
    config = replace(config, presence=replace(config.presence, source=source))
    low = -torch.rand(2, 3, 16, 16)
    low[1, 0, 3, 4] = 2.0
    output = MaskOutput(low, torch.tensor([[0.9, 0.1, 0.2]] * 2), torch.zeros(2, 3, 8), torch.tensor([-1.0, 1.0]))
    enlarged: list[int] = []
    monkeypatch.setattr(masks, "upsample", lambda x, *a: enlarged.append(len(x)) or upsample(x, *a))
    empty, found = masks.regions(output, [(40, 56), (40, 56)], config)
    assert enlarged == [1]
    assert (empty.mask.count, empty.mask.shape) == (0, (40, 56))
    assert empty.presence == pytest.approx(0.0 if source == "mask" else 0.2689, abs=1e-4)
    assert np.array_equal(found.mask.full(), (upsample(low[1:, 0], 64, (40, 56))[0] > 0).numpy())
    assert found.mask.count > 0


@pytest.mark.parametrize(
    ("stage", "call"),
    [
        ("vlm.model.vision_tower", 1),
        ("vlm.model.language_model.layers.0", 1),  # prefixes
        ("vlm.model.language_model.layers.0", 2),  # known answers
        ("vlm.model.language_model.layers.0", 3),  # prompts of what is written
        ("grounder.sam.vision_encoder", 1),
        ("grounder.sam.mask_decoder", 1),
    ],
)
def test_memory_that_runs_out_anywhere_leaves_whole_features_only(engine: Engine, stage: str, call: int) -> None:
    prompts = [*segment("liver"), Prompt("vqa", question="?", max_new_tokens=3)]
    expected = toy_engine().predict([ct_slice()], prompts, SOFT_TISSUE)
    calls = 0

    def fails(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise torch.OutOfMemoryError("out of memory")

    handle = engine.model.get_submodule(stage).register_forward_pre_hook(fails)
    with pytest.raises(torch.OutOfMemoryError):
        engine.predict([ct_slice()], prompts, SOFT_TISSUE)
    handle.remove()
    again = engine.predict([ct_slice()], prompts, SOFT_TISSUE)
    assert_equal(again[0][:1], expected[0][:1])
    assert again[0][1].raw_text == expected[0][1].raw_text


def test_memory_that_runs_out_while_writing_leaves_the_prefix_untouched(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = [Prompt("vqa", question="?", max_new_tokens=6)]
    ((expected,),) = engine.predict([ct_slice()], ask, SOFT_TISSUE)
    step = generate.DecodeStep.step
    monkeypatch.setattr(generate.DecodeStep, "step", lambda self, ids: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        engine.predict([ct_slice()], ask, SOFT_TISSUE)
    monkeypatch.setattr(generate.DecodeStep, "step", step)
    ((again,),) = engine.predict([ct_slice()], ask, SOFT_TISSUE)
    assert again.raw_text == expected.raw_text
    assert engine.counts.prefix_reads == 1


def test_a_region_drawn_on_a_picture_has_a_prefix_of_its_own(engine: Engine) -> None:
    prompts = [Prompt("vqa", question="?", region=Region(10, 12, 30, 33 + n), max_new_tokens=2) for n in range(2)]
    engine.predict([ct_slice()], prompts, SOFT_TISSUE)
    assert engine.counts.prefix_reads == 2
