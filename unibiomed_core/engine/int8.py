"""Language side in 8-bit integers on a CPU, after its masks were compared with those of the model as it is.

Only linear layers of the vision transformer, the projector and the language model's blocks change: their weights are
kept as int8, what goes in is rounded as it comes. Embeddings, the layer that chooses words, the bridge and SAM 2 stay
float32.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unibiomed_core.errors import DeviceError
from unibiomed_core.modalities import AS_IS
from unibiomed_core.samples import Sample, samples
from unibiomed_core.types import Prompt, Slice

if TYPE_CHECKING:
    from unibiomed_core.engine.predictor import Predictor
    from unibiomed_core.model.unibiomed import UniBiomed

LEAST_DICE = 0.97
"""Mean Dice between int8 and float32 masks below which int8 is refused. Two people who outline one organ reach less."""

GATE_TARGETS = 4
"""Targets compared on one picture, at most."""

_agreed: dict[str, float] = {}
"""Mean Dice of the models that passed in this process, by the hash of their weights."""


def quantise(model: UniBiomed) -> None:
    """Turn the language side's linear layers to int8, in place.

    Raises:
        DeviceError: This build of PyTorch has no int8 arithmetic.
    """
    if torch.backends.quantized.engine == "none" or not hasattr(torch, "ao"):
        raise DeviceError(
            "Precision not available", "int8, for which this build of PyTorch has no arithmetic", "float32 or bfloat16"
        )
    with warnings.catch_warnings():
        # Announced for removal since torch 2.10 in favour of a package that would be needed for this alone.
        warnings.simplefilter("ignore")
        whole: Any = model.vlm.model
        model.vlm.model = torch.ao.quantization.quantize_dynamic(whole, {torch.nn.Linear}, torch.qint8, inplace=True)


def quantise_gated(predictor: Predictor) -> float:
    """Quantise a predictor's model if its masks on the shipped pictures stay what they were; returns their mean Dice.

    Compared are the targets the model knows, up to ``GATE_TARGETS`` a picture; targets that both leave out do not
    count. A model that passed once in this process is not asked again.

    Raises:
        DeviceError: The masks differ, or there is none to compare. The model is int8 by then and must be loaded again.
    """
    name = predictor.info.sha256
    if name in _agreed:
        quantise(predictor.model)
        return _agreed[name]
    before = _masks(predictor)
    quantise(predictor.model)
    predictor.free()
    dices = [d for a, b in zip(before, _masks(predictor), strict=True) if (d := _dice(a, b)) is not None]
    predictor.free()
    mean = float(np.mean(dices)) if dices else 0.0
    if mean < LEAST_DICE:
        found = f"a mean Dice of {mean:.3f} over {len(dices)} masks" if dices else "no mask on the shipped pictures"
        raise DeviceError(
            "int8 changes this model's masks",
            f"{found} between int8 and float32",
            f"at least {LEAST_DICE}",
            command="Take float32 for this model (leave --dtype out).",
        )
    if name:
        _agreed[name] = mean
    return mean


def _masks(predictor: Predictor) -> list[NDArray[np.bool_] | None]:
    """Masks of what the model may be asked on the shipped 2D pictures, None for what is not there."""
    found: list[NDArray[np.bool_] | None] = []
    for sample in samples().values():
        names = _targets(predictor, sample.modality)
        if not names or sample.path.suffix.lower() not in {".jpg", ".jpeg", ".png"}:
            continue
        (predictions,) = predictor.predict([_slice(sample)], [Prompt("segment", name) for name in names], AS_IS)
        masks = [phrase.mask for prediction in predictions for phrase in prediction.phrases]
        found += [None if mask is None else mask.full() for mask in masks]
    return found


def _targets(predictor: Predictor, modality: str) -> tuple[str, ...]:
    """What is asked on a picture of a modality; of a model that takes free text, what the vocabulary has."""
    from unibiomed_core import vocabulary

    config = predictor.config
    if not config.targets:
        return tuple(target.name for target in vocabulary.for_modality(modality))[:GATE_TARGETS]
    return (config.default_targets.get(modality) or config.targets.get(modality, ()))[:GATE_TARGETS]


def _slice(sample: Sample) -> Slice:
    with Image.open(sample.path) as picture:
        pixels = np.asarray(picture.convert("L" if picture.mode == "L" else "RGB"))
    return Slice(pixels, "axial", 0, (1.0, 1.0), sample.modality)


def _dice(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> float | None:
    """2 |A and B| / (|A| + |B|); None where both are absent, 0 where one is."""
    if a is None or b is None:
        return None if a is b else 0.0
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))
