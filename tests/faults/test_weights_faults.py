"""Every way a weights folder can be wrong, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from toy import toy_engine

from unibiomed_core.errors import ConfigError, WeightsError, WriteError
from unibiomed_core.model import hub
from unibiomed_core.model.adapters import adapter_parameters, add_lora, load_adapter, merge_lora, save_adapter
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import Processor, TokenIds
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import MANIFEST, WEIGHTS, describe_file, load, resolve, save


def toy_model() -> tuple[UniBiomed, Processor]:
    """Random weights, always the same."""
    engine = toy_engine()
    return engine.model, engine.processor


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("weights") / "toy"
    save(*toy_model(), folder, dtype="float32")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "toy")
    return tmp_path / "toy"


def rehash(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file, so that the check after it is reached."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {name: describe_file(folder / name)}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    rehash(folder, WEIGHTS)


def test_what_was_saved_is_loaded(whole: Path) -> None:
    model, _ = toy_model()
    again, processor = load(whole)
    ours, theirs = model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(b.is_meta for b in again.buffers())
    assert processor.config == again.config


def test_half_precision_is_storage_only(tmp_path: Path) -> None:
    save(*toy_model(), tmp_path / "half", dtype="float16")
    model, _ = load(tmp_path / "half")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stored = load_file(tmp_path / "half" / WEIGHTS)
    assert {t.dtype for t in stored.values() if t.is_floating_point()} == {torch.float16}


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no folder"):
        load(tmp_path / "nowhere")


def test_pickles_are_never_opened(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin.*never opened"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", MANIFEST])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load(folder)


def test_missing_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop("bridge.0.bias"))
    with pytest.raises(WeightsError, match=r"1 tensors missing: bridge\.0\.bias"):
        load(folder)


def test_extra_tensor(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update(surprise=torch.zeros(1)))
    with pytest.raises(WeightsError, match="1 tensors not known: surprise"):
        load(folder)


def test_wrong_shape(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"bridge.0.bias": torch.zeros(3)}))
    with pytest.raises(WeightsError, match=r"bridge\.0\.bias is \(3,\), not \(48,\)"):
        load(folder)


def test_flipped_byte(folder: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-7] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(WeightsError, match="checksum of model"):
        load(folder)


def test_truncated_file(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(WeightsError, match="checksum"):
        load(folder)
    rehash(folder, WEIGHTS)
    with pytest.raises(WeightsError, match="damaged"):
        load(folder)


@pytest.mark.parametrize(("text", "said"), [("{", "cannot be read"), ("[]", "no JSON object"), ("{}", "layout")])
def test_wrong_configuration(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    rehash(folder, "config.json")
    with pytest.raises(WeightsError, match=said):
        load(folder)


def test_later_format(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"format_version": 99}))
    rehash(folder, "config.json")
    with pytest.raises(WeightsError, match="format version 99"):
        load(folder)


def test_garbled_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    rehash(folder, "tokenizer.json")
    with pytest.raises(WeightsError, match=r"tokenizer\.json cannot be read"):
        load(folder)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(WriteError, match="not a model"):
        save(*toy_model(), tmp_path / "photos")
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_full_disk_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {f.name: f.read_bytes() for f in folder.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left"):
        save(*toy_model(), folder)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == before


def test_unknown_and_not_downloaded_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no preset, folder, or model of the hub"):
        resolve("huge")
    with pytest.raises(WeightsError, match="unibiomed models download unibiomed-1b"):
        resolve("unibiomed-1b")


def test_offline_opens_no_socket(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    from unibiomed_core.engine.engine import Engine

    assert Engine.load(str(whole), device="cpu").info.parameters > 0
    with pytest.raises(WeightsError, match="not downloaded"):
        Engine.load("unibiomed-1b", device="cpu")
    with pytest.raises(WeightsError, match="Offline mode is on"):
        hub.download("unibiomed-1b", lambda done, total: None, offline=True)


def test_a_failed_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Unreachable:
        def model_info(self, *_: object, **__: object) -> None:
            raise ConnectionError("no route to host")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Unreachable)
    with pytest.raises(WeightsError, match=r"Download stopped before it began.*no route.*again"):
        hub.download("unibiomed-1b", lambda done, total: None)


def test_full_size_adapters_have_the_published_count() -> None:
    with torch.device("meta"):
        model = UniBiomed(preset("1b"), TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3))
        add_lora(model, rank=128, alpha=256)
    assert adapter_parameters(model) == 70_385_664


def test_adapters_change_nothing_until_trained_and_merge_exactly(tmp_path: Path) -> None:
    model, _ = toy_model()
    ids = torch.arange(12).reshape(1, 12)
    plain = model.language(model.embed(ids, None))
    add_lora(model, rank=4, alpha=8, dropout=0.0)
    assert torch.equal(model.language(model.embed(ids, None)), plain)
    with pytest.raises(ConfigError, match="already"):
        add_lora(model)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    adapted = model.language(model.embed(ids, None))
    assert not torch.allclose(adapted, plain, atol=1e-3)
    save_adapter(model, tmp_path / "adapter.safetensors")
    other, _ = toy_model()
    add_lora(other, rank=4, alpha=8, dropout=0.0)
    load_adapter(other, tmp_path / "adapter.safetensors")
    assert torch.equal(other.language(other.embed(ids, None)), adapted)
    third, _ = toy_model()
    add_lora(third, rank=2, alpha=8, dropout=0.0)
    with pytest.raises(WeightsError, match="adapter tensors differ"):
        load_adapter(third, tmp_path / "adapter.safetensors")
    merge_lora(model)
    assert adapter_parameters(model) == 0
    assert torch.allclose(model.language(model.embed(ids, None)), adapted, atol=1e-5)
