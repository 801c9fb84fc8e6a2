"""What a trained model says of itself: presence thresholds and the targets it knows, from training records only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from train.data.records import Record, RecordSet
from train.data.targets import trained_targets
from unibiomed_core import vocabulary
from unibiomed_core.engine.engine import Engine
from unibiomed_core.metrics.labels import balanced_threshold
from unibiomed_core.modalities import Window
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.types import Prompt, Slice

PER_DATASET = 25
"""Training pictures a data set gives to the thresholds."""

MINIMUM_CASES = 8
"""A target gets a threshold of its own where at least so many pictures have it and so many lack it."""

TELLING_RATE = 0.7
"""Balanced accuracy below which a presence score tells too little to take a mask away; the mask alone decides then."""

MINIMUM_PATIENTS = 2
"""Patients that must show a target before a report looks for it unasked."""


def calibrated(
    model: UniBiomed, processor: Processor, training: RecordSet, facts: Mapping[str, str]
) -> UniBiomedConfig:
    """The configuration with thresholds and targets filled in.

    The pictures were trained on, so the scores are a little too sure; held-out pictures stay untouched.
    """
    scores: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    known = trained_targets(training)
    open_config = replace(model.config, presence=Presence("object"), targets={}, default_targets={})
    model.config = processor.config = open_config
    engine = Engine(model, processor, device="cpu")
    for record in _some(training):
        truth = {r.target for r in record.regions}
        # Targets of other body parts count as absent, too: a report asks for them wherever the modality fits.
        names = [n for n in (*truth, *record.absent, *record.foreign) if n in known.get(record.modality, ())]
        if not names:
            continue
        piece = Slice(record.pixels(), "axial", 0, (1.0, 1.0), record.modality)
        prompts = [Prompt("segment", target=name) for name in names]
        for name, prediction in zip(
            names, engine.predict([piece], prompts, Window("as is", 0.0, 255.0))[0], strict=True
        ):
            if prediction.phrases:
                scores[name].append((prediction.phrases[0].score, name in truth))
    thresholds = {}
    for name, found in scores.items():
        there = sum(present for _, present in found)
        if min(there, len(found) - there) >= MINIMUM_CASES:
            threshold, rate = balanced_threshold([s for s, _ in found], [p for _, p in found])
            thresholds[name] = round(threshold, 3) if rate >= TELLING_RATE else 0.0
    config = replace(
        open_config,
        presence=Presence("object", 0.5, thresholds),
        facts=dict(facts),
        targets=known,
        default_targets=report_targets(training, known),
    )
    model.config = processor.config = config
    return config


def report_targets(training: RecordSet, known: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Modality -> what a report looks for unasked: findings and anatomy that at least two patients show."""
    patients: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in training:
        for region in record.regions:
            patients[record.modality, region.target].add(f"{record.dataset}/{record.group}")
    kinds = vocabulary.targets()
    return {
        m: tuple(
            t
            for t in names
            if (t not in kinds or kinds[t].kind != "object") and len(patients[m, t]) >= MINIMUM_PATIENTS
        )
        for m, names in known.items()
    }


def _some(training: RecordSet) -> Iterator[Record]:
    """Evenly spaced pictures of every data set and modality."""
    for number in range(len(training.group_names)):
        own = np.nonzero(training.groups == number)[0]
        for index in own[:: max(1, len(own) // PER_DATASET)][:PER_DATASET]:
            yield training[int(index)]
