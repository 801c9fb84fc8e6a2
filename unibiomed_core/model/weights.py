"""Weights on disk: save, load, check, find.

A folder of ours holds ``model.safetensors``, ``config.json``, ``tokenizer.json`` and ``manifest.json`` with the size
and SHA-256 of each file. A published folder (``sa2va_chat``) is read through the name map in ``published.py``. Nothing
but safetensors and JSON is ever opened and no code in a folder is run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unibiomed_core.errors import WeightsError, WriteError
from unibiomed_core.files import describe_file, read_json, replaced_folder
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.folder import (
    CONFIG,
    LARGEST_JSON,
    MANIFEST,
    TOKENIZER,
    UNFIT,
    WEIGHTS,
    read_config,
    read_tensors,
    read_tokenizer,
)
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

EMBEDDED = ("mini",)
"""Models that are shipped inside the package."""


def save(
    model: UniBiomed, processor: Processor, folder: Path, dtype: Literal["float16", "float32"] = "float16"
) -> None:
    """Write a folder in our layout; an error or a kill at any moment leaves the old folder or the new one whole.

    Args:
        dtype: What floating tensors are stored as.

    Raises:
        WriteError: The folder cannot be written, holds something that is not a model of ours, or the model has
            unmerged adapters or values that ``dtype`` cannot hold.
    """
    kind = {"float16": torch.float16, "float32": torch.float32}[dtype]
    state = model.state_dict()
    if any("lora_" in name for name in state):
        raise WriteError(
            "Weights not written", "the model has adapters that are not merged", "a plain model", "Merge them first."
        )
    with replaced_folder(folder, (WEIGHTS, CONFIG, TOKENIZER, MANIFEST)) as aside:
        save_file({name: _stored(name, value, kind) for name, value in state.items()}, aside / WEIGHTS)
        # Not Tokenizer.save: it raises plain Exception where the disk is full.
        (aside / TOKENIZER).write_text(processor.tokenizer.to_str(pretty=True), "utf-8")
        _write_about(model.config, aside)


def save_reconfigured(source: Path, config: UniBiomedConfig, folder: Path) -> None:
    """Write a folder in our layout with the weights and tokenizer of another, byte for byte, and its own configuration.

    Raises:
        WeightsError: The other folder is not whole, or not in our layout.
        WriteError: As for :func:`save`.
    """
    if read_config(source).get("format") != "unibiomed":
        raise WeightsError(UNFIT, f"{source.name} is not in this product's layout", "a folder that this product wrote")
    _verify(source)
    with replaced_folder(folder, (WEIGHTS, CONFIG, TOKENIZER, MANIFEST)) as aside:
        for name in (WEIGHTS, TOKENIZER):
            shutil.copyfile(source / name, aside / name)
        _write_about(config, aside)


def _write_about(config: UniBiomedConfig, folder: Path) -> None:
    """Configuration and manifest, beside weights and tokenizer."""
    (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=1), "utf-8")
    manifest = {name: describe_file(folder / name) for name in (WEIGHTS, CONFIG, TOKENIZER)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")


def load(
    folder: Path | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32, verify: bool = True
) -> tuple[UniBiomed, Processor]:
    """Read a model in either layout; strict in names and shapes.

    Args:
        dtype: What the model computes in, whatever the file holds.
        verify: Compare every file with the manifest's hash, where there is a manifest.

    Raises:
        WeightsError: The folder or a file is missing, damaged, of another model, or holds pickles only.
    """
    folder = Path(folder)
    values = read_config(folder)
    if values.get("model_type") == "sa2va_chat":
        from unibiomed_core.model.published import read_published

        config, tensors = read_published(folder, values)
    else:
        if verify:
            _verify(folder)
        config = UniBiomedConfig.from_dict(values)
        tensors = read_tensors(folder / WEIGHTS)
    processor = Processor(config, read_tokenizer(folder))
    model = empty(config, processor)
    assign(model, tensors, dtype)
    return model.to(device).eval(), processor


def empty(config: UniBiomedConfig, processor: Processor) -> UniBiomed:
    """The model without values: nothing is allocated and no random number is drawn.

    Raises:
        WeightsError: The sizes do not belong together.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        with torch.device("meta"):
            return UniBiomed(config, processor.ids)
    except (StrictDataclassError, TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as cause:
        raise WeightsError(
            UNFIT, f"no model can be made of {CONFIG}: {cause}", "sizes that belong together", "Download again."
        ) from cause


def assign(model: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Put tensors into a model made on the meta device.

    Raises:
        WeightsError: A name is missing or too many, or a shape or kind of number differs; the first few are named.
    """
    wanted = dict(model.state_dict())
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    kinds = [
        f"{name} is {tensors[name].dtype}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].is_floating_point() != value.is_floating_point()
    ]
    problems = [
        f"{len(found)} tensors {what}: {', '.join(found[:3])}"
        for what, found in (
            ("missing", missing),
            ("not known", extra),
            ("of another shape", shapes),
            ("of another type", kinds),
        )
        if found
    ]
    if problems:
        raise WeightsError(UNFIT, "; ".join(problems), f"{len(wanted)} tensors of this size", "Choose another folder.")
    ready = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
    model.load_state_dict(ready, strict=True, assign=True)
    _make_unsaved_buffers(model)


def _make_unsaved_buffers(model: nn.Module) -> None:
    """Tables that are computed and not stored (rotary frequencies) are made anew where the meta device left none."""
    for module in model.modules():
        lost = [name for name, value in module.named_buffers(recurse=False) if value.is_meta]
        if lost:
            with torch.device("cpu"):
                fresh = type(module)(module.config)
            for name in lost:
                module.register_buffer(name, fresh.get_buffer(name), persistent=False)


def _verify(folder: Path) -> None:
    listed = "the list of files and hashes"
    manifest = read_json(folder / MANIFEST, WeightsError, "Weights damaged", listed, LARGEST_JSON)
    if not isinstance(manifest, dict):
        raise WeightsError("Weights damaged", f"{MANIFEST} is no JSON object", "the list of files and hashes")
    for name in (WEIGHTS, CONFIG, TOKENIZER):
        file = folder / name
        if name not in manifest or not file.is_file():
            found, expected = f"{folder.name} has no {name}", "every file of the manifest"
            raise WeightsError("Weights not found", found, expected, code="weights_not_found")
        if describe_file(file) != manifest[name]:
            raise WeightsError(
                "Weights damaged", f"the checksum of {name} differs", "the manifest's", "Download or copy it again."
            )


def _stored(name: str, value: Tensor, kind: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value.contiguous()
    stored = value.to(kind).contiguous()
    if not torch.isfinite(stored).all():
        raise WriteError(
            "Weights not written", f"{name} has values that are not finite as {kind}", "finite weights",
            "Store them as float32, or look for the cause in the training run.",
        )  # fmt: skip
    return stored


def resolve(model: str, offline: bool = True) -> Path:
    """The folder of a model by preset name, path or downloaded hub id.

    Raises:
        WeightsError: There is none; says how to get it.
    """
    if model in EMBEDDED:
        return Path(str(files("unibiomed_core.model") / "assets" / model))
    if Path(model).is_dir():
        return Path(model)
    from unibiomed_core.model.hub import cached

    return cached(model, offline)
