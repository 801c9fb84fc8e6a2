"""Writes a model in the published layout (``sa2va_chat``): tensors under published names, sharded, and configuration.

The repository's Python code is not written: whoever wants to open the folder with it puts it there.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unibiomed_core.errors import WeightsError, WriteError
from unibiomed_core.files import replaced_folder
from unibiomed_core.model.config import GroundingSizes, UniBiomedConfig
from unibiomed_core.model.folder import CONFIG, TOKENIZER, UNFIT
from unibiomed_core.model.library_config import library_values
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.published import FIXED, GROUNDING_NAMES, MASK_DECODER_NAMES, to_published
from unibiomed_core.model.unibiomed import UniBiomed

INDEX, SAM, TOKENIZER_CONFIG = "model.safetensors.index.json", "sam2.json", "tokenizer_config.json"
SHARD_SIZE = "5GB"


def save_published(model: UniBiomed, processor: Processor, folder: Path, shard_size: str = SHARD_SIZE) -> None:
    """Write a published folder, float32; an error or a kill leaves the old folder or the new one whole.

    Left behind is what that layout has no place for: presence thresholds, learnt targets, wordings and facts.

    Raises:
        WeightsError: The model has parts that the published one lacks, or lacks parts that it has.
        WriteError: The folder cannot be written, holds something else, or the model has unmerged adapters.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    config = model.config
    if not config.grounding.memory:
        raise WeightsError(
            UNFIT, f"'{config.name}' has no memory parts in its SAM 2", "a model with them, as the published one",
            "Export it in this product's own layout.",
        )  # fmt: skip
    state = model.state_dict()
    if any("lora_" in name for name in state):
        raise WriteError("Weights not written", "the model has adapters that are not merged", "a plain model")
    tensors = {name: _stored(name, value) for name, value in to_published(state).items()}
    plan = split_torch_state_dict_into_shards(tensors, max_shard_size=shard_size)
    documents: dict[str, Any] = {TOKENIZER_CONFIG: _TOKENIZER_VALUES, CONFIG: config_values(config)}
    if config.grounding != GroundingSizes():
        documents = {SAM: grounding_values(config.grounding), **documents}
    if plan.is_sharded:
        documents = {INDEX: {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}, **documents}
    with replaced_folder(folder, (*plan.filename_to_tensors, TOKENIZER, *documents)) as aside:
        for file, names in plan.filename_to_tensors.items():
            save_file({name: tensors[name] for name in names}, aside / file, metadata={"format": "pt"})
        (aside / TOKENIZER).write_text(processor.tokenizer.to_str(pretty=True), "utf-8")
        for file, values in documents.items():
            (aside / file).write_text(json.dumps(values, indent=1), "utf-8")


def config_values(config: UniBiomedConfig) -> dict[str, Any]:
    """A ``config.json`` that the reader turns into the same sizes and tiling."""
    vision, language, tiling = config.vision, config.language, config.preprocessing
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": "sa2va_chat",
        **FIXED,
        "force_image_size": vision.image_size,
        "dynamic_image_size": tiling.tiling == "dynamic",
        "min_dynamic_patch": 1,
        "max_dynamic_patch": tiling.max_tiles if tiling.tiling == "dynamic" else 1,
        "use_thumbnail": tiling.thumbnail,
        "pad2square": False,
        "hidden_size": language.hidden,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            **library_values(vision),
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "num_channels": 3,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "norm_type": "layer_norm",
            "qk_normalization": False,
            "qkv_bias": True,
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            **library_values(language),
            "rope_theta": language.rope_theta,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
        },
    }


def grounding_values(sizes: GroundingSizes) -> dict[str, Any]:
    """A ``sam2.json`` for a SAM 2 of another size than the published one."""
    given = asdict(sizes)
    values = {theirs: given[ours] for ours, theirs in GROUNDING_NAMES.items()}
    return {**values, "mask_decoder": {theirs: given[ours] for ours, theirs in MASK_DECODER_NAMES.items()}}


_TOKENIZER_VALUES = {
    "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
}  # fmt: skip


def _stored(name: str, value: Tensor) -> Tensor:
    stored = value.detach().cpu().float().contiguous() if value.is_floating_point() else value.detach().cpu()
    if not torch.isfinite(stored).all():
        raise WriteError("Weights not written", f"{name} has values that are not finite", "finite weights")
    return stored
