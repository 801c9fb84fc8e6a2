"""The published layout (``sa2va_chat``): a strict two-way name map, its configuration, and folders in it.

One table turns our names into published ones; both directions are made of it, so that they cannot disagree.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibiomed_core.errors import WeightsError
from unibiomed_core.files import read_json
from unibiomed_core.model.config import GroundingSizes, Preprocessing, Presence, UniBiomedConfig
from unibiomed_core.model.folder import UNFIT, read_folder
from unibiomed_core.model.library_config import language_sizes, vision_sizes
from unibiomed_core.model.processor import TokenIds

_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    # The vision transformer of the language side
    (r"^vlm\.model\.vision_tower\.embeddings\.cls_token", "vision_model.embeddings.class_embedding"),
    (r"^vlm\.model\.vision_tower\.embeddings\.position_embeddings", "vision_model.embeddings.position_embedding"),
    (r"^vlm\.model\.vision_tower\.embeddings\.patch_embeddings\.projection", "vision_model.embeddings.patch_embedding"),
    (r"^vlm\.model\.vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"^(vision_model\..*)\.attention\.projection_layer", r"\1.attn.proj"),
    (r"^(vision_model\..*)\.attention\.[qkv]_proj", r"\1.attn.qkv"),
    (r"^(vision_model\..*)\.layernorm_before", r"\1.norm1"),
    (r"^(vision_model\..*)\.layernorm_after", r"\1.norm2"),
    (r"^(vision_model\..*)\.lambda_([12])", r"\1.ls\2"),
    # The projector, the language model, the bridge
    (r"^vlm\.model\.multi_modal_projector\.layer_norm", "mlp1.0"),
    (r"^vlm\.model\.multi_modal_projector\.linear_1", "mlp1.1"),
    (r"^vlm\.model\.multi_modal_projector\.linear_2", "mlp1.3"),
    (r"^vlm\.model\.language_model\.", "language_model.model."),
    (r"^vlm\.lm_head\.", "language_model.lm_head."),
    (r"^bridge\.", "text_hidden_fcs."),
    # SAM 2: loose tensors
    (r"^grounder\.sam\.", "grounding_encoder.sam2_model."),
    (r"\.no_memory_embedding$", ".no_mem_embed"),
    (r"\.no_memory_positional_encoding$", ".no_mem_pos_enc"),
    (r"\.memory_temporal_positional_encoding$", ".maskmem_tpos_enc"),
    (r"\.no_object_pointer$", ".no_obj_ptr"),
    (
        r"\.(shared_image_embedding|prompt_encoder\.shared_embedding)\.positional_embedding$",
        ".sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    # SAM 2: image encoder
    (r"\.vision_encoder\.backbone\.", ".image_encoder.trunk."),
    (r"\.patch_embed\.projection", ".patch_embed.proj"),
    (r"\.vision_encoder\.neck\.convs\.(\d+)\.", r".image_encoder.neck.convs.\1.conv."),
    # SAM 2: memory encoder
    (
        r"\.mask_downsampler\.layers\.(\d+)\.conv\.",
        lambda m: f".mask_downsampler.encoder.{3 * int(m[1])}.",
    ),
    (
        r"\.mask_downsampler\.layers\.(\d+)\.layer_norm\.",
        lambda m: f".mask_downsampler.encoder.{3 * int(m[1]) + 1}.",
    ),
    (r"\.mask_downsampler\.final_conv\.", ".mask_downsampler.encoder.12."),
    (r"\.memory_encoder\.feature_projection\.", ".memory_encoder.pix_feat_proj."),
    (r"\.memory_encoder\.projection\.", ".memory_encoder.out_proj."),
    (r"\.memory_fuser\.layers\.(\d+)\.scale$", r".fuser.layers.\1.g_weight"),
    (r"\.memory_fuser\.layers\.(\d+)\.depthwise_conv\.", r".fuser.layers.\1.dwconv."),
    (r"\.memory_fuser\.layers\.(\d+)\.layer_norm\.", r".fuser.layers.\1.norm."),
    (r"\.memory_fuser\.layers\.(\d+)\.pointwise_conv([12])\.", r".fuser.layers.\1.pwconv\2."),
    # SAM 2: memory attention
    (r"\.memory_attention\.layer_norm\.", ".memory_attention.norm."),
    # SAM 2: prompt encoder
    (r"\.prompt_encoder\.mask_embed\.conv1\.", ".sam_prompt_encoder.mask_downscaling.0."),
    (r"\.prompt_encoder\.mask_embed\.layer_norm1\.", ".sam_prompt_encoder.mask_downscaling.1."),
    (r"\.prompt_encoder\.mask_embed\.conv2\.", ".sam_prompt_encoder.mask_downscaling.3."),
    (r"\.prompt_encoder\.mask_embed\.layer_norm2\.", ".sam_prompt_encoder.mask_downscaling.4."),
    (r"\.prompt_encoder\.mask_embed\.conv3\.", ".sam_prompt_encoder.mask_downscaling.6."),
    (r"\.prompt_encoder\.", ".sam_prompt_encoder."),
    # SAM 2: mask decoder
    (r"\.sam2_model\.mask_decoder\.", ".sam2_model.sam_mask_decoder."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.layer_norm_final_attn\.", ".norm_final_attn."),
    # Three-layer heads: the middle layer first, before the outer ones take its number
    (r"\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.0\.", r".\1.layers.1."),
    (r"\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.proj_in\.", r".\1.layers.0."),
    (r"\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.proj_out\.", r".\1.layers.2."),
    (r"\.object_pointer_proj\.layers\.0\.", ".obj_ptr_proj.layers.1."),
    (r"\.object_pointer_proj\.proj_in\.", ".obj_ptr_proj.layers.0."),
    (r"\.object_pointer_proj\.proj_out\.", ".obj_ptr_proj.layers.2."),
    # Everywhere in SAM 2
    (r"^(grounding_encoder\..*)\.mlp\.proj_in\.", r"\1.mlp.layers.0."),
    (r"^(grounding_encoder\..*)\.mlp\.proj_out\.", r"\1.mlp.layers.1."),
    (r"^(grounding_encoder\..*)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"^(grounding_encoder\..*)\.o_proj\.", r"\1.out_proj."),
)
"""Applied one after the other to a name of ours."""

_POINT_ROWS = "grounding_encoder.sam2_model.sam_prompt_encoder.point_embed.weight"


def published_name(name: str) -> str:
    """The published name of one of our tensors; several of ours may share one (q, k, v; the position matrix)."""
    for pattern, by in _RULES:
        name = re.sub(pattern, by, name)
    return name


def published_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Published name -> our names that it is made of, q, k, v in this order; point rows are numbered apart."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):  # "attention.k_proj" < "q_proj" < "v_proj": put in order below
        published = published_name(name)
        if published == _POINT_ROWS:
            for row in range(4):
                found[published.replace("point_embed.", f"point_embeddings.{row}.")].append(name)
        else:
            found[published].append(name)
    for published, parts in found.items():
        if ".attn.qkv." in published and len(parts) == 3:
            found[published] = [next(p for p in parts if f".{letter}_proj." in p) for letter in "qkv"]
    return dict(found)


def to_native(published: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Published tensors under our names.

    Args:
        names: Every name of the model that is to be filled.

    Raises:
        WeightsError: A tensor is missing or not known.
    """
    given = {re.sub(r"(fuser\.layers\.\d+)\.gamma$", r"\1.g_weight", name): value for name, value in published.items()}
    wanted = published_names(names)
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra:
        parts = [
            f"{len(f)} tensors {w}: {', '.join(f[:3])}" for w, f in (("missing", missing), ("not known", extra)) if f
        ]
        raise WeightsError(UNFIT, "; ".join(parts), f"the {len(wanted)} tensors of the published layout")
    native: dict[str, Tensor] = {}
    rows: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, parts in wanted.items():
        if ".point_embeddings." in name:
            rows[parts[0]][int(name.rsplit(".", 2)[1])] = given[name]
        elif len(parts) == 3:
            native.update(zip(parts, given[name].chunk(3), strict=True))
        else:
            native.update(dict.fromkeys(parts, given[name]))
    native |= {name: torch.cat([found[i] for i in sorted(found)]) for name, found in rows.items()}
    return native


def to_published(native: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under published names; the way back of :func:`to_native`."""
    published = {}
    for name, parts in published_names(native).items():
        if ".point_embeddings." in name:
            row = int(name.rsplit(".", 2)[1])
            published[name] = native[parts[0]][row : row + 1]
        elif len(parts) == 3:
            published[name] = torch.cat([native[part] for part in parts])
        else:
            # The position matrix has two places in the library; the last is the one that masks are decoded with. They
            # are alike in published weights, but not in a model that was trained from scratch.
            published[name] = native[parts[-1]]
    return published


FIXED = {"template": "phi3_chat", "select_layer": -1, "ps_version": "v2", "downsample_ratio": 0.5}
"""Settings of the published configuration that have one value; any other is another model."""


def read_config(folder: Path, values: Mapping[str, Any]) -> UniBiomedConfig:
    """Our configuration from a published ``config.json`` and, where it stands beside it, ``sam2.json``.

    Raises:
        WeightsError: A setting is missing, or has a value that makes it another model.
    """
    for key, value in FIXED.items():
        if values.get(key, value) != value:
            raise WeightsError(UNFIT, f"config.json has {key} = {values[key]!r}", repr(value))
    try:
        vision, language = values["vision_config"], values["llm_config"]
        return UniBiomedConfig(
            name=folder.name,
            vision=vision_sizes(vision, values.get("force_image_size") or vision["image_size"], vision["patch_size"]),
            language=language_sizes(language, language["rope_theta"]),
            grounding=grounding_sizes(folder),
            preprocessing=Preprocessing(
                "dynamic", int(values.get("max_dynamic_patch", 12)), bool(values.get("use_thumbnail", True))
            ),
            presence=Presence("mask", 0.0),
        )
    except KeyError as cause:
        raise WeightsError(UNFIT, f"config.json lacks {cause}", "a sa2va_chat configuration") from cause


GROUNDING_NAMES = {
    "image_size": "image_size", "hidden": "hidden_dim", "trunk_width": "embed_dim", "trunk_heads": "num_heads",
    "stages": "stages", "global_blocks": "global_att_blocks", "windows": "window_spec",
    "position_window": "window_pos_embed_bkg_spatial_size", "top_down_levels": "fpn_top_down_levels",
    "memory_dim": "mem_dim", "memory_layers": "mem_layers", "memory_mlp": "mem_ff", "memory_slots": "num_maskmem",
    "memory_fuser_layers": "fuser_layers",
}  # fmt: skip
MASK_DECODER_NAMES = {
    "decoder_mlp": "transformer_mlp_dim", "decoder_heads": "transformer_heads", "iou_hidden": "iou_head_hidden_dim",
}  # fmt: skip
"""Our names of SAM 2's sizes -> those in ``sam2.json``."""


def grounding_sizes(folder: Path) -> GroundingSizes:
    """SAM 2's sizes from ``sam2.json``, or hiera-large's where there is none.

    Raises:
        WeightsError: It cannot be read.
    """
    file = folder / "sam2.json"
    if not file.is_file():
        return GroundingSizes()  # hiera-large's
    found = read_json(file, WeightsError, UNFIT, "sizes of SAM 2 in JSON")
    given = {ours: found[theirs] for ours, theirs in GROUNDING_NAMES.items() if theirs in found}
    decoder = found.get("mask_decoder", {})
    given |= {ours: decoder[theirs] for ours, theirs in MASK_DECODER_NAMES.items() if theirs in decoder}
    changes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return replace(GroundingSizes(), **changes)


def read_published(folder: Path, values: Mapping[str, Any]) -> tuple[UniBiomedConfig, dict[str, Tensor]]:
    """Configuration and tensors of a published folder, sharded or not, under our names.

    Raises:
        WeightsError: As for :func:`read_config` and :func:`to_native`; a shard is missing or damaged.
    """
    from unibiomed_core.model.unibiomed import UniBiomed

    config = read_config(folder, values)
    with torch.device("meta"):
        names = UniBiomed(config, TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3)).state_dict()
    return config, to_native(read_folder(folder), names)
