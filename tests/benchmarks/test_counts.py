"""What is promised as counts: encodes, decode steps, FLOPs; and that FLOPs are torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import counted
from benchmarks.flops import BRIDGE, DECODER, ENCODER, HEAD, READING, VISION, WRITING, predict_flops
from tests.unibiomed_core.engine.toy import (
    NAMES,
    SOFT_TISSUE,
    ct_slice,
    ct_volume,
    segment,
    tokenizer,
    toy_config,
    toy_engine,
)
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.model import weights
from unibiomed_core.model.presets import toy
from unibiomed_core.model.processor import Processor
from unibiomed_core.types import Prompt, Region


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(toy_config(), tokenizer())


def test_r1_twelve_targets_encode_a_slice_once() -> None:
    engine = toy_engine()
    engine.predict([ct_slice()], segment(), SOFT_TISSUE)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes, engine.counts.prefix_reads) == (1, 1, 1)


def test_r3_a_second_question_costs_text_only() -> None:
    engine = toy_engine()
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    engine.predict([ct_slice()], [*segment("spleen"), Prompt("vqa", question="?", max_new_tokens=2)], SOFT_TISSUE)
    assert (engine.counts.grounding_encodes, engine.counts.vision_encodes, engine.counts.prefix_reads) == (1, 1, 1)


def test_r4_known_wordings_are_not_written() -> None:
    engine = toy_engine(targets={"ct": NAMES})
    asked = [*segment(), Prompt("roi_class", region=Region(10, 10, 30, 30))]
    engine.predict([ct_slice()], asked, SOFT_TISSUE)
    assert engine.counts.decode_steps == 0


def test_air_costs_nothing() -> None:
    engine = toy_engine()
    for _ in engine.run(ct_volume(6, empty=(0, 4, 5)), RunRequest.segment(*NAMES[:2], describe=False)):
        pass
    assert engine.counts.grounding_encodes == 3


def test_flops_are_those_of_the_calls_alone(processor: Processor) -> None:
    """The parts as torch counts them on the meta device without the engine."""
    found = predict_flops(processor, ct_slice(), segment("liver"), SOFT_TISSUE)
    model = weights.empty(processor.config, processor).eval()
    side, tile = processor.config.grounding.image_size, processor.config.vision.image_size

    def alone(call: object, *given: torch.Tensor) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call(*given)  # type: ignore[operator]
        return counter.get_total_flops()

    assert found[ENCODER] == alone(model.grounder.encode, torch.empty(1, 3, side, side, device="meta"))
    assert found[VISION] == alone(model.encode_tiles, torch.empty(1, 3, tile, tile, device="meta"))
    assert found[BRIDGE] == alone(model.bridge, torch.empty(1, processor.config.language.hidden, device="meta"))
    assert found[DECODER] > 0
    assert found[WRITING] == found[HEAD] == 0


def test_flops_of_reading_are_those_of_the_tokens(processor: Processor) -> None:
    """Linear layers count two FLOPs a weight and token; attention is the smaller part.

    The last layer runs only for keys, values, and where a state is looked at.
    """
    sizes = processor.config.language
    found = predict_flops(processor, ct_slice(), segment("liver"), SOFT_TISSUE)[READING]
    key_width = sizes.kv_heads * sizes.hidden // sizes.heads
    layer = 2 * sizes.hidden**2 + 2 * sizes.hidden * key_width + 3 * sizes.hidden * sizes.mlp
    engine = toy_engine()
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    text = processor.expand_image("<|user|>\n<image>", [1])
    tokens = len(processor.encode(text)) + engine.counts.text_tokens
    assert 2 * (sizes.layers - 1) * layer * tokens < found < 1.2 * 2 * sizes.layers * layer * tokens


def test_more_targets_add_text_and_masks_only(processor: Processor) -> None:
    one, twelve = (predict_flops(processor, ct_slice(), segment(*NAMES[:n]), SOFT_TISSUE) for n in (1, 12))
    assert {part: twelve[part] / one[part] for part in (ENCODER, VISION)} == {ENCODER: 1, VISION: 1}
    assert twelve[DECODER] == pytest.approx(12 * one[DECODER], rel=0.002), "the grid's positions are made once"
    assert twelve[READING] > one[READING]


def test_what_is_written_is_counted_a_step_at_a_time(processor: Processor) -> None:
    answers = [counted.report_ids(processor, 2, tokens) for tokens in (60, 61)]
    assert [len(ids) for ids in answers] == [60, 61]
    prompt = Prompt("report")
    short, long = (predict_flops(processor, ct_slice(), [prompt], SOFT_TISSUE, ids) for ids in answers)
    assert short[READING] == long[READING]
    assert 0 < long[WRITING] - short[WRITING] < short[WRITING] / 30
    assert long[HEAD] == 61 * 2 * processor.config.language.hidden * processor.config.language.vocabulary
    one = predict_flops(processor, ct_slice(), segment("liver"), SOFT_TISSUE)
    assert short[DECODER] == pytest.approx(2 * one[DECODER], rel=0.002)


def test_the_rows_of_the_benchmark_run_on_a_toy() -> None:
    rows = counted.published_size(toy(vocabulary=2048))
    assert [row.id for row in rows] == ["R0"] * 3
    for row in rows:
        assert row.value == pytest.approx(sum(row.parts.values()))
        assert row.met
    (ratio,) = counted.more_targets(toy(vocabulary=2048))
    assert ratio.value > 1


def test_the_counting_leaves_nothing_behind(processor: Processor) -> None:
    predict_flops(processor, ct_slice(), segment("liver"), SOFT_TISSUE)
    engine: Engine = toy_engine()
    assert engine.model.device == torch.device("cpu")
    assert {p.device.type for p in engine.model.parameters()} == {"cpu"}
