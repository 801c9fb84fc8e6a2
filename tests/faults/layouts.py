"""Where each format keeps its numbers, lengths and pieces; walkers over sound files, made by hand for the damage."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

from tests.faults.mutations import Field, Layout, chunked

_LENGTHS_OF_NIFTI = {"sizeof_hdr", "dim", "datatype", "bitpix", "vox_offset"}


def nifti(data: bytes) -> Layout:
    """NIfTI-1: every element of every field of its header."""
    from nibabel.nifti1 import header_dtype

    fields: list[Field] = []
    for name, (kind, start) in header_dtype.newbyteorder("<").fields.items():  # type: ignore[union-attr]
        one = kind.base
        count = kind.itemsize // one.itemsize
        for number in range(count if one.kind != "S" else 0):
            what = "float" if one.kind == "f" else "length" if name in _LENGTHS_OF_NIFTI else "number"
            fields.append(Field(start + number * one.itemsize, one.itemsize, what))  # type: ignore[arg-type]
    return Layout(tuple(fields), chunked([0, 40, 108, 252, 348, 352, 352 + 720, len(data)]), 352)


def text_header(data: bytes) -> Layout:
    """NRRD and MetaImage: every number and every line of the header's text; then the data as one piece."""
    end = _end_of_text(data)
    head = data[:end]
    fields = [Field(m.start(), m.end() - m.start(), "text") for m in re.finditer(rb"(?<![A-Za-z])-?\d+(\.\d+)?", head)]
    words = [Field(m.start(1), m.end(1) - m.start(1), "text") for m in re.finditer(rb"[:=] *([A-Za-z]+)", head)]
    lines = [0, *(m.end() for m in re.finditer(rb"\n", head)), (end + len(data)) // 2, len(data)]
    return Layout((*fields, *words), chunked(lines), end)


def _end_of_text(data: bytes) -> int:
    local = re.search(rb"ElementDataFile = \S+\n|\n\n", data)
    return local.end() if local else len(data)


def png(data: bytes) -> Layout:
    """Length and type of every chunk, all of IHDR, and the chunks."""
    fields, edges, at = [], [0, 8], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        fields += [Field(at, 4, "length", ">"), Field(at + 4, 4, "number", ">")]
        if data[at + 4 : at + 8] == b"IHDR":
            fields += [Field(at + 8, 4, "length", ">"), Field(at + 12, 4, "length", ">")]
            fields += [Field(at + 16 + n, 1, "number") for n in range(5)]
        at += 12 + length
        fields.append(Field(at - 4, 4, "number", ">"))
        edges.append(at)
    return Layout(tuple(fields), chunked(edges), 64)


def with_checksums(data: bytes) -> bytes:
    """A damaged PNG with the checksums of its chunks made to fit, as far as the chunks can be followed."""
    import zlib

    changed, at = bytearray(data), 8
    while at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


def jpeg(data: bytes) -> Layout:
    """Length and first bytes of every segment, and the segments."""
    fields, edges, at = [], [0, 2], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xD9:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        fields += [Field(at + 1, 1, "number"), Field(at + 2, 2, "length", ">")]
        if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            fields += [Field(at + 5, 2, "length", ">"), Field(at + 7, 2, "length", ">")]
        fields += [Field(at + 4 + n, 1, "number") for n in range(min(length - 2, 18))]
        at += 2 + length
        edges.append(at)
        if data[edges[-2] + 1] == 0xDA:
            break
    middle = (at + len(data)) // 2
    return Layout(tuple(fields), chunked([*edges, middle, len(data) - 2, len(data)]), at)


def tiff(data: bytes) -> Layout:
    """The head, every tag of the first directory (code, type, count, value), and the directory's end."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    count = struct.unpack_from(f"{order}H", data, start)[0]
    fields = [Field(2, 2, "number", order), Field(4, 4, "length", order), Field(start, 2, "length", order)]
    edges = [0, 8, start, start + 2]
    for at in range(start + 2, start + 2 + 12 * count, 12):
        fields += [Field(at, 2, "number", order), Field(at + 2, 2, "number", order)]
        fields += [Field(at + 4, 4, "length", order), Field(at + 8, 4, "length", order)]
        edges.append(at + 12)
    following = start + 2 + 12 * count
    fields.append(Field(following, 4, "length", order))
    edges = sorted({*edges, following + 4, len(data)})

    def loop(sound: bytes, depth: int) -> bytes:
        """Directories that follow one another without an end, or in a long chain."""
        if depth < 100:
            return sound[:following] + struct.pack(f"{order}I", start) + sound[following + 4 :]
        directory = sound[start:following]
        chain, base = bytearray(), len(sound)
        for number in range(min(depth, 2000)):
            after = base + (number + 1) * (len(directory) + 4)
            chain += directory + struct.pack(f"{order}I", after)
        return sound[:following] + struct.pack(f"{order}I", base) + sound[following + 4 :] + bytes(chain)

    return Layout(tuple(fields), chunked(edges), max(following + 4 if start < 512 else 8, 8), loop)


_LONG = {b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UR", b"UT", b"UN"}


def dicom(data: bytes) -> Layout:
    """Tag, type, length and value of every element at the top of an explicit little-endian file."""
    fields, edges = [Field(128, 4, "number")], [0, 128, 132]
    at = 132
    pixels = len(data)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 6]
        head, size, length_at = (12, 4, at + 8) if kind in _LONG else (8, 2, at + 6)
        length = int.from_bytes(data[length_at : length_at + size], "little")
        fields += [Field(at, 2, "number"), Field(at + 2, 2, "number"), Field(at + 4, 2, "number")]
        fields.append(Field(length_at, size, "length"))
        if data[at : at + 4] == b"\xe0\x7f\x10\x00":
            pixels = at
            if length == 0xFFFFFFFF:
                for item in _items(data, at + head):
                    fields.append(Field(item + 4, 4, "length"))
                    edges.append(item)
                    fields += [Field(item + 8 + n, 1, "number") for n in range(24)]
            break
        if kind in {b"US", b"SS"}:
            fields.append(Field(at + head, 2, "length"))
        elif kind in {b"DS", b"IS", b"UI", b"CS"}:
            fields.append(Field(at + head, length, "text"))
        elif kind == b"UL":
            fields.append(Field(at + head, 4, "length"))
        at += head + length
        edges.append(at)
    edges = sorted({e for e in (*edges, pixels, (pixels + len(data)) // 2, len(data)) if e <= len(data)})

    def nested(sound: bytes, depth: int) -> bytes:
        """Sequences inside of sequences, of undefined length, before the image's own elements."""
        depth = min(depth, 40_000)
        opened = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        closed = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
        place = next((e for e in edges if sound[e : e + 2] == b"\x18\x00"), 132)
        return sound[:place] + opened * depth + closed * (depth if depth != 400 else 0) + sound[place:]

    return Layout(tuple(fields), chunked(edges), pixels + 64, nested)


def _items(data: bytes, at: int) -> Iterator[int]:
    while data[at : at + 4] == b"\xfe\xff\x00\xe0":
        yield at
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")


def json_text(data: bytes) -> Layout:
    """Every number and every name or text of a JSON document, and its lines."""
    fields = [Field(m.start(), m.end() - m.start(), "text") for m in re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?\b", data)]
    texts = [Field(m.start(), m.end() - m.start(), "text") for m in re.finditer(rb'"[^"]{0,60}"|true|false|null', data)]
    lines = [0, *(m.end() for m in re.finditer(rb"\n", data)), len(data)]
    places = [m.end() for m in re.finditer(rb'": ', data)] or [0]

    def nested(sound: bytes, depth: int) -> bytes:
        place = places[depth % len(places)]
        opened, closed = (b"[", b"]") if depth % 400 else (b'{"a":', b"}")
        return sound[:place] + opened * depth + b"1" + closed * depth + b"," + sound[place:]

    return Layout(tuple(fields + texts), chunked(lines), len(data), nested)


def safetensors(data: bytes) -> Layout:
    """The length of the JSON header, and all of that."""
    length = int.from_bytes(data[:8], "little")
    inner = json_text(data[8 : 8 + length])
    fields = [Field(f.start + 8, f.size, f.kind) for f in inner.fields]
    edges = [0, 8, *(8 + m.end() for m in re.finditer(rb"\},", data[8 : 8 + length])), 8 + length, len(data)]

    def nested(sound: bytes, depth: int) -> bytes:
        text = sound[8 : 8 + length]
        deeper = b'{"__metadata__":' + b"[" * depth + b"]" * depth + b"," + text.lstrip()[1:]
        return len(deeper).to_bytes(8, "little") + deeper + sound[8 + length :]

    return Layout((Field(0, 8, "length"), *fields), chunked(edges), 8 + length, nested)


def parquet(data: bytes) -> Layout:
    """The length of the footer, every byte of it, and the heads of the first pages."""
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    fields = [Field(len(data) - 8, 4, "length"), *(Field(at, 1, "number") for at in range(start, len(data) - 8))]
    fields += [Field(at, 1, "length") for at in range(4, min(start, 64))]
    return Layout(
        tuple(fields), chunked([0, 4, 200, start // 2, start, start + length // 2, len(data) - 8, len(data)]), 64
    )


def json_like(value: object) -> bytes:
    """As this product writes it."""
    return json.dumps(value, indent=1).encode()
