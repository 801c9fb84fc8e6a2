"""The uniform record: one picture with its regions, what is known to be absent, and its text material.

Records are kept as Parquet: pictures as PNG bytes, regions as COCO run lengths. :class:`RecordSet` reads them through
``datasets``, memory-mapped, so that a million records cost no more memory than a thousand.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unibiomed_core.errors import DataError, WriteError

from ..commands import as_called
from .run_lengths import decode_mask, encode_mask

if TYPE_CHECKING:
    import datasets
    import pyarrow

UNNAMED = "region of interest"
"""Target of a box that the source does not name."""

RECORDS_FORMAT = 3
"""Raised whenever the same files become other records than before; a run then makes its own anew."""

ROWS_AT_ONCE = 1000
"""Records that are held in memory while a file is written, and rows of a block of it."""


@dataclass(frozen=True)
class RegionRecord:
    """One annotated target of a picture.

    Args:
        target: Canonical name where the vocabulary knows it, else the source's own, lower case.
        counts: COCO run lengths at the record's picture size; empty for a region that is known by its box alone.
        box: (x0, y0, x1, y1), corners included, at the record's picture size.
        caption: What the source says of this region; empty where nothing.
        anatomy: Body part that the source names with it; empty where none.
    """

    target: str
    counts: bytes = b""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    caption: str = ""
    anatomy: str = ""


@dataclass(frozen=True)
class QuestionRecord:
    """One question with its answer, both as the source has them."""

    question: str
    answer: str
    closed: bool


@dataclass(frozen=True)
class Record:
    """One picture.

    Args:
        id: Unique over all data sets.
        group: Patient, video or cluster; a split never cuts a group.
        image: PNG bytes, grey or RGB; of the side asked for, aspect ratio not kept, as both towers see it, or of the
            source's own size.
        size: Height and width before resizing.
        spacing_mm: Row and column spacing before resizing; 0 where unknown.
        volume: Id of the volume a slice came from; empty for a picture.
        slice: Canonical axial index in its volume, or -1.
        regions: What is there.
        absent: Annotated targets of the source that are not in this picture.
        foreign: Targets of other body parts or modalities that cannot be in this picture.
        findings_known: Whether every finding in the source's scope is annotated, so that none means none.
        image_class: Label of the whole picture, empty where none.
        caption: Report or caption of the whole picture, as the source has it.
        source: File the picture came from, relative to the source's folder.
    """

    id: str
    dataset: str
    split: str
    group: str
    modality: str
    licence: str
    image: bytes
    size: tuple[int, int]
    spacing_mm: tuple[float, float] = (0.0, 0.0)
    volume: str = ""
    slice: int = -1
    regions: tuple[RegionRecord, ...] = ()
    absent: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    findings_known: bool = False
    image_class: str = ""
    questions: tuple[QuestionRecord, ...] = field(default=())
    caption: str = ""
    source: str = ""

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8.

        Raises:
            DataError: The picture is damaged.
        """
        with _decoding(self.id):
            return np.asarray(Image.open(io.BytesIO(self.image), formats=["PNG"]).convert("RGB"))

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the picture as it is stored here."""
        with _decoding(self.id):
            width, height = Image.open(io.BytesIO(self.image), formats=["PNG"]).size
            return height, width

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Target -> (H, W) bool, of every region that has a mask.

        Raises:
            DataError: One of them, or the picture, is damaged.
        """
        size = self.stored_size
        return {r.target: decode_mask(r.counts, size) for r in self.regions if r.counts}


@contextmanager
def _decoding(record_id: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged picture into a :class:`DataError`."""
    try:
        yield
    except Exception as cause:  # many unrelated types
        told = f"the picture of '{record_id}': {str(cause)[:160] or type(cause).__name__}"
        raise DataError("Damaged records", told, "PNG", "Prepare the data set again.") from cause


def region_record(target: str, mask: NDArray[np.bool_], caption: str = "", anatomy: str = "") -> RegionRecord:
    """A region of a (H, W) mask that is not empty, with its box."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return RegionRecord(target, encode_mask(mask), box, caption, anatomy)


def resize_picture(rgb: NDArray[np.uint8], side: int) -> bytes:
    """(H, W, 3) -> PNG bytes of ``side`` x ``side``, or of its own size where that is 0; grey ones get one channel."""
    image = Image.fromarray(rgb)
    if side:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def resize_mask(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """(H, W) bool -> (side, side) bool: the area that a pixel covers decides, half or more is foreground.

    A ``side`` of 0 leaves the mask as it is.
    """
    if not side:
        return mask
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image) >= 128


def arrow_schema() -> pyarrow.Schema:
    """Columns of a records file, written out so that an empty list has a type, too."""
    import pyarrow as pa

    # Large, because the library maps columns of plain bytes in blocks of 100 rows, each of which costs memory.
    text, data = pa.string(), pa.large_binary()
    region = pa.struct(
        [("target", text), ("counts", data), ("box", pa.list_(pa.int32())), ("caption", text), ("anatomy", text)]
    )
    question = pa.struct([("question", text), ("answer", text), ("closed", pa.bool_())])
    return pa.schema(
        [
            *((name, text) for name in ("id", "dataset", "split", "group", "modality", "licence")),
            ("image", data),
            ("size", pa.list_(pa.int32())),
            ("spacing_mm", pa.list_(pa.float64())),
            ("volume", text),
            ("slice", pa.int32()),
            ("regions", pa.list_(region)),
            ("absent", pa.list_(text)),
            ("foreign", pa.list_(text)),
            ("findings_known", pa.bool_()),
            ("image_class", text),
            ("questions", pa.list_(question)),
            ("caption", text),
            ("source", text),
        ]
    )


class RecordWriter:
    """Writes records as Parquet, a few hundred at a time; used with ``with``, which leaves no half-written file.

    Raises:
        WriteError: The disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._rows: list[dict[str, Any]] = []
        self._aside = path.with_name(path.name + ".new")

    def __enter__(self) -> RecordWriter:
        import pyarrow.parquet as parquet

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = parquet.ParquetWriter(self._aside, arrow_schema())
        except OSError as cause:
            raise WriteError("Records not written", f"{self.path}: {cause}", "a folder with space") from cause
        return self

    def add(self, record: Record) -> None:
        self._rows.append(asdict(record))
        self.count += 1
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        try:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=arrow_schema()))
        except OSError as cause:
            raise WriteError("Records not written", f"{self.path}: {cause}", "a folder with space") from cause
        self._rows.clear()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None and self._rows:
                self._flush()
            self._file.close()
            if kind is None:
                self._aside.replace(self.path)
        except OSError as cause:
            raise WriteError("Records not written", f"{self.path}: {cause}", "a folder with space") from cause
        finally:
            self._aside.unlink(missing_ok=True)


def save(records: Iterable[Record], path: Path) -> int:
    """Write records as Parquet; returns how many.

    Raises:
        DataError: There is none.
        WriteError: The disk is full or the folder cannot be written.
    """
    with RecordWriter(path) as writer:
        for record in records:
            writer.add(record)
        if not writer.count:
            raise DataError("Empty split", f"no record to write to {path.name}", "at least one record")
    return writer.count


class RecordSet(Sequence[Record]):
    """Records of one file, memory-mapped: opening reads no picture, and a record is made when it is asked for.

    Attributes:
        groups: (N,) int32, for each record the number of its data set and modality in ``group_names``.
        group_names: (dataset, modality) pairs, sorted.
    """

    def __init__(self, table: datasets.Dataset) -> None:
        import pyarrow.compute as compute

        self._table = table.with_format("arrow")
        # Two short columns, a chunk at a time; everything else stays on the disk until a record is asked for.
        numbers: dict[tuple[str, str], int] = {}
        groups = np.zeros(len(table), np.int32)
        start = 0
        for own, modality in self.chunks("dataset", "modality"):
            coded = compute.binary_join_element_wise(own, modality, "\0").dictionary_encode()
            pairs = [tuple(name.split("\0")) for name in coded.dictionary.to_pylist()]
            place = np.array([numbers.setdefault((a, b), len(numbers)) for a, b in pairs], np.int32)
            groups[start : start + len(own)] = place[np.asarray(coded.indices)]
            start += len(own)
        self.group_names: tuple[tuple[str, str], ...] = tuple(sorted(numbers))
        order = np.zeros(len(numbers), np.int32)
        order[[numbers[name] for name in self.group_names]] = np.arange(len(numbers))
        self.groups: NDArray[np.int32] = order[groups] if len(groups) else groups

    def chunks(self, *names: str) -> Iterator[tuple[pyarrow.Array, ...]]:
        """Columns side by side, some thousand rows at a time."""
        yield from zip(*(self._table.data.column(name).chunks for name in names), strict=True)

    def thinned(self, most: int) -> RecordSet:
        """At most so many records, evenly spaced, held in memory."""
        chosen = range(0, len(self), max(1, len(self) // most))[:most]
        return RecordSet(self._table.select(chosen, keep_in_memory=True).flatten_indices(keep_in_memory=True))

    def __len__(self) -> int:
        return len(self.groups)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = int(index) % len(self)
        return _from_row(self._table[at : at + 1].to_pylist()[0])

    def __iter__(self) -> Iterator[Record]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            for row in self._table[start : start + ROWS_AT_ONCE].to_pylist():
                yield _from_row(row)

    def ids(self) -> set[str]:
        """Of all records, without reading a picture."""
        return {name for (chunk,) in self.chunks("id") for name in chunk.to_pylist()}

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """(N,) bool, records of a share of the patients, by the CRC-32 of their names: the same on every machine.

        None where it would be all of them, as a set of very few patients may have it.
        """
        found = np.zeros(len(self), bool)
        if not share:
            return found
        number = 0
        for dataset, group in self.chunks("dataset", "group"):
            for name in zip(dataset.to_pylist(), group.to_pylist(), strict=True):
                found[number] = zlib.crc32("/".join(name).encode()) < share * 2**32
                number += 1
        return found & ~found.all()

    def lengths(self, name: str) -> NDArray[np.int32]:
        """(N,) how many entries a list column has in each record, without reading a picture."""
        import pyarrow.compute as compute

        parts = [np.asarray(compute.list_value_length(chunk), np.int32) for (chunk,) in self.chunks(name)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def target_counts(self) -> Counter[tuple[str, str, str]]:
        """(dataset, modality, target) -> pictures that have a mask of it, without reading a picture."""
        import pyarrow.compute as compute

        counts: Counter[tuple[str, str, str]] = Counter()
        start = 0
        for (chunk,) in self.chunks("regions"):
            regions = compute.list_flatten(chunk)
            masked = np.asarray(compute.binary_length(compute.struct_field(regions, "counts"))) > 0
            owners = np.asarray(compute.list_parent_indices(chunk))[masked] + start
            coded = compute.struct_field(regions, "target").dictionary_encode()
            names = coded.dictionary.to_pylist()
            pairs = np.stack([self.groups[owners], np.asarray(coded.indices)[masked]], axis=1)
            for (group, name), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
                counts[(*self.group_names[group], names[name])] += int(count)
            start += len(chunk)
        return counts


def load(path: Path) -> RecordSet:
    """Open a records file.

    The first opening turns Parquet into a memory-mapped Arrow file beside it; later ones find that.

    Raises:
        DataError: The file is missing, damaged, or not one of ours.
    """
    import datasets
    import pyarrow as pa

    wanted = f"a file made by '{as_called('python train/prepare.py')}'"
    if not path.is_file():
        raise DataError("Records not found", f"there is no {path}", wanted)
    datasets.disable_progress_bars()
    try:
        table = datasets.Dataset.from_parquet(str(path), cache_dir=str(path.parent / ".arrow"))
    except (ValueError, OSError, pa.ArrowException, datasets.exceptions.DatasetGenerationError) as cause:
        raise DataError("Records cannot be read", f"{path.name}: {cause}", wanted) from cause
    if missing := set(arrow_schema().names) - set(table.column_names):
        lacks = f"{path.name} lacks {', '.join(sorted(missing))}"
        raise DataError("Records cannot be read", lacks, wanted, "Prepare the data set again with this version.")
    if wrong := _damage(table.data.table):
        raise DataError("Damaged records", f"{path.name}: {wrong}", wanted, "Copy it, or prepare the data set, again.")
    return RecordSet(table)


def _damage(table: pyarrow.Table) -> str:
    """What is wrong with a table that has all columns, or "" where nothing is; no picture is read.

    Parquet's reader believes every value that it can unpack, and a text of wrong bytes would be met hours later.
    """
    import pyarrow as pa

    for wanted in arrow_schema():
        column = table.column(wanted.name)
        if column.type != wanted.type:
            return f"{wanted.name} is of type {str(column.type)[:60]}"
        try:
            column.validate(full=True)
        except pa.ArrowException as cause:
            return f"{wanted.name}: {str(cause)[:160]}"
        if any(_has_nulls(chunk) for chunk in column.chunks):
            return f"{wanted.name} has no value in some records"
    lengths = {"size": 2, "spacing_mm": 2, "regions": 4}
    for name, length in lengths.items():
        for chunk in table.column(name).chunks:
            numbers = chunk.flatten().field("box") if name == "regions" else chunk
            if (np.diff(np.asarray(numbers.offsets)) != length).any():
                return f"{name} has {'boxes' if name == 'regions' else 'entries'} of other than {length} numbers"
    return ""


def _has_nulls(array: pyarrow.Array) -> bool:
    import pyarrow.types as kinds

    if array.null_count:
        return True
    if kinds.is_list(array.type):
        return _has_nulls(array.flatten())
    return kinds.is_struct(array.type) and any(_has_nulls(field) for field in array.flatten())


def _from_row(row: dict[str, Any]) -> Record:
    row["regions"] = tuple(RegionRecord(**{**r, "box": tuple(r["box"])}) for r in row["regions"])
    row["questions"] = tuple(QuestionRecord(**q) for q in row["questions"])
    for key in ("size", "spacing_mm", "absent", "foreign"):
        row[key] = tuple(row[key])
    return Record(**row)
