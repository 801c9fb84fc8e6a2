"""``calibrate MODEL RECORDS OUT``: a first look and the fusion of checks for a model that stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unibiomed_core.errors import ConfigError, DataError
from unibiomed_core.model import weights
from unibiomed_core.model.folder import WEIGHTS, read_tensors

from ..config import RunConfig, named_value
from ..data import records as record_files
from ..data.records import RecordSet
from .calibrate import add_first_look, fuse_checks
from .reliability import write_reliability

Say = Callable[[str], None]


@dataclass(frozen=True)
class StandingSettings:
    """What ``name=value`` changes.

    Args:
        share: Of the patients, held out from the model's training, as its run had it.
        unseen: Data sets that the run did not have.
        scene_share: Of the patients, those that the first look is not fitted on, or was not.
    """

    share: float = RunConfig("", "").validation_share
    unseen: tuple[str, ...] = ()
    scene_share: float = 0.3


def settings(arguments: Sequence[str]) -> StandingSettings:
    """The settings of a command line.

    Raises:
        ConfigError: A name is unknown or a value does not fit.
    """
    found = StandingSettings()
    for argument in arguments:
        name, value = named_value(argument)
        share = float(value) if value.replace(".", "", 1).isdecimal() else -1.0
        if name == "share" and 0 <= share < 1:
            found = replace(found, share=share)
        elif name == "scene_share" and 0 <= share < 1:
            found = replace(found, scene_share=share)
        elif name == "unseen":
            found = replace(found, unseen=tuple(value.split(",")))
        else:
            expected = "share=S (0 to 1, of patients that were held out), unseen=SET,SET or scene_share=S"
            raise ConfigError("Unknown setting", f"'{argument}'", expected)
    return found


def held_out(records: RecordSet, chosen: StandingSettings) -> NDArray[np.bool_]:
    """(N,) bool, records of patients that neither the model nor its first look has seen.

    Raises:
        ConfigError: A data set that is named has no record.
    """
    names = [dataset for dataset, _ in records.group_names]
    if missing := sorted(set(chosen.unseen) - set(names)):
        raise ConfigError("Unknown data set", missing[0], f"one of {', '.join(dict.fromkeys(names))}")
    unseen = np.array([name in chosen.unseen for name in names], bool)[records.groups]
    return records.held_out(chosen.scene_share) & (records.held_out(chosen.share) | unseen)


def calibrate_standing(arguments: Sequence[str], say: Say) -> None:
    """Fit both on ``RECORDS/train.parquet`` and write the model to ``OUT`` with them; its own weights stay as they are.

    A first look that the model has stays, too. Nothing is known of what the weights started from, and the facts say so.

    Raises:
        ConfigError: The arguments are not these.
        DataError: The records cannot be read, or have too few cases.
        WeightsError: The model cannot be read, or is not in this product's layout.
        WriteError: ``OUT`` cannot be written, or holds something else.
    """
    if len(arguments) < 3:
        raise ConfigError("Calibrate what", " ".join(arguments) or "nothing", "MODEL RECORDS OUT")
    chosen, source, out = settings(arguments[3:]), weights.resolve(arguments[0]), Path(arguments[2])
    records = record_files.load(Path(arguments[1]) / "train.parquet")
    kept = held_out(records, chosen)
    model, processor = weights.load(source)
    before = model.scene
    if before is None:
        add_first_look(model, processor, records, records.held_out(chosen.scene_share))
    found = fuse_checks(model, processor, records, kept, started=True)
    if found is None:
        raise DataError(
            "Too few abnormal findings",
            f"{int(kept.sum())} pictures of held-out patients in {arguments[1]}",
            "right and wrong ones of some patients that the model was not trained on",
            "Name data sets that it was not trained on with unseen=.",
        )
    if model.scene is before:
        weights.save_reconfigured(source, model.config, out)
    else:
        weights.save(model, processor, out, stored_dtype(source))
    numbers, _ = write_reliability(found, out)
    say(f"{found.sentence}\nwritten to {out}, numbers to {numbers}")


def stored_dtype(folder: Path) -> Literal["float16", "float32"]:
    """How a folder stores its numbers, so that they stay what they are."""
    tensors = read_tensors(folder / WEIGHTS)
    return "float16" if any(tensor.dtype == torch.float16 for tensor in tensors.values()) else "float32"
