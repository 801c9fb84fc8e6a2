"""The records of a run: those of its data folder, or made from it once and kept in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .config import RunConfig
from .data import records as record_files
from .data.records import RecordSet
from .prepare import prepare
from .training import made_from


def training_records(
    config: RunConfig, folder: Path, say: Callable[[str], None], inputs: made_from.Inputs | None = None
) -> RecordSet:
    """Records of the train split: those in the data folder, or made from it into the run folder, once for the same
    data and settings.

    Args:
        inputs: Of ``made_from.inputs_of``, where they are known.

    Raises:
        DataError: The data folder is in no known layout, or its conversion refused too much.
    """
    file = records_file(config, folder)
    told = [f"{name}={value}" for name in ("modality", "labels") if (value := getattr(config, name))]
    if file.parent == Path(config.data):
        if told:
            say(f"without effect, as {config.data} holds records: {', '.join(told)}")
    else:
        inputs = inputs or made_from.inputs_of(config, folder)
        if not made_from.kept_records(config, folder, inputs, say):
            prepare(Path(config.data), file.parent, config.record_side, say, told)
            made_from.records_made(file.parent, inputs)
    return _opened(file, config)


def trained_records(config: RunConfig, folder: Path, say: Callable[[str], None]) -> RecordSet:
    """The records that a run's stages were trained from, whatever became of its data folder since.

    Raises:
        ConfigError: Those that are there are others.
        DataError: There are none and the data folder gives none.
    """
    file = records_file(config, folder)
    if not file.is_file():
        training_records(config, folder, say)
    made_from.check_records(config, folder, file)
    return _opened(file, config)


def _opened(file: Path, config: RunConfig) -> RecordSet:
    found = record_files.load(file)
    return found.thinned(config.limit_records) if config.limit_records else found


def records_file(config: RunConfig, folder: Path) -> Path:
    """In the data folder where there are records, else in the run's."""
    ready = Path(config.data) / "train.parquet"
    return ready if ready.is_file() else folder / "records" / "train.parquet"
