"""Tables in the dialects and encodings that spreadsheets write, and what is said of those that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.datasets.tiny_layouts_text import picture
from train.datasets import image_masks, image_text, tables
from train.datasets.request import ConversionRequest, Summary
from train.prepare import prepare
from unibiomed_core.errors import DataError

GERMAN = "Größe 1,5 cm – unauffällig"


def written(path: Path, delimiter: str, encoding: str, caption: str = GERMAN, ends: str = "\r\n") -> Path:
    """A caption of every picture, with decimal commas and, where one is needed, quotes."""
    quoted = f'"{caption}"' if delimiter in caption else caption
    lines = [delimiter.join(("image", "size", "caption")), *(delimiter.join((f"p{n}.png", "2", quoted)) for n in "01")]
    path.write_bytes(ends.join([*lines, ""]).encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_every_dialect_and_encoding_gives_the_same_rows(
    tmp_path: Path, delimiter: str, encoding: str, ends: str
) -> None:
    """bugs tables."""
    path, summary = written(tmp_path / "t.csv", delimiter, encoding, ends=ends), Summary()
    found = list(tables.rows(path, summary))
    assert found == [{"image": f"p{n}.png", "size": "2", "caption": GERMAN} for n in "01"]
    assert tables.columns(path) == ("image", "size", "caption")
    assert [code for code, _ in summary.notes] == (["table_encoding"] if encoding == "cp1252" else [])


def test_big_endian_utf_16_and_utf_32_are_told_by_their_marks(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for mark, encoding in ((b"\xfe\xff", "utf-16-be"), (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")):
        path.write_bytes(mark + f"image,caption\na.png,{GERMAN.replace(',', '.')}\n".encode(encoding))
        assert list(tables.rows(path)) == [{"image": "a.png", "caption": GERMAN.replace(",", ".")}]


def test_quoted_values_may_hold_line_ends_and_delimiters(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('image;caption\na.png;"Line one;\nline ""two"", 1,5 cm"\n', "utf-8")
    assert list(tables.rows(tmp_path / "t.csv")) == [{"image": "a.png", "caption": 'Line one;\nline "two", 1,5 cm'}]


def test_decimal_commas_do_not_make_a_table_comma_parted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image;x;y\na.png;1,5;2,5\nb.png;3,5;4,5\n", "utf-8")
    assert tables.form_of(tmp_path / "t.csv").delimiter == ";"
    assert list(tables.rows(tmp_path / "t.csv"))[1] == {"image": "b.png", "x": "3,5", "y": "4,5"}


def test_spaces_after_delimiters_are_no_part_of_names_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('image, caption \na.png, "one, two"\n', "utf-8")
    assert list(tables.rows(tmp_path / "t.csv")) == [{"image": "a.png", "caption": "one, two"}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("image,caption\na.png,b\n".encode("utf-16-le"), "zero bytes"),
        (("image,caption\n" + "a.png,Опухоль печени и почки\n" * 9).encode("cp1251"), "neither UTF-8 nor Western"),
        (("image,caption\n" + "a.png,肝臓の腫瘍です\n" * 9).encode("shift_jis"), "neither UTF-8 nor Western"),
        (b"image,caption\na.png,\x81\x8d\x8f and a few more words that are not\n", "charmap"),
    ],
)
def test_an_encoding_that_cannot_be_told_is_said(tmp_path: Path, content: bytes, told: str) -> None:
    """bugs tables: no guess at Cyrillic or Japanese."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"Encoding not known. t.csv has .*({told}).*UTF-8"):
        list(tables.rows(tmp_path / "t.csv"))
    assert tables.columns(tmp_path / "t.csv") == ()
    assert "t.csv: no table" in tables.told(tmp_path / "t.csv")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption,caption\na,b,c\n", "utf-8")
    with pytest.raises(DataError, match=r"Two columns of one name. t.csv: caption"):
        list(tables.rows(tmp_path / "t.csv"))


def test_json_tables_may_begin_with_a_mark(tmp_path: Path) -> None:
    """bugs 12."""
    for name, text in (("t.json", '[{"image": "a.png"}]'), ("t.jsonl", '{"image": "a.png"}\n')):
        for encoding in ("utf-8-sig", "utf-16"):
            (tmp_path / name).write_bytes(text.encode(encoding))
            assert list(tables.rows(tmp_path / name)) == [{"image": "a.png"}]
            assert tables.columns(tmp_path / name) == ("image",)


def test_deep_nesting_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[" * 200_000, "utf-8")
    assert tables.columns(tmp_path / "t.json") == ()
    with pytest.raises(DataError, match=r"t\.json"):
        list(tables.rows(tmp_path / "t.json"))


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.tsv"])
def test_a_spreadsheets_table_becomes_records_with_a_note(tmp_path: Path, name: str) -> None:
    """bugs tables: the whole way, and the summary says what was assumed."""
    source = tmp_path / "source"
    for number in range(12):
        picture(source / "images" / f"p{number}.png", number)
    rows = "".join(f"p{n}.png;Größe {n},5 cm\r\n" for n in range(12))
    (source / name).write_bytes(f"image;caption\r\n{rows}".encode("cp1252"))
    said: list[str] = []
    prepare(source, tmp_path / "out", 32, said.append, ["modality=ultrasound"])
    assert any("note 1 x: tables that are not UTF-8, read as Western Windows (cp1252)" in line for line in said)
    records = list(image_text.convert(ConversionRequest(source, "tiny"), Summary()))
    assert records[0].caption == "Größe 0,5 cm"


def test_colours_may_come_in_a_semicolon_table(tmp_path: Path) -> None:
    (tmp_path / "class_dict.csv").write_bytes("name;r;g;b\nnerve;255;0;0\nvessel;0;255;0\n".encode("utf-16"))
    table = image_masks._table(ConversionRequest(tmp_path, "tiny", modality="ultrasound"), Summary())
    assert table.colours
    assert table.labels == {"nerve": (0xFF0000,), "blood vessel": (0xFF00,)}
