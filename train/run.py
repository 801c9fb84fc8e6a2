"""python train/run.py RECIPE [name=value ...]: from data sets to an exported model, in one command, resumable.

python train/run.py datasets                      lists the data sets of the paper and how each is converted
python train/run.py export RUN OUT [published]    writes a run's model in this product's layout, or the published one
python train/run.py calibrate MODEL RECORDS OUT   fits a first look and the fusion of checks for a model that stands, on
                                                  patients held out from its training (share=0.04)

Several processes or machines: accelerate launch train/run.py RECIPE ... (its configuration chooses DDP or
FSDP 2).
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):
    # Run as a file: the repository takes the place of this folder, whose "datasets" would hide the library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "train"

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from unibiomed_core.errors import ConfigError, UniBiomedError, WriteError

from .commands import as_called
from .config import RunConfig, override
from .data.examples import vocabulary_texts
from .data.targets import trained_targets
from .recipes import RECIPES
from .run_records import records_file, trained_records, training_records
from .training import made_from
from .training.export import export_model, export_run
from .training.initialise import initial_model
from .training.loop import TrainingRun, run_stage, take_over
from .training.process_group import process_group
from .training.stage import TrainingData
from .training.validate import Validation


def main(arguments: Sequence[str]) -> int:
    """Run a recipe or one of the other commands; returns the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(f"{as_called(__doc__)}\nRecipes: {', '.join(RECIPES)}")
        return 0 if arguments else 2
    try:
        if arguments[0] == "datasets":
            from .datasets.registry import table_text

            print(table_text())
        elif arguments[0] == "export":
            export_run(arguments[1:], trained_records, _say)
        elif arguments[0] == "calibrate":
            from .calibration.standing import calibrate_standing

            calibrate_standing(arguments[1:], _say)
        else:
            run(arguments[0], arguments[1:])
    except UniBiomedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


def run(recipe: str, settings: Sequence[str]) -> Path:
    """Train every stage of a recipe that is not finished and export the model; returns the exported folder.

    Raises:
        ConfigError: The recipe or a setting is unknown, or no data are named.
    """
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=2, cutoff=0.3)
        raise ConfigError("Unknown recipe", f"'{recipe}'", f"one of {', '.join(near or RECIPES)}")
    config = override(RECIPES[recipe](), settings)
    selected = [s for s in config.only.split(",") if s]
    if unknown := set(selected) - {"export", *(s.name for s in config.stages)}:
        raise ConfigError("Unknown stage", ", ".join(unknown), ", ".join([*(s.name for s in config.stages), "export"]))
    if not config.data:
        raise ConfigError(
            "No data named", f"recipe {recipe} without data=", "a folder of records or of data sets",
            "Name it: data=FOLDER.",
        )  # fmt: skip
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        # Without it several processes on CPUs would not find one another.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if config.precision == "bfloat16" else "no",
    )
    if accelerator.distributed_type in _UNSUPPORTED:
        raise ConfigError(
            "Launcher not supported", f"{accelerator.distributed_type.value}, whose optimiser state cannot be gathered",
            "DDP or FSDP 2", "Choose it with 'accelerate config'.",
        )  # fmt: skip
    with process_group(accelerator):
        return _train(config, selected, accelerator)


def _train(config: RunConfig, selected: Sequence[str], accelerator: Accelerator) -> Path:
    """The stages and the export that are selected, or all; returns the exported folder."""
    say = _say if accelerator.is_main_process else _be_silent
    folder = Path(config.out)
    with accelerator.main_process_first():
        inputs = made_from.inputs_of(config, folder)
        made_from.check_stages(config, folder, inputs, say)
        _save_config(config, folder)
        records = training_records(config, folder, say, inputs)
        inputs["records"] = made_from.content_of(records_file(config, folder))
        made_from.check_tokenizer(config, folder, inputs, say)
        known = trained_targets(records)
        model, processor = initial_model(config, folder, lambda: vocabulary_texts(records, known, config.seed))
    material = TrainingData(records, processor, config.seed, config.validation_share)
    validation = Validation(material, folder) if material.held_out.any() else None
    shared = TrainingRun(model, material, validation, folder, config, accelerator, say, inputs)
    for number, stage in enumerate(config.stages):
        if selected and stage.name not in selected:
            continue
        if shared.sharded and number:  # the stage before left shards in the model
            shared = replace(shared, model=initial_model(config, folder, list)[0])
        for earlier in config.stages[:number]:
            take_over(shared, earlier)
        run_stage(shared, stage)
    exported = folder / "export"
    if (not selected or "export" in selected) and accelerator.is_main_process:
        if shared.sharded:
            shared = replace(shared, model=initial_model(config, folder, list)[0])
        for stage in config.stages:
            take_over(shared, stage)
        export_model(shared, exported)
        say(f"exported to {exported}")
    return exported


def _save_config(config: RunConfig, folder: Path) -> None:
    """The resolved configuration, before anything else is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1), "utf-8")
    except OSError as cause:
        raise WriteError("Run folder cannot be written", f"{folder}: {cause}", "a folder with space") from cause


_UNSUPPORTED = {DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM}


def _say(line: str) -> None:
    print(line, flush=True)


def _be_silent(line: str) -> None:
    """What other processes than the main one say."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
