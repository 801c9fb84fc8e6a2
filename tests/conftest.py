"""Fixtures shared by all tests, and what every test process is given: threads, signals, folders, hypothesis."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Every test process, and what it starts, has settings and caches of its own: no user's are read or changed, and two
# processes never share any. Matplotlib keeps its list of fonts, which takes seconds to make.
OWN_FOLDER = Path(tempfile.mkdtemp(prefix="unibiomed-tests-"))
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("MPLCONFIGDIR", str(_CACHE / "matplotlib"))
os.environ["XDG_CACHE_HOME"] = str(OWN_FOLDER / "cache")
os.environ["NAPARI_CONFIG"] = str(OWN_FOLDER / "napari" / "settings.yaml")

ROOT = Path(__file__).resolve().parents[1]

# What a test starts imports this checkout, tests included, wherever it is started.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

LEFT_OUT = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of parity numbers and data; users have none, so tests that need it skip."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("the folder with parity fixtures and data is not beside the repository")
    return folder


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()
    # A shell that starts the suite in the background ignores Ctrl-C, and every process would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if importlib.util.find_spec("hypothesis"):
        one_way_for_hypothesis()


def pytest_unconfigure() -> None:
    shutil.rmtree(OWN_FOLDER, ignore_errors=True)


def one_way_for_hypothesis() -> None:
    """The same examples on every machine and in every worker, no clock, and nothing written into the tree."""
    from hypothesis import HealthCheck, settings
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(OWN_FOLDER / "hypothesis")
    settings.register_profile(
        "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("suite")


def no_window() -> str | None:
    """Why no window can be opened here, or None. Asked once pytest-xvfb has started its screen, if it could.

    Without this Qt ends the whole process at the first window, and with it the tests that need none.
    """
    try:
        importlib.import_module("qtpy.QtWidgets")
    except ImportError as error:
        return f"Qt cannot be loaded ({error})"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no screen, and Xvfb is not installed"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    windows = [item for item in items if item.get_closest_marker("window")]
    if windows and (why := no_window()):
        for item in windows:
            item.add_marker(pytest.mark.skip(reason=why))


MOST_WORKERS, BYTES_A_WORKER = 16, 3 * 2**30


def usable_cores() -> int:
    """Cores that this process may use: of the machine, its affinity, and a container's quota (cgroup 2 and 1)."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    groups = Path("/sys/fs/cgroup")
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number: there is no quota
            quota, period = map(float, " ".join((groups / file).read_text() for file in files).split())
            if quota > 0:
                cores = min(cores, quota / period)
    return max(1, math.floor(cores))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many workers as there are cores and memory for; 0, which means none but this process, where that is one."""
    fits = MOST_WORKERS
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        fits = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // BYTES_A_WORKER
    workers = min(usable_cores(), MOST_WORKERS, fits)
    return workers if workers > 1 else 0


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are not spelt out: compressed ones hold the time, and all workers must find tests of the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        asked = item.config.option.markexpr
        tier = "slow" if item.get_closest_marker("slow") else "quick"
        if asked == {"slow": "not slow", "quick": "slow"}[tier]:
            item.config.stash[LEFT_OUT][tier] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)  # of a worker of pytest-xdist; it is sent at the end
    if output is not None:
        output["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker of pytest-xdist collects all tests, so what one left out is what all left out."""
    for tier, count in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        node.config.stash[LEFT_OUT][tier] = count


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    how = {"slow": "make test-slow", "quick": "make test"}
    for tier, count in sorted(config.stash[LEFT_OUT].items()):
        terminalreporter.write_line(f"Left out: {count} tests of the {tier} tier ({how[tier]} runs them)")
