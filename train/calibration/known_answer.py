"""Which wording of the known answer a model segments best with; its masks hang on the words before ``[SEG]``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from unibiomed_core.engine.engine import Engine
from unibiomed_core.metrics.overlap import dice
from unibiomed_core.modalities import AS_IS
from unibiomed_core.model.config import Presence
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import TASKS
from unibiomed_core.types import Prediction, Prompt, Slice

from ..data.questions import SEGMENT_ANSWERS
from ..data.records import Record

LEAST_GAIN = 0.002
"""Mean Dice by which another wording has to beat the published one; below it the difference says nothing."""


def best_wording(model: UniBiomed, processor: Processor, records: Iterable[Record]) -> str:
    """The answer's wording with the highest mean Dice, for ``UniBiomedConfig.answers["segment"]``.

    Every wording that the model was trained with is read for every target that is there, masks kept whatever their
    presence; a picture is encoded once for all of them. The published wording stays unless another is better by
    ``LEAST_GAIN``, and where no record has a mask.

    Args:
        model: Its configuration is set aside meanwhile and then put back.
        records: Of patients held out from training, else training records; never test records.
    """
    published = TASKS["segment"].known_answer or SEGMENT_ANSWERS[0]
    own = model.config
    model.config = replace(own, presence=Presence(own.presence.source, 0.0))
    try:
        engine = Engine(model, Processor(model.config, processor.tokenizer), device="cpu")
        means = {wording: float(np.mean(scores)) for wording, scores in _scores(engine, records).items()}
    finally:
        model.config = own
    best = max(means, key=means.__getitem__, default=published)
    return best if best != published and means[best] >= means[published] + LEAST_GAIN else published


def _scores(engine: Engine, records: Iterable[Record]) -> dict[str, list[float]]:
    """Wording -> Dice of every target of every record."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        truth = record.masks()
        learnt = engine.info.targets.get(record.modality, ())
        names = [name for name in truth if not engine.info.targets or name in learnt]
        prompts = [Prompt("segment", target=name, answer=text) for name in names for text in SEGMENT_ANSWERS]
        if not prompts:
            continue
        piece = Slice(record.pixels(), "axial", 0, (1.0, 1.0), record.modality)
        given = engine.predict([piece], prompts, AS_IS)[0]
        for prompt, prediction in zip(prompts, given, strict=True):
            scores[prompt.answer or ""].append(_overlap(prediction, truth[prompt.target]))
        engine.free()  # no picture comes twice
    return scores


def _overlap(prediction: Prediction, truth: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    marked = np.zeros(truth.shape, bool)
    for mask in prediction.masks:
        marked |= mask.full()
    return dice(marked, truth)
