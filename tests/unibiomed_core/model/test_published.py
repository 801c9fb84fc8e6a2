"""The published layout: every key of the full-size checkpoint, both ways, and strictness."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unibiomed_core.errors import WeightsError
from unibiomed_core.model import published
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import TokenIds
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import load


@pytest.fixture(scope="module")
def full_size() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return UniBiomed(preset("1b"), TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3)).state_dict()


def test_all_full_size_keys_map_one_to_one(shared: Path, full_size: dict[str, torch.Tensor]) -> None:
    listed = json.loads((shared / "parity" / "full-keys.json").read_text())["keys"]
    wanted = {row["key"]: tuple(row["shape"]) for row in listed}
    assert len(wanted) == 1541
    there = published.to_published(full_size)
    assert {name: tuple(value.shape) for name, value in there.items()} == wanted
    back = published.to_native(there, full_size)
    assert {n: v.shape for n, v in back.items()} == {n: v.shape for n, v in full_size.items()}


def test_the_way_there_and_back_keeps_every_value(shared: Path) -> None:
    model, _ = load(shared / "parity" / "tiny-a")
    original = load_file(shared / "parity" / "tiny-a" / "model.safetensors")
    again = published.to_published(model.state_dict())
    assert again.keys() == original.keys()
    assert all(torch.equal(again[name], original[name].float()) for name in original)


def test_missing_and_unknown_tensors_are_named(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(shared / "parity" / "tiny-a", folder)
    tensors = load_file(folder / "model.safetensors")
    lost = tensors.pop("text_hidden_fcs.0.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing: text_hidden_fcs\.0\.bias"):
        load(folder)
    save_file(tensors | {"text_hidden_fcs.0.bias": lost, "surprise": lost + 1}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="not known: surprise"):
        load(folder)


def test_shards_are_read_together(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(shared / "parity" / "tiny-a", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({n: tensors[n] for n in own}, folder / file)
    index = {"weight_map": {n: file for file, own in parts.items() for n in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole, _ = load(shared / "parity" / "tiny-a")
    sharded, _ = load(folder)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), sharded.state_dict().values(), strict=True)
    )
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match="model-2"):
        load(folder)


def test_half_precision_files_are_computed_in_float32(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(shared / "parity" / "tiny-a", folder)
    tensors = load_file(folder / "model.safetensors")
    half = {n: t.bfloat16() if n.startswith("vision_model") else t for n, t in tensors.items()}
    save_file(half, folder / "model.safetensors")
    model, _ = load(folder)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_another_model_is_refused(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(shared / "parity" / "tiny-a", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"ps_version": "v1"}))
    with pytest.raises(WeightsError, match="ps_version"):
        load(folder)
