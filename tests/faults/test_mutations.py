"""Seeded damage to files of every format: each is refused with our error, or read with a result that can be right.

The damage is the same everywhere, and every way to end is seen and counted; ``run_mutations.py`` prints the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATORS, Field, Layout, damage
from tests.faults.sound_files import FIRST_CUT, FORMATS, case_of, cut_count
from tests.faults.trials import Tally, Trials

CASES, QUICK_CASES = 2000, 100
"""Mutations of each format, and how many of them belong to the quick tier."""


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    """One process for all formats, as most of the time is its start."""
    with Trials() as started:
        yield started


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_or_read_right(trials: Trials, name: str) -> None:
    check(trials.run(name, 0, QUICK_CASES), QUICK_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_more_damaged_files_are_refused_or_read_right(trials: Trials, name: str) -> None:
    check(trials.run(name, QUICK_CASES, CASES - QUICK_CASES), CASES - QUICK_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_files_cut_at_every_field_are_refused_or_read_right(trials: Trials, name: str) -> None:
    count = cut_count(name)
    found = trials.run(name, FIRST_CUT, count)
    assert not found.faults, "\n".join(found.faults[:20])
    assert found.outcomes["refused"] > count / 3


def check(found: Tally, cases: int) -> None:
    assert not found.faults, "\n".join(found.faults[:20])
    assert found.outcomes["read"] + found.outcomes["refused"] == cases
    assert found.outcomes["refused"] > cases / 5, "damage that is hardly ever noticed is none"
    assert found.outcomes["read"], "the undamaged parts are read, so not everything is refused for another reason"


ENDS = """
import os, sys
from tests.faults import trial_process
from tests.faults.mutations import Layout
from tests.faults.sound_files import Format, Sound
from unibiomed_core.errors import ReadError

def read(path):
    kind = path.read_bytes()[:1]
    if kind == b"c": os.abort()
    if kind == b"h":
        while True: pass
    if kind == b"m": bytearray(1 << 30)
    if kind == b"M":
        try: bytearray(1 << 30)
        except MemoryError as error: raise ReadError("Image too large", "it does not fit") from error
    if kind == b"s": raise KeyError("stray")
    if kind == b"w": raise AssertionError("no such voxel")
    if kind == b"r": raise ReadError("Damaged file", "it is")

class Named(Sound):
    def damaged(self, case, turn, seed):
        return "named", {{"a": b"chmMswrrx"[case : case + 1]}}

trial_process.main({{"ends": Format(lambda: [Named({{"a": b"x"}}, "a", Layout(()))], read)}})
"""
"""A format whose reader crashes, hangs, takes memory, and so on, by the case's number."""


@pytest.mark.skipif(sys.platform != "linux", reason="processor time and memory of one case are measured on Linux only")
def test_every_way_to_end_is_counted(tmp_path: Path) -> None:
    """The suite itself sees what it is there for, and goes on after a dead process."""
    script = tmp_path / "ends.py"
    script.write_text(ENDS.format(), "utf-8")
    with Trials(script) as own:
        found = own.run("ends", 0, 9)
    assert found.outcomes == {
        "crash": 1, "hang": 1, "memory": 2, "stray error": 1, "wrong result": 1, "refused": 2, "read": 1,
    }  # fmt: skip
    assert len(found.faults) == 6
    assert found.faults[0].startswith("case 0 (named): crash")
    assert any("KeyError" in line for line in found.faults)


@pytest.mark.parametrize("name", ["NIfTI (.nii.gz)", "NRRD", "DICOM, deflated", "PNG", "JPEG", "TIFF", "report.json"])
def test_the_same_number_is_the_same_damage(name: str) -> None:
    sounds = FORMATS[name].make()
    first = [case_of(sounds, name, n)[1:] for n in range(40)]
    assert first == [case_of(sounds, name, n)[1:] for n in range(40)]
    changed = sum(files != sound.files for sound, _, files in (case_of(sounds, name, n) for n in range(40)))
    assert changed >= 36, "most mutations change something"
    assert [mutator for mutator, _ in first[: len(MUTATORS)]] == list(MUTATORS)


@pytest.mark.parametrize("name", ["NIfTI (.nii)", "DICOM, enhanced", "PNG", "TIFF"])
def test_cuts_are_at_every_field_of_every_sound_file(name: str) -> None:
    sounds = FORMATS[name].make()
    sizes: dict[int, set[int]] = {}
    for number in range(cut_count(name)):
        sound, _, files = case_of(sounds, name, FIRST_CUT + number)
        whole, cut = sound.files[sound.target], files[sound.target]
        sizes.setdefault(id(sound), set()).add(len(cut))
        assert len(cut) < len(whole)
        assert sound.closed is not bytes or whole.startswith(cut)
    assert all({f.start for f in sound.layout.fields} <= sizes[id(sound)] for sound in sounds if sound.closed is bytes)
    with pytest.raises(IndexError):
        case_of(sounds, name, FIRST_CUT + cut_count(name))


def test_a_file_is_cut_at_every_field() -> None:
    layout = Layout((Field(0, 4, "length"), Field(4, 2, "number"), Field(6, 8, "float")))
    case = list(MUTATORS).index("cut at a field")
    lengths = {len(damage(bytes(range(20)), layout, case, turn, "seed")[1]) for turn in range(6)}
    assert lengths == {0, 2, 4, 5, 6, 10}
