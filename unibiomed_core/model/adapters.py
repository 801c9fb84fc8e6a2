"""LoRA adapters on the language model, through peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibiomed_core.errors import ConfigError, WeightsError
from unibiomed_core.files import read_json
from unibiomed_core.model.unibiomed import UniBiomed

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of the language model but the head, as published."""

ADAPTER, SETTINGS = "adapter.safetensors", "adapter.json"


def add_lora(model: UniBiomed, rank: int = 128, alpha: float = 256, dropout: float = 0.05) -> None:
    """Put adapters into the language model; its own weights are frozen, the adapters are trained.

    Raises:
        ConfigError: peft is not installed, the rank is below 1, or the model has adapters already.
    """
    peft = _peft()
    if rank < 1:
        raise ConfigError("Rank of the adapters", f"{rank}", "1 or more")
    if lora_parameter_count(model):
        raise ConfigError("Adapters are there already", "the language model has LoRA layers", "a model without")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=list(LINEARS))
    peft.inject_adapter_in_model(config, _language(model))
    for name, parameter in _language(model).named_parameters():
        parameter.requires_grad_("lora_" in name)


def lora_parameter_count(model: UniBiomed) -> int:
    """How many elements the adapters have; 0 without adapters."""
    return sum(p.numel() for n, p in _language(model).named_parameters() if "lora_" in n)


def merge_lora(model: UniBiomed) -> None:
    """Add the adapters to the weights and take them out; the model then saves in the plain layout.

    The language model's weights stay frozen.

    Raises:
        ConfigError: peft is not installed, or the model has no adapters.
    """
    _settings(model)
    layer_type = _peft().tuners.tuners_utils.BaseTunerLayer
    language: Any = _language(model)
    for name, module in list(language.named_modules()):
        if isinstance(module, layer_type):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(language.get_submodule(parent), child, module.get_base_layer())
    del language.peft_config  # peft's note on the module; with it, new adapters would be taken for a second set


def save_adapter(model: UniBiomed, folder: Path) -> None:
    """Write the adapters alone, with their rank and scale.

    Raises:
        ConfigError: The model has none.
        WriteError: The folder cannot be written, or holds something else.
    """
    from safetensors.torch import save_file

    from unibiomed_core.files import replaced_folder

    settings = _settings(model)
    state = _peft().get_peft_model_state_dict(_language(model))
    with replaced_folder(folder, (ADAPTER, SETTINGS)) as aside:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, aside / ADAPTER)
        (aside / SETTINGS).write_text(json.dumps(settings, indent=1), "utf-8")


def load_adapter(model: UniBiomed, folder: Path) -> None:
    """Read adapters into a model; they are put in first where it has none.

    Raises:
        WeightsError: A file is missing or damaged; names, shapes, rank or scale are not the model's.
        ConfigError: peft is not installed.
    """
    from unibiomed_core.model.folder import UNFIT, read_tensors

    peft = _peft()
    if not (folder / SETTINGS).is_file() or not (folder / ADAPTER).is_file():
        found, expected = f"{folder} holds no adapters", f"{ADAPTER} and {SETTINGS}"
        raise WeightsError("Weights not found", found, expected, code="no_safetensors")
    stored = read_json(folder / SETTINGS, WeightsError, "Weights damaged", "rank, alpha and dropout")
    try:
        rank, alpha, dropout = int(stored["rank"]), float(stored["alpha"]), float(stored["dropout"])
        if rank < 1 or not 0 <= dropout < 1:
            raise ValueError(f"rank {rank} and dropout {dropout:g}")
    except (ValueError, KeyError, TypeError) as cause:
        raise WeightsError("Weights damaged", f"{SETTINGS}: {cause!r}", "rank, alpha and dropout") from cause
    tensors = read_tensors(folder / ADAPTER)
    if not lora_parameter_count(model):
        add_lora(model, rank, alpha, dropout)
    given = _settings(model)
    # Shapes tell the rank but not the scale: with another alpha the same tensors are another model.
    if (given["rank"], given["alpha"]) != (rank, alpha):
        raise WeightsError(
            UNFIT,
            f"the adapters have rank {rank} and alpha {alpha:g}",
            f"rank {given['rank']} and alpha {given['alpha']:g}, as in the model",
        )
    language = _language(model)
    wanted: dict[str, Any] = peft.get_peft_model_state_dict(language)
    wrong = sorted(
        n for n in wanted.keys() | tensors.keys()
        if n not in wanted or n not in tensors or wanted[n].shape != tensors[n].shape
    )  # fmt: skip
    if wrong:
        raise WeightsError(
            UNFIT, f"{len(wrong)} adapter tensors differ: {', '.join(wrong[:3])}", "this model's adapters"
        )
    peft.set_peft_model_state_dict(language, tensors)


def _language(model: UniBiomed) -> nn.Module:
    language: nn.Module = model.vlm.model.language_model
    return language


def _settings(model: UniBiomed) -> dict[str, Any]:
    """Rank, scale and dropout of the adapters in a model."""
    if not lora_parameter_count(model):
        raise ConfigError("No adapters", "the language model has no LoRA layers", "a model with adapters")
    language: Any = _language(model)
    config = next(iter(language.peft_config.values()))
    return {"rank": config.r, "alpha": float(config.lora_alpha), "dropout": float(config.lora_dropout)}


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as cause:
        raise ConfigError(
            "peft is not installed", str(cause), "the training extra", "pip install 'napari-unibiomed[train]'"
        ) from cause
    return peft
