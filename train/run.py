"""python train/run.py RECIPE [name=value ...]: from data sets to an exported model, in one command, resumable."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    # Run as a file: the repository takes the place of this folder, whose "datasets" would hide the library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from tokenizers import Tokenizer

from train import checkpoint
from train.calibrate import calibrated
from train.config import RunConfig, override
from train.data import records as record_files
from train.data.examples import vocabulary_texts
from train.data.records import Record
from train.loop import Run, run_stage, trained_part
from train.prepare import prepare
from train.recipes import RECIPES
from train.tokenizer import train_tokenizer
from unibiomed_core.errors import ConfigError, UniBiomedError
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.presets import PRESETS
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.model.weights import save


def main(arguments: Sequence[str]) -> int:
    """Run a recipe; returns the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(f"{__doc__}\nRecipes: {', '.join(RECIPES)}")
        return 0 if arguments else 2
    try:
        run(arguments[0], arguments[1:])
    except UniBiomedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(recipe: str, settings: Sequence[str]) -> Path:
    """Train every stage of a recipe that is not finished and export the model; returns the exported folder.

    Raises:
        ConfigError: The recipe or a setting is unknown.
    """
    if recipe not in RECIPES:
        near = difflib.get_close_matches(recipe, RECIPES, n=2, cutoff=0.3)
        raise ConfigError("Unknown recipe", f"'{recipe}'", f"one of {', '.join(near or RECIPES)}")
    config = override(RECIPES[recipe](), settings)
    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1), "utf-8")
    training = _training_records(config, folder)
    processor, model_config = _processor(config, folder, training)
    torch.manual_seed(config.seed)
    model = UniBiomed(model_config, processor.ids)
    shared = Run(model, processor, training, folder, config.seed, config.save_every, config.log_every, _say)
    selected = [s for s in config.only.split(",") if s]
    if unknown := set(selected) - {"export", *(s.name for s in config.stages)}:
        raise ConfigError("Unknown stage", ", ".join(unknown), ", ".join([*(s.name for s in config.stages), "export"]))
    for number, stage in enumerate(config.stages):
        if selected and stage.name not in selected:
            continue
        for earlier in config.stages[:number]:
            checkpoint.load(folder / earlier.name / "checkpoint", trained_part(model, earlier))
        run_stage(shared, stage)
    exported = folder / "export"
    if not selected or "export" in selected:
        for stage in config.stages:
            checkpoint.load(folder / stage.name / "checkpoint", trained_part(model, stage))
        model.eval()
        calibrated(model, processor, training, _facts(config, training))
        save(model, processor, exported, dtype="float16")
        _say(f"exported to {exported}")
    return exported


def _training_records(config: RunConfig, folder: Path) -> list[Record]:
    """Records of the train split, made from the data folder where they do not stand in the run folder yet."""
    file = folder / "records" / "train.parquet"
    if not file.is_file():
        prepare(Path(config.data), folder / "records", config.record_side, _say)
    found = record_files.load(file)
    if config.limit_records:
        found = found[:: max(1, len(found) // config.limit_records)][: config.limit_records]
    return found


def _processor(config: RunConfig, folder: Path, training: Sequence[Record]) -> tuple[Processor, UniBiomedConfig]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        train_tokenizer(vocabulary_texts(training, config.seed), config.vocabulary).save(str(file))
    tokenizer = Tokenizer.from_file(str(file))
    sizes = PRESETS[config.preset]()
    sizes = UniBiomedConfig.from_dict(
        {**sizes.to_dict(), "language": {**sizes.to_dict()["language"], "vocabulary": tokenizer.get_vocab_size()}}
    )
    return Processor(sizes, tokenizer), sizes


def _facts(config: RunConfig, training: Sequence[Record]) -> dict[str, str]:
    """What the weights say of themselves wherever they go."""
    sets = sorted({r.dataset for r in training})
    return {
        "licence": config.licence,
        "trained_by": f"python train/run.py {config.recipe}, seed {config.seed}",
        "trained_on": f"{len(training)} pictures of {len(sets)} data sets: {', '.join(sets)}",
    }


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
