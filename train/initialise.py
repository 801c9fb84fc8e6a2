"""What a run's weights start from: random ones, a model that exists, or an InternVL and a SAM 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer

from train.base_models import joined
from train.config import RunConfig
from train.tokenizer import train_tokenizer
from unibiomed_core.errors import ConfigError
from unibiomed_core.model.adapters import add_lora
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.presets import preset
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import assign, load, read_tensors, resolve

TOWERS = Path(__file__).parent / "towers"

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
