"""python train/evaluate.py MODEL DATA OUT [name=value ...]: predictions to files first, numbers from files second.

  MODEL   a preset (mini), a folder or a hub id
  DATA    a folder of records (train.parquet, test.parquet), or of data sets
  OUT     gets the predictions, table.json, table.md and the figures
  limit=N       N evenly spaced test records only
  image=noise   noise in place of every picture; "compare" then tells whether the model looks

python train/evaluate.py score OUT DATA: numbers again from files; also those of another system's masks.jsonl
python train/evaluate.py compare OUT_A OUT_B [TO]: paired tests between two scored folders
python train/evaluate.py scorecard TO NAME=OUT NAME=OUT ...: several systems in one table, ours first

python train/evaluate.py report MODEL DATA OUT [name=value ...]: whole reports, as a user gets them, against their data
  DATA    one data set or a folder of them in the shared layout, each with a dataset.json
  OUT     gets reports.jsonl, their scores, table.json, table.md, and sheet/ with the first report of each data set;
          a run that was stopped or killed goes on, a finished one is scored again
  limit=N        N evenly spaced test items of each data set only
  modality=told  the modality of every item is told; else it is told of volumes alone whose file does not tell it
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # as in run.py
    __package__ = "train"

import torch

from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import ConfigError, DataError, UniBiomedError
from unibiomed_core.files import describe_file

from .commands import as_called
from .config import RunConfig, named_value
from .data import records as record_files
from .data.records import Record
from .evaluation import compare, figures, reports
from .evaluation.mask_scores import score
from .evaluation.predict import Asked, predict
from .evaluation.prediction_files import MASK_FILE, rows, to_json
from .evaluation.tables import (
    RUN_FILE,
    failures,
    joined,
    joined_markdown,
    markdown,
    read_run,
    read_table,
)
from .prepare import prepare

__all__ = ["failures", "main", "markdown", "predict", "score"]

STOPPED = 130
"""Exit status of a run that Ctrl-C ended."""

IMAGES = ("as is", "noise")


@dataclass(frozen=True)
class EvaluationSettings:
    """What ``name=value`` changes.

    Args:
        limit: Evenly spaced test records that are asked; 0 asks all.
        image: "as is" or "noise".
    """

    limit: int = 0
    image: str = "as is"


def settings(arguments: Sequence[str]) -> EvaluationSettings:
    """The settings of a command line.

    Raises:
        ConfigError: A name is unknown or a value does not fit.
    """
    found = EvaluationSettings()
    for argument in arguments:
        name, value = named_value(argument)
        if name == "limit" and value.isdecimal():
            found = replace(found, limit=int(value))
        elif name == "image" and value in IMAGES:
            found = replace(found, image=value)
        else:
            raise ConfigError("Unknown setting", f"'{argument}'", "limit=N (a whole number) or image=noise")
    return found


def evaluate(model: str, data: Path, out: Path, chosen: EvaluationSettings, command: str) -> dict[str, Any]:
    """Predict, score, write tables and figures; returns the table.

    Raises:
        UniBiomedError: Model or data cannot be used.
        KeyboardInterrupt: The user stopped; whole rows of what was predicted stay in the files.
    """
    folder = _records(data, out)
    test = record_files.load(folder / "test.parquet")
    picked: Sequence[Record] = test
    if chosen.limit and chosen.limit < len(test):
        picked = [test[i * len(test) // chosen.limit] for i in range(chosen.limit)]
    engine = Engine.load(model)
    out.mkdir(parents=True, exist_ok=True)
    run = {
        "command": command,
        "model": f"{engine.info.name}, weights {engine.info.sha256[:12]}",
        "weights_sha256": engine.info.sha256,
        "records": len(picked),
        "records_sha256": describe_file(folder / "test.parquet")["sha256"],
        "limit": chosen.limit,
        "image": chosen.image,
        "left_out": {},
        "complete": False,
    }
    _write_json(out / RUN_FILE, run)
    asked: Asked = predict(engine, picked, out, _say, chosen.image)
    _write_json(out / RUN_FILE, {**run, "left_out": dict(asked.left_out), "complete": True})
    return scored(out, folder)


def scored(out: Path, data: Path) -> dict[str, Any]:
    """Numbers, tables and figures of a folder of prediction files; returns the table.

    Raises:
        DataError: The files are missing or not whole, are about other records, or the records cannot be read.
    """
    _check_records(out, data / "test.parquet")
    table = score(out, record_files.load(data / "train.parquet"))
    run = read_run(out)
    _write_both(out, "table", table, markdown(table, run))
    figures.draw_all(out, table, record_files.load(data / "test.parquet"))
    return table


def _check_records(out: Path, test: Path) -> None:
    """Refuse predictions about records that are not in a test file, or are not those that were asked."""
    known = record_files.load(test).ids()
    asked = str(read_run(out).get("records_sha256", ""))
    if asked and asked != (now := describe_file(test)["sha256"]):
        raise DataError(
            "Predictions of other records",
            f"{out} was predicted from records with SHA-256 {asked[:12]}, {test} has {now[:12]}",
            "the records that were asked",
            "Predict again, or give those records.",
        )
    unknown = [row["id"] for row in rows(out / MASK_FILE, ("id",)) if row["id"] not in known]
    if unknown:
        found = f"{len(unknown)} rows of {out / MASK_FILE} are about others, such as '{unknown[0]}'"
        raise DataError("Predictions of other records", found, f"records of {test}")


def _records(data: Path, out: Path) -> Path:
    """The folder of records; made in ``OUT`` where DATA is a folder of data sets."""
    if (data / "test.parquet").is_file():
        return data
    prepare(data, out / "records", RunConfig("", "").record_side, _say)
    return out / "records"


def _evaluate(arguments: Sequence[str], command: str) -> str:
    out = Path(arguments[2])
    try:
        evaluate(arguments[0], Path(arguments[1]), out, settings(arguments[3:]), command)
    except KeyboardInterrupt:
        again = as_called("python train/evaluate.py score")
        _say(f"Stopped. {out} holds what was predicted; '{again}' makes numbers of it.")
        raise
    return (out / "table.md").read_text("utf-8")


def _score(arguments: Sequence[str], command: str) -> str:
    scored(Path(arguments[0]), Path(arguments[1]))
    return (Path(arguments[0]) / "table.md").read_text("utf-8")


def _compare(arguments: Sequence[str], command: str) -> str:
    first, second = Path(arguments[0]), Path(arguments[1])
    to = Path(arguments[2]) if len(arguments) > 2 else second
    table = compare.compare(first, second)
    text = compare.markdown(table, command)
    _write_both(to, "comparison", table, text)
    return text


def _scorecard(arguments: Sequence[str], command: str) -> str:
    to = Path(arguments[0])
    folders = {name: Path(folder) for name, _, folder in (a.partition("=") for a in arguments[1:])}
    if missing := [name for name, folder in folders.items() if not folder.name]:
        raise ConfigError("Folder without a name", f"'{missing[0]}'", "NAME=OUT for each system")
    tables = {name: read_table(folder) for name, folder in folders.items()}
    table = joined(tables)
    text = joined_markdown(table, command)
    _write_both(to, "scorecard", table, text)
    figures.bars_by_modality(tables, to / "bars_by_modality.png")
    figures.radar_over_tasks(tables, to / "radar_over_tasks.png")
    figures.boxes_by_dataset(folders, to / "boxes_by_dataset.png")
    return text


def _report(arguments: Sequence[str], command: str) -> str:
    model, data, out, *given = arguments
    chosen = reports.settings(given)
    try:
        return reports.evaluate(model, Path(data), Path(out), chosen, command, _say)
    except KeyboardInterrupt:
        _say(f"Stopped. {out} holds what was reported on; the same command goes on.")
        raise


COMMANDS: dict[str, tuple[Callable[[Sequence[str], str], str], int, int | None]] = {
    "score": (_score, 2, 2), "compare": (_compare, 2, 3), "scorecard": (_scorecard, 2, None),
    "report": (_report, 3, None),
}  # fmt: skip
"""Name -> function, fewest and most arguments."""


def main(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status."""
    name = arguments[0] if arguments else ""
    function, fewest, most = COMMANDS.get(name, (_evaluate, 3, None))
    own = arguments[1:] if name in COMMANDS else arguments
    if len(own) < fewest or (most is not None and len(own) > most):
        print(as_called(__doc__), file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    try:
        print(function(own, shlex.join([*as_called("python train/evaluate.py").split(), *arguments])))
    except UniBiomedError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    return 0


def _write_both(folder: Path, name: str, table: object, text: str) -> None:
    """A table for programs and for people."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / f"{name}.json", table)
    (folder / f"{name}.md").write_text(text + "\n", "utf-8")


def _write_json(path: Path, value: object) -> None:
    path.write_text(to_json(value, indent=1), "utf-8")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
