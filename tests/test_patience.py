"""Tests hold on slow and busy machines: none reads a clock, sleeps, or waits for less than the one guard."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.alike import differences, same_masks
from tests.patience import until_line

FOLDER = Path(__file__).resolve().parent
CLOCKS = re.compile(r"\btime\.(sleep|time|monotonic|perf_counter|process_time|thread_time)(_ns)?\(")
QT_WAITS = {"waitUntil", "waitSignal", "waitSignals", "waitActive", "waitExposed", "waitCallback"}
WAITS = {"wait", "join", "result", "wait_for", "acquire", "get", "communicate", "exception"}


def files() -> list[Path]:
    """All tests and their kits, but for the kit that waits and measures for all of them, and this file.

    The process in which damaged files are read bounds each by its own processor time, which is what it is there for.
    """
    apart = {"patience.py", "test_patience.py", "trial_process.py"}
    return sorted(f for f in FOLDER.rglob("*.py") if f.name not in apart)


def number(node: ast.expr | None) -> bool:
    """A written number above 0: a time-out of 0 does not wait."""
    return isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value > 0


def impatient(text: str) -> Iterator[str]:
    """What in a file depends on how fast the machine is."""
    for node in ast.walk(ast.parse(text)):
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import) and any(alias.name == "time" for alias in node.names):
            yield f"{line}: imports time; patience has until, until_line, times_as_long and Beats"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            yield f"{line}: imports from time"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and CLOCKS.search(node.value):
            yield f"{line}: a script of a process has a clock or a sleep; it may import patience"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, named = node.func.attr, {word.arg: word.value for word in node.keywords}
            if number(named.get("timeout")):
                yield f"{line}: a time-out of its own; take GUARD_S or GUARD_MS of patience"
            elif name in QT_WAITS and "timeout" not in named:
                yield f"{line}: {name} gives up after 5 s; pass timeout=GUARD_MS"
            elif name == "qWait" or (name == "wait" and ast.unparse(node.func.value).endswith("qtbot")):
                yield f"{line}: waits for a time to pass; wait for what happens"
            elif name in WAITS - {"get"} and any(map(number, node.args)):
                yield f"{line}: a time-out of its own; take GUARD_S of patience"


@pytest.mark.parametrize("file", files(), ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_no_test_depends_on_how_fast_the_machine_is(file: Path) -> None:
    assert not list(impatient(file.read_text("utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import sleep",
        "script = 'import time; time.sleep(3)'",
        "subprocess.run(words, timeout=60)",
        "process.communicate(timeout=2.5)",
        "event.wait(30)",
        "thread.join(5)",
        "changed.wait_for(done, 10)",
        "qtbot.waitUntil(done)",
        "kit.qtbot.waitSignal(finished)",
        "self.qtbot.wait(100)",
    ],
)
def test_the_check_sees_what_depends_on_the_machine(line: str) -> None:
    assert len(list(impatient(line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "event.wait(GUARD_S)",
        "subprocess.run(words, timeout=GUARD_S)",
        "qtbot.waitUntil(done, timeout=GUARD_MS)",
        "lock.acquire(timeout=0)",
        "', '.join(names)",
        "found.get('a', 3)",
    ],
)
def test_the_check_lets_patience_pass(line: str) -> None:
    assert not list(impatient(line))


def test_a_line_is_read_to_the_first_match_and_an_end_before_it_is_told() -> None:
    stream = io.StringIO("loading\nslices 1 of 4\nslices 2 of 4\n")
    assert until_line(stream, r"slices \d") == "slices 1 of 4\n"
    assert stream.readline() == "slices 2 of 4\n"
    with pytest.raises(AssertionError, match="no line matched 'ready'"):
        until_line(io.StringIO("loading\nTraceback\n"), "ready")


def test_rounding_is_let_pass_and_what_differs_is_told() -> None:
    one = {"findings": [{"volume_ml": 3.2, "slices": [1, 2], "text": "liver (presence 0.53)"}]}
    other = {"findings": [{"volume_ml": 3.2000001, "slices": [1, 2], "text": "liver (presence 0.53)"}]}
    assert not list(differences(one, other))
    for change in ({"volume_ml": 3.3}, {"slices": [1, 3]}, {"slices": [1]}, {"text": "spleen (presence 0.53)"},
                   {"text": "liver (presence 0.63)"}, {"side": "left"}, {"volume_ml": None}):  # fmt: skip
        assert list(differences(one, {"findings": [other["findings"][0] | change]})), change


def test_masks_may_differ_by_a_pixel_on_an_edge() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    near, far = mask.copy(), mask.copy()
    near[5, 5], far[5, 5:8] = False, False
    assert same_masks(mask, near)
    assert not same_masks(mask, far)
    assert not same_masks(mask, mask[1:])
