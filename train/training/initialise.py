"""What a run's weights start from: random ones, a model that exists, or an InternVL and a SAM 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from unibiomed_core.errors import ConfigError
from unibiomed_core.model.adapters import add_lora
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.folder import read_tensors
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import ADDED_TOKENS, BASE_TOKENS, CHAT, Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import assign, load, resolve

from ..config import RunConfig
from .base_models import joined

TOWERS = Path(__file__).parents[1] / "towers"

ALPHA_PER_RANK = 2.0
"""Scale of the adapters: 256 at rank 128, as published."""


def initial_model(config: RunConfig, folder: Path, texts: Callable[[], Iterable[str]]) -> tuple[UniBiomed, Processor]:
    """The model of a run before its first step, with adapters where the run has some; the same for the same seed.

    Args:
        folder: The run's; its tokenizer is kept there.
        texts: What a new tokenizer is trained on; asked for where the weights are random.

    Raises:
        WeightsError: What ``init`` names is not here, or does not fit.
        ConfigError: The preset is unknown.
    """
    model, processor = _existing(config) if config.init else _random(config, folder, texts)
    if config.adapters:
        torch.manual_seed(config.seed)
        add_lora(model, config.adapters, ALPHA_PER_RANK * config.adapters)
    return model, processor


def _existing(config: RunConfig) -> tuple[UniBiomed, Processor]:
    """``init`` as one model, or as "INTERNVL,SAM2"; a folder's own name may have a comma."""
    language, comma, grounding = config.init.partition(",")
    if comma and not Path(config.init).is_dir():
        return joined(resolve(language.strip()), resolve(grounding.strip()), config.seed)
    return load(resolve(config.init))


def _random(config: RunConfig, folder: Path, texts: Callable[[], Iterable[str]]) -> tuple[UniBiomed, Processor]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        train_tokenizer(texts(), config.vocabulary).save(str(file))
    tokenizer = Tokenizer.from_file(str(file))
    sizes = preset(config.preset).to_dict()
    sizes["language"]["vocabulary"] = tokenizer.get_vocab_size()
    made = UniBiomedConfig.from_dict(sizes)
    processor = Processor(made, tokenizer)
    torch.manual_seed(config.seed)
    model = UniBiomed(made, processor.ids)
    if config.tower:
        start_tower(model, config.tower)
    return model, processor


def start_tower(model: UniBiomed, name: str) -> None:
    """Put weights of ``train/towers`` into the encoder of a shared tower.

    Args:
        name: "lite0/imagenet".

    Raises:
        ConfigError: There are none of that name, or the model has a tower for each side.
        WeightsError: They are of another size.
    """
    there = {f.relative_to(TOWERS).with_suffix("").as_posix(): f for f in sorted(TOWERS.glob("*/*.safetensors"))}
    if model.grounder.tower is None or name not in there:
        found = f"{model.config.name} has a tower for each side" if model.grounder.tower is None else f"'{name}'"
        raise ConfigError("No such start of a tower", found, f"a shared tower and one of {', '.join(there)}")
    assign(model.grounder.tower.encoder, read_tensors(there[name]), torch.float32)


SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How text is cut before merging: the rule published with Qwen2's tokenizer."""


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A tokenizer of at most ``size`` entries; special tokens take the last ids, ``[SEG]`` and its tags the very last.

    The chat text is learnt with the texts, so that its markers are few pieces.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = (*BASE_TOKENS, *ADDED_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator((CHAT.replace("{input}", text) for text in texts), trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    return tokenizer
