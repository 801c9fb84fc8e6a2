"""Tables of a source row by row: CSV, JSON lists, JSON lines and Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unibiomed_core.errors import DataError

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")
_HEAD_CHARACTERS = 1 << 20
_ROWS_AT_ONCE = 64


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row as column -> value, in the order of the file.

    Raises:
        DataError: The file cannot be read, or is a JSON that is no list of objects.
    """
    import pyarrow as pa

    try:
        for number, row in enumerate(_READERS[path.suffix](path), 1):
            if not isinstance(row, dict):
                raise DataError("Table not usable", f"row {number} of {path.name} is {str(row)[:60]}", "named columns")
            yield row
    except (OSError, ValueError, csv.Error, pa.ArrowException) as cause:
        raise DataError("Table cannot be read", f"{path.name}: {cause}", "a complete CSV, JSON or Parquet") from cause


def columns(path: Path) -> tuple[str, ...]:
    """Column names by the first row alone; empty where the file is no table, is empty or cannot be read."""
    if path.suffix == ".json":
        try:
            with path.open(encoding="utf-8") as file:
                head = file.read(_HEAD_CHARACTERS).lstrip()
            first = json.JSONDecoder().raw_decode(head[1:].lstrip())[0] if head.startswith("[") else None
        except (OSError, ValueError):
            return ()
        return tuple(first) if isinstance(first, dict) else ()
    try:
        return tuple(str(name) for name in next(rows(path), {}))
    except DataError:
        return ()


def _csv(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, strict=True)


def _json(path: Path) -> Iterator[Any]:
    document = json.loads(path.read_text("utf-8"))
    if not isinstance(document, list):
        raise DataError("Table not usable", f"{path.name} holds a {type(document).__name__}", "a list of objects")
    yield from document


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()


_READERS = {".csv": _csv, ".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
