"""What is saved is what is loaded, in our own layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.alike import close, same_masks
from tests.unibiomed_core.engine.toy import ct_slice, segment, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import Window
from unibiomed_core.model.folder import CONFIG, WEIGHTS
from unibiomed_core.model.weights import load, save

WINDOW = Window("soft tissue", -160.0, 240.0)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine()


@pytest.fixture(scope="module")
def exact(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "toy"
    save(engine.model, engine.processor, folder, dtype="float32")
    return folder


def test_single_precision_comes_back_bit_equal(engine: Engine, exact: Path) -> None:
    again, processor = load(exact)
    ours, theirs = engine.model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert processor.config == again.config == engine.model.config
    assert processor.tokenizer.to_str() == engine.processor.tokenizer.to_str()
    assert processor.ids == engine.processor.ids


def test_computed_tables_come_back_too(engine: Engine, exact: Path) -> None:
    again, _ = load(exact)
    ours, theirs = dict(engine.model.named_buffers()), dict(again.named_buffers())
    assert ours.keys() == theirs.keys()
    assert len(ours) > len(engine.model.state_dict().keys() & ours.keys())  # some are not stored
    assert not [name for name, value in theirs.items() if value.is_meta]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_half_precision_is_storage_only(engine: Engine, tmp_path: Path) -> None:
    save(engine.model, engine.processor, tmp_path / "half", dtype="float16")
    stored = load_file(tmp_path / "half" / WEIGHTS)
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}
    again, _ = load(tmp_path / "half")
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    ours, theirs = engine.model.state_dict(), again.state_dict()
    # Half precision keeps 11 binary digits; below 6e-5 its steps are 6e-8 wide.
    assert all(torch.allclose(ours[name], theirs[name], rtol=2**-11, atol=2**-25) for name in ours)
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_loaded_model_answers_as_before(engine: Engine, exact: Path) -> None:
    again = Engine.load(str(exact), device="cpu")
    ours = engine.predict([ct_slice()], segment("liver"), WINDOW)[0][0]
    theirs = again.predict([ct_slice()], segment("liver"), WINDOW)[0][0]
    assert ours.text == theirs.text
    assert len(ours.phrases) == len(theirs.phrases) == 1
    assert ours.phrases[0].score == close(theirs.phrases[0].score)
    ours_mask, theirs_mask = ours.phrases[0].mask, theirs.phrases[0].mask
    assert ours_mask is not None
    assert theirs_mask is not None
    assert same_masks(ours_mask.full(), theirs_mask.full())


def test_loading_draws_no_random_number(exact: Path) -> None:
    before = torch.random.get_rng_state()
    load(exact)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_saving_again_replaces_and_leaves_nothing_beside(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    save(engine.model, engine.processor, folder)
    other = toy_engine(seed=2)
    save(other.model, other.processor, folder, dtype="float32")
    assert [f.name for f in tmp_path.iterdir()] == ["toy"]
    assert torch.equal(load(folder)[0].bridge[0].weight, other.model.bridge[0].weight)


def test_all_files_are_as_readable_as_the_others(exact: Path) -> None:
    assert (exact / WEIGHTS).stat().st_mode == (exact / CONFIG).stat().st_mode
