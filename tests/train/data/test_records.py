"""Damaged records are refused when they are opened or, a picture or mask, where it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from train.data.records import QuestionRecord, Record, arrow_schema, load, region_record, resize_picture, save
from unibiomed_core.errors import DataError


def a_record() -> Record:
    pixels = np.random.default_rng(1).integers(0, 255, (16, 20, 3), np.uint8)
    mask = np.zeros((16, 20), bool)
    mask[2:9, 3:12] = True
    return Record(
        id="polyps/1", dataset="polyps", split="train", group="patient 1", modality="endoscopy", licence="",
        image=resize_picture(pixels, 0), size=(16, 20), regions=(region_record("polyp", mask),), absent=("ulcer",),
        questions=(QuestionRecord("Is there a polyp?", "Yes", True),),
    )  # fmt: skip


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def of_wrong_bytes(table: pa.Table) -> pa.Table:
    return with_column(table, "caption", pa.array([b"\xff\xfe"]).view(pa.string()))


def of_another_type(table: pa.Table) -> pa.Table:
    return with_column(table, "id", pa.array([1]))


def without_a_value(table: pa.Table) -> pa.Table:
    return with_column(table, "caption", pa.array([None], pa.string()))


def without_an_inner_value(table: pa.Table) -> pa.Table:
    row = [{**region, "target": None} for region in table.column("regions")[0].as_py()]
    return with_column(table, "regions", pa.array([row], arrow_schema().field("regions").type))


def with_a_box_of_three(table: pa.Table) -> pa.Table:
    row = [{**region, "box": [1, 2, 3]} for region in table.column("regions")[0].as_py()]
    return with_column(table, "regions", pa.array([row], arrow_schema().field("regions").type))


def with_three_sizes(table: pa.Table) -> pa.Table:
    return with_column(table, "size", pa.array([[16, 20, 3]], arrow_schema().field("size").type))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (of_wrong_bytes, "caption: "),
        (of_another_type, "id is of type int64"),
        (without_a_value, "caption has no value in some records"),
        (without_an_inner_value, "regions has no value in some records"),
        (with_a_box_of_three, "regions has boxes of other than 4 numbers"),
        (with_three_sizes, "size has entries of other than 2 numbers"),
    ],
)
def test_damaged_tables_are_refused_when_they_are_opened(
    tmp_path: Path, damage: Callable[[pa.Table], pa.Table], told: str
) -> None:
    path = tmp_path / "train.parquet"
    save([a_record()], path)
    assert len(load(path)) == 1
    other = tmp_path / "damaged.parquet"
    parquet.write_table(damage(parquet.read_table(path)), other)
    with pytest.raises(DataError, match=r"Damaged records\. damaged\.parquet") as caught:
        load(other)
    assert told in caught.value.found


@pytest.mark.parametrize("damaged", [b"", b"GIF89a", "cut", "flipped"])
def test_a_damaged_picture_is_named(damaged: bytes | str) -> None:
    record = a_record()
    if damaged == "cut":
        damaged = record.image[: len(record.image) // 2]
    elif damaged == "flipped":
        damaged = record.image[:60] + b"\xff" * 30 + record.image[90:]
    assert isinstance(damaged, bytes)
    with pytest.raises(DataError, match="the picture of 'polyps/1'"):
        replace(record, image=damaged).pixels()


def test_a_damaged_mask_is_refused() -> None:
    record = a_record()
    damaged = replace(record.regions[0], counts=record.regions[0].counts + b"9")
    with pytest.raises(DataError, match="Damaged mask"):
        replace(record, regions=(damaged,)).masks()
