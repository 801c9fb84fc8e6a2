"""Where weights start from: a seed, a model, or an InternVL and a SAM 2 in either of their layouts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import InternVLForConditionalGeneration, Sam2Model, Sam2VideoModel

from tests.train.toy_runs import toy_model
from train.config import RunConfig
from train.training.base_models import joined
from train.training.initialise import initial_model
from unibiomed_core.errors import WeightsError
from unibiomed_core.model.adapters import lora_parameter_count
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.library_config import sam_config, vlm_config
from unibiomed_core.model.presets import toy
from unibiomed_core.model.processor import ADDED_TOKENS, BASE_TOKENS, TokenIds
from unibiomed_core.model.published import to_published
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import save
from unibiomed_core.model.write_published import config_values, grounding_values

TEXTS = ["Please segment liver in abdomen CT.", "It is polyp."] * 3


def base_tokenizer() -> Tokenizer:
    """As InternVL has it: without the five tokens of this product."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    built.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    )
    built.add_special_tokens(list(BASE_TOKENS))
    return built


def sizes() -> UniBiomedConfig:
    config = toy(vocabulary=base_tokenizer().get_vocab_size())
    return replace(config, grounding=replace(config.grounding, memory=True, memory_layers=1, memory_fuser_layers=1))


@pytest.fixture(scope="module")
def parts() -> tuple[InternVLForConditionalGeneration, Sam2VideoModel]:
    torch.manual_seed(3)
    config = sizes()
    token = base_tokenizer().token_to_id("<IMG_CONTEXT>")
    grounding = sam_config(config.grounding)
    return InternVLForConditionalGeneration(vlm_config(config, token)), Sam2VideoModel(grounding)


@pytest.fixture(scope="module")
def library(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[InternVLForConditionalGeneration, Sam2VideoModel]
) -> tuple[Path, Path]:
    """Both as the library saves them."""
    folder = tmp_path_factory.mktemp("library")
    parts[0].save_pretrained(folder / "internvl")
    base_tokenizer().save(str(folder / "internvl" / "tokenizer.json"))
    parts[1].save_pretrained(folder / "sam")
    return folder / "internvl", folder / "sam"


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[InternVLForConditionalGeneration, Sam2VideoModel]
) -> tuple[Path, Path]:
    """Both under the names of their first publication."""
    folder = tmp_path_factory.mktemp("original")
    config = sizes()
    model = UniBiomed(config, TokenIds(seg=0, image_context=1, end_of_turn=2, pad=3))
    model.vlm.load_state_dict(parts[0].state_dict())
    model.grounder.sam.load_state_dict(parts[1].state_dict())
    named = {name: value.clone() for name, value in to_published(model.state_dict()).items()}
    prefix = "grounding_encoder.sam2_model."
    for name in ("internvl", "sam"):
        (folder / name).mkdir()
    language = {n: v for n, v in named.items() if not n.startswith((prefix, "text_hidden_fcs."))}
    save_file(language, folder / "internvl" / "model.safetensors")
    values = {**config_values(config), "model_type": "internvl_chat", "template": "internvl2_5"}
    (folder / "internvl" / "config.json").write_text(json.dumps(values))
    base_tokenizer().save(str(folder / "internvl" / "tokenizer.json"))
    sam = {n.removeprefix(prefix).replace(".g_weight", ".gamma"): v for n, v in named.items() if n.startswith(prefix)}
    save_file(sam, folder / "sam" / "sam2_hiera_toy.safetensors")
    (folder / "sam" / "sam2.json").write_text(json.dumps(grounding_values(config.grounding)))
    return folder / "internvl", folder / "sam"


@pytest.mark.parametrize("layout", ["library", "original"])
def test_a_model_of_two_checkpoints_computes_what_they_computed(
    layout: str, request: pytest.FixtureRequest, parts: tuple[InternVLForConditionalGeneration, Sam2VideoModel]
) -> None:
    internvl, sam = parts
    model, processor = joined(*request.getfixturevalue(layout), seed=1)
    old = base_tokenizer().get_vocab_size()
    ids = [processor.tokenizer.token_to_id(token) for token in ADDED_TOKENS]
    assert ids == list(range(old, old + 5))
    assert model.config.language.vocabulary == old + 5
    assert model.config.grounding == sizes().grounding
    tiles = torch.randn(1, 3, 56, 56)
    text = torch.tensor([processor.encode("Please segment polyp.")])
    with torch.no_grad():
        features = internvl.model.get_image_features(pixel_values=tiles, return_dict=True).pooler_output
        assert torch.allclose(model.encode_tiles(tiles), features, atol=1e-6)
        hidden = model.language(model.embed(text, None))
        assert torch.allclose(model.logits(hidden)[..., :old], internvl(input_ids=text).logits, atol=1e-5)
        picture = torch.randn(1, 3, 64, 64)
        levels = sam.vision_encoder(picture, return_dict=True).fpn_hidden_states
        assert torch.allclose(model.grounder.encode(picture).embedding, levels[2], atol=1e-6)
    for table in (model.vlm.get_input_embeddings().weight, model.vlm.lm_head.weight):
        mean, deviation = table[:old].mean(0), table[:old].std(0)
        away = (table[old:] - mean).abs() / deviation
        assert 0 < away.mean() < 0.2
    again, _ = joined(*request.getfixturevalue(layout), seed=1)
    other, _ = joined(*request.getfixturevalue(layout), seed=2)
    assert torch.equal(again.bridge[0].weight, model.bridge[0].weight)
    assert not torch.equal(other.bridge[0].weight, model.bridge[0].weight)


def test_a_sam_without_memory_makes_a_model_without(library: tuple[Path, Path], tmp_path: Path) -> None:
    Sam2Model(sam_config(toy().grounding)).save_pretrained(tmp_path)
    model, _ = joined(library[0], tmp_path, seed=1)
    assert not model.config.grounding.memory
    assert isinstance(model.grounder.sam, Sam2Model)


def test_init_of_a_run_names_two_folders_and_adds_adapters(library: tuple[Path, Path], tmp_path: Path) -> None:
    config = RunConfig("r", "1b", init=f"{library[0]},{library[1]}", adapters=3)
    model, _ = initial_model(config, tmp_path, list)
    again, _ = initial_model(config, tmp_path, list)
    assert lora_parameter_count(model) > 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_init_of_a_run_names_one_model(tmp_path: Path) -> None:
    model, processor = toy_model()
    save(model, processor, tmp_path / "made, before", dtype="float32")
    config = RunConfig("r", "toy", init=str(tmp_path / "made, before"))
    loaded, _ = initial_model(config, tmp_path, list)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    with pytest.raises(WeightsError, match="somewhere/else"):
        initial_model(replace(config, init="somewhere/else"), tmp_path, list)


@pytest.mark.parametrize(
    ("part", "lost", "told"),
    [
        (0, "language_model.model.norm.weight", "language_model.norm.weight"),
        (1, "mask_decoder.conv_s0.bias", "mask_decoder.conv_s0.bias"),
    ],
)
def test_tensors_that_are_missing_or_unknown_are_named(
    part: int, lost: str, told: str, library: tuple[Path, Path], tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for source, target in zip(library, folders, strict=True):
        target.mkdir()
        for file in source.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folders[part] / "model.safetensors")
    value = tensors.pop(lost)
    save_file(tensors, folders[part] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"missing: .*{told}"):
        joined(folders[0], folders[1], seed=1)
    save_file(tensors | {lost: value, "surprise": value.clone()}, folders[part] / "model.safetensors")
    with pytest.raises(WeightsError, match="not known: surprise"):
        joined(folders[0], folders[1], seed=1)


def test_original_names_are_strict_too(original: tuple[Path, Path], tmp_path: Path) -> None:
    tensors = load_file(next(original[1].glob("*.safetensors")))
    tensors.pop("no_mem_embed")
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "sam2.json").write_bytes((original[1] / "sam2.json").read_bytes())
    with pytest.raises(WeightsError, match="no_mem_embed"):
        joined(original[0], tmp_path, seed=1)


def test_other_models_and_pickles_are_refused(library: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(WeightsError, match="no safetensors"):
        joined(tmp_path, library[1], seed=1)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="'llava'"):
        joined(tmp_path, library[1], seed=1)
    with pytest.raises(WeightsError, match="'llava'"):
        joined(library[0], tmp_path, seed=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "sam2_hiera_large.pt").write_bytes(b"pickled")
    with pytest.raises(WeightsError, match=r"sam2_hiera_large\.pt"):
        joined(library[0], empty, seed=1)


def test_a_tokenizer_of_vocabulary_and_merges_is_read(library: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "internvl"
    folder.mkdir()
    for file in library[0].iterdir():
        if file.name != "tokenizer.json":
            (folder / file.name).write_bytes(file.read_bytes())
    base = base_tokenizer()
    base.model.save(str(folder))
    added = {token: base.token_to_id(token) for token in BASE_TOKENS}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    values = {"added_tokens_decoder": {str(n): {"content": t, "special": True} for t, n in added.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**values, "tokenizer_class": "Qwen2Tokenizer"}))
    _, processor = joined(folder, library[1], seed=1)
    _, other = joined(*library, seed=1)
    text = "<img><IMG_CONTEXT></img>\nIt is [SEG]."
    assert processor.encode(text) == other.encode(text)
    assert processor.ids == other.ids
