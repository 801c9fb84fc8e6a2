"""Seeded damage to files: pure functions from sound bytes and a number to damaged bytes, the same on every machine.

A :class:`Layout` says where a format keeps its numbers, lengths and chunks; ``layouts.py`` makes them. Damage goes
round the :data:`MUTATORS`, so that a run of consecutive numbers has all of them in equal shares.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["number", "length", "float", "text"]


@dataclass(frozen=True)
class Field:
    """A value in a header.

    Args:
        start: Offset in the file.
        size: Bytes.
        kind: A whole number, a whole number that counts something which follows, an IEEE number, or digits as text.
        order: "<" or ">", as ``struct`` writes it.
    """

    start: int
    size: int
    kind: Kind
    order: Literal["<", ">"] = "<"


@dataclass(frozen=True)
class Layout:
    """Where things are in a file.

    Args:
        fields: Of its headers.
        chunks: (start, end) of pieces that could stand twice, be missing, or change places.
        header_end: Behind the last header, as far as one is known.
        nested: Makes ``depth`` levels inside the file; None where the format has no nesting.
    """

    fields: tuple[Field, ...]
    chunks: tuple[tuple[int, int], ...] = ()
    header_end: int = 512
    nested: Callable[[bytes, int], bytes] | None = None


EXTREME_TEXTS = (
    b"0", b"-1", b"nan", b"inf", b"1e308", b"-1e-320", b"9" * 40, b"9" * 5000, b"", b"\xff\xfe", b"2147483648",
)  # fmt: skip

Mutator = Callable[[bytes, Layout, random.Random, int], bytes]


def damage(data: bytes, layout: Layout, case: int, turn: int, seed: str) -> tuple[str, bytes]:
    """The name of the mutator that has its turn at ``case``, and what it leaves of ``data`` the ``turn``-th time."""
    names = list(MUTATORS)
    name = names[case % len(names)]
    return name, MUTATORS[name](data, layout, random.Random(f"{seed} {case}"), turn)


def flip_bits(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """One to eight bits, every second time in the headers."""
    changed = bytearray(data)
    end = min(layout.header_end, len(data)) if turn % 2 else len(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut_at_field(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """Truncated at, or inside of, one header field after the other, and then at random."""
    edges = edges_of(layout, len(data))
    return data[: edges[turn] if turn < len(edges) else rng.randrange(len(data))]


def edges_of(layout: Layout, size: int) -> tuple[int, ...]:
    """Where every field of the headers begins and has its middle, and where every piece ends, in ascending order."""
    edges = {e for f in layout.fields for e in (f.start, f.start + f.size // 2)} | {c[1] for c in layout.chunks}
    return tuple(sorted(e for e in edges if e < size))


def change_length(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """One length a little or much too small or too large."""
    lengths = [f for f in layout.fields if f.kind == "length"] or list(layout.fields)
    field = lengths[turn % len(lengths)]
    told = _read(data, field)
    steps = (1, -1, 2, -2, 8, -8, told, -told // 2, 1000, 1 << 16, 1 << 24, 1 << 30)
    return _written(data, field, told + rng.choice(steps))


def extreme_number(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """One field after the other at zero, minus one, its limits, or no number at all."""
    field = layout.fields[turn % len(layout.fields)]
    if field.kind == "float":
        value = rng.choice((0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3.4e38))
        return _put(data, field, struct.pack(f"{field.order}{'d' if field.size == 8 else 'f'}", value))
    if field.kind == "text":
        return _put(data, field, rng.choice(EXTREME_TEXTS))
    top = 1 << 8 * field.size
    return _written(
        data, field, rng.choice((0, 1, top - 1, top - 2, top // 2, top // 2 - 1, top // 4, 0xFFFF, 100_000))
    )


def repeat_chunk(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """A piece stands twice, or hundreds of times."""
    start, end = _piece(data, layout, rng, turn)
    times = rng.choice((2, 2, 3, min(500, 1 + (1 << 20) // max(1, end - start))))
    return data[:start] + data[start:end] * times + data[end:]


def drop_chunk(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """A piece is missing."""
    start, end = _piece(data, layout, rng, turn)
    return data[:start] + data[end:]


def swap_chunks(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """Two pieces have changed places."""
    (a, b), (c, d) = sorted((_piece(data, layout, rng, turn), _piece(data, layout, rng, rng.randrange(1000))))
    return data if c < b else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def overwrite_run(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """A run of zeros, ones or noise, as a bad disk leaves it."""
    end = min(layout.header_end, len(data)) if turn % 2 else len(data)
    start, length = rng.randrange(end), rng.choice((1, 2, 4, 16, 64, 512))
    run = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))[: len(data) - start]
    return data[:start] + run + data[start + len(run) :]


def append_junk(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """Something follows the end, or stands before the beginning of the data."""
    junk = rng.choice((b"\0" * 700, rng.randbytes(300), data[:400], data))
    at = len(data) if turn % 2 else min(layout.header_end, len(data))
    return data[:at] + junk + data[at:]


def nest_deeply(data: bytes, layout: Layout, rng: random.Random, turn: int) -> bytes:
    """Levels inside levels where the format has them; two fields at once where it has none."""
    if layout.nested is not None:
        return layout.nested(data, rng.choice((2, 30, 400, 1200, 20_000, 100_000)))
    return extreme_number(extreme_number(data, layout, rng, turn), layout, rng, rng.randrange(10_000))


MUTATORS: dict[str, Mutator] = {
    "bits flipped": flip_bits,
    "cut at a field": cut_at_field,
    "length changed": change_length,
    "extreme number": extreme_number,
    "piece repeated": repeat_chunk,
    "piece missing": drop_chunk,
    "pieces swapped": swap_chunks,
    "run overwritten": overwrite_run,
    "junk added": append_junk,
    "nested deeply": nest_deeply,
}


def _piece(data: bytes, layout: Layout, rng: random.Random, turn: int) -> tuple[int, int]:
    if layout.chunks and turn % 4:
        return layout.chunks[turn % len(layout.chunks)]
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 4, 37, 256, 2048)))


def _read(data: bytes, field: Field) -> int:
    raw = data[field.start : field.start + field.size]
    if field.kind == "text":
        digits = bytes(b for b in raw if 48 <= b < 58)
        return int(digits[:18] or b"0")
    return int.from_bytes(raw, "little" if field.order == "<" else "big")


def _written(data: bytes, field: Field, value: int) -> bytes:
    if field.kind == "text":
        return _put(data, field, str(value).encode())
    value %= 1 << 8 * field.size
    return _put(data, field, value.to_bytes(field.size, "little" if field.order == "<" else "big"))


def _put(data: bytes, field: Field, value: bytes) -> bytes:
    return data[: field.start] + value + data[field.start + field.size :]


def chunked(edges: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The pieces between edges."""
    return tuple((a, b) for a, b in pairwise(edges) if b > a)
