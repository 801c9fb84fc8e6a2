"""One tower for both sides: what it computes, what is encoded once, and that it is saved, loaded and trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import train
from tests.alike import same_masks
from tests.unibiomed_core.engine.toy import SOFT_TISSUE, ct_slice, segment, tokenizer
from train.recipes import RECIPES
from train.training.initialise import start_tower
from unibiomed_core.engine import devices
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import ConfigError
from unibiomed_core.model import presets
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.lite0 import Lite0, pooled_tokens
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.towers import TowerSizes
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import load, save
from unibiomed_core.types import Prompt, Region

TOWERS = Path(train.__file__).parent / "towers"


def shared_engine(seed: int = 1) -> Engine:
    config = replace(presets.toy_lite0(), presence=Presence("object", 0.0))
    processor = Processor(config, tokenizer())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UniBiomed(config, processor.ids)
    return Engine(model, processor, device="cpu")


@pytest.fixture
def engine() -> Engine:
    return shared_engine()


def test_levels_have_the_strides_that_their_names_say() -> None:
    sizes = TowerSizes("lite0")
    with torch.device("meta"):
        levels = Lite0(sizes)(torch.empty(2, 3, 256, 256))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (16, 128, 128), (24, 64, 64), (40, 32, 32), (112, 16, 16), (320, 8, 8),
    ]  # fmt: skip
    assert pooled_tokens(levels).shape == (2, 64, 512)


def test_a_convolution_of_stride_two_pads_the_odd_pixel_at_the_lower_right() -> None:
    """As the weights were trained: with the odd pixel at the upper left every feature map is shifted."""
    stem = Lite0(presets.toy_lite0().tower).stem.eval()
    nn.init.ones_(stem.conv.weight)
    corner = torch.zeros(1, 3, 8, 8)
    corner[..., 0, 0] = 1.0
    with torch.no_grad():
        assert (stem(corner)[0, 0] > 0).nonzero().tolist() == [[0, 0]]
        assert (stem(corner.flip(2, 3))[0, 0] > 0).nonzero().tolist() == [[3, 3]]


def test_image_net_weights_fit_and_are_what_they_were() -> None:
    """Their statistics describe what passes through: a wrong order of channels, padding or scale would not."""
    sizes = presets.mini_lite0().tower
    encoder = Lite0(sizes).eval()
    with safe_open(TOWERS / "lite0" / "imagenet.safetensors", framework="pt") as handle:
        encoder.load_state_dict({name: handle.get_tensor(name).float() for name in handle.keys()})  # noqa: SIM118
    noise = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(nn.functional.avg_pool2d(noise, 8), scale_factor=8.0, mode="bilinear") * 6
    with torch.no_grad():
        before = encoder.stem.conv(nn.functional.pad(smooth, (0, 1, 0, 1)))
        kept = encoder.stem.norm.running_var
        spread = before.var(dim=(0, 2, 3))
    assert torch.corrcoef(torch.stack([spread.clamp(min=1e-3).log(), kept.clamp(min=1e-3).log()]))[0, 1] > 0.5


def test_a_picture_is_encoded_once_for_both_sides(engine: Engine) -> None:
    passes: list[int] = []
    assert engine.model.grounder.tower is not None
    engine.model.grounder.tower.encoder.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    engine.predict([ct_slice()], segment("liver", "spleen"), SOFT_TISSUE)
    assert passes == [1]
    engine.predict([ct_slice()], segment("aorta"), SOFT_TISSUE)
    assert passes == [1]
    engine.predict([ct_slice(seed=1), ct_slice(seed=2)], segment("liver"), SOFT_TISSUE)
    assert passes == [1, 2]
    boxed = Prompt("vqa", question="?", region=Region(10, 12, 30, 33), max_new_tokens=2)
    engine.predict([ct_slice()], [boxed], SOFT_TISSUE)
    assert passes == [1, 2, 1], "a drawn box is another picture"
    assert engine.counts.vision_encodes == engine.counts.grounding_encodes == 4


def test_masks_do_not_depend_on_what_was_kept(engine: Engine) -> None:
    kept = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)[0][0]
    engine.features.budget_bytes = 0
    engine.free()
    anew = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)[0][0]
    assert kept.masks[0].count > 0
    assert same_masks(kept.masks[0].full(), anew.masks[0].full())


def test_masks_come_at_the_mask_stride_and_what_is_kept_is_planned_for(engine: Engine) -> None:
    grounder, side = engine.model.grounder, engine.config.grounding.image_size
    features = grounder.encode(torch.randn(2, 3, side, side))
    output = grounder.decode(features, torch.randn(3, engine.config.grounding.hidden), torch.tensor([0, 1, 1]))
    assert output.logits.shape == (3, 3, side // 2, side // 2)
    config = replace(engine.config, grounding=replace(engine.config.grounding, image_size=4096))
    one = features.nbytes // len(features) * (4096 // side) ** 2
    assert devices.feature_budget(config, devices.DevicePlacement(torch.device("cpu"), torch.float32, 2**40)) >= 4 * one


def test_training_sees_what_the_engine_sees(engine: Engine) -> None:
    """Tokens and features of one pass are those of the two calls."""
    model, side = engine.model.eval(), engine.config.grounding.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        tokens, features = model.encode_shared(pixels)
        assert torch.allclose(tokens, model.encode_tiles(pixels), atol=1e-5)
        assert torch.allclose(features.fine, model.grounder.encode(pixels).fine, atol=1e-5)


def test_saved_and_loaded_it_answers_as_before(engine: Engine, tmp_path: Path) -> None:
    save(engine.model, engine.processor, tmp_path / "toy", dtype="float32")
    again, _ = load(tmp_path / "toy")
    ours, theirs = engine.model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    answer = engine.predict([ct_slice()], segment("liver"), SOFT_TISSUE)[0][0]
    loaded = Engine.load(str(tmp_path / "toy"), device="cpu").predict([ct_slice()], segment("liver"), SOFT_TISSUE)[0][0]
    assert same_masks(answer.masks[0].full(), loaded.masks[0].full())


def test_weights_made_before_there_was_a_choice_have_a_tower_for_each_side() -> None:
    values = presets.toy().to_dict()
    del values["tower"], values["grounding"]["mask_stride"]
    assert UniBiomedConfig.from_dict(values) == presets.toy()
    assert not UniBiomedConfig.from_dict(values).tower.shared


def test_statistics_and_frozen_stages_stay_as_they_came() -> None:
    encoder = Lite0(presets.toy_lite0().tower)
    encoder.train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder.freeze(2)
    sum(level.sum() for level in encoder(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
    still = {name.split(".")[0] + name.split(".")[1] for name, p in encoder.named_parameters() if p.grad is None}
    assert still == {"stemconv", "stemnorm", "stages0", "stages1"}


def test_a_tower_starts_from_weights_of_its_own_kind_only(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="lite0/imagenet"):
        start_tower(engine.model, "lite0/mars")
    config = presets.toy()
    model = UniBiomed(config, Processor(config, tokenizer()).ids)
    with pytest.raises(ConfigError, match="toy has a tower for each side"):
        start_tower(model, "lite0/imagenet")
    assert RECIPES["mini_lite0"]().tower == "lite0/imagenet"
