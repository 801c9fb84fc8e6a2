"""Device and precision: decided once, told plainly when they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.alike import same_masks
from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, segment, tokenizer, toy_config, toy_engine
from unibiomed_core import files
from unibiomed_core.engine import devices
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import DeviceError, WeightsError
from unibiomed_core.model import folder, weights
from unibiomed_core.model.presets import mini, one_billion
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

no_gpu = pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU"
)


def test_the_cpu_computes_in_float32() -> None:
    placement = devices.choose("cpu")
    assert (placement.device.type, placement.dtype_name) == ("cpu", "float32")
    assert placement.free_bytes > 2**20


@no_gpu
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert devices.choose().device == torch.device("cpu")


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(DeviceError, match=f"Device not available. '{name}' was asked for. Expected: one of auto, cpu"):
        devices.choose(name)


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "", "cuda:x"])
def test_a_device_that_does_not_exist(name: str) -> None:
    with pytest.raises(DeviceError, match="Device not available"):
        devices.choose(name)


def test_precisions_that_cannot_be_had() -> None:
    with pytest.raises(DeviceError, match=r"Unknown precision.*'float8'.*bfloat16"):
        devices.choose("cpu", "float8")
    with pytest.raises(DeviceError, match=r"Precision not available.*float16 on a CPU"):
        devices.choose("cpu", "float16")


def test_half_precision_leaves_sam_in_float32() -> None:
    config = toy_config()
    processor = Processor(config, tokenizer())
    torch.manual_seed(0)
    engine = Engine(UniBiomed(config, processor.ids), processor, device="cpu", dtype="bfloat16")
    assert engine.info.dtype == "bfloat16"
    assert {p.dtype for p in engine.model.vlm.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in engine.model.grounder.parameters()} == {torch.float32}
    assert engine.model.grounder.sam.shared_image_embedding.positional_embedding.dtype == torch.float32
    ((prediction,),) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert prediction.raw_text == "It is [SEG].<|end|>"


def test_attention_is_the_fused_one_everywhere() -> None:
    model = toy_engine().model
    parts = (model.vlm, model.vlm.model.vision_tower, model.vlm.model.language_model, model.grounder.sam)
    assert {part.config._attn_implementation for part in parts} == {"sdpa"}


def test_the_model_is_only_read() -> None:
    model = toy_engine().model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_estimates_follow_the_sizes() -> None:
    engine = toy_engine()
    one = devices.memory_estimate(engine.model, engine.placement)
    four = devices.memory_estimate(engine.model, engine.placement, slices=4)
    assert devices.parameter_bytes(engine.model, engine.placement) == 4 * engine.info.parameters
    assert one < four < 2 * one
    assert devices.activation_bytes(mini()) < 200 * 2**20 < devices.activation_bytes(one_billion())


def test_a_small_device_takes_small_batches() -> None:
    config = one_billion()
    cuda = torch.device("cuda:0")
    sizes = [devices.batch_size(config, devices.DevicePlacement(cuda, torch.bfloat16, n * 2**30)) for n in (2, 24, 140)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert 1 < sizes[2] <= 16
    cpu = devices.DevicePlacement(torch.device("cpu"), torch.float32, 2**40)
    assert (devices.batch_size(mini(), cpu), devices.batch_size(config, cpu)) == (4, 1)


def test_the_budget_for_features_holds_at_least_four_slices() -> None:
    cpu = devices.DevicePlacement(torch.device("cpu"), torch.float32, 2**40)
    engine = toy_engine()
    engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert engine.features.budget_bytes == devices.feature_budget(mini(), cpu) == 32 * 2**20
    assert 4 * engine.features.held_bytes < engine.features.budget_bytes
    assert 64 * 2**20 < devices.feature_budget(one_billion(), cpu) < 128 * 2**20
    assert devices.feature_budget(mini(), devices.DevicePlacement(torch.device("cuda"), torch.bfloat16, 2**40)) == 2**30


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("x"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert devices.is_out_of_memory(error) is expected


def test_a_saved_model_loads_with_its_origin_and_gives_the_same_mask(tmp_path: Path) -> None:
    engine = toy_engine()
    ((before,),) = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    weights.save(engine.model, engine.processor, tmp_path / "saved", dtype="float32")
    loaded = Engine.load(str(tmp_path / "saved"), device="cpu")
    ((after,),) = loaded.predict([ct_slice()], segment("liver"), SOFT_TISSUE)
    assert same_masks(before.masks[0].full(), after.masks[0].full())
    assert (loaded.info.layout, loaded.info.folder, loaded.info.name) == ("unibiomed", "saved", "toy")
    assert loaded.info.sha256 == files.describe_file(tmp_path / "saved" / folder.WEIGHTS)["sha256"]
    assert str(tmp_path) not in str(loaded.info.provenance())


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        Engine.load(str(tmp_path), device="cpu")
