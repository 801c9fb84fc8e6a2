"""One reader of JSON: byte order marks, encodings, bounds, and errors that say where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unibiomed_core.errors import ConfigError, DataError, ReadError, WeightsError
from unibiomed_core.files import parse_json, read_json, replaced_file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_is_read_with_and_without_a_mark(tmp_path: Path, encoding: str) -> None:
    """bugs 12."""
    (tmp_path / "a.json").write_bytes('{"Müller": [1]}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"Müller": [1]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1,\n "b": }', r"a\.json, line 2, column 7: Expecting value"),
        (b"", r"line 1, column 1"),
        (b"\xef\xbb\xbf", r"line 1, column 1"),
        ('{"a": "Müller"}'.encode("cp1252"), r"byte 8 is no utf-8 text"),
        (b"[" * 200_000, r"nested too deeply"),
        (b"9" * 5000, r"a\.json: .*digits"),
        (b'{"a": 1} {"b": 2}', r"line 1, column 10: Extra data"),
    ],
    ids=["broken", "empty", "mark alone", "Western", "deep", "digits", "two"],
)
def test_what_is_no_json_is_one_error_that_says_where(tmp_path: Path, content: bytes, told: str) -> None:
    """bugs 12."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=f"Table of labels. .*{told}.*Expected: a table"):
        read_json(tmp_path / "a.json", DataError, "Table of labels", "a table")
    with pytest.raises(ReadError):
        parse_json(content, "a.json")


def test_a_larger_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'"' + b"x" * 100)
    with pytest.raises(ConfigError, match=r"a.json has 101 bytes. Expected: .* of at most 100"):
        read_json(tmp_path / "a.json", ConfigError, most_bytes=100)


def test_no_file_a_folder_and_a_pipe_are_told(tmp_path: Path) -> None:
    places = [tmp_path / "none.json", tmp_path]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        places.append(tmp_path / "pipe.json")
    for place in places:
        with pytest.raises(ReadError, match="there is no such file"):
            read_json(place)


def test_configurations_of_models_are_read_by_it(tmp_path: Path) -> None:
    """bugs 12: a byte order mark, put there by an editor, was refused with a message about something else."""
    from unibiomed_core.model.folder import read_config

    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_config(tmp_path) == {"a": 1}
    (tmp_path / "config.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(WeightsError, match=r"config\.json, line 2, column 6"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(WeightsError, match="nested too deeply"):
        read_config(tmp_path)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("old", "utf-8")

    def break_off() -> None:
        with replaced_file(file) as aside:
            aside.write_text("ne", "utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert [f.name for f in tmp_path.iterdir()] == ["log.jsonl"]
    assert file.read_text("utf-8") == "old"
    with replaced_file(file) as aside:
        aside.write_text("new", "utf-8")
        assert file.read_text("utf-8") == "old", "nobody meets half a file"
    assert [f.name for f in tmp_path.iterdir()] == ["log.jsonl"]
    assert file.read_text("utf-8") == "new"
