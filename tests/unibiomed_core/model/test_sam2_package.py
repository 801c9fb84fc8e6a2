"""The ``sam2`` package as an independent reference: the same weights give the same slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unibiomed_core.model.weights import load

pytestmark = pytest.mark.sam2


def reference(folder: Path) -> torch.nn.Module:
    """The tiny SAM 2 of the parity folder, built of the package's own classes."""
    pytest.importorskip("sam2", reason="the sam2 package is not installed")
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.modeling.sam2_base import SAM2Base

    sizes = json.loads((folder / "sam2.json").read_text())
    wide, memory = sizes["hidden_dim"], sizes["mem_dim"]
    encoder = ImageEncoder(
        scalp=sizes["scalp"],
        trunk=Hiera(
            embed_dim=sizes["embed_dim"],
            num_heads=sizes["num_heads"],
            stages=tuple(sizes["stages"]),
            global_att_blocks=tuple(sizes["global_att_blocks"]),
            window_pos_embed_bkg_spatial_size=tuple(sizes["window_pos_embed_bkg_spatial_size"]),
            window_spec=tuple(sizes["window_spec"]),
        ),
        neck=FpnNeck(
            position_encoding=PositionEmbeddingSine(num_pos_feats=wide, normalize=True, scale=None, temperature=10000),
            d_model=wide,
            backbone_channel_list=sizes["backbone_channel_list"],
            fpn_top_down_levels=sizes["fpn_top_down_levels"],
            fpn_interp_model="nearest",
        ),
    )
    grid = [sizes["image_size"] // 16] * 2
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=sizes["mem_ff"],
        dropout=0.0,
        pos_enc_at_attn=False,
        self_attention=RoPEAttention(
            rope_theta=10000.0, feat_sizes=grid, embedding_dim=wide, num_heads=1, downsample_rate=1
        ),
        d_model=wide,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=RoPEAttention(
            rope_theta=10000.0, feat_sizes=grid, rope_k_repeat=True, embedding_dim=wide, num_heads=1, downsample_rate=1,
            kv_in_dim=memory,
        ),
    )  # fmt: skip
    fuser = CXBlock(dim=wide, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True)
    model = SAM2Base(
        image_encoder=encoder,
        memory_attention=MemoryAttention(
            d_model=wide, pos_enc_at_input=True, layer=layer, num_layers=sizes["mem_layers"]
        ),
        memory_encoder=MemoryEncoder(
            out_dim=memory,
            position_encoding=PositionEmbeddingSine(
                num_pos_feats=memory, normalize=True, scale=None, temperature=10000
            ),
            mask_downsampler=MaskDownSampler(embed_dim=wide, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(layer=fuser, num_layers=sizes["fuser_layers"]),
            in_dim=wide,
        ),
        image_size=sizes["image_size"],
        num_maskmem=sizes["num_maskmem"],
        use_high_res_features_in_sam=True,
        directly_add_no_mem_embed=True,
        use_obj_ptrs_in_encoder=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        use_mlp_for_obj_ptr_proj=True,
        multimask_output_in_sam=True,
        multimask_output_for_tracking=True,
        iou_prediction_use_sigmoid=True,
        compile_image_encoder=False,
    )
    prefix = "grounding_encoder.sam2_model."
    tensors = {
        name.removeprefix(prefix).replace(".g_weight", ".gamma"): value
        for name, value in load_file(folder / "model.safetensors").items()
        if name.startswith(prefix)
    }
    model.load_state_dict(tensors, strict=True)
    return model.eval()


@torch.inference_mode()
def test_same_weights_same_masks(shared: Path) -> None:
    torch.set_num_threads(1)
    folder = shared / "parity" / "tiny-a"
    theirs = reference(folder)
    model, processor = load(folder)
    rgb = np.asarray(Image.open(folder / "image_0.png").convert("RGB"))
    pixels = processor.grounding_pixels(rgb).unsqueeze(0)
    prompts = torch.randn(2, model.config.grounding.hidden, generator=torch.Generator().manual_seed(0))

    ours = model.grounder.encode(pixels)
    levels = theirs.forward_image(pixels)["backbone_fpn"]
    for mine, other in zip((ours.fine, ours.middle, ours.embedding), levels, strict=True):
        assert (mine - other).abs().max().item() < 2e-5

    output = model.grounder.decode(ours, prompts, torch.zeros(2, dtype=torch.int64))
    points = (torch.zeros(1, 1, 2), -torch.ones(1, 1, dtype=torch.int32))
    sparse, dense = theirs.sam_prompt_encoder(points=points, boxes=None, masks=None)
    for k, prompt in enumerate(prompts):
        masks, quality, _, score = theirs.sam_mask_decoder(
            image_embeddings=levels[2] + theirs.no_mem_embed.reshape(1, -1, 1, 1),
            image_pe=theirs.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, prompt.reshape(1, 1, -1)], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=levels[:2],
        )
        assert (output.logits[k] - masks[0]).abs().max().item() < 1e-3
        assert (output.quality[k] - quality[0]).abs().max().item() < 1e-4
        assert (output.object_score[k] - score[0, 0]).abs().item() < 1e-3
