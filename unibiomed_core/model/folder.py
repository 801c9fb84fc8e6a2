"""A model's folder on disk: configuration, tensors and tokenizer, read without running any code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from unibiomed_core.errors import WeightsError
from unibiomed_core.files import read_json

WEIGHTS, CONFIG, TOKENIZER, MANIFEST = "model.safetensors", "config.json", "tokenizer.json", "manifest.json"

LARGEST_JSON = 64 << 20
"""Bytes of a configuration or a manifest that is read at all; real ones have some thousands."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

UNFIT = "These weights do not fit this model"


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder in the libraries' layout, as they are named there; sharded or not.

    Raises:
        WeightsError: A file is missing or damaged.
    """

    index = folder / "model.safetensors.index.json"
    told = read_json(index, WeightsError, "Weights damaged", "the list of shards") if index.is_file() else None
    try:
        shards = [] if told is None else sorted(set(told["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as cause:
        raise WeightsError("Weights damaged", f"{index.name}: {cause}", "the list of shards") from cause
    tensors: dict[str, Tensor] = {}
    for shard in shards or ["model.safetensors"]:
        tensors |= read_tensors(folder / Path(shard).name)
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a weights folder.

    Raises:
        WeightsError: The folder or file is missing or no JSON, or there are pickles in place of safetensors.
    """
    require_safetensors(folder)
    if not (folder / CONFIG).exists():
        raise WeightsError("Weights not found", f"{folder.name} has no {CONFIG}", "one", code="weights_not_found")
    values = read_json(folder / CONFIG, WeightsError, UNFIT, "a model's configuration", LARGEST_JSON)
    if not isinstance(values, dict):
        raise WeightsError(UNFIT, f"{CONFIG} is no JSON object", "a model's configuration", "Download again.")
    return values


def require_safetensors(folder: Path) -> None:
    """Check that a folder is there and holds safetensors.

    Raises:
        WeightsError: It does not; pickles in it are named.
    """
    if not folder.is_dir():
        raise WeightsError(
            "Weights not found",
            f"there is no folder {folder}",
            "a preset name, a folder with weights, or a downloaded model",
            command="'unibiomed models' lists what is here.",
            code="weights_not_found",
        )
    if not any(folder.glob("*.safetensors")):
        pickles = [p.name for pattern in PICKLES for p in folder.glob(pattern)]
        raise WeightsError(
            "Weights not found",
            f"{folder.name} holds no safetensors" + (f", but {', '.join(pickles[:3])}" if pickles else ""),
            "safetensors files; pickled weights can run code and are never opened",
            "Convert them, or download the safetensors version.",
            code="no_safetensors",
        )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file.

    Raises:
        WeightsError: It is missing, truncated or damaged.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as cause:
        raise WeightsError(
            "Weights damaged", f"{file.name}: {cause}", "a whole safetensors file", "Download again."
        ) from cause


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a weights folder.

    Raises:
        WeightsError: It is missing or unreadable.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        found, expected = f"{folder.name} has no {TOKENIZER}", "the model's tokenizer"
        raise WeightsError("Weights not found", found, expected, code="weights_not_found")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as cause:  # the library raises plain Exception for every fault
        raise WeightsError(UNFIT, f"{TOKENIZER} cannot be read: {cause}", "a tokenizer", "Download again.") from cause
