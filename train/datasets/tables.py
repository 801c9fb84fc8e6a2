"""Tables of a source row by row: CSV of any dialect and common encoding, JSON lists, JSON lines and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed_core.errors import DataError
from unibiomed_core.files import parse_json, read_json

from .request import Summary

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_HEAD_CHARACTERS = 1 << 20
_ROWS_AT_ONCE = 64

DELIMITERS: dict[str, str] = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
"""What may part the values of a row, and its name for people; of equally good ones the first."""

_BYTES_AT_ONCE = 1 << 20
_SNIFFED_ROWS = 20
_MOST_HIGH = 0.25
"""Share of bytes above 127 in a Western text; in Cyrillic, Greek or Chinese in an old encoding it is far higher."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""Byte order marks, the longer one of two with the same start first."""


@dataclass(frozen=True)
class Form:
    """How a text table is written.

    Args:
        encoding: Python's name of it.
        delimiter: A row of ``DELIMITERS``.
    """

    encoding: str
    delimiter: str

    def __str__(self) -> str:
        return f"parted by {DELIMITERS[self.delimiter]}, {self.encoding.removesuffix('-sig')}"


def form_of(path: Path) -> Form:
    """The encoding and delimiter of a CSV file, from its bytes and its first rows.

    Raises:
        DataError: The bytes are in no encoding that can be told.
        OSError: It cannot be read.
    """
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(_HEAD_CHARACTERS)
    return Form(encoding, max(DELIMITERS, key=lambda delimiter: _fit(head, delimiter)))


def rows(path: Path, summary: Summary | None = None) -> Iterator[dict[str, Any]]:
    """Every row as column -> value, in the order of the file.

    Args:
        summary: Gets a note where the encoding had to be assumed.

    Raises:
        DataError: The file cannot be read, two columns have one name, or it is a JSON that is no list of objects.
    """
    import pyarrow as pa

    try:
        for number, row in enumerate(_READERS[path.suffix.lower()](path, summary), 1):
            if not isinstance(row, dict):
                raise DataError("Table not usable", f"row {number} of {path.name} is {str(row)[:60]}", "named columns")
            yield row
    except (OSError, ValueError, csv.Error, RecursionError, pa.ArrowException) as cause:
        raise DataError("Table cannot be read", f"{path.name}: {cause}", "a complete CSV, JSON or Parquet") from cause


def columns(path: Path) -> tuple[str, ...]:
    """Column names by the first row alone; empty where the file is no table, is empty or cannot be read."""
    if path.suffix.lower() == ".json":
        try:
            with path.open(encoding=_encoding(path)) as file:
                head = file.read(_HEAD_CHARACTERS).lstrip()
            first = json.JSONDecoder().raw_decode(head[1:].lstrip())[0] if head.startswith("[") else None
        except (OSError, ValueError, RecursionError, DataError):
            return ()
        return tuple(first) if isinstance(first, dict) else ()
    try:
        return tuple(str(name) for name in next(rows(path), {}) if name is not None)
    except DataError:
        return ()


def told(path: Path) -> str:
    """What a file is as a table, for a message: its form and columns, or why it is none."""
    form = ""
    try:
        if path.suffix.lower() in {".csv", ".tsv"}:
            form = f" ({form_of(path)})"
        found = columns(path) or tuple(next(rows(path), {}))
    except (DataError, OSError) as cause:
        return f"{path.name}: no table, {cause.found if isinstance(cause, DataError) else cause}"
    return f"{path.name}{form}: {', '.join(map(str, found)) or 'no table'}"


def _encoding(path: Path) -> str:
    """Of a whole text file: what its byte order mark says, else UTF-8 where all of it is, else Western Windows.

    Raises:
        DataError: None of these.
    """
    utf8, high, total = codecs.getincrementaldecoder("utf-8")(), 0, 0
    with path.open("rb") as file:
        head = file.read(_BYTES_AT_ONCE)
        if marked := next((name for mark, name in _MARKS if head.startswith(mark)), ""):
            return marked
        if b"\0" in head[: _SNIFFED_ROWS * 100]:
            raise _untold(path, "zero bytes, as UTF-16 without a byte order mark or a binary file has them")
        is_utf8, block = True, head
        while block:
            if is_utf8:
                try:
                    utf8.decode(block)
                except UnicodeDecodeError:
                    is_utf8 = False
            high += int(np.count_nonzero(np.frombuffer(block, np.uint8) > 127))
            total += len(block)
            block = file.read(_BYTES_AT_ONCE)
    if is_utf8 and not utf8.getstate()[0]:
        return "utf-8"
    if high > _MOST_HIGH * total:
        raise _untold(path, "letters in an encoding that is neither UTF-8 nor Western Windows")
    with path.open(encoding="cp1252") as text:
        try:
            while text.read(_BYTES_AT_ONCE):
                pass
        except UnicodeDecodeError as cause:
            raise _untold(path, f"{cause}") from cause
    return "cp1252"


def _untold(path: Path, found: str) -> DataError:
    return DataError("Encoding not known", f"{path.name} has {found}", "UTF-8", "Save the table as UTF-8.")


def _fit(head: str, delimiter: str) -> tuple[int, int]:
    """How well a delimiter parts the first rows: rows as wide as the first, and its width; nothing for one column."""
    try:
        table = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=True)
        found = list(islice(table, _SNIFFED_ROWS))
    except csv.Error:
        return 0, 0
    width = len(found[0]) if found else 0
    return (sum(len(row) == width for row in found), width) if width > 1 else (0, 0)


def _csv(path: Path, summary: Summary | None) -> Iterator[Any]:
    form = form_of(path)
    if form.encoding == "cp1252" and summary is not None:
        summary.note("table_encoding", path.name, "Western Windows (cp1252)")
    with path.open(encoding=form.encoding, newline="") as file:
        table = csv.DictReader(file, delimiter=form.delimiter, skipinitialspace=True, strict=True)
        names = [name.strip() for name in table.fieldnames or ()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError("Two columns of one name", f"{path.name}: {', '.join(twice)}", "a name for each column")
        table.fieldnames = names
        yield from table


def _json(path: Path, summary: Summary | None) -> Iterator[Any]:
    document = read_json(path, DataError, "Table cannot be read")
    if not isinstance(document, list):
        raise DataError("Table not usable", f"{path.name} holds a {type(document).__name__}", "a list of objects")
    yield from document


def _json_lines(path: Path, summary: Summary | None) -> Iterator[Any]:
    with path.open(encoding=_encoding(path)) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield parse_json(line.encode(), f"{path.name}, row {number}", DataError, "Table cannot be read")


def _parquet(path: Path, summary: Summary | None) -> Iterator[Any]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE):
            yield from batch.to_pylist()


_READERS = {".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _json_lines, ".parquet": _parquet}
