"""The table: what is met, what it looks like, what is written; and that every row runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import counted, run, timed
from benchmarks.bars import Row, table, write
from benchmarks.subject import Subject, medians, random_engine, subject
from tests.unibiomed_core.engine.toy import NAMES, toy_engine
from unibiomed_core.engine.engine import Engine
from unibiomed_core.model.presets import toy

ROWS = [
    Row("R1", "encodes", "count", 1, 1),
    Row("R3", "second / first", "CPU", 0.5, 0.3, parts={"seconds": 2.0}),
    Row("R7", "tokens a second", "CPU", 2.4, 1.2, least=True),
    Row("R4", "steps", "count", 0, 0),
]


def test_met_and_missed() -> None:
    assert [row.met for row in ROWS] == [True, False, True, True]
    assert [row.used for row in ROWS] == pytest.approx([1.0, 5 / 3, 0.5, 0.0])
    assert not Row("R7", "slow", "CPU", 1.1, 1.2, least=True).met


def test_the_table_names_value_bar_and_verdict() -> None:
    lines = table(ROWS).splitlines()
    assert len(lines) == 1 + len(ROWS) + 1
    assert lines[2].split()[-4:] == ["0.500", "<=", "0.3", "NO"]
    assert lines[3].split() == ["seconds", "2.000"]
    assert lines[4].split()[-4:] == ["2.400", ">=", "1.2", "yes"]


def test_what_is_written(tmp_path: Path) -> None:
    write(ROWS, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "benchmarks.json").read_text("utf-8"))
    assert [row["met"] for row in saved["rows"]] == [True, False, True, True]
    assert saved["rows"][1]["parts"] == {"seconds": 2.0}
    assert saved["machine"]["threads"] == 1
    assert (tmp_path / "out" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_id_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "nowhere", "R99"])
    with pytest.raises(SystemExit, match="Ids: R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R12, R14, R15"):
        run.main()


@pytest.fixture
def toy_subject(monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(timed, "medians", lambda *calls: medians(*calls, repeats=1))
    for name, value in (("BATCH", 2), ("VOLUME_SLICES", 2), ("RATE_TOKENS", 5)):
        monkeypatch.setattr(timed, name, value)
    return subject(toy_engine(targets={"ct": NAMES}), "CPU")


def test_every_timed_row_runs_and_both_sides_give_the_same_masks(toy_subject: Subject) -> None:
    calls = (timed.more_targets, timed.second_question, timed.batches, timed.against_straight, timed.tokens_per_second)
    rows = [row for call in calls for row in call(toy_subject)]
    assert [row.id for row in rows] == ["R2", "R3", "R5", "R6", "R6", "R6", "R7"]
    # What stands in the rows is a clock's; on a busy machine the difference of two tiny times may be of either sign.
    assert all(np.isfinite(row.value) for row in rows)
    assert [row.met for row in counted.counts(toy_subject)] == [True, True]


def test_masks_that_differ_stop_a_comparison() -> None:
    one = np.ones((10, 10), bool)
    timed.require_equal([one], [one.copy()])
    with pytest.raises(ValueError, match="1 masks by the straight loop, 0 by the engine"):
        timed.require_equal([one], [])
    with pytest.raises(ValueError, match=r"differs in 100.0000%"):
        timed.require_equal([one], [~one])


def test_a_random_model_speaks_the_embedded_words() -> None:
    engine: Engine = random_engine(toy(vocabulary=2048), "cpu")
    assert subject(engine, "GPU").prompts[0].target == "soft-tissue sarcoma"
    assert all(np.isfinite(p.numpy()).all() for p in engine.model.parameters())
