"""From a run to weights: merged, in both layouts, and back; a lab's own folder to a model that knows its target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.alike import close, same_masks
from tests.train.toy_runs import ct_slice, records_of_every_role, toy_engine
from train.calibration import calibrate
from train.calibration.scene import SceneFit
from train.run import run
from train.run_records import training_records
from train.training.export import export_run, read_run
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import ConfigError, WeightsError, WriteError
from unibiomed_core.modalities import Window
from unibiomed_core.model.adapters import add_lora
from unibiomed_core.model.config import Preprocessing, Presence, SceneSizes
from unibiomed_core.model.presets import toy
from unibiomed_core.model.scene import SceneHead
from unibiomed_core.model.weights import load, save
from unibiomed_core.model.write_published import save_published
from unibiomed_core.types import Prompt, Slice

MEMORY = replace(toy().grounding, memory=True, memory_dim=16, memory_layers=1, memory_fuser_layers=1, memory_mlp=32)
WINDOW = Window("as is", 0.0, 255.0)
POINT_POSITIONS = "grounder.sam.prompt_encoder.shared_embedding.positional_embedding"
"""Positions of clicked points, unused here; the published layout has one matrix for these and for masks."""


def silent(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model with memory, as a folder to start from."""
    engine = toy_engine(grounding=MEMORY)
    folder = tmp_path_factory.mktemp("start") / "model"
    save(engine.model, engine.processor, folder, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of our recipe for the published size, at toy size and two steps."""
    folder = tmp_path_factory.mktemp("run")
    records_of_every_role(folder / "records")
    settings = [
        f"init={start}", f"data={folder / 'records'}", f"out={folder / 'run'}", "precision=float32", "adapters=2",
        "workers=0", "validation_share=0", "joint.steps=2", "joint.batch_size=2", "joint.micro_batch=1",
        "joint.learning_rate=0.01",
    ]  # fmt: skip
    run("unibiomed_1b", settings)
    return folder / "run"


def test_export_merges_what_was_trained_and_keeps_the_rest(trained: Path, start: Path) -> None:
    before, after = load(start)[0].state_dict(), load(trained / "export")[0].state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=2e-3)}
    assert any(".q_proj.weight" in name and "language_model" in name for name in changed)
    assert any(name.startswith("bridge.") for name in changed)
    assert not [n for n in changed if "vision_tower" in n or "vision_encoder" in n or "memory" in n]
    seg = load(start)[0].ids.seg
    table = "vlm.model.language_model.embed_tokens.weight"
    moved = (before[table] - after[table]).abs().amax(dim=1)
    assert moved[:seg].max() < 2e-3
    assert moved[seg] > 2e-3


def test_export_of_a_run_folder_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    export_run([str(trained), str(tmp_path / "ours")], training_records, silent)
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (trained / "export" / name).read_bytes()
    kept, again = (load(folder)[0].state_dict() for folder in (trained / "export", tmp_path / "ours"))
    assert kept.keys() == again.keys()
    # Adapters are merged anew; the last digit of half precision may fall otherwise.
    assert all(torch.allclose(kept[name], again[name], rtol=2**-10, atol=2**-24) for name in kept)
    export_run([str(trained), str(tmp_path / "published"), "published"], training_records, silent)
    ours, published = (load(tmp_path / name)[0].state_dict() for name in ("ours", "published"))
    assert ours.keys() == published.keys()
    different = [name for name in ours if not torch.allclose(ours[name], published[name], atol=1e-3)]
    assert different == [POINT_POSITIONS]
    assert read_run(trained).recipe == "unibiomed_1b"


def test_the_published_layout_leaves_the_first_look_out(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = SceneSizes(("ct", "endoscopy"), ("chest", "bowel"), ("endoscopy/polyp",))
    monkeypatch.setattr(calibrate, "fit_scene", lambda *_: SceneFit(SceneHead(sizes).eval(), None, None, {}, (100, 0)))
    for layout, scene in (("unibiomed", sizes), ("published", None)):
        export_run([str(trained), str(tmp_path / layout), layout], training_records, silent)
        assert load(tmp_path / layout)[0].config.scene == scene


def test_export_takes_what_every_stage_trained(tmp_path: Path) -> None:
    records_of_every_role(tmp_path / "records")
    settings = [f"data={tmp_path / 'records'}", f"out={tmp_path / 'run'}", "validation_share=0", "save_every=1"]
    settings += [f"{stage}.{name}={value}" for stage in ("grounding", "language", "joint")
                 for name, value in (("steps", 1), ("warmup", 0), ("learning_rate", 0.01))]  # fmt: skip
    run("toy", settings)
    export_run([str(tmp_path / "run"), str(tmp_path / "again")], training_records, silent)
    again = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert again == (tmp_path / "run" / "export" / "model.safetensors").read_bytes()


def test_what_cannot_be_exported_is_told(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="RUN OUT"):
        export_run([str(trained)], training_records, silent)
    with pytest.raises(ConfigError, match="RUN OUT"):
        export_run([str(trained), "out", "onnx"], training_records, silent)
    with pytest.raises(ConfigError, match="No run there"):
        export_run([str(tmp_path), "out"], training_records, silent)
    untrained = tmp_path / "untrained"
    untrained.mkdir()
    (untrained / "config.json").write_bytes((trained / "config.json").read_bytes())
    with pytest.raises(ConfigError, match="Nothing trained yet"):
        export_run([str(untrained), str(tmp_path / "out")], training_records, silent)
    engine = toy_engine()
    with pytest.raises(WeightsError, match="memory"):
        save_published(engine.model, engine.processor, tmp_path / "out")
    add_lora(engine.model, 2, 4)
    with pytest.raises(WriteError, match="adapters"):
        save_published(toy_with_adapters().model, engine.processor, tmp_path / "out")


def toy_with_adapters() -> Engine:
    engine = toy_engine(grounding=MEMORY)
    add_lora(engine.model, 2, 4)
    return engine


@pytest.mark.parametrize("shard_size", ["5GB", "200KB"])
def test_the_published_layout_answers_alike(shard_size: str, tmp_path: Path) -> None:
    tiling, presence = Preprocessing("dynamic", max_tiles=4), Presence("mask", 0.0)
    engine = toy_engine(grounding=MEMORY, preprocessing=tiling, presence=presence)
    folder = tmp_path / "published"
    save_published(engine.model, engine.processor, folder, shard_size)
    save_published(engine.model, engine.processor, folder, shard_size)  # in place of itself
    assert (folder / "model.safetensors.index.json").is_file() == (shard_size == "200KB")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sa2va_chat"
    again = Engine.load(str(folder), device="cpu")
    assert again.info.layout == "sa2va_chat"
    assert again.model.config.grounding == engine.model.config.grounding
    assert again.model.config.preprocessing == engine.model.config.preprocessing
    same = engine.model.state_dict()
    different = [name for name, value in again.model.state_dict().items() if not torch.equal(value, same[name])]
    assert different == [POINT_POSITIONS]
    prompts = [Prompt("segment", target="liver"), Prompt("vqa", question="What is this?", max_new_tokens=12)]
    ours, theirs = (e.predict([ct_slice()], prompts, WINDOW)[0] for e in (engine, again))
    for a, b in zip(ours, theirs, strict=True):
        assert a.raw_text == b.raw_text
        assert len(a.phrases) == len(b.phrases)
        assert [p.score for p in a.phrases] == close([p.score for p in b.phrases])
        for p, q in zip(a.masks, b.masks, strict=True):
            assert same_masks(p.full(), q.full())


def test_a_single_tile_stays_a_single_tile(tmp_path: Path) -> None:
    engine = toy_engine(grounding=MEMORY)
    save_published(engine.model, engine.processor, tmp_path / "published")
    _, processor = load(tmp_path / "published")
    assert len(processor.tiles(np.zeros((60, 300, 3), np.uint8))) == 1


def lab_folder(root: Path) -> Path:
    """Pictures and masks of something that the vocabulary does not know."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(16):
        picture = rng.integers(20, 60, (60, 80, 3), np.uint8)
        mask = (rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(20, 60)) ** 2 < 150
        picture[mask] = 200
        Image.fromarray(picture).save(root / "images" / f"p{number}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"p{number}.png")
    (root / "labels.json").write_text('{"zebrafish eye": 255}', "utf-8")
    return root


def test_fine_tuning_on_a_folder_makes_a_model_that_knows_its_target(start: Path, tmp_path: Path) -> None:
    data = lab_folder(tmp_path / "lab")
    exported = run(
        "finetune",
        [
            f"data={data}", "modality=pathology", f"init={start}", f"out={tmp_path / 'run'}", "joint.steps=2",
            "joint.batch_size=2", "joint.targets_per_picture=2",
        ],
    )  # fmt: skip
    engine = Engine.load(str(exported), device="cpu")
    assert engine.info.targets == {"pathology": ("zebrafish eye",)}
    assert "lab" in engine.info.facts["trained_on"]
    piece = Slice(np.asarray(Image.open(data / "images" / "p0.png")), "axial", 0, (1.0, 1.0), "pathology")
    (answer,) = engine.predict([piece], [Prompt("segment", target="Zebrafish eye")], WINDOW)[0]
    assert [phrase.target for phrase in answer.phrases] == ["zebrafish eye"]
