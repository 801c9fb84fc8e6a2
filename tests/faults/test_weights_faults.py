"""Every way a weights folder can be wrong, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.unibiomed_core.engine.toy import toy_engine
from unibiomed_core.errors import WeightsError, WriteError
from unibiomed_core.files import describe_file
from unibiomed_core.model.folder import MANIFEST, WEIGHTS
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import load, save


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


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    rehash(folder, WEIGHTS)


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


def test_wrong_kind_of_number(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"bridge.0.bias": torch.zeros(48, dtype=torch.int32)}))
    with pytest.raises(WeightsError, match=r"of another type: bridge\.0\.bias is torch\.int32"):
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


@pytest.mark.parametrize(
    ("text", "said"), [("{", "config.json, line 1, column 2"), ("[]", "no JSON object"), ("{}", "layout")]
)
def test_wrong_configuration(folder: Path, text: str, said: str) -> None:
    (folder / "config.json").write_text(text)
    rehash(folder, "config.json")
    with pytest.raises(WeightsError, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("language", {"heads": 5}),
        ("language", {"hidden": "48"}),
        ("vision", {"patch_size": 0}),
        ("vision", {"surprise": 1}),
        ("grounding", {"decoder_heads": 0}),
        ("grounding", {"windows": 8}),
        ("language", {"layers": 16_777_218}),
        ("grounding", {"stages": [1, 1 << 30, 2, 1]}),
        ("tower", {"repeats": [1 << 30] * 7}),
        ("vision", {"image_size": -448}),
    ],
)
def test_sizes_that_make_no_model(folder: Path, part: str, changes: dict[str, object]) -> None:
    values = json.loads((folder / "config.json").read_text())
    values[part] |= changes
    (folder / "config.json").write_text(json.dumps(values))
    rehash(folder, "config.json")
    with pytest.raises(WeightsError, match="do not fit this model"):
        load(folder)


@pytest.mark.parametrize("text", ["null", "[]", "{", '"model.safetensors"', "{}", '{"model.safetensors": 3}'])
def test_garbled_manifest(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(WeightsError):
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


def test_tokenizer_without_the_special_tokens(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["added_tokens"] = [t for t in values["added_tokens"] if t["content"] != "[SEG]"]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    rehash(folder, "tokenizer.json")
    with pytest.raises(WeightsError, match=r"tokenizer lacks \[SEG\]"):
        load(folder)


def test_tokenizer_larger_than_the_model(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"surplus{i}" for i in range(513 - tokenizer.get_vocab_size())])
    tokenizer.save(str(folder / "tokenizer.json"))
    rehash(folder, "tokenizer.json")
    with pytest.raises(WeightsError, match=r"513 tokens.*at most the model's 512"):
        load(folder)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    with pytest.raises(WriteError, match="not a model"):
        save(*toy_model(), tmp_path / "photos")
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"


def test_a_model_with_other_files_beside_it_is_not_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    before = contents(folder)
    with pytest.raises(WriteError, match=r"notes\.txt"):
        save(*toy_model(), folder)
    assert contents(folder) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(WriteError, match="not written"):
        save(*toy_model(), tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"


@pytest.mark.parametrize("call", ["fsync", "tokenizer"])
def test_full_disk_keeps_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = contents(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WriteError, match="No space left"):
        save(*toy_model(), folder)
    assert contents(folder) == before
    assert [f.name for f in folder.parent.iterdir()] == ["toy"]  # nothing half-written keeps the disk full


def test_a_failed_rename_brings_the_old_model_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = contents(folder), Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source.name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match="Input/output error"):
        save(*toy_model(), folder)
    assert contents(folder) == before
    assert [f.name for f in folder.parent.iterdir()] == ["toy"]


class Killed(BaseException):
    """What a kill is to the code: no handler of ordinary errors runs."""


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_kill_loses_neither_model(folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    before, rename = contents(folder), Path.rename

    def killed(source: Path, target: Path) -> Path:
        if (moment == "before" and source == folder) or (moment == "between" and source.name == "new"):
            raise Killed
        return rename(source, target)

    def killed_deleting(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "rename", killed)
    if moment == "after":
        monkeypatch.setattr("unibiomed_core.files.shutil.rmtree", killed_deleting)
    other = toy_engine(seed=2)
    with pytest.raises(Killed):
        save(other.model, other.processor, folder, dtype="float32")
    monkeypatch.undo()
    whole = [f for f in folder.parent.iterdir() if (f / MANIFEST).is_file()]
    assert any(contents(f) == before for f in whole)
    for found in whole:
        load(found)
    save(other.model, other.processor, folder, dtype="float32")  # the next save is not in the way of what was left
    assert torch.equal(load(folder)[0].bridge[0].weight, other.model.bridge[0].weight)
    if moment == "between":
        assert any(f != folder and contents(f) == before for f in whole)


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model, processor = toy_model()
    with torch.no_grad():
        model.bridge[0].bias[0] = 1e6  # finite, but not in half precision
    with pytest.raises(WriteError, match=r"bridge\.0\.bias has values that are not finite"):
        save(model, processor, tmp_path / "toy", dtype="float16")
    assert not list(tmp_path.iterdir())
    save(model, processor, tmp_path / "toy", dtype="float32")
    assert load(tmp_path / "toy")[0].bridge[0].bias[0] == 1e6
