"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
