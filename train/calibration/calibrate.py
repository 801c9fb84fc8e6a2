"""What a trained model says of itself: a calibrated presence, its thresholds, how checks are fused, its targets.

Presence is calibrated on patients that were held out from training where there are enough of them, else on training
pictures; checks are fused on held-out patients or not at all. Test records have no part in it.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.engine.engine import Engine
from unibiomed_core.modalities import AS_IS
from unibiomed_core.model.config import Presence, UniBiomedConfig
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.tasks import TASKS
from unibiomed_core.types import Prompt, Slice

from ..data.negatives import negatives
from ..data.records import Record, RecordSet
from ..data.targets import trained_targets
from .checks import KEEPS_ALL, collect
from .fusion import FittedFusion, fitted
from .known_answer import best_wording
from .presence import Cases, best_shrinkage, fit, thresholds
from .reliability import CHECKS, Reliability, measured
from .scene import fit_scene

PER_DATASET = 25
"""Training pictures that a data set gives where nothing was held out."""

PER_DATASET_HELD_OUT = 100
"""Held-out pictures that a data set gives at most."""

PER_DATASET_WORDING = 10
"""Pictures that a data set gives to the choice of the known answer's wording."""

FOREIGN_PER_PICTURE = 4
"""Targets of other body parts that a picture is asked for; most pictures have more, which would drown its own."""

MINIMUM_EACH = 50
"""Cases that are there, and cases that are not, which a calibration needs."""

MINIMUM_CALIBRATION_PATIENTS = 10

PLAIN = Presence("object", 0.5)
"""The score as it is, where nothing can be calibrated."""

MINIMUM_PATIENTS = 2
"""Patients that must show a target before a report looks for it unasked."""


@dataclass(frozen=True)
class Calibrated:
    """What calibration gave.

    Args:
        reliability: None where there were too few cases to calibrate with; the plain score stands then.
        checks: None where too few held-out patients had abnormal rows; checks are counted then.
    """

    config: UniBiomedConfig
    reliability: Reliability | None
    checks: FittedFusion | None


def calibrated(
    model: UniBiomed,
    processor: Processor,
    training: RecordSet,
    held_out: NDArray[np.bool_],
    facts: Mapping[str, str],
    started: bool,
) -> Calibrated:
    """Fill in the model's configuration: its known answer's wording, presence rule, the targets it knows, its first
    look, the fusion of checks, its facts.

    Args:
        held_out: (N,) bool, records of patients that were kept from training.
        started: Whether the run went on from trained weights.
    """
    known = trained_targets(training)
    open_config = replace(model.config, presence=Presence("object"), targets={}, default_targets={})
    # Presence hangs on the words before [SEG], so the wording is settled first.
    told = held_out if held_out.any() else ~held_out
    wording = best_wording(model, processor, spaced(training, told, PER_DATASET_WORDING))
    other = {} if wording == TASKS["segment"].known_answer else {"segment": wording}
    open_config = replace(open_config, answers=other)
    model.config = processor.config = open_config
    rule, found = _presence(Engine(model, processor, device="cpu"), training, held_out, known, started)
    about = {"presence": found.origin if found else "presence not calibrated: too few cases"}
    config = replace(
        open_config,
        presence=rule,
        facts={**facts, **about},
        targets=known,
        default_targets=report_targets(training, known),
    )
    model.config = processor.config = config
    add_first_look(model, processor, training, held_out)
    checks = fuse_checks(model, processor, training, held_out, started)
    return Calibrated(model.config, found, checks)


def add_first_look(model: UniBiomed, processor: Processor, training: RecordSet, held_out: NDArray[np.bool_]) -> None:
    """Fit a first look on the patients that are not held out, and put it into the model; where there are too few
    pictures for one, what the model has or lacks stays.

    Args:
        held_out: (N,) bool.
    """
    found = fit_scene(training, held_out)
    if found is None:
        return
    model.scene = found.head
    facts = {**model.config.facts, "scene": found.sentence}
    model.config = processor.config = replace(model.config, scene=found.head.sizes, facts=facts)


def fuse_checks(
    model: UniBiomed, processor: Processor, training: RecordSet, held_out: NDArray[np.bool_], started: bool
) -> FittedFusion | None:
    """Fit how a model's checks are fused, and put the rule and where it comes from into its configuration.

    Args:
        model: Complete but for this; reports are made with it as it stands.
        held_out: (N,) bool, records of patients that it was not trained on.
        started: Whether its training went on from trained weights.

    Returns:
        None where there are too few cases; the configuration has no fusion then, whatever it had before.
    """
    own = model.config
    facts = {name: text for name, text in own.facts.items() if name != CHECKS}
    model.config = processor.config = replace(own, presence=replace(own.presence, fusion=KEEPS_ALL))
    try:
        rows = collect(Engine(model, processor, device="cpu"), spaced(training, held_out, PER_DATASET_HELD_OUT))
    finally:
        model.config = processor.config = own
    found = fitted(rows, started)
    presence = replace(own.presence, fusion=found.rule if found else None)
    about = {CHECKS: found.sentence if found else "checks not fused: too few held-out patients with abnormal findings"}
    model.config = processor.config = replace(own, presence=presence, facts={**facts, **about})
    return found


def _presence(
    engine: Engine,
    training: RecordSet,
    held_out: NDArray[np.bool_],
    known: Mapping[str, Sequence[str]],
    started: bool,
) -> tuple[Presence, Reliability | None]:
    """The rule of the first of held-out and training pictures that has cases enough."""
    for kept, usable, most in ((True, held_out, PER_DATASET_HELD_OUT), (False, ~held_out, PER_DATASET)):
        cases, pictures = ask(engine, spaced(training, usable, most), known)
        there, patients = int(cases.present.sum()), len(set(cases.patients.tolist()))
        if min(there, len(cases) - there) < MINIMUM_EACH or patients < MINIMUM_CALIBRATION_PATIENTS:
            continue
        shrinkage = best_shrinkage(cases)
        rule = fit(cases, shrinkage)
        pooled, own = thresholds(rule, cases)
        rule = replace(rule, threshold=pooled, thresholds=own)
        return rule, measured(cases, shrinkage, pictures, kept, started)
    return PLAIN, None


def ask(engine: Engine, records: Iterator[Record], known: Mapping[str, Sequence[str]]) -> tuple[Cases, int]:
    """What an engine with a plain presence says of annotated, absent and foreign targets, and on how many pictures.

    Targets of other body parts count as absent, too: a report asks for them wherever the modality fits.
    """
    scores: list[float] = []
    present: list[bool] = []
    about: list[tuple[str, str]] = []
    pictures = 0
    for record in records:
        learnt = set(known.get(record.modality, ()))
        truth = {r.target for r in record.regions}
        sure = negatives(record)
        foreign = sorted(set(sure.far) & learnt)
        drawn = np.random.default_rng(zlib.crc32(record.id.encode())).permutation(len(foreign))[:FOREIGN_PER_PICTURE]
        # A target that a source does not annotate is not asked for: nobody knows the answer.
        names = [*sorted((truth | set(sure.near)) & learnt), *(foreign[i] for i in drawn)]
        if not names:
            continue
        pictures += 1
        piece = Slice(record.pixels(), "axial", 0, (1.0, 1.0), record.modality)
        prompts = [Prompt("segment", target=name) for name in names]
        (predictions,) = engine.predict([piece], prompts, AS_IS)
        engine.free()  # no picture comes twice
        for name, prediction in zip(names, predictions, strict=True):
            if prediction.phrases:
                scores.append(prediction.phrases[0].score)
                present.append(name in truth)
                about.append((name, f"{record.dataset}/{record.group}"))
    targets, patients = (np.array([row[i] for row in about], str) for i in (0, 1))
    return Cases(np.array(scores, np.float64), np.array(present, bool), targets, patients), pictures


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


def spaced(training: RecordSet, usable: NDArray[np.bool_], most: int) -> Iterator[Record]:
    """Evenly spaced usable pictures of every data set and modality."""
    for number in range(len(training.group_names)):
        own = np.nonzero((training.groups == number) & usable)[0]
        for index in own[:: max(1, len(own) // most)][:most]:
            yield training[int(index)]
