"""From our sizes to the configuration objects of ``transformers``, whose defaults are not those of these models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unibiomed_core.model.config import GroundingSizes, LanguageSizes, UniBiomedConfig, VisionSizes

if TYPE_CHECKING:
    from transformers import InternVLConfig, Sam2Config, Sam2VideoConfig

_TRANSFORMER_NAMES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "mlp": "intermediate_size",
}  # fmt: skip
_LANGUAGE_NAMES = _TRANSFORMER_NAMES | {
    "kv_heads": "num_key_value_heads", "vocabulary": "vocab_size", "max_positions": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
}  # fmt: skip
"""Our names of sizes -> those that the library's configurations and published ones have in common."""


def library_values(sizes: VisionSizes | LanguageSizes) -> dict[str, Any]:
    """The sizes that the library and published configurations call alike, under their names."""
    names = _LANGUAGE_NAMES if isinstance(sizes, LanguageSizes) else _TRANSFORMER_NAMES
    return {theirs: getattr(sizes, ours) for ours, theirs in names.items()}


def vision_sizes(values: Mapping[str, Any], image_size: int, patch_size: int) -> VisionSizes:
    """The way back of :func:`library_values`.

    Raises:
        KeyError: A size is missing.
    """
    named = {ours: values[theirs] for ours, theirs in _TRANSFORMER_NAMES.items()}
    return VisionSizes(image_size=image_size, patch_size=patch_size, **named)


def language_sizes(values: Mapping[str, Any], rope_theta: float) -> LanguageSizes:
    """As :func:`vision_sizes`, of the language model."""
    return LanguageSizes(rope_theta=rope_theta, **{ours: values[theirs] for ours, theirs in _LANGUAGE_NAMES.items()})


def vlm_config(config: UniBiomedConfig, image_token_id: int) -> InternVLConfig:
    """The native configuration that makes InternVL2.5 exact: no final vision norm, biased qkv, untied head."""
    from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

    vision, language = config.vision, config.language
    return InternVLConfig(
        vision_config=InternVLVisionConfig(
            **library_values(vision),
            image_size=[vision.image_size] * 2,
            patch_size=[vision.patch_size] * 2,
            attention_bias=True,
            use_qk_norm=False,
            use_mean_pooling=True,
            use_mask_token=False,
            norm_type="layer_norm",
            layer_norm_eps=1e-6,
        ),
        text_config=Qwen2Config(
            **library_values(language),
            rope_parameters={"rope_type": "default", "rope_theta": language.rope_theta},
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        ),
        image_token_id=image_token_id,
        image_seq_length=vision.tokens_per_tile,
        downsample_ratio=0.5,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def sam_config(sizes: GroundingSizes) -> Sam2Config | Sam2VideoConfig:
    """The native SAM 2 (2.0) configuration; with memory parts where ``sizes.memory`` is set."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2VideoConfig, Sam2VisionConfig

    side = sizes.image_size
    vision = Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(
            hidden_size=sizes.trunk_width,
            num_attention_heads=sizes.trunk_heads,
            image_size=[side, side],
            blocks_per_stage=list(sizes.stages),
            embed_dim_per_stage=list(sizes.widths),
            num_attention_heads_per_stage=[sizes.trunk_heads * 2**i for i in range(len(sizes.stages))],
            window_size_per_stage=list(sizes.windows),
            window_positional_embedding_background_size=list(sizes.position_window),
            global_attention_blocks=list(sizes.global_blocks),
        ),
        backbone_channel_list=list(reversed(sizes.widths)),
        backbone_feature_sizes=[[side // 4] * 2, [side // 8] * 2, [side // 16] * 2],
        fpn_hidden_size=sizes.hidden,
        fpn_top_down_levels=list(sizes.top_down_levels),
    )
    prompt = {"hidden_size": sizes.hidden, "image_size": side, "patch_size": 16}
    decoder = {
        "hidden_size": sizes.hidden,
        "mlp_dim": sizes.decoder_mlp,
        "num_attention_heads": sizes.decoder_heads,
        "iou_head_hidden_dim": sizes.iou_hidden,
        # True by default in the library: it would replace an unstable single mask by another one.
        "dynamic_multimask_via_stability": False,
    }
    if not sizes.memory:
        return Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=prompt,
        mask_decoder_config=decoder,
        image_size=side,
        num_maskmem=sizes.memory_slots,
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
        memory_attention_hidden_size=sizes.hidden,
        memory_attention_num_layers=sizes.memory_layers,
        memory_attention_feed_forward_hidden_size=sizes.memory_mlp,
        memory_attention_rope_feat_sizes=[side // 16, side // 16],
        memory_encoder_hidden_size=sizes.hidden,
        memory_encoder_output_channels=sizes.memory_dim,
        mask_downsampler_embed_dim=sizes.hidden,
        memory_fuser_embed_dim=sizes.hidden,
        memory_fuser_intermediate_dim=sizes.hidden * 4,
        memory_fuser_num_layers=sizes.memory_fuser_layers,
    )
