"""From a run to a weights folder that the command line and the plugin open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from unibiomed_core.errors import ConfigError
from unibiomed_core.files import read_json
from unibiomed_core.model.config import Presence
from unibiomed_core.model.weights import save
from unibiomed_core.model.write_published import save_published

from ..calibration.calibrate import calibrated
from ..calibration.reliability import CHECKS, PRESENCE, Judged, forget_reliability, write_reliability
from ..commands import as_called
from ..config import RunConfig
from ..data.examples import vocabulary_texts
from ..data.records import RecordSet
from ..data.targets import trained_targets
from .initialise import initial_model
from .loop import TrainingRun, take_over
from .stage import TrainingData
from .trainable import plain

Say = Callable[[str], None]

LAYOUTS = ("unibiomed", "published")


def export_model(run: TrainingRun, folder: Path, layout: str = "unibiomed") -> None:
    """Merge adapters, fill in what the model says of itself, and write it.

    How far its presence and its fused checks can be believed is written beside the folder; see
    :mod:`train.calibration.reliability`.

    Args:
        layout: "unibiomed" (float16, thresholds and targets with it) or "published" (float32, for the published code).

    Raises:
        WriteError: The folder cannot be written, or holds something else.
        WeightsError: The model has no place in the published layout.
    """
    plain(run.model)
    run.model.eval()
    processor, records = run.material.processor, run.material.records
    about = facts(run, records)
    judged: dict[str, Judged | None] = {PRESENCE: None, CHECKS: None}
    if any(stage.kind == "published" for stage in run.config.stages):
        # Its object score was never trained, so no presence can be read from it; and it takes free text.
        run.model.config = replace(run.model.config, presence=Presence("mask", 0.0), facts=about)
        processor.config = run.model.config
    else:
        held_out, started = run.material.held_out, bool(run.config.init)
        told = calibrated(run.model, processor, records, held_out, about, started)
        judged = {PRESENCE: told.reliability, CHECKS: told.checks}
    if layout == "published":
        run.model.scene = None  # that layout has no place for it
        save_published(run.model, processor, folder)
    else:
        save(run.model, processor, folder, dtype="float16")
    for what, found in judged.items():
        if found is not None:
            write_reliability(found, folder)
        else:
            forget_reliability(folder, what)


def facts(run: TrainingRun, records: RecordSet) -> dict[str, str]:
    """What the weights say of themselves wherever they go."""
    sets = sorted({dataset for dataset, _ in records.group_names})
    pictures = int((~run.material.held_out).sum())
    return {
        "licence": run.config.licence,
        "trained_by": as_called(f"python train/run.py {run.config.recipe}")
        + (f" init={run.config.init}" if run.config.init else "")
        + f", seed {run.config.seed}",
        "trained_on": f"{pictures} pictures of {len(sets)} data sets: {', '.join(sets)}",
    }


def export_run(arguments: Sequence[str], records_of: Callable[[RunConfig, Path, Say], RecordSet], say: Say) -> None:
    """``export RUN OUT [published]``: the newest checkpoints of a run, finished or not.

    Args:
        records_of: The training records of a run, by configuration and folder.

    Raises:
        ConfigError: The arguments are not these, the run's configuration is of another version, or nothing was trained.
    """
    if len(arguments) not in {2, 3} or arguments[2:] not in ([], ["published"], ["unibiomed"]):
        raise ConfigError("Export of what", " ".join(arguments) or "nothing", f"RUN OUT [{'|'.join(LAYOUTS)}]")
    folder, out, layout = Path(arguments[0]), Path(arguments[1]), [*arguments, "unibiomed"][2]
    config = read_run(folder)
    records = records_of(config, folder, say)
    known = trained_targets(records)
    model, processor = initial_model(config, folder, lambda: vocabulary_texts(records, known, config.seed))
    material = TrainingData(records, processor, config.seed, config.validation_share)
    run = TrainingRun(model, material, None, folder, config, Accelerator(), say)
    taken = [take_over(run, stage) for stage in config.stages]  # every one: each trains other parts
    if not any(taken):
        raise ConfigError("Nothing trained yet", f"{folder} has no checkpoint", "a run with one")
    export_model(run, out, layout)
    say(f"exported to {out}")


def read_run(folder: Path) -> RunConfig:
    """The configuration that a run was started with.

    Raises:
        ConfigError: The folder is not a run, or one of another version.
    """
    wanted = f"a run folder, as '{as_called('python train/run.py')}' makes it"
    return RunConfig.from_dict(read_json(folder / "config.json", ConfigError, f"No run there, {folder}", wanted))
