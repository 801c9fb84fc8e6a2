"""A model made of two separate checkpoints: an InternVL and a SAM 2, each in the library's or in its original layout.

The five tokens of this product are added to the tokenizer, with rows near the mean of the others; the bridge between
the two is random. Nothing but safetensors and JSON is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn

from unibiomed_core.errors import WeightsError
from unibiomed_core.model import published
from unibiomed_core.model.config import GroundingSizes, LanguageSizes, Presence, UniBiomedConfig, VisionSizes
from unibiomed_core.model.folder import (
    CONFIG,
    TOKENIZER,
    UNFIT,
    read_config,
    read_folder,
    read_tensors,
    read_tokenizer,
    require_safetensors,
)
from unibiomed_core.model.library_config import language_sizes, vision_sizes
from unibiomed_core.model.processor import ADDED_TOKENS, Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import assign, empty

NOISE = 0.1
"""Deviation of the noise on new rows, in that of the old rows: equal rows would stay equal for a while."""

_TABLES = ("model.language_model.embed_tokens.weight", "lm_head.weight")
_SAM = "grounding_encoder.sam2_model."

_LIBRARY_PREFIXES = (
    (re.compile(r"^language_model\.model\."), "model.language_model."),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^(vision_tower|multi_modal_projector)\."), r"model.\1."),
)
"""Names in InternVL files of the library's earlier versions."""


@dataclass(frozen=True)
class LanguagePart:
    """What an InternVL folder holds, under the names of the library's class."""

    vision: VisionSizes
    language: LanguageSizes
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer


def joined(internvl: Path, sam: Path, seed: int) -> tuple[UniBiomed, Processor]:
    """A model of two folders.

    Args:
        seed: Of the bridge and of the noise on the new rows.

    Raises:
        WeightsError: A folder is missing, damaged, in no known layout or of another architecture; tensors are missing
            or unknown, and the first few are named.
    """
    part = read_internvl(internvl)
    sizes, grounding = read_sam(sam)
    generator = torch.Generator().manual_seed(seed)
    rows = _with_new_tokens(part, generator)
    config = UniBiomedConfig(
        name=f"{internvl.name}+{sam.name}",
        vision=part.vision,
        language=replace(part.language, vocabulary=rows),
        grounding=sizes,
        presence=Presence("object", 0.5),
    )
    processor = Processor(config, part.tokenizer)
    model = empty(config, processor)
    assign(model.vlm, part.tensors, torch.float32)
    assign(model.grounder.sam, grounding, torch.float32)
    assign(model.bridge, _random_bridge(model.bridge, generator), torch.float32)
    return model, processor


def read_internvl(folder: Path) -> LanguagePart:
    """An InternVL folder, "internvl" (the library's) or "internvl_chat" (the original).

    Raises:
        WeightsError: As for :func:`joined`.
    """
    values = read_config(folder)
    kind = values.get("model_type")
    if kind == "internvl_chat":
        # The chat text is this product's, whatever the original used.
        config = published.read_config(folder, {**values, "template": "phi3_chat"})
        vision, language = config.vision, config.language
        tensors = _original_internvl(folder, config)
    elif kind == "internvl":
        vision, language = _library_internvl(folder)
        tensors = _library_names(read_folder(folder))
        if values.get("tie_word_embeddings") or values.get("text_config", {}).get("tie_word_embeddings"):
            tensors.setdefault(_TABLES[1], tensors[_TABLES[0]])
    else:
        raise WeightsError(UNFIT, f"{folder.name} has model_type {kind!r}", "'internvl' or 'internvl_chat'")
    return LanguagePart(vision, language, tensors, _tokenizer(folder))


def read_sam(folder: Path) -> tuple[GroundingSizes, dict[str, Tensor]]:
    """A SAM 2.0 folder: "sam2" or "sam2_video" of the library, or original names in safetensors.

    The original has no configuration: sizes are those of ``sam2.json`` beside it, or hiera-large's.

    Raises:
        WeightsError: As for :func:`joined`.
    """
    require_safetensors(folder)
    if (folder / CONFIG).is_file():
        tensors = read_folder(folder)
        values = read_config(folder)
        if values.get("model_type") not in {"sam2", "sam2_video"}:
            raise WeightsError(
                UNFIT, f"{folder.name} has model_type {values.get('model_type')!r}", "'sam2' or 'sam2_video'"
            )
        return _library_sam(folder, values["model_type"], memory=any(n.startswith("memory_") for n in tensors)), tensors
    sizes = published.grounding_sizes(folder)
    names = [n for n in _names(UniBiomedConfig(grounding=sizes)) if n.startswith("grounder.")]
    tensors = {_SAM + n: v for file in sorted(folder.glob("*.safetensors")) for n, v in read_tensors(file).items()}
    native = published.to_native(tensors, names)
    return sizes, {name.removeprefix("grounder.sam."): value for name, value in native.items()}


def _names(config: UniBiomedConfig) -> list[str]:
    from unibiomed_core.model.processor import TokenIds

    with torch.device("meta"):
        return list(UniBiomed(config, TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3)).state_dict())


def _original_internvl(folder: Path, config: UniBiomedConfig) -> dict[str, Tensor]:
    names = [name for name in _names(config) if name.startswith("vlm.")]
    native = published.to_native(read_folder(folder), names)
    return {name.removeprefix("vlm."): value for name, value in native.items()}


def _library_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for name, value in tensors.items():
        for pattern, by in _LIBRARY_PREFIXES:
            name = pattern.sub(by, name)
        named[name] = value
    return named


def _library_internvl(folder: Path) -> tuple[VisionSizes, LanguageSizes]:
    """Sizes from the library's configuration; what it means beyond sizes shows in the names of the tensors."""
    from transformers import InternVLConfig

    config: Any = _library_config(InternVLConfig, folder)
    vision, text = config.vision_config, config.text_config
    if text.model_type != "qwen2":
        raise WeightsError(UNFIT, f"{folder.name} has a language model of type '{text.model_type}'", "'qwen2'")
    sizes = vision_sizes(vision.to_dict(), vision.image_size[0], vision.patch_size[0])
    return sizes, language_sizes(text.to_dict(), text.rope_parameters["rope_theta"])


def _library_sam(folder: Path, kind: str, memory: bool) -> GroundingSizes:
    from transformers import Sam2Config, Sam2VideoConfig

    config: Any = _library_config(Sam2VideoConfig if kind == "sam2_video" else Sam2Config, folder)
    vision, decoder = config.vision_config, config.mask_decoder_config
    trunk = vision.backbone_config
    sizes = GroundingSizes(
        image_size=config.prompt_encoder_config.image_size,
        hidden=decoder.hidden_size,
        trunk_width=trunk.hidden_size,
        trunk_heads=trunk.num_attention_heads,
        stages=tuple(trunk.blocks_per_stage),
        global_blocks=tuple(trunk.global_attention_blocks),
        position_window=tuple(trunk.window_positional_embedding_background_size),
        windows=tuple(trunk.window_size_per_stage),
        top_down_levels=tuple(vision.fpn_top_down_levels),
        decoder_mlp=decoder.mlp_dim,
        decoder_heads=decoder.num_attention_heads,
        iou_hidden=decoder.iou_head_hidden_dim,
        memory=memory,
    )
    if not memory or kind == "sam2":
        return sizes
    return replace(
        sizes,
        memory_dim=config.memory_encoder_output_channels,
        memory_layers=config.memory_attention_num_layers,
        memory_mlp=config.memory_attention_feed_forward_hidden_size,
        memory_slots=config.num_maskmem,
        memory_fuser_layers=config.memory_fuser_num_layers,
    )


def _library_config(kind: Any, folder: Path) -> Any:
    from huggingface_hub.errors import StrictDataclassError

    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as cause:
        raise WeightsError(
            UNFIT, f"{CONFIG} of {folder.name} cannot be read: {cause}", "the library's layout"
        ) from cause


def _tokenizer(folder: Path) -> Tokenizer:
    """``tokenizer.json``, or made of ``vocab.json`` and ``merges.txt``, which is what the original repository has."""
    if (folder / TOKENIZER).is_file() or not (folder / "merges.txt").is_file():
        return read_tokenizer(folder)
    from transformers import Qwen2Tokenizer

    try:
        made: Any = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as cause:
        raise WeightsError(UNFIT, f"the tokenizer of {folder.name} cannot be read: {cause}", "Qwen2's files") from cause
    tokenizer: Tokenizer = made.backend_tokenizer
    return tokenizer


def _with_new_tokens(part: LanguagePart, generator: torch.Generator) -> int:
    """Add this product's tokens to the tokenizer and their rows to both tables; returns the rows there are then."""
    before = part.tokenizer.get_vocab_size()
    new = [t for t in ADDED_TOKENS if part.tokenizer.token_to_id(t) is None]
    part.tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in new])
    rows = max(part.language.vocabulary, part.tokenizer.get_vocab_size())
    for name in _TABLES:
        if name not in part.tensors:  # assign() names what is missing
            continue
        old = part.tensors[name].float()
        learnt = old[:before]
        deviation = learnt.std(dim=0) * NOISE
        table = torch.cat([old, old.new_zeros(rows - len(old), old.shape[1])])
        noise = torch.randn(len(new), old.shape[1], generator=generator)
        ids = [part.tokenizer.token_to_id(t) for t in new]
        table[ids] = learnt.mean(dim=0) + noise * deviation
        part.tensors[name] = table
    return rows


def _random_bridge(bridge: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """Uniform within one over the root of the inputs, as the library's linear layers begin."""
    state = bridge.state_dict()
    inputs = {name.split(".")[0]: value.shape[1] for name, value in state.items() if value.ndim == 2}
    return {
        name: (torch.rand(value.shape, generator=generator) * 2 - 1) / inputs[name.split(".")[0]] ** 0.5
        for name, value in state.items()
    }
