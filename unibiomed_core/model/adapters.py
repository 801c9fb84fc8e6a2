"""LoRA adapters on the language model, through peft."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibiomed_core.errors import ConfigError, WeightsError
from unibiomed_core.model.unibiomed import UniBiomed

if TYPE_CHECKING:
    from types import ModuleType

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of the language model but the head, as published."""


def add_lora(model: UniBiomed, rank: int = 128, alpha: int = 256, dropout: float = 0.05) -> None:
    """Put adapters into the language model; its own weights are frozen, the adapters are trained.

    Raises:
        ConfigError: peft is not installed, or the model has adapters already.
    """
    peft = _peft()
    if adapter_parameters(model):
        raise ConfigError("Adapters are there already", "the language model has LoRA layers", "a model without")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none", target_modules=list(LINEARS))
    peft.inject_adapter_in_model(config, model.vlm.model.language_model)
    for name, parameter in model.vlm.model.language_model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def adapter_parameters(model: UniBiomed) -> int:
    """How many elements the adapters have; 0 without adapters."""
    return sum(p.numel() for n, p in model.vlm.model.language_model.named_parameters() if "lora_" in n)


def merge_lora(model: UniBiomed) -> None:
    """Add the adapters to the weights and take them out; the model then saves in the plain layout."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    language = model.vlm.model.language_model
    for name, module in list(language.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(language.get_submodule(parent), child, module.get_base_layer())


def save_adapter(model: UniBiomed, file: Path) -> None:
    """Write the adapters alone as safetensors.

    Raises:
        ConfigError: The model has none.
    """
    from safetensors.torch import save_file

    state = _peft().get_peft_model_state_dict(model.vlm.model.language_model)
    if not state:
        raise ConfigError("No adapters", "the language model has no LoRA layers", "a model with adapters")
    save_file({name: value.contiguous() for name, value in state.items()}, file)


def load_adapter(model: UniBiomed, file: Path) -> None:
    """Fill adapters that :func:`add_lora` made.

    Raises:
        WeightsError: The file is missing or damaged, or its names or shapes are not the model's.
    """
    from unibiomed_core.model.weights import UNFIT, read_tensors

    tensors, peft = read_tensors(file), _peft()
    language = model.vlm.model.language_model
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


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as cause:
        raise ConfigError(
            "peft is not installed", str(cause), "the training extra", "pip install '.[train]'"
        ) from cause
    return peft
